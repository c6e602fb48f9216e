# Kinds of guidance, as diffusers has them, and what is refused.
mkdir -p guided/made && cd guided
guided() {
  local reference=$1
  shift
  works "$@" --seed 70 --steps 6 --output r.png --save-latents r.safetensors
  close_to 1e-3 r.safetensors latents "$models/guidance/reference/$reference.safetensors" latents
}
drawn=(txt2img --model "$models/sd1" --prompt "a photo of the cat")
guided pag "${drawn[@]}" --guidance 5 --pag-scale 3
holds "a picture says how it was guided" grep -aq "PAG scale: 3.0, PAG layers: mid" r.png
guided pag-alone "${drawn[@]}" --guidance 1 --pag-scale 2
guided pag-layers "${drawn[@]}" --guidance 5 --pag-scale 2.5 --pag-layers 'down_blocks.0,up_blocks.\d.attentions.1' --negative-prompt "blurred, grey" \
  --scheduler ddim
guided pag-adaptive "${drawn[@]}" --guidance 5 --pag-scale 3 --pag-adaptive-scale 0.004 --guidance-rescale 0.6 --scheduler dpmpp-2m
guided pag-img2img img2img --model "$models/sd1" --prompt "a photo of the cat" --image "$inputs/picture.png" --strength 0.6 --guidance 5 --pag-scale 3
guided sag "${drawn[@]}" --guidance 5 --sag-scale 0.75 --width 64 --height 48 --scheduler unipc
holds "a picture says how it was guided" grep -aq "SAG scale: 0.75" r.png
works txt2img --model "$models/sd1" --like r.png --output again.png
same r.png again.png
guided sag-alone "${drawn[@]}" --guidance 1 --sag-scale 1 --width 64 --height 64 --scheduler ddim
works "${drawn[@]}" --guidance 1 --sag-scale 1 --guidance-interval 0,0.5 --memory-limit 200MB --output r.png
guided freeu "${drawn[@]}" --guidance 5 --freeu 1.5,1.6,0.9,0.2
guided apg "${drawn[@]}" --guidance 9 --apg eta=0,momentum=-0.5,norm_threshold=2.5 --scheduler ddim
holds "a picture says what its guidance was told" grep -aq "APG: \"eta=0,momentum=-0.5,norm_threshold=2.5\"" r.png
guided thresholded "${drawn[@]}" --guidance 12 --dynamic-thresholding mimic=3,percentile=0.9 --scheduler ddim
guided thresholded-jointly "${drawn[@]}" --guidance 12 --dynamic-thresholding "mimic=4, percentile=0.95, separate=false, phi=0.7" --scheduler euler
guided cfgpp-ddim "${drawn[@]}" --cfg-plus-plus --scheduler ddim
guided cfgpp-euler-a "${drawn[@]}" --cfg-plus-plus --guidance 0.5 --scheduler euler-a
works "${drawn[@]}" --cfg-plus-plus --guidance 0.6 --scheduler ddim --memory-limit 200MB --output r.png
works "${drawn[@]}" --seed 70 --steps 10 --guidance 5 --guidance-interval 0.2,0.7 --scheduler ddim --output r.png --save-latents r.safetensors
close_to 1e-3 r.safetensors latents "$models/guidance/reference/interval.safetensors" latents
works edit --model "$models/edit8" --prompt "a photo of the cat" --image "$inputs/picture.png" --steps 3 --pag-scale 2 --guidance-interval 0,0.5 --output r.png
# What a short cut leaves out.
small=(txt2img --prompt "red apple" --seed 3 --steps 12)
works "${small[@]}" --output whole.png --save-latents whole.safetensors
works "${small[@]}" --forecast 1 --output r.png
same <(tail -c 100 whole.png) <(tail -c 100 r.png)
works "${small[@]}" --forecast 2 --step-cache 2 --output short.png --save-latents short.safetensors
close_to 0.3 whole.safetensors latents short.safetensors latents
differ whole.safetensors short.safetensors

refused 64 "guidance-rescale must be a number from 0 to 1" "${drawn[@]}" --guidance-rescale 2 --output made/x.png
for interval in 0.5 0.8,0.2 -1,1 0,2 a,b 0,nan; do
  refused 64 "guidance-interval|invalid" "${drawn[@]}" --guidance-interval "$interval" --output made/x.png
done
for scale in 0 -1 nan 1e9; do refused 64 "pag-scale must be a number" "${drawn[@]}" --pag-scale "$scale" --output made/x.png; done
for scale in 0 -1 nan 1e9; do refused 64 "sag-scale must be a number" "${drawn[@]}" --sag-scale "$scale" --output made/x.png; done
refused 1 "Step caching has no self-attention guidance" "${drawn[@]}" --sag-scale 1 --step-cache 2 --output made/x.png
refused 64 "go with --pag-scale" "${drawn[@]}" --pag-layers mid --output made/x.png
refused 1 "found in the name of a layer" "${drawn[@]}" --pag-scale 3 --pag-layers nowhere --output made/x.png
refused 1 "a regular expression" "${drawn[@]}" --pag-scale 3 --pag-layers '(.*)*(.*)*(.*)*(.*)*x9' --output made/x.png
refused 64 "must be names of layers" "${drawn[@]}" --pag-scale 3 --pag-layers " ," --output made/x.png
for option in "--apg eta=0" "--dynamic-thresholding mimic=3" "--guidance-rescale 0.5" "--guidance-interval 0,0.5"; do
  # shellcheck disable=SC2086
  refused 1 "need a --guidance above 1" "${drawn[@]}" --guidance 1 $option --output made/x.png
done
refused 1 "corrects each step" "${drawn[@]}" --scheduler heun --forecast 2 --output made/x.png
refused 1 "a regular expression" "${drawn[@]}" --pag-scale 3 --pag-layers '(' --output made/x.png
refused 64 "knows eta, momentum, norm_threshold, but not beta" "${drawn[@]}" --apg beta=1 --output made/x.png
refused 64 "eta of --apg must be a number" "${drawn[@]}" --apg eta=nan --output made/x.png
refused 64 "invalid" "${drawn[@]}" --apg eta --output made/x.png
refused 64 "percentile of --dynamic-thresholding must be" "${drawn[@]}" --dynamic-thresholding percentile=2 --output made/x.png
refused 64 "must be true or false" "${drawn[@]}" --dynamic-thresholding separate=perhaps --output made/x.png
refused 64 "Give one of" "${drawn[@]}" --apg eta=0 --cfg-plus-plus --output made/x.png
refused 64 "does not go with" "${drawn[@]}" --cfg-plus-plus --guidance-rescale 0.5 --output made/x.png
refused 64 "freeu takes four numbers" "${drawn[@]}" --freeu 1,2 --output made/x.png
refused 1 "CFG\+\+, which goes with" "${drawn[@]}" --cfg-plus-plus --scheduler unipc --output made/x.png
refused 1 "has a guidance of its own" edit --model "$models/edit8" --prompt cat --image "$inputs/picture.png" --apg eta=0 --output made/x.png
refused 64 "forecast must be from 1" "${drawn[@]}" --forecast 0 --output made/x.png
refused 1 "needs the noise of its own" "${drawn[@]}" --cfg-plus-plus --scheduler ddim --forecast 2 --output made/x.png
refused 1 "clips" txt2video --model "$models/sd1" --motion-module "$root/Tests/Fixtures/motion/v1" --prompt cat --pag-scale 3 --output made/x.webp
refused 1 "clips" txt2video --model "$models/sd1" --motion-module "$root/Tests/Fixtures/motion/v1" --prompt cat --sag-scale 1 --output made/x.webp
cd ..
