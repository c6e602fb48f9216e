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
image both.safetensors --lora loras/style.safetensors=0.8 --lora loras/other=1.safetensors
image tags.safetensors --prompt "<lora:style:0.8>a cat<lora:other=1>" --lora-folder loras
same both.safetensors tags.safetensors
image none.safetensors --lora loras/style.safetensors=0
same plain.safetensors none.safetensors
image word.safetensors --prompt "a moon cat" --embedding moon="$adapters/embedding.safetensors"
differ plain.safetensors word.safetensors
rm -f made/*
refused 1 "no nope in loras, which has: other=1, style" "${draw[@]}" --prompt "a <lora:nope:1>" --lora-folder loras
refused 1 "needs --lora-folder" "${draw[@]}" --prompt "a <lora:style:1>"
refused 1 "<lora:style:x>" "${draw[@]}" --prompt "a <lora:style:x>" --lora-folder loras
refused 1 "there is no such file" "${draw[@]}" --lora loras/none.safetensors=1
refused 1 "is no adapter" "${draw[@]}" --lora "$models/sd1/vae/diffusion_pytorch_model.safetensors"
refused 1 "does not belong to this model: .*lora_up.* fit" txt2img --prompt a --output made/a.png --lora loras/style.safetensors
refused 1 "vectors of 16 numbers, but" txt2img --prompt a --output made/a.png --embedding a="$adapters/embedding.safetensors"
refused 64 "embedding" "${draw[@]}" --embedding "$adapters/embedding.safetensors"
refused 64 "pass picture" bench --pass unet --lora loras/style.safetensors

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
