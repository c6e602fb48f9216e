# Diffusers' own results, through the command line: the embedded model and a tiny model for each task. Limits as in the issue of each:
# latents within a thousandth of their standard deviation.
embedded() {
  works txt2img --prompt "$1" --seed "$2" --output r.png --save-latents r.safetensors --save-image-tensor ri.safetensors "${@:4}"
  close_to 1e-3 r.safetensors latents "$emoji/reference/$3.safetensors" latents
  close_to 4e-3 ri.safetensors image "$emoji/reference/$3.safetensors" image
}
embedded "a red apple" 0 a-red-apple
embedded "grinning face" 2 grinning-face --negative-prompt cat

tiny() {
  local model=$1 reference=$2
  shift 2
  # One of these prompts is longer than that model reads, which is told.
  if [ "$model" = odd ]; then
    warns 'left out: "in"' "$@" --model "$models/$model" --output r.png --save-latents r.safetensors
  else
    works "$@" --model "$models/$model" --output r.png --save-latents r.safetensors
  fi
  close_to 1e-3 r.safetensors latents "$models/$model/reference/$reference.safetensors" latents
}
cat="a photo of the cat"
tiny sd1 txt2img txt2img --prompt "$cat" --steps 10 --guidance 7.5 --seed 0
tiny sd1 txt2img-wide txt2img --prompt "Two boats in the rain" --steps 10 --width 48 --height 32 --guidance 3 --seed 4
tiny sd1 txt2img-negative txt2img --prompt "$cat" --negative-prompt "blurred, grey" --steps 10 --guidance 5 --seed 2
tiny sd1 img2img-resized img2img --prompt "$cat" --steps 10 --image "$inputs/picture-37x50.png" --strength 0.6 --guidance 4 --seed 11
tiny sd1 inpaint-unguided inpaint --prompt "$cat" --steps 10 --image "$inputs/picture.png" --mask "$inputs/mask.png" --guidance 1 --seed 7
tiny sd1 inpaint-wide inpaint --prompt "$cat" --steps 10 --image "$inputs/picture-48x32.png" --mask "$inputs/mask-48x32.png" \
  --guidance 5 --seed 7 --count 2
tiny sd2 txt2img txt2img --prompt "$cat" --steps 10 --seed 0
tiny inpaint9 inpaint-pndm-60 inpaint --prompt "$cat" --steps 10 --image "$inputs/picture.png" --mask "$inputs/mask.png" --guidance 5 \
  --seed 7 --strength 0.6
tiny edit8 edit-strong edit --prompt "$cat" --negative-prompt "blurred, grey" --steps 10 --image "$inputs/picture.png" --guidance 4 \
  --image-guidance 2.5 --seed 8
tiny lcm lcm-4-steps txt2img --prompt "$cat" --steps 4 --guidance 8.5 --seed 13
tiny odd txt2img-wide txt2img --prompt "Two boats in the rain" --steps 10 --width 56 --height 40 --guidance 3 --seed 4
for scheduler in ddpm ddim pndm lms euler euler-a heun dpmpp-2m dpmpp-2m-karras unipc lcm; do
  [ "$scheduler" = pndm ] && continue # is the model's own
  tiny sd1 "txt2img-$scheduler" txt2img --prompt "$cat" --steps 10 --seed "$(
    grep -A 12 "\"name\": \"txt2img-$scheduler\"" "$models/sd1/cases.json" | sed -nE 's/.*"seed": ([0-9]+).*/\1/p' | head -n 1
  )" --guidance "$(
    grep -A 12 "\"name\": \"txt2img-$scheduler\"" "$models/sd1/cases.json" | sed -nE 's/.*"guidance": ([0-9.]+).*/\1/p' | head -n 1
  )" --scheduler "$scheduler"
done
shown() {
  local model=$1 reference=$2
  shift 2
  works "$@" --model "$models/$model" --output r.png --save-latents r.safetensors
  close_to 1e-3 r.safetensors latents "$models/image-prompts/reference/$reference.safetensors" latents
}
adapter() { echo "$models/image-prompts/ip-adapter-$1.safetensors"; }
shown sd1 plain txt2img --prompt "$cat" --steps 10 --guidance 5 --seed 40 --ip-adapter "$(adapter sd1)=0.6" --ip-adapter-image "$inputs/picture.png"
shown sd1 img2img img2img --prompt "$cat" --steps 10 --guidance 5 --seed 46 --image "$inputs/picture.png" --strength 0.6 --scheduler ddim \
  --ip-adapter "$(adapter sd1-plus)=0.6" --ip-adapter-image "$inputs/picture-48x32.png" \
  --image-encoder "$models/image-prompts/openclip/model.safetensors"
shown sdxl xl-plus-two-pictures txt2img --prompt "Two boats in the rain" --steps 10 --guidance 5 --seed 49 \
  --ip-adapter "$(adapter sdxl-plus)=0.8" --ip-adapter-image "$inputs/picture.png" --ip-adapter-image "$inputs/picture-37x50.png"
shown unclip unclip-noise variation --prompt "$cat" --negative-prompt "blurred, grey" --steps 10 --guidance 5 --seed 51 --noise-level 300 \
  --image "$inputs/picture-37x50.png"
shown variation variation variation --steps 10 --guidance 7.5 --seed 53 --image "$inputs/picture.png"
