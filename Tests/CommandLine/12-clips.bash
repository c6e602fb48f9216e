# Walks between prompts and seeds: every format, what stands at the keyframes, the same bytes for any threads, and what is refused.
walk=(morph --prompt "red apple" --prompt sunflower --steps 2)

# big_endian FILE OFFSET: a number of four bytes.
big_endian() { od -An -tu1 -j "$2" -N4 "$1" | awk '{ print (($1 * 256 + $2) * 256 + $3) * 256 + $4 }'; }

works "${walk[@]}" --seed 1 --frames 5 --fps 10 --output w.webp --save-latents w.safetensors --save-image-tensor wi.safetensors
says '^w\.webp: 5 frames of 64×64, 0\.5 s, seed 1 \([0-9.]+ s\)$'
says '^frame 5 of 5$'
holds "w.webp is no animated WebP" test "$(head -c 16 w.webp | tail -c 8) $(grep -aoE 'ANIM' w.webp | head -n 1)" = "WEBPVP8X ANIM"
holds "w.webp has not 5 frames" test "$(grep -ao ANMF w.webp | wc -l)" = 5
holds_tensor w.safetensors latents 5,4,16,16
holds_tensor wi.safetensors image 5,64,64,3
holds "w.webp does not say how it was made" grep -q "Seed: 1, Size: 64x64, Model: emoji, Frames: 5, Frames per second: 10.0" <(tr -d '\0' <w.webp)

# The same for any threads, other bytes with another seed.
for threads in 1 2 3; do
  works "${walk[@]}" --seed 1 --frames 5 --fps 10 --threads $threads --output w2.webp
  same w.webp w2.webp
done
works "${walk[@]}" --seed 2 --frames 5 --fps 10 --output w2.webp
differ w.webp w2.webp

# The keyframes are the pictures of txt2img, of a scheduler that draws noise on its way, too.
works "${walk[@]}" --seed 1 --seed 2 --frames 3 --scheduler euler-a --output keys/
works txt2img --prompt "red apple" --steps 2 --seed 1 --scheduler euler-a --output first.png --save-image-tensor first.safetensors
works txt2img --prompt sunflower --steps 2 --seed 2 --scheduler euler-a --output last.png --save-image-tensor last.safetensors
same_picture() {
  works encode --image "$1" --save-latents 1.safetensors
  works encode --image "$2" --save-latents 2.safetensors
  same 1.safetensors 2.safetensors
}
same_picture keys/frame-0001.png first.png
same_picture keys/frame-0003.png last.png
holds "there are other files than three frames" test "$(ls keys | tr '\n' ' ')" = "frame-0001.png frame-0002.png frame-0003.png "
holds "a frame does not say how it was made" grep -aq 'Seeds: "1, 2"' keys/frame-0002.png

# One prompt and two seeds; times; there and back; batches.
works morph --prompt heart --seed 1 --seed 2 --steps 2 --frames 3 --output s.png
is_frames() { if [ "$(big_endian "$1" "$(($(grep -abo acTL "$1" | head -n 1 | cut -d: -f1) + 4))")" = "$2" ]; then pass; else fail "$1 has not $2 frames"; fi; }
is_frames s.png 3
if command -v pngcheck >/dev/null 2>&1; then holds "pngcheck finds errors in s.png" pngcheck -q s.png; fi
works "${walk[@]}" --prompt pizza --at 0 --at 0.5 --at 2 --fps 4 --output t.png
is_frames t.png 9
works "${walk[@]}" --at 1 --at 2 --fps 4 --ping-pong --easing ease-in-out --output p.png
is_frames p.png 8
works "${walk[@]}" --seed 1 --frames 8 --ping-pong --batch-size 3 --output b.webp --save-latents b.safetensors
holds_tensor b.safetensors latents 8,4,16,16
works "${walk[@]}" --seed 1 --frames 8 --ping-pong --output b2.webp --save-latents b2.safetensors
close_to 0.01 b.safetensors latents b2.safetensors latents
works "${walk[@]}" --seed 1 --frames 4 --output lossy.webp --quality 50
holds "--quality makes no smaller file" test "$(stat -c %s lossy.webp)" -lt "$(stat -c %s w.webp)"
works "${walk[@]}" --seed 1 --frames 3 --output g.gif
holds "g.gif is no GIF" test "$(head -c 6 g.gif)" = GIF89a
holds "g.gif is not repeated" grep -aq NETSCAPE2.0 g.gif
works "${walk[@]}" --frames 1 --output one.webp
says '1 frame of'

# What a second text encoder reads at each keyframe.
twin=(--model "$models/sdxl" --width 16 --height 16 --steps 2 --seed 3 --prompt "a cat" --negative-prompt grey --negative-prompt-2 blurred)
works morph "${twin[@]}" --prompt-2 boats --prompt-2 rain --frames 2 --output twin/
works txt2img "${twin[@]}" --prompt-2 rain --output twin.png
same_picture twin/frame-0002.png twin.png
holds "a frame does not say what was read" grep -aq 'Prompt 2: "boats, rain"' twin/frame-0002.png

# What a program on the path encodes, where it is; and one that is not there, fails, is killed, or does not read.
if command -v ffmpeg >/dev/null 2>&1; then
  works "${walk[@]}" --frames 4 --output v.mp4
  holds "v.mp4 is no MP4" test "$(head -c 8 v.mp4 | tail -c 4)" = ftyp
  works "${walk[@]}" --frames 4 --output v.webm
  holds "v.webm is no WebM" test "$(od -An -tx1 -N4 v.webm | tr -d ' ')" = 1a45dfa3
  if command -v ffprobe >/dev/null 2>&1; then
    for file in v.mp4 v.webm; do
      counted=$(ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames,width -of csv=p=0 $file)
      holds "$file has not 4 frames" test "$counted" = 64,4
    done
  fi
fi
program() {
  rm -rf path && mkdir path
  printf '#!/bin/sh\n%s\n' "$1" >path/ffmpeg
  chmod +x path/ffmpeg
}
encoder=("${walk[@]}" --frames 2 --output made/v.mp4)
PATH=/nowhere "$(command -v timeout)" 30 "$ldm" "${encoder[@]}" >out 2>err </dev/null
told $? 1 "ffmpeg, which is not on the PATH" "no ffmpeg"
for case in "echo no such codec >&2; exit 3|no such codec \(status 3\)" "kill -9 \$\$|signal 9" "exec <&-; sleep 0.2; exit 1|says nothing"; do
  program "${case%|*}"
  PATH=$PWD/path:$PATH timeout 30 "$ldm" "${encoder[@]}" >out 2>err </dev/null
  told $? 1 "${case##*|}" "ffmpeg that says ${case%|*}"
done
rm -rf path

# What cannot be a walk or a clip, before the work.
refused 64 "at least two keyframes" morph --prompt a --frames 3 --output made/x.webp
refused 64 "3 keyframes" morph --prompt a --prompt b --seed 1 --seed 2 --seed 3 --output made/x.webp
refused 64 "prompt-2 3 times" morph --prompt a --prompt b --prompt-2 a --prompt-2 b --prompt-2 c --output made/x.webp
refused 64 "goes with --negative-prompt" morph --prompt a --prompt b --negative-prompt-2 c --output made/x.webp
refused 64 "prompt" morph --seed 1 --seed 2 --output made/x.webp
for fps in 0 -1 1e9 nan; do refused 64 "--fps must be" "${walk[@]}" --fps=$fps --output made/x.webp; done
for frames in 0 -1 10001; do refused 64 "--frames must be" "${walk[@]}" --frames=$frames --output made/x.webp; done
refused 64 "Give either" "${walk[@]}" --frames 3 --at 0 --at 1 --output made/x.webp
refused 64 "larger than the one before" "${walk[@]}" --at 1 --at 1 --output made/x.webp
refused 64 "the most are" "${walk[@]}" --at 0 --at 1e6 --output made/x.webp
refused 64 "easing" "${walk[@]}" --easing bouncy --output made/x.webp
refused 64 "no --refiner" "${walk[@]}" --refiner x --output made/x.webp
refused 1 "50 frames a second" "${walk[@]}" --fps 60 --output made/x.gif
refused 1 "for .webp files" "${walk[@]}" --quality 50 --output made/x.png
refused 1 "in which format" "${walk[@]}" --output made/x.avi
refused 1 "standard output" "${walk[@]}" --output -
refused 1 "no folder" "${walk[@]}" --output missing/x.webp
refused 1 "exists already" "${walk[@]}" --output keys
refused 1 "multiples of" "${walk[@]}" --width 65 --output made/x.webp
if [ -w /dev/full ]; then
  ln -s /dev/full full.webp
  refused 1 "space" "${walk[@]}" --frames 2 --output full.webp
fi
