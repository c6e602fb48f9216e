# Clips: motion modules in models for pictures, text-to-video models, frames in folders, and what is refused.
motion=$root/Tests/Fixtures/motion
clip=(txt2video --prompt "a photo of the cat" --model "$models/sd1" --width 32 --height 32 --seed 50 --steps 6)
works "${clip[@]}" --motion-module "$motion/v2" --frames 16 --fps 8 --output frames --save-latents a.safetensors --save-image-tensor i.safetensors
close_to 3e-4 a.safetensors latents "$motion/reference/v2.safetensors" latents
is_png frames/frame-0001.png 32 32
is_png frames/frame-0016.png 32 32
holds "a clip of 16 frames is 16 files" [ "$(find frames -type f | wc -l)" = 16 ]
holds "a frame says how it was made" grep -aq "Motion module: v2" frames/frame-0003.png
holds "a frame says of how many it is" grep -aq "Frames: 16" frames/frame-0003.png
# Several clips, and a file of the original code.
works "${clip[@]}" --motion-module "$motion/original.safetensors" --frames 3 --count 2 --scheduler euler --output many/ --save-latents b.safetensors
is_png many-2/frame-0003.png 32 32
works "${clip[@]}" --motion-module "$motion/v2" --frames 2 --memory-limit 400MB --output planned --step-cache 2 --merge-tokens 0.5
works "${clip[@]}" --motion-module "$motion/v2" --frames 4 --scheduler ddim --lora "$motion/motion-lora.safetensors=0.8" \
  --lora "$motion/picture-lora.safetensors=0.5" --output adapted --save-latents c.safetensors
close_to 3e-4 c.safetensors latents "$motion/reference/v2-lora.safetensors" latents

# Longer clips than the module was made for, prompts of later frames, and a first frame.
works "${clip[@]}" --motion-module "$motion/v1" --frames 30 --steps 2 --context-length 8 --closed-loop --output windowed
holds "a frame says in which windows it was drawn" grep -aq "Context length: 8" windowed/frame-0030.png
works "${clip[@]}" --motion-module "$motion/v2" --frames 12 --scheduler ddim --guidance 5 --free-noise --context-length 6 --context-stride 2 \
  --prompt-at "9=blurred, grey" --prompt-at "5=Two boats in the rain" --output travelled --save-latents f.safetensors
close_to 3e-4 f.safetensors latents "$motion/reference/free-noise.safetensors" latents
warns "The last 2 frames fill no whole window" "${clip[@]}" --motion-module "$motion/v2" --frames 11 --steps 1 --free-noise --context-length 6 \
  --context-stride 3 --output incomplete
works "${clip[@]}" --motion-module "$motion/v2" --frames 1 --steps 1 --first-frame "$inputs/picture.png" --output alone
works "${clip[@]}" --motion-module "$motion/v2" --frames 3 --first-frame "$inputs/picture.png" --output first
works "${clip[@]}" --motion-module "$motion/v2" --frames 40 --steps 1 --context-length 16 --memory-limit 400MB --output limited

mkdir stills nothing uneven
cp "$inputs/picture.png" stills/1.png && cp "$inputs/mask.png" stills/2.png && cp "$inputs/picture.png" stills/3.png
cp "$inputs/picture.png" uneven/1.png && cp "$inputs/picture-48x32.png" uneven/2.png
over=(video2video --prompt "a photo of the cat" --model "$models/sd1" --motion-module "$motion/v2" --seed 50 --steps 6 --scheduler ddim)
works "${over[@]}" --video stills --strength 0.6 --output over --save-latents d.safetensors
close_to 3e-4 d.safetensors latents "$motion/reference/v2v.safetensors" latents
# An animated file, whose rate is the new clip's, and single pictures.
works "${clip[@]}" --motion-module "$motion/v2" --frames 2 --scheduler ddim --fps 5 --output short.webp
works "${over[@]}" --video short.webp --strength 0.2 --output again.gif
says "2 frames of 32×32, 0.4 s"
works "${over[@]}" --frame "$inputs/picture.png" --frame "$inputs/mask.png" --frame "$inputs/picture.png" --strength 0.6 --output one.png \
  --save-latents e.safetensors
close_to 3e-4 e.safetensors latents "$motion/reference/v2v.safetensors" latents
refused 64 "either --video or --frame" "${over[@]}" --output none.webp
works "${over[@]}" --video stills --controlnet "$root/Tests/Fixtures/controls/sd1" --control-image stills --output steered
works inspect "$models/sd1" --motion-module "$motion/v2"
says "MotionAdapter"
works bench --model "$models/sd1" --motion-module "$motion/v2" --pass predictor --width 32 --height 32 --repeats 1 --json

# The noise table that motion modules were trained with.
works schedule --scheduler euler --steps 3
mv out usual
works schedule --scheduler euler --steps 3 --betas scaled_linear
differ out usual
works "${clip[@]}" --motion-module "$motion/v2" --frames 2 --scheduler ddim --betas linear --output linear

made=(--output made/x)
refused 64 "frames must be more than 0" "${clip[@]}" --motion-module "$motion/v2" --frames 0 "${made[@]}"
refused 1 "from 1 to 32" "${clip[@]}" --motion-module "$motion/v2" --frames 1000000 "${made[@]}"
refused 1 "from 1 to 24" "${clip[@]}" --motion-module "$motion/v1" --frames 25 "${made[@]}"
windows=("${clip[@]}" --motion-module "$motion/v1" --frames 12 "${made[@]}")
refused 1 "from 1 to 12" "${windows[@]}" --context-length 13
refused 64 "context-length must be more" "${windows[@]}" --context-length 0
refused 64 "context-stride must be more" "${windows[@]}" --context-stride 0
refused 1 "from 1 to the windows' length" "${windows[@]}" --context-length 4 --context-stride 5
refused 64 "either --closed-loop or --free-noise" "${windows[@]}" --closed-loop --free-noise
refused 1 "step caching" "${windows[@]}" --context-length 4 --step-cache 2
refused 64 "prompt-at takes a frame" "${windows[@]}" --prompt-at boat
refused 64 "prompt-at takes a frame" "${windows[@]}" --prompt-at 0=boat
refused 1 "from 1 to 11" "${windows[@]}" --prompt-at 12=boat
refused 64 "goes with --first-frame" "${windows[@]}" --strength 0.5
refused 64 "fps must be a number from" "${clip[@]}" --motion-module "$motion/v2" --fps 0 "${made[@]}"
refused 1 "motion module does not fit" "${clip[@]}" --motion-module "$motion/xl" "${made[@]}"
refused 1 "is a LoRA" "${clip[@]}" --motion-module "$motion/motion-lora.safetensors" "${made[@]}"
refused 1 "motion_adapter" "${clip[@]}" --motion-module "$models/sd1/vae" "${made[@]}"
refused 1 "no model at .*missing" "${clip[@]}" --motion-module missing "${made[@]}"
refused 1 "a motion module" txt2video --prompt "" --model "$motion/v2" "${made[@]}"
refused 1 "a motion module" txt2video --prompt "" --model "$motion/original.safetensors" "${made[@]}"
refused 1 "draws pictures" "${clip[@]}" "${made[@]}"
refused 1 "draws clips" txt2img --prompt "" --model "$models/sd1" --motion-module "$motion/v2" --steps 1 --output made/x.png
refused 1 "does not say in which format" "${clip[@]}" --motion-module "$motion/v2" --output made/x.mkv
refused 1 "exists already" "${clip[@]}" --motion-module "$motion/v2" --output frames
refused 1 "standard output" "${clip[@]}" --motion-module "$motion/v2" --output -
refused 1 "has no pictures" "${over[@]}" --video nothing "${made[@]}"
refused 1 "same size" "${over[@]}" --video uneven "${made[@]}"
refused 1 "leave --refiner out" "${clip[@]}" --motion-module "$motion/v2" --refiner "$models/sd1" "${made[@]}"

# ModelScope's text-to-video needs no motion modules. Guidance, strength and frames that are left out are those of its pipelines.
scope=$root/Tests/Fixtures/text-to-video
cp -r "$models/sd2" scope && rm -r scope/unet scope/scheduler && cp -r "$scope/modelscope/." scope
words=(txt2video --prompt "a photo of the cat" --model scope --width 16 --height 16 --seed 60 --steps 6)
works "${words[@]}" --frames 4 --output scoped --save-latents f.safetensors --save-image-tensor fi.safetensors
close_to 3e-4 f.safetensors latents "$scope/reference/clip.safetensors" latents
works "${words[@]}" --guidance 5 --output long --save-latents g.safetensors --memory-limit 400MB
close_to 3e-4 g.safetensors latents "$scope/reference/sixteen.safetensors" latents
works "${words[@]}" --guidance 5 --frames 3 --lora "$scope/lora.safetensors=0.7" --output changed --save-latents h.safetensors
close_to 3e-4 h.safetensors latents "$scope/reference/lora.safetensors" latents
works video2video --prompt "a photo of the cat" --model scope --seed 60 --steps 6 --guidance 5 --video stills --output rescoped \
  --save-latents j.safetensors
close_to 3e-4 j.safetensors latents "$scope/reference/v2v.safetensors" latents
works inspect scope
says "text-to-video"
refused 1 "draws clips" txt2img --prompt "" --model scope --steps 1 --output made/x.png
refused 1 "layers for the frames of clips" "${words[@]}" --motion-module "$motion/deep" "${made[@]}"
refused 1 "layers for the frames of clips" "${words[@]}" --controlnet "$root/Tests/Fixtures/controls/sd1" --control-image stills "${made[@]}"
refused 1 "too many pixels" "${words[@]}" --frames 1000000000000000000 "${made[@]}"
refused 1 "limit|too many pixels" "${words[@]}" --frames 1000000000000000000 --memory-limit 400MB "${made[@]}"

# Latents of clips are decoded to what was drawn.
works decode --model scope --latents f.safetensors --output decoded.webp --fps 4 --save-image-tensor k.safetensors --save-latents l.safetensors
same f.safetensors l.safetensors
same fi.safetensors k.safetensors
holds "decoded.webp has not 4 frames" test "$(grep -ao ANMF decoded.webp | wc -l)" = 4
works decode --model "$models/sd1" --latents b.safetensors --output several/
is_png several-2/frame-0003.png 32 32
refused 1 "standard output" decode --model scope --latents f.safetensors --output -
refused 64 "fps must be a number from" decode --latents f.safetensors --output made/x.webp --fps 0
works txt2img --prompt "" --model "$models/sd2" --steps 1 --output m.png --save-latents m.safetensors
refused 1 "these are of pictures" decode --model "$models/sd2" --latents m.safetensors --output made/x.webp --fps 8

# A plan is for the frames that are drawn: where nobody says how many, as many as the motion module has positions for.
works txt2video --prompt "" --model "$models/sd2" --motion-module "$motion/deep" --width 16 --height 16 --steps 1 --memory-limit 400MB --output six
holds "there are six frames" [ "$(find six -type f | wc -l)" = 6 ]
