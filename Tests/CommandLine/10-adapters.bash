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
refused 64 "pass picture" bench --pass predictor --lora loras/style.safetensors
