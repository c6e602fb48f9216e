# Ctrl-C and termination: the end comes within a second, with the usual status, and no file is left.
patience=1000 # milliseconds
set -m # so that what runs in the background may be interrupted

# stops SIGNAL STATUS DELAY ARGUMENTS…
stops() {
  local signal=$1 expected=$2 delay=$3 start took status before=$failed
  shift 3
  "$ldm" "$@" >out 2>err </dev/null &
  sleep "$delay"
  kill -0 $! 2>/dev/null || fail "ldm $* was over after $delay s: $(cat err)"
  start=$(date +%s%N)
  kill -"$signal" $! 2>/dev/null
  wait $! 2>/dev/null
  status=$?
  took=$((($(date +%s%N) - start) / 1000000))
  [ $status = "$expected" ] || fail "$signal after $delay s: ldm $* ends with status $status, not $expected"
  [ $took -lt $patience ] || fail "$signal after $delay s: ldm $* ends after $took ms"
  nothing_left "$signal after $delay s: ldm $*"
  [ "$failed" != "$before" ] || pass
}
long=(txt2img --prompt a --steps 900 --width 256 --height 256 --output made/x.png --save-latents made/x.safetensors)
for delay in 0.02 0.05 0.1 0.2 0.4 1 2; do stops INT 130 $delay "${long[@]}"; done # while starting, loading and drawing
stops TERM 143 0.1 "${long[@]}"
stops TERM 143 1.5 "${long[@]}"
stops INT 130 1 txt2img --prompt a --steps 900 --threads 1 --output made/x.png
# One step of these takes much longer than a second, as decoding the latents does.
stops INT 130 2 txt2img --prompt a --steps 900 --width 1024 --height 1024 --output made/x.png
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[1,4,512,512],"data_offsets":[0,4194304]}}' 4194304
for delay in 0.3 0.8; do stops INT 130 $delay decode --latents l.safetensors --output made/x.png; done
stops TERM 143 0.6 decode --latents l.safetensors --output made/x.png
# A walk of many frames, and the encoding of many.
for output in made/x.webp made/frames/; do stops INT 130 1.5 morph --prompt a --prompt b --steps 90 --frames 90 --output $output; done
# A model of 2 GB (which takes no room: it is all holes) is under way for seconds; not even the hidden folder may be left.
rm -rf large
cp -r "$emoji" large
unet=large/unet/diffusion_pytorch_model.safetensors
length=$(od -An -tu8 -N8 $unet)
size=$(($(stat -c %s $unet) - 8 - length))
entries=$(header $unet | sed -E 's/\} *$//')
for ((index = 0; index < 64; index++)); do
  entries+=",\"t$index\":{\"dtype\":\"F16\",\"shape\":[4096,4096],\"data_offsets\":[$((size + (index << 25))),$((size + ((index + 1) << 25)))]}"
done
tail -c "$size" "$emoji/unet/diffusion_pytorch_model.safetensors" >weights
safetensors $unet "$entries}" 0
cat weights >>$unet
truncate -s +$((64 << 25)) $unet
works inspect large
# What has been written is synchronised with the disk, and a busy one takes its time.
patience=5000
for delay in 0.05 0.3 0.8; do stops INT 130 $delay convert large made/x --to f32; done
stops TERM 143 0.5 convert large made/x --to q8
rm -r large
set +m
