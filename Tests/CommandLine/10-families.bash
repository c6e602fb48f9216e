# The commands of models around the same network: their pictures are diffusers', and models of another kind are refused.
# follows MODEL CASE ARGUMENTS…: the latents that a command saves are those of the model's reference.
follows() {
  local model=$1 case=$2
  shift 2
  works "$@" --model "$models/$model" --output a.png --save-latents a.safetensors
  close_to 3e-4 a.safetensors latents "$models/$model/reference/$case.safetensors" latents
}

cat="A photo of the cat"
follows depth5 depth depth2img --prompt "$cat" --image "$inputs/picture.png" --depth "$inputs/depth-40x24.png" --steps 8 --seed 40
follows upscale7 upscale upscale --prompt "$cat" --image "$inputs/picture-16x16.png" --steps 8 --seed 43
is_png a.png 64 64
follows upscale7 upscale-resampled upscale --prompt "$cat" --image "$inputs/picture-18x13.png" --steps 4 --seed 56
is_png a.png 64 48
follows xl-edit8 edit-euler edit --prompt "a photo of the cat" --image "$inputs/picture.png" --guidance 4 --steps 10 --seed 38
follows upscale7 upscale-unguided upscale --prompt "" --image "$inputs/picture-24x12.png" --noise-level 0 --guidance 1 --steps 4 --seed 45
follows latent-upscaler picture upscale --prompt "a photo of the cat" --image "$inputs/picture-16x16.png" --steps 10 --seed 60
is_png a.png 32 32
upscaler=(--model "$models/latent-upscaler" --steps 2 --output a.png)
works encode --model "$models/latent-upscaler" --image "$inputs/picture-16x16.png" --save-latents small.safetensors
works upscale --prompt "" --latents small.safetensors "${upscaler[@]}" --memory-limit 400MB
is_png a.png 32 32
refused 1 "takes no --noise-level" upscale --prompt "" --image "$inputs/picture-16x16.png" --noise-level 5 "${upscaler[@]}"
refused 1 "takes no --latents" upscale --prompt "" --latents small.safetensors --model "$models/upscale7" --output a.png
refused 64 "either --image or --latents" upscale --prompt "" "${upscaler[@]}"
refused 64 "leave --noise-level out" upscale --prompt "" --latents small.safetensors --noise-level 5 "${upscaler[@]}"
follows ldm unconditional unconditional --steps 8 --seed 46
follows ldm-class class class2img --class-label 7 --steps 8 --seed 48
follows ldm-class class-named class2img --class-label "white shark" --steps 5 --seed 49
follows ldm-class class-guided class2img --class-label 3 --negative-class-label 9 --guidance 3 --steps 5 --seed 50
follows ldm-table class-guided class2img --class-label 1 --guidance 3 --steps 8 --seed 55
follows ldm-text text txt2img --prompt "$cat" --guidance 5 --steps 8 --seed 51

# The plan is made for what the picture becomes.
works upscale --prompt "" --image "$inputs/picture-24x12.png" --model "$models/upscale7" --steps 1 --memory-limit 400MB --output a.png

out=(--steps 1 --seed 1 --output made/a.png)
refused 1 "not made for depth-to-image" depth2img --strength 1 --prompt "" --image "$inputs/picture.png" --depth "$inputs/picture.png" "${out[@]}"
refused 1 "no upscaler; .*img2img --width" upscale --prompt "" --image "$inputs/picture.png" "${out[@]}"
refused 1 "from 0 to 50" upscale --prompt "" --image "$inputs/picture-24x12.png" --noise-level 51 --model "$models/upscale7" "${out[@]}"
refused 64 "noise-level" upscale --prompt "" --image "$inputs/picture-24x12.png" --noise-level -1 --model "$models/upscale7" "${out[@]}"
refused 1 "draws no classes" class2img --class-label 1 "${out[@]}"
refused 1 "from 0 to 9" class2img --class-label unicorn --model "$models/ldm-class" "${out[@]}"
refused 1 "has no prompt" txt2img --prompt cat --model "$models/ldm" "${out[@]}"
refused 64 "class-label" class2img --model "$models/ldm-class" "${out[@]}"

# A model with the second text encoder alone is read by its tokenizer.
works tokenize --model "$models/refiner" cat
works bench --model "$models/refiner" --pass predictor --repeats 1 --json
# Parts are timed by what they do, whatever a model calls them.
for model in ldm ldm-text ldm-class upscale7; do
  works bench --model "$models/$model" --pass predictor --repeats 1 --json
  works bench --model "$models/$model" --pass vae-decode --repeats 1 --json
done
works bench --model "$models/ldm-text" --pass text --repeats 1 --json
works bench --model "$models/sdxl" --pass text --batch 2 --repeats 1 --json
