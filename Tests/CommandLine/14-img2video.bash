# Clips of pictures, with Stable Video Diffusion, and what is refused.
mkdir -p still/made && cd still
motion=$root/Tests/Fixtures/motion
svd=$root/Tests/Fixtures/svd
still=(img2video --model "$svd/tiny" --seed 60 --steps 5)
works "${still[@]}" --image "$inputs/picture.png" --width 32 --height 32 --output shown --save-latents a.safetensors --save-image-tensor i.safetensors
close_to 3e-4 a.safetensors latents "$svd/tiny/reference/usual.safetensors" clip
is_png shown/frame-0004.png 32 32
holds "a clip has as many frames as the model was made for" [ "$(find shown -type f | wc -l)" = 4 ]
holds "a frame says how it was made" grep -aq "Motion bucket: 127" shown/frame-0003.png
holds "a frame says of how many it is" grep -aq "Frames: 4" shown/frame-0003.png
works "${still[@]}" --image "$inputs/picture-37x50.png" --width 40 --height 24 --frames 7 --fps 12 --motion-bucket 30 --noise-aug 0.1 --min-guidance 1.5 \
  --max-guidance 4 --decode-chunk 3 --output chunks.webp --save-latents b.safetensors
says "7 frames of 40×24, 0.6 s"
close_to 3e-4 b.safetensors latents "$svd/tiny/reference/chunks.safetensors" clip
small=("${still[@]}" --image "$svd/large.png" --width 32 --height 24 --frames 3)
works "${small[@]}" --memory-limit 400MB --output planned.gif --save-latents c.safetensors
works "${small[@]}" --output whole.png --save-latents d.safetensors
close_to 1e-6 c.safetensors latents d.safetensors latents
works "${small[@]}" --count 2 --step-cache 2 --output several/
is_png several-2/frame-0003.png 32 24
# Noise in place of the seed's, which leaves that of the picture as it was.
works "${small[@]}" --load-noise d.safetensors --output noisy.webp --save-latents e.safetensors
works inspect "$svd/tiny"
says "Stable Video Diffusion"
works bench --model "$svd/tiny" --pass predictor --width 32 --height 32 --repeats 1 --json
# Kernels over frames have five axes, which GGUF has not.
works convert "$svd/tiny" half --to bf16
works img2video --model half --seed 60 --steps 5 --image "$inputs/picture.png" --width 32 --height 32 --output half.webp --save-latents f.safetensors
close_to 0.2 f.safetensors latents a.safetensors latents
refused 1 "5 axes" convert "$svd/tiny" made/x --to f16 --format gguf

refused 64 "Missing expected argument.*--image" img2video --model "$svd/tiny" --output made/x.webp
refused 64 "Unknown option.*--prompt" "${small[@]}" --prompt "a cat" --output made/x.webp
refused 64 "frames must be more than 0" "${still[@]}" --image "$inputs/picture.png" --frames 0 --output made/x.webp
refused 1 "from 1 to 4096" "${still[@]}" --image "$inputs/picture.png" --width 32 --height 32 --frames 1000000 --output made/x.webp
refused 64 "fps must be a number from" "${small[@]}" --fps 0 --output made/x.webp
refused 64 "decode-chunk must be more than 0" "${small[@]}" --decode-chunk 0 --output made/x.webp
refused 64 "motion-bucket must be a number" "${small[@]}" --motion-bucket nan --output made/x.webp
refused 64 "noise-aug must be a number" "${small[@]}" --noise-aug -1 --output made/x.webp
refused 64 "needs a --max-guidance above 1" "${small[@]}" --min-guidance 2 --max-guidance 1 --output made/x.webp
refused 1 "leave --guidance out" "${small[@]}" --guidance 2 --output made/x.webp
refused 1 "takes no LoRA" "${small[@]}" --lora "$motion/motion-lora.safetensors" --output made/x.webp
refused 1 "takes no IP-Adapter" "${small[@]}" --ip-adapter "$models/image-prompts/ip-adapter-sd1.safetensors" --ip-adapter-image "$inputs/picture.png" \
  --image-encoder "$models/image-prompts/image_encoder" --output made/x.webp
refused 1 "takes no network that steers" "${small[@]}" --controlnet "$root/Tests/Fixtures/controls/sd1" --control-image "$inputs/picture.png" \
  --output made/x.webp
refused 1 "takes no sizes" "${small[@]}" --original-size 64x64 --output made/x.webp
refused 1 "takes no motion module" "${small[@]}" --motion-module "$motion/v2" --output made/x.webp
refused 1 "multiples of 8" "${small[@]}" --width 36 --output made/x.webp
refused 1 "needs \[1, 4, 3, 3, 4\]" "${small[@]}" --load-noise a.safetensors --output made/x.webp
# Models of one kind for commands of another.
refused 1 "draws pictures, and image-to-video needs one that draws clips" img2video --model "$models/sd1" --image "$inputs/picture.png" --output made/x.webp
refused 1 "draws clips and is not made for text-to-image" txt2img --prompt "" --model "$svd/tiny" --output made/x.png
refused 1 "not made for text-to-video" txt2video --prompt "" --model "$svd/tiny" --output made/x.webp
# Windows of frames go; what is said of frames, nobody reads.
works "${small[@]}" --context-length 2 --context-stride 1 --output parted
refused 1 "windows of FreeNoise" "${small[@]}" --context-length 2 --free-noise --output made/x.webp
refused 1 "has no prompt" "${small[@]}" --prompt-at 1=boat --output made/x.webp
cd ..
