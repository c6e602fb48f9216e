# LoRAs and learned words.
adapters=$root/Tests/Fixtures/adapters
draw=(txt2img --model "$models/sd1" --prompt "a cat" --seed 3 --steps 2 --width 32 --height 32 --output made/a.png)
mkdir loras && cp "$adapters/kohya.safetensors" loras/style.safetensors && cp "$adapters/ia3.safetensors" loras/other=1.safetensors
image() { works "${draw[@]}" "${@:2}" --save-image-tensor "$1"; }
image plain.safetensors
image file.safetensors --lora loras/style.safetensors=0.8
differ plain.safetensors file.safetensors
image tag.safetensors --prompt "a <lora:style:0.8>cat" --lora-folder loras
same file.safetensors tag.safetensors
image named.safetensors --profile compel --prompt "a withLora(style, 0.8)cat" --lora-folder loras
same file.safetensors named.safetensors
image both.safetensors --lora loras/style.safetensors=0.8 --lora loras/other=1.safetensors
image tags.safetensors --prompt "<lora:style:0.8>a cat<lora:other=1>" --lora-folder loras
same both.safetensors tags.safetensors
image none.safetensors --lora loras/style.safetensors=0
same plain.safetensors none.safetensors
image word.safetensors --prompt "a moon cat" --embedding moon="$adapters/embedding.safetensors"
differ plain.safetensors word.safetensors
rm -f made/*
refused 1 "no nope in loras, which has: other=1, style" "${draw[@]}" --prompt "a <lora:nope:1>" --lora-folder loras
refused 1 "no nope in loras, which has: other=1, style" "${draw[@]}" --profile compel --prompt "a withLora(nope)" --lora-folder loras
refused 1 "needs --lora-folder" "${draw[@]}" --prompt "a <lora:style:1>"
refused 1 "<lora:style:x>" "${draw[@]}" --prompt "a <lora:style:x>" --lora-folder loras
refused 1 "there is no such file" "${draw[@]}" --lora loras/none.safetensors=1
refused 1 "is no adapter" "${draw[@]}" --lora "$models/sd1/vae/diffusion_pytorch_model.safetensors"
refused 1 "does not belong to this model: .*lora_up.* fit" txt2img --prompt a --output made/a.png --lora loras/style.safetensors
refused 1 "vectors of 16 numbers, but" txt2img --prompt a --output made/a.png --embedding a="$adapters/embedding.safetensors"
refused 64 "embedding" "${draw[@]}" --embedding "$adapters/embedding.safetensors"
refused 64 "pass picture" bench --pass predictor --lora loras/style.safetensors

# Within a limit on memory networks beside the model are counted, and draw as they do without one. With step caching they steer, too.
controls=$models/../controls
edges=(--controlnet "$controls/sd1=0.8" --control-image "$inputs/picture.png" --t2i-adapter "$controls/adapter" --adapter-image "$inputs/picture.png")
look=(--ip-adapter "$models/image-prompts/ip-adapter-sd1.safetensors" --ip-adapter-image "$inputs/picture.png")
steered=(txt2img --model "$models/sd1" --prompt "a cat" --seed 3 --steps 3 --width 32 --height 32)
works "${steered[@]}" "${edges[@]}" "${look[@]}" --output s1.png --save-image-tensor s1.safetensors
works "${steered[@]}" "${edges[@]}" "${look[@]}" --memory-limit 300MB --output s2.png --save-image-tensor s2.safetensors
same s1.safetensors s2.safetensors
works "${steered[@]}" --step-cache 2 "${edges[@]}" --output s3.png --save-image-tensor s3.safetensors
works "${steered[@]}" --step-cache 2 --output s4.png --save-image-tensor s4.safetensors
differ s3.safetensors s4.safetensors
for beside in "--controlnet $controls/sd1" "--t2i-adapter $controls/adapter" "--ip-adapter $models/image-prompts/ip-adapter-sd1.safetensors"; do
  works inspect "$models/sd1" --memory-limit 1GB $beside
done
refused 1 "does not fit this model" inspect "$models/sd1" --memory-limit 1GB --controlnet "$controls/sdxl"
refused 1 "has no ControlNet or T2I-Adapter" inspect "$models/sd1" --memory-limit 1GB --controlnet "$models/sd1/vae"

# What is read by all prompts cannot stand in one of them.
for option in --prompt-2 --negative-prompt; do
  refused 1 "<lora:style:0.5> cannot be in $option" "${draw[@]}" "$option" "grey <lora:style:0.5>" --lora-folder loras
done
refused 1 "<lora:x> cannot be in --negative-prompt-2" "${draw[@]}" --negative-prompt a --negative-prompt-2 "<lora:x>"

# Stable Diffusion XL.
works txt2img --model "$models/sdxl" --prompt "a photo of the cat" --negative-prompt "blurred, grey" --seed 0 --steps 4 --guidance 5 --width 32 \
  --height 32 --lora "$adapters/xl-peft.safetensors=0.8" --output a.png --save-latents a.safetensors
close_to 3e-4 a.safetensors latents "$adapters/reference.safetensors" xl-peft.latents

# Files of other models, of other kinds, and damaged ones: the file and the key are named.
pair() { # FILE DOWN UP BYTE: a LoRA of rank 2 for a layer of 8 features, whose bytes are all this one.
  local down="{\"dtype\":\"F32\",\"shape\":[2,8],\"data_offsets\":[0,64]}" up="{\"dtype\":\"F32\",\"shape\":[8,2],\"data_offsets\":[64,128]}"
  safetensors "$1" "{\"$2\":$down,\"$3\":$up}" 0
  head -c 128 /dev/zero | tr '\0' "$4" >>"$1"
}
layer=down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q
kohya=lora_unet_${layer//./_}
pair nan.safetensors $kohya.lora_down.weight $kohya.lora_up.weight '\377'
refused 1 "nan.safetensors is damaged: $kohya.lora_up.weight" "${draw[@]}" --lora nan.safetensors
pair mixed.safetensors $kohya.lora_down.weight unet.$layer.lora_B.weight '\1'
refused 1 "mixed.safetensors cannot be used: $kohya has no lora_up" "${draw[@]}" --lora mixed.safetensors
refused 1 "xl-kohya.safetensors does not belong to this model: lora_.* has shape" "${draw[@]}" --lora "$adapters/xl-kohya.safetensors"
refused 1 "kohya.safetensors does not belong to this model: lora_.* has shape" txt2img --model "$models/sdxl" --prompt a --output made/a.png \
  --lora "$adapters/kohya.safetensors"
refused 1 "xl-embedding.safetensors does not belong to this model: clip_g" "${draw[@]}" --embedding moon="$adapters/xl-embedding.safetensors"
warns "embedding.safetensors has no vectors for text_encoder_2" txt2img --model "$models/sdxl" --prompt "a moon" --steps 1 --width 32 --height 32 \
  --output a.png --embedding moon="$adapters/embedding.safetensors"
refused 1 "embedding.safetensors is no adapter" "${draw[@]}" --lora "$adapters/embedding.safetensors"
refused 1 "kohya.safetensors is no textual inversion" "${draw[@]}" --embedding moon="$adapters/kohya.safetensors"
controls=$root/Tests/Fixtures/controls
steered=(--control-image "$inputs/picture.png")
refused 1 "kohya.safetensors is a LoRA.* as its adapter" txt2img --model "$adapters/kohya.safetensors" --prompt a --output made/a.png
refused 1 "original.safetensors is a ControlNetModel" txt2img --model "$controls/original.safetensors" --prompt a --output made/a.png
refused 1 "sd1.safetensors has no ControlNetModel" "${draw[@]}" --controlnet "$root/Tests/Fixtures/weights/sd1.safetensors" "${steered[@]}"
refused 1 "kohya.safetensors is a LoRA" "${draw[@]}" --controlnet "$adapters/kohya.safetensors" "${steered[@]}"
refused 1 "original.safetensors is no adapter" "${draw[@]}" --lora "$controls/original.safetensors"
refused 1 "kohya.safetensors is no IP-Adapter" "${draw[@]}" --ip-adapter "$adapters/kohya.safetensors" --ip-adapter-image "$inputs/picture.png" \
  --image-encoder "$models/image-prompts/image_encoder"
head -c 3000 "$root/Tests/Fixtures/weights/gguf-whole.gguf" >cut.gguf
refused 1 "cut.gguf" "${draw[@]}" --lora cut.gguf

# Pictures of any size steer and are shown.
for picture in one-pixel.png one-pixel.jpg wide.png; do
  picture=$root/Tests/Fixtures/images/$picture
  works "${draw[@]}" --output a.png --controlnet "$controls/sd1" --control-image "$picture"
  works "${draw[@]}" --output a.png --ip-adapter "$models/image-prompts/ip-adapter-sd1.safetensors" --ip-adapter-image "$picture" \
    --image-encoder "$models/image-prompts/image_encoder"
done
