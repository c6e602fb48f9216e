# Every command that makes pictures or latents: which files there are then, how large, and what depends on what.
draw=(txt2img --prompt "a red apple" --steps 3)

works "${draw[@]}" --seed 1 --output a.png --save-latents a.safetensors --save-image-tensor ai.safetensors
says '^a\.png: 64×64, seed 1 \([0-9.]+ s\)$'
is_png a.png 64 64
holds_tensor a.safetensors latents 1,4,16,16
holds_tensor ai.safetensors image 1,64,64,3
holds "a.png does not say how it was made" \
  grep -aq "Steps: 3, Sampler: ddim, CFG scale: 4.0, Seed: 1, Size: 64x64, Model: emoji" a.png
holds "image elements are not from 0 to 1" awk '!($1 >= 0 && $1 <= 1) { exit 1 }' <(numbers ai.safetensors image)

# A scheduler and its spacing are chosen one by one; the old name is short for both.
works "${draw[@]}" --seed 1 --scheduler dpmpp-2m-karras --output k1.png --save-latents k1.safetensors
works "${draw[@]}" --seed 1 --scheduler dpmpp-2m --spacing karras --output k2.png --save-latents k2.safetensors
works "${draw[@]}" --seed 1 --scheduler dpmpp-2m-karras --spacing karras --output k3.png
works "${draw[@]}" --seed 1 --scheduler dpmpp-2m --output k4.png --save-latents k4.safetensors
same k1.png k2.png
same k1.png k3.png
same k1.safetensors k2.safetensors
differ k1.safetensors k4.safetensors
holds "k2.png does not say how it was made" grep -aq "Steps: 3, Sampler: dpmpp-2m-karras, .*Schedule type: karras" k2.png
works "${draw[@]}" --seed 1 --scheduler euler --spacing beta --timesteps trailing --output k5.png
holds "k5.png does not say how it was made" grep -aq "Sampler: euler, .*Schedule type: beta, Timestep spacing: trailing" k5.png
# The model's own scheduler keeps everything else.
works "${draw[@]}" --seed 1 --timesteps trailing --output k6.png --save-latents k6.safetensors
differ a.safetensors k6.safetensors
works img2img --image a.png --prompt "a red apple" --steps 3 --scheduler heun --spacing exponential --output k7.png
rm k*.png k*.safetensors

# The same seed is the same picture, whatever the threads; another is another; without one it is random, and told.
for threads in 1 2 3; do
  works "${draw[@]}" --seed 1 --threads $threads --output b.png --save-latents b.safetensors --save-image-tensor bi.safetensors
  same a.png b.png
  same a.safetensors b.safetensors
  same ai.safetensors bi.safetensors
done
works "${draw[@]}" --seed 2 --output b.png
differ a.png b.png
works "${draw[@]}" --output c.png
works "${draw[@]}" --seed "$(sed -nE 's/.*seed ([0-9]+).*/\1/p' out)" --output d.png
same c.png d.png
works "${draw[@]}" --seed 18446744073709551615 --output d.png

# Noise takes the place of the seed's, and nothing else is random with the model's own scheduler.
works "${draw[@]}" --seed 1 --load-noise a.safetensors --output n1.png
works "${draw[@]}" --seed 2 --load-noise a.safetensors --output n2.png --save-image-tensor ni.safetensors
works "${draw[@]}" --seed 1 --load-noise a.safetensors --output n1.png --save-image-tensor n1i.safetensors
same ni.safetensors n1i.safetensors
differ ni.safetensors ai.safetensors

# A batch is numbered, its latents are together, and its first picture is not another because there is a second.
works "${draw[@]}" --count 2 --seed 1 --output c.png --save-latents c.safetensors --save-image-tensor ci.safetensors
is_png c-1.png 64 64
is_png c-2.png 64 64
differ c-1.png c-2.png
holds_tensor c.safetensors latents 2,4,16,16
holds_tensor ci.safetensors image 2,64,64,3

# Sizes and kinds of files.
works "${draw[@]}" --width 96 --height 32 --output wide.png --save-latents wide.safetensors
is_png wide.png 96 32
holds_tensor wide.safetensors latents 1,4,8,24
works "${draw[@]}" --output a.jpg
holds "a.jpg is no JPEG" test "$(od -An -tx1 -N3 a.jpg | tr -d ' ')" = ffd8ff
works "${draw[@]}" --output a.webp
holds "a.webp is no WebP" test "$(head -c 12 a.webp | tail -c 4)" = WEBP
works "${draw[@]}" --seed 1 --output "ünï cödé 🍎.PNG"
same a.png "ünï cödé 🍎.PNG"

# An existing file is replaced; a link stays a link.
echo old >old.png
ln -s old.png link.png
works "${draw[@]}" --seed 1 --output link.png
same a.png old.png
holds "the link is gone" test -L link.png

# The autoencoder alone: there and back is nearly the picture.
works encode --image a.png --save-latents e.safetensors
holds_tensor e.safetensors latents 1,4,16,16
works decode --latents e.safetensors --output e.png --save-image-tensor ei.safetensors
is_png e.png 64 64
close_to 1 ei.safetensors image ai.safetensors image
works decode --latents a.safetensors --output d.png --save-image-tensor di.safetensors
same di.safetensors ai.safetensors
works decode --latents c.safetensors --output d.png
same_pixels() {
  works encode --image "$1" --save-latents 1.safetensors
  works encode --image "$2" --save-latents 2.safetensors
  same 1.safetensors 2.safetensors
}
same_pixels d-2.png c-2.png
works decode --latents a.safetensors --output d.webp
same_pixels d.webp a.png
for model in sd1 sd2 odd lcm; do
  works encode --model "$models/$model" --image "$inputs/picture-48x32.png" --save-latents e.safetensors
  works decode --model "$models/$model" --latents e.safetensors --output e.png
  is_png e.png 48 32
done

# The other tasks, on pictures that fit the model and others.
works img2img --prompt "blue heart" --image a.png --strength 0.5 --steps 4 --output e.png
is_png e.png 64 64
works img2img --prompt "blue heart" --image "$inputs/picture-37x50.png" --steps 2 --strength 1 --output e.png
is_png e.png 36 48
works img2img --prompt "blue heart" --image a.png --steps 2 --strength 1 --width 32 --height 48 --output e.png
is_png e.png 32 48
works inpaint --prompt "blue heart" --image a.png --mask b.png --steps 3 --output e.png
is_png e.png 64 64
works inpaint --prompt "blue heart" --image "$inputs/picture-37x50.png" --mask "$inputs/picture-37x50.png" --steps 2 --keep-unmasked --output e.png
is_png e.png 37 50
works outpaint --prompt "blue heart" --image a.png --left 5 --top 3 --steps 3 --output e.png --save-image-tensor ei.safetensors
is_png e.png 69 67
# The picture itself comes back exactly: its pixels, as they are in the file, in the larger one's. Where nothing is repainted, the image tensor holds the
# pixels of the file that was read.
black_pixel black.png
decoded() {
  works inpaint --prompt a --image "$1" --mask black.png --keep-unmasked --steps 1 --output kept.png --save-image-tensor "$2"
  holds "$1 has other pixels where nothing is repainted" cmp -s <(tail -c +9 "$1" | head -c 25) <(tail -c +9 kept.png | head -c 25)
}
decoded a.png ap.safetensors
decoded e.png ep.safetensors
close_to 0.02 ap.safetensors image ai.safetensors image
differ ap.safetensors ai.safetensors
pixels() { numbers "$1" image | awk -v width="$2" -v left="$3" -v top="$4" 'int((NR - 1) / 3) % width >= left && int((NR - 1) / 3 / width) >= top'; }
holds "outpainting changed the picture" cmp -s <(pixels ap.safetensors 64 0 0) <(pixels ep.safetensors 69 5 3)
for model in sd1 inpaint9; do
  works outpaint --model "$models/$model" --prompt "a cat" --image "$inputs/picture-48x32.png" --right 8 --bottom 16 --steps 2 --output e.png
  is_png e.png 56 48
done

# Short cuts: an interval of 1 and a ratio of 0 change nothing, others do, and the file tells them.
works "${draw[@]}" --seed 1 --step-cache 1 --merge-tokens 0 --output s.png --save-image-tensor si.safetensors
same ai.safetensors si.safetensors
works "${draw[@]}" --seed 1 --step-cache 2 --output s.png --save-image-tensor si.safetensors
differ ai.safetensors si.safetensors
holds "s.png does not tell its step cache" grep -aq "Step cache interval: 2" s.png
works "${draw[@]}" --seed 1 --merge-tokens 0.5 --output s.png --save-image-tensor si.safetensors
differ ai.safetensors si.safetensors
holds "s.png does not tell its token merging" grep -aq "Token merging ratio: 0.5" s.png
for threads in 1 2 3; do
  works "${draw[@]}" --seed 1 --step-cache 3 --merge-tokens 0.75 --threads $threads --output s$threads.png
  same s1.png s$threads.png
done
works img2img --prompt "blue heart" --image a.png --strength 0.8 --steps 5 --step-cache 2 --merge-tokens 0.3 --scheduler heun --output s.png
is_png s.png 64 64
works inpaint --prompt "blue heart" --image a.png --mask b.png --steps 4 --step-cache 2 --merge-tokens 0.3 --output s.png
is_png s.png 64 64
works edit --model "$models/edit8" --prompt "a cat" --image "$inputs/picture-48x32.png" --steps 4 --step-cache 3 --merge-tokens 0.5 --output s.png
is_png s.png 48 32

# Prompts that are unusual but mean something.
works "${draw[@]}" --negative-prompt "" --seed 1 --output e.png
works txt2img --prompt -3°C --steps 1 --output e.png
works txt2img --prompt "" --steps 1 --output e.png
works txt2img --prompt $'\x01\x02\x1b\x7f \t\n' --steps 1 --output e.png
warns 'The model reads [0-9]+ tokens, and the prompt has 20000; this is left out: "word word' \
  txt2img --prompt "$(printf 'word %.0s' $(seq 20000))" --steps 1 --output e.png
warns 'the negative prompt has' "${draw[@]}" --negative-prompt "$(printf 'dog %.0s' $(seq 200))" --output e.png
works "${draw[@]}" --negative-prompt "$(printf 'dog %.0s' $(seq 200))" --guidance 1 --output e.png
works txt2img --prompt $'\x01\x02 red\tapple\n\x7f' --steps 1 --output e.png
works txt2img --prompt "<|endoftext|> <|startoftext|>" --steps 1 --output e.png

# Standard output may be a closed pipe: the picture is made all the same.
"$ldm" "${draw[@]}" --seed 1 --output closed.png >&- 2>&- <&-
same a.png closed.png
{ "$ldm" "${draw[@]}" --seed 1 --output pipe.png; } 2>err | true
same a.png pipe.png

# A limit on memory changes no picture while the tiles stay as they are.
works txt2img --prompt "a red apple" --steps 2 --seed 1 --output unlimited.png
works inspect "$emoji" --memory-limit 10GB
says '^64×64 pixels, 1 at once: .* nothing is streamed, .* 1\.00 times the usual time, about [0-9.]+ s for 20 steps on this machine\.$'
smallest=$("$ldm" inspect "$emoji" --memory-limit 1MB 2>&1 | grep -oE '[0-9]+ MB\.' | grep -oE '[0-9]+')
works inspect "$emoji" --memory-limit "${smallest}MB"
says 'packed anew in each step'
works txt2img --prompt "a red apple" --steps 2 --seed 1 --memory-limit $((smallest + 8))MB --output limited.png
works txt2img --prompt "a red apple" --steps 2 --seed 1 --memory-limit 1.5GiB --output generous.png
same unlimited.png generous.png
works txt2img --prompt "a red apple" --steps 2 --seed 1 --tile 32 --output tiled.png
differ unlimited.png tiled.png
works txt2img --prompt "a red apple" --steps 2 --seed 1 --tile off --output whole.png
same unlimited.png whole.png
works bench --pass picture --repeats 1 --steps 2 --memory-limit 1GB --json

# keeps MODEL SIDE COUNT [LIMIT]: the memory that a picture takes is what was predicted, to a tenth, and no more than the limit and 3 %.
keeps() {
  local predicted real limit=${4:-10GB} arguments=(--model "$1" --width "$2" --height "$2" --repeats 1 --steps 2 --json)
  predicted=$("$ldm" inspect "$1" --memory-limit "$limit" --width "$2" --height "$2" --count "$3" | grep -oE 'about [0-9]+ MB' | grep -oE '[0-9]+')
  real=$("$ldm" bench --pass picture --batch "$3" "${arguments[@]}" ${4:+--memory-limit "$4"} | sed -E 's/.*"peak_bytes":([0-9]+).*/\1/')
  if awk -v p="$predicted" -v r="$real" -v l="${limit%?B}" -v unit="${limit: -2}" 'BEGIN {
      most = l * (unit == "GB" ? 1e9 : 1e6); ratio = p * 1e6 / r
      exit !(ratio > 0.9 && ratio < 1.1 && r < 1.03 * most)
    }'; then pass; else fail "$1, $3 of $2 pixels within $limit: predicted $predicted MB, in fact $real bytes"; fi
}
keeps "$emoji" 64 1
keeps "$emoji" 64 8
keeps "$emoji" 256 1
keeps "$emoji" 512 1
keeps "$emoji" 64 1 64MB
keeps "$emoji" 256 1 84MB
works convert "$emoji" q8 --to q8
keeps q8 64 1
keeps q8 256 2
rm -r q8
