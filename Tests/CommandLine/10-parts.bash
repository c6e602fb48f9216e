# Components from other files.
taesd=$models/taesd/original/taesd_decoder.safetensors
draw=(txt2img --prompt "a cat" --steps 2 --seed 1 --width 32 --height 32 --model "$models/sd1")
works "${draw[@]}" --output own.png --save-image-tensor own.safetensors
works "${draw[@]}" --vae "$models/sd1/vae" --output same.png --save-image-tensor same.safetensors --save-latents latents.safetensors
same own.safetensors same.safetensors
works "${draw[@]}" --vae "$taesd" --output tiny.png
differ own.png tiny.png
if grep -aq "VAE: taesd_decoder" tiny.png; then pass; else fail "the picture does not name its autoencoder"; fi
works "${draw[@]}" --vae "$models/vq/vae" --memory-limit 500MB --output vq.png
works decode --model "$models/sd1" --vae "$models/taesd/vae" --latents latents.safetensors --output decoded.png
works encode --model "$models/sd1" --vae "$models/taesd/vae" --image own.png --save-latents encoded.safetensors
works bench --model "$models/sd1" --vae "$taesd" --pass vae-decode --width 32 --height 32 --repeats 1 --json
works inspect "$models/sd1" --vae "$taesd"
says "AutoencoderTiny"
warns "text_encoder_2 .* not used" "${draw[@]}" --text-encoder-2 "$models/projection" --output two.png
refused 1 "no encoder" img2img --model "$models/sd1" --vae "$taesd" --prompt "" --image own.png --steps 2 --output made/x.png
refused 1 "no encoder" encode --model "$models/sd1" --vae "$taesd" --image own.png --save-latents made/x.safetensors
halves=(--model "$models/sd1" --vae "$taesd" --vae-encoder "$models/taesd/original/taesd_encoder.safetensors")
works encode "${halves[@]}" --image own.png --save-latents halves.safetensors
same encoded.safetensors halves.safetensors
works img2img "${halves[@]}" --prompt "" --image own.png --steps 2 --output halves.png
refused 1 "the decoder, as the vae" "${draw[@]}" --vae-encoder "$models/taesd/original/taesd_encoder.safetensors" --output made/x.png
refused 1 "and they are not" "${draw[@]}" --vae "$taesd" --vae-encoder "$taesd" --output made/x.png
refused 1 "not to a folder" "${draw[@]}" --vae "$models/taesd/vae" --vae-encoder "$taesd" --output made/x.png
refused 1 "lacks the decoder" "${draw[@]}" --vae "$models/taesd/original/taesd_encoder.safetensors" --output made/x.png
refused 1 "vae is a UNet2DConditionModel" "${draw[@]}" --vae "$models/sd1/unet" --output made/x.png
refused 1 "no model at .*missing" "${draw[@]}" --unet missing --output made/x.png
