# Few steps for models that say that they were distilled to them.
mkdir -p fast/made && cd fast
# quick SENTENCE ARGUMENTS…: with --fast, status 0 and this on standard error alone.
quick() {
  local sentence=$1 status
  shift
  timeout 30 "$ldm" "$@" --fast --seed 3 --prompt "a photo of the cat" --output r.png --save-latents r.safetensors >out 2>err </dev/null
  status=$?
  if [ $status = 0 ] && [ "$(cat err)" = "--fast: $sentence" ]; then pass; else fail "ldm $* --fast: status $status: $(head -c 300 err)"; fi
}
# as_asked ARGUMENTS…: the same picture, without the flag.
as_asked() {
  works "$@" --seed 3 --prompt "a photo of the cat" --output asked.png --save-latents asked.safetensors
  same r.png asked.png
}
small=(--width 32 --height 32)
quick "the U-Net of $models/lcm says LCM, so this is drawn with --scheduler lcm --steps 4." txt2img --model "$models/lcm"
as_asked txt2img --model "$models/lcm" --scheduler lcm --steps 4
lora=$root/Tests/Fixtures/adapters/kohya.safetensors
sd=(txt2img --model "$models/sd1" "${small[@]}")
for name in sd15_lightning_2step Hyper-SD15-1step Hyper-SD15-8steps-CFG lcm-lora TCD-SD15; do cp "$lora" "$name.safetensors"; done
quick "the name of sd15_lightning_2step.safetensors says Lightning, so this is drawn with --scheduler euler --timesteps trailing --steps 2 --guidance 1." \
  "${sd[@]}" --lora sd15_lightning_2step.safetensors=0.5
as_asked "${sd[@]}" --lora sd15_lightning_2step.safetensors=0.5 --scheduler euler --timesteps trailing --steps 2 --guidance 1
quick "the name of Hyper-SD15-1step.safetensors says Hyper, so this is drawn with --scheduler tcd --eta 1 --steps 1 --guidance 1." \
  "${sd[@]}" --lora Hyper-SD15-1step.safetensors
quick "the name of Hyper-SD15-8steps-CFG.safetensors says Hyper, so this is drawn with --scheduler ddim --timesteps trailing --steps 8." \
  "${sd[@]}" --lora Hyper-SD15-8steps-CFG.safetensors
quick "the name of TCD-SD15.safetensors says TCD, so this is drawn with --scheduler tcd --eta 0.3 --steps 4 --guidance 1." \
  "${sd[@]}" --lora=TCD-SD15.safetensors
quick "the name of lcm-lora.safetensors says LCM, so this is drawn with --scheduler lcm --guidance 1. What the command line says of --steps stays." \
  "${sd[@]}" --lora lcm-lora.safetensors --steps 3
as_asked "${sd[@]}" --lora lcm-lora.safetensors --steps 3 --scheduler lcm --guidance 1
cp -r "$models/sdxl" sdxl-turbo
quick "the name of sdxl-turbo says Turbo, so this is drawn with --scheduler euler-a --timesteps trailing --steps 1 --guidance 1." \
  txt2img --model sdxl-turbo "${small[@]}"
# The title in a header counts more than the file's name.
title() {
  local tensor="\"lora_unet_a.lora_down.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"
  safetensors "$1" "{\"__metadata__\":{\"modelspec.title\":\"$2\"},$tensor}" 4
}
title lcm-named.safetensors "SDXL Lightning 8 steps"
refused 1 "disagree: the title in .*lcm-named.safetensors says Lightning, and the name of .*TCD-SD15.safetensors says TCD" \
  "${sd[@]}" --lora lcm-named.safetensors --lora TCD-SD15.safetensors --fast --prompt a --output made/x.png
# Words that say other things, too.
cp "$lora" lightning-in-the-night.safetensors
for more in "" "--lora lightning-in-the-night.safetensors"; do
  # shellcheck disable=SC2086
  refused 1 "Nothing in the files of the model or of a --lora says that it was distilled" "${sd[@]}" $more --fast --prompt a --output made/x.png
done
refused 1 "Nothing in the files" txt2img --fast --prompt "red apple" --output made/x.png
refused 64 "fast" txt2video --model "$models/sd1" --motion-module "$root/Tests/Fixtures/motion/v1" --fast --prompt a --output made/x.webp
cd ..
