# What a first hour meets: short names, standard output, values that are empty, sizes of photos, what is told of models and of the machine.
draw=(txt2img -p "a red apple" --steps 2 --seed 1)
works "${draw[@]}" -o a.png --save-image-tensor ai.safetensors
works --version
says '^ldm [0-9.]+, kernels (amx|avx512|avx512vnni|avx512bf16|avxvnni|avx2|neon|plain)$'
(LATENTDIFFUSION_KERNELS=bogus && export LATENTDIFFUSION_KERNELS && warns 'LATENTDIFFUSION_KERNELS is "bogus".* is used\. Known are amx' --version)
(LATENTDIFFUSION_KERNELS=neon && export LATENTDIFFUSION_KERNELS && [ "$(uname -m)" = aarch64 ] || warns 'neon, which this processor lacks' --version)

# Standard output takes one picture, and nothing else then.
"$ldm" "${draw[@]}" -o - >o.png 2>err
same a.png o.png
holds "the seed is not told beside a picture on standard output" grep -q "seed 1" err
works "${draw[@]}" -o e.png --save-latents l.safetensors
"$ldm" decode --latents l.safetensors -o - >o.png 2>err
holds "decode writes no PNG to standard output" test "$(head -c 4 o.png | od -An -tx1 | tr -d ' ')" = 89504e47
refused 1 "cannot go to standard output" "${draw[@]}" --count 2 -o -
refused 1 "cannot go to standard output" "${draw[@]}" -o made/x.png --save-latents -

# An option with nothing behind its equals sign has an empty value; what follows is not taken for it.
telling="Give either|Unknown option '--keep-this'|The value '' is invalid|must be|Missing|give one picture for each|is for an IP-Adapter"
for command in txt2img img2img inpaint outpaint edit variation depth2img upscale unconditional class2img canny encode decode tokenize \
  schedule inspect convert bench; do
  for option in $("$ldm" help $command | grep -oE -- '--[a-z-]+ <' | tr -d ' <' | sort -u); do
    timeout 30 "$ldm" $command "$option=" --keep-this >out 2>err </dev/null
    status=$?
    if [ $status = 64 ] && ! grep -q "'--keep-this' is invalid" err && grep -qE "$telling" err; then
      pass
    else
      fail "ldm $command $option= --keep-this: status $status: $(head -c 300 err)"
    fi
  done
done
works "${draw[@]}" --negative-prompt= --save-image-tensor e.safetensors -o e.png
works "${draw[@]}" --negative-prompt "" --save-image-tensor f.safetensors -o f.png
same e.safetensors f.safetensors
works txt2img -p --steps= --steps 1 -o e.png # after an option everything is its value
refused 64 "output" txt2img -p a -o

# The model's own size, in the picture's proportions, for a picture of far more pixels than the model was made for; one side alone keeps them, too.
works "${draw[@]}" --width 320 --height 160 -o large.png
works img2img -p heart --image large.png --steps 2 -o e.png
is_png e.png 92 44
says '^The picture of 320×160 is drawn at 92×44'
works edit --model "$models/edit8" -p heart --image "$inputs/picture-48x32.png" --steps 2 -o e.png
works inpaint -p heart --image large.png --mask large.png --steps 2 -o e.png
is_png e.png 92 44
works img2img -p heart --image large.png --steps 2 --width 64 -o e.png
is_png e.png 64 32
works img2img -p heart --image large.png --steps 2 --height 64 -o e.png
is_png e.png 128 64
works img2img -p heart --image large.png --steps 2 --width 320 --height 160 -o e.png
is_png e.png 320 160
black_pixel black.png
works inpaint -p heart --image large.png --mask black.png --keep-unmasked --steps 1 -o e.png
is_png e.png 320 160
works "${draw[@]}" --width 128 --height 128 -o square.png
works img2img -p heart --image square.png --steps 2 -o e.png
is_png e.png 128 128
for mode in stretch crop fill; do
  works img2img -p heart --image large.png --steps 2 --seed 1 --width 64 --height 64 --resize-mode $mode -o $mode.png
  is_png $mode.png 64 64
done
differ stretch.png crop.png
differ crop.png fill.png
works img2img -p heart --image large.png --steps 2 --memory-limit 1GB -o e.png
works img2img -p heart --image large.png --steps 2 --memory-limit 1GB --width 64 -o e.png
refused 1 "." "${draw[@]}" --memory-limit 1GB --width 9223372036854775807 -o made/x.png
refused 64 "resize-mode" img2img -p heart --image large.png --resize-mode zoom -o made/x.png

# Layers of the text encoder; what the model predicts.
works "${draw[@]}" --clip-skip 1 -o e.png --save-image-tensor ei.safetensors
differ ai.safetensors ei.safetensors
holds "e.png does not tell its clip skip" grep -aq "Clip skip: 2" e.png
refused 1 "layers cannot be skipped" "${draw[@]}" --clip-skip 99 -o made/x.png
refused 64 "clip-skip" "${draw[@]}" --clip-skip -1 -o made/x.png
works "${draw[@]}" --prediction v -o e.png --save-image-tensor ei.safetensors
same ai.safetensors ei.safetensors
for prediction in epsilon sample; do
  works "${draw[@]}" --prediction $prediction -o e.png --save-image-tensor ei.safetensors
  differ ai.safetensors ei.safetensors
done
refused 64 "epsilon.*v.*sample" "${draw[@]}" --prediction x0 -o made/x.png

# A folder whose scheduler is unknown: another does, and without one those that do are named.
cp -r "$models/sd1" unknown
sed -i 's/"PNDMScheduler"/"RePaintScheduler"/' unknown/model_index.json
refused 1 "RePaintScheduler, cannot be used.*ddim.*unipc.*--scheduler" txt2img --model unknown -p a -o made/x.png
works txt2img --model unknown -p a --steps 2 --scheduler euler -o e.png
works inspect unknown
# What a model has and is not used is told.
sed -i 's/"vae": \[/"controlnet": ["diffusers", "ControlNetModel"], "vae": [/' unknown/model_index.json
warns "controlnet \(ControlNetModel\) is not used" txt2img --model unknown -p a --steps 2 --scheduler euler -o e.png
sed -i 's/"StableDiffusionPipeline"/"StableDiffusion3Pipeline"/' unknown/model_index.json
refused 1 "Stable Diffusion 3 model .*not supported" txt2img --model unknown -p a -o made/x.png
refused 1 "Stable Diffusion 3" convert unknown made/x --to f16
refused 1 "Stable Diffusion 3" inspect unknown --memory-limit 1GB
works inspect unknown
says '"problem" : ".*Stable Diffusion 3'
rm -r unknown

# Pictures in other formats, as input and as output.
for format in gif bmp tiff avif heic; do refused 1 "$format.*(png|PNG)" "${draw[@]}" -o made/x.$format; done
printf 'RIFF\x00\x00\x00\x00WEBPVP8 ' >x.webp && refused 1 "x.webp is damaged" img2img -p a --image x.webp -o made/x.png
printf 'GIF89a\x01\x00' >x.gif && refused 1 "a GIF file" img2img -p a --image x.gif -o made/x.png
printf 'BM\x00\x00' >x.bmp && refused 1 "a BMP file" img2img -p a --image x.bmp -o made/x.png
printf 'II*\x00' >x.tif && refused 1 "a TIFF file" img2img -p a --image x.tif -o made/x.png
printf '\x00\x00\x00\x20ftypavif' >x.avif && refused 1 "an AVIF file" img2img -p a --image x.avif -o made/x.png

# A model of 8 bits is planned as it is.
works convert "$emoji" q8 --to q8
smallest=$("$ldm" inspect q8 --memory-limit 1MB 2>&1 | grep -oE '[0-9]+ MB\.' | grep -oE '[0-9]+')
works inspect q8 --memory-limit "${smallest}MB"
works txt2img --model q8 -p heart --steps 2 --memory-limit "$((smallest + 8))MB" -o e.png
works txt2img --model q8 -p heart --steps 2 --memory-limit 600MB -o e.png
rm -r q8
