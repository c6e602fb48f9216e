# Training: what it writes, that it goes on with the same bytes wherever it was stopped, and what it says of bad input.
rm -rf data few
mkdir data few
for index in 1 2 3; do
  cp "$emoji/reference/blue-heart.png" "data/$index.png"
  echo "a heart number $index" >"data/$index.txt"
done
cp data/1.png few/1.png

# runs ARGUMENTS…: status 0 and nothing but warnings on standard error.
runs() {
  timeout 120 "$ldm" train "$@" >out 2>err </dev/null
  local status=$?
  if [ $status = 0 ] && ! grep -qv '^Warning: .*\.$' err; then pass; else fail "ldm train $*: status $status: $(tail -n 1 err)"; fi
}
lora=(lora --data data --rank 2 --seed 3)

# Low-rank changes, in both kinds of names, of the text encoder too; they are drawn with.
runs "${lora[@]}" --steps 6 --output whole.safetensors --log whole.csv --samples shown --sample-every 3 --sample-prompt a --sample-prompt b --sample-steps 2
says "^step 6 of 6, loss [0-9.]+, .* peak [0-9.]+ GB$"
says "^whole.safetensors after 6 steps, the loss in .*whole.svg"
if [ "$(wc -l <whole.csv)" = 7 ] && grep -q '^step,loss,learning_rate,gradient_norm$' whole.csv; then pass; else fail "whole.csv: $(cat whole.csv)"; fi
holds "a drawing of the loss" grep -q '</svg>' whole.svg
for name in step-000003-0 step-000003-1 step-000006-0 step-000006-1; do is_png "shown/$name.png" 64 64; done
runs "${lora[@]}" --steps 2 --output other.safetensors --text-encoder --layers convolutions --keys kohya
works txt2img --prompt "a heart" --seed 1 --steps 2 --output plain.png
works txt2img --prompt "a heart" --seed 1 --steps 2 --lora whole.safetensors --output with.png
works txt2img --prompt "a heart" --seed 1 --steps 2 --lora other.safetensors --output kohya.png
differ plain.png with.png
differ plain.png kohya.png

# A run in two parts, with other threads, ends as one; so does one that is killed, or interrupted, at any instant.
runs "${lora[@]}" --steps 3 --output parts.safetensors
runs "${lora[@]}" --steps 6 --output parts.safetensors --resume --threads 1
says "^Going on after step 3"
same whole.safetensors parts.safetensors
same whole.state.safetensors parts.state.safetensors
long=("${lora[@]}" --steps 40 --save-every 3 --cache kept.safetensors --resume)
runs "${long[@]}" --output long.safetensors --log long.csv
says "no state in .* yet"
set -m
seed=$((RANDOM))
echo "  killed with the seed $seed"
RANDOM=$seed
for ((kill = 0; kill < 20; kill++)); do
  signal=$([ $((kill % 4)) = 3 ] && echo INT || echo KILL)
  "$ldm" train "${long[@]}" --output killed.safetensors --log killed.csv >out 2>err </dev/null &
  sleep "$(printf '0.%02d' $((RANDOM % 100)))"
  kill -$signal $! 2>/dev/null
  wait $! 2>/dev/null
done
set +m
runs "${long[@]}" --output killed.safetensors --log killed.csv
same long.safetensors killed.safetensors
same long.state.safetensors killed.state.safetensors
same long.csv killed.csv
left=$(find . -name '*killed*' ! -name 'killed.*' | head -n 3)
if [ -z "$left" ]; then pass; else echo "  (after kills there are $left)"; fi
"$ldm" train "${lora[@]}" --steps 9000 --output made/x.safetensors >out 2>err </dev/null &
sleep 1.5
kill -INT $!
wait $!
status=$?
if [ $status = 130 ] && grep -q "Saved after step [1-9].*--resume" out && [ -s made/x.state.safetensors ]; then
  pass
else
  fail "Ctrl-C: $status: $(tail -n 2 out err)"
fi
rm -rf made
mkdir made

# A word.
runs embedding --word "<heart>" --initial-text heart --data few --steps 3 --output word.safetensors
works txt2img --prompt "a <heart>" --seed 1 --steps 2 --embedding "<heart>=word.safetensors" --output word.png
refused 1 "has the token" train embedding --word heart --initial-text a --data few --output made/x.safetensors
refused 1 "no caption has the word" train embedding --word "<heart>" --initial-text heart --data data --output made/x.safetensors
refused 1 "cannot begin as" train embedding --word "<heart>" --initial-text "a b c" --data few --output made/x.safetensors

# Whole networks, and an autoencoder; what is written is a model. From nothing, the scale of latents is that of the new autoencoder.
runs unet --text-encoder --from-nothing --ema 0.9 --caption-dropout 0.1 --data data --steps 2 --output unet
works txt2img --model unet --prompt a --steps 2 --output unet.png
runs text-encoder --data data --steps 2 --output texts --snr-gamma 5 --noise-offset 0.05 --optimizer prodigy --recompute
works txt2img --model texts --prompt a --steps 2 --output texts.png
same "$emoji/unet/diffusion_pytorch_model.safetensors" texts/unet/diffusion_pytorch_model.safetensors
differ "$emoji/text_encoder/model.safetensors" texts/text_encoder/model.safetensors
runs autoencoder --data few --steps 2 --batch 2 --output vae --optimizer adafactor --decoder-only --log vae.csv --samples shown
if grep -q '^step,loss,absolute,edges,divergence,' vae.csv; then pass; else fail "vae.csv: $(head -n 1 vae.csv)"; fi
is_png shown/step-000002-0.png 128 64
works txt2img --model vae --prompt a --steps 2 --output vae.png
runs autoencoder --from-nothing --data few --steps 2 --output new --flip --buckets
says "^scaling_factor [0-9.]+"
differ "$emoji/vae/config.json" new/vae/config.json
works txt2img --model new --prompt a --steps 2 --output new.png

# Options in a file; those on the command line count more.
echo '{"rank": 2, "seed": 3, "data": "data", "steps": 9, "strict": true, "learning_rate": 1e-4, "state": null}' >options.json
runs lora --config options.json --steps 6 --output file.safetensors
same whole.safetensors file.safetensors
echo '{"rnk": 2}' >bad.json
echo '[2]' >list.json
refused 64 "unknown option .--rnk" train lora --config bad.json --data data --output made/x.safetensors
refused 1 "no JSON object" train lora --config list.json --output made/x.safetensors
refused 1 "cannot be read" train lora --config missing.json --output made/x.safetensors

# Bad input.
bad=(train lora --steps 2 --output made/x.safetensors)
refused 64 "missing expected argument '--data" "${bad[@]}"
refused 1 "no folder" "${bad[@]}" --data missing
OMPI_COMM_WORLD_SIZE=2 refused 1 "built without MPI" "${bad[@]}" --data data
mkdir empty mixed
refused 1 "is a file" "${bad[@]}" --data data/1.png
refused 1 "no pictures" "${bad[@]}" --data empty
refused 1 "no picture of .* can be used.*no caption" "${bad[@]}" --data few
runs lora --steps 1 --data few --default-caption "a heart" --output few.safetensors
cp data/1.png data/1.txt mixed
head -c 300 data/2.png >mixed/broken.png
echo broken >mixed/broken.txt
cp "$models/inputs"/*.png mixed 2>/dev/null
head -c 10000000 /dev/zero | tr '\0' a >mixed/2.txt
cp data/2.png mixed/2.png
runs lora --steps 1 --data mixed --output mixed.safetensors
for words in "broken.png" "2.txt .* 10000000 bytes"; do
  if grep -qE "$words" err; then pass; else fail "no warning of $words: $(head -c 600 err)"; fi
done
refused 1 "faults.*none is accepted" "${bad[@]}" --data mixed --strict
refused 64 "--rank must be" "${bad[@]}" --data data --rank 0
refused 1 "learning rate of 0" "${bad[@]}" --data data --learning-rate 0
refused 1 "learning rate of 1e" "${bad[@]}" --data data --learning-rate 1e9
refused 1 "must be a name that ends in .safetensors" train lora --data data --output made/x
refused 1 "no folder .*missing" train lora --data data --output missing/x.safetensors
refused 1 "says v_prediction" train unet --data data --prediction epsilon --output made/x
refused 1 "exists already" train unet --data data --output vae
refused 1 "is the state of a run before.*--resume" train "${lora[@]}" --output whole.safetensors
refused 1 "its rank is 2, and this run's is 3" train lora --data data --rank 3 --alpha 2 --seed 3 --steps 6 --output whole.safetensors --resume
refused 1 "its data.* is .*and this run's is" train lora --data data --rank 2 --seed 3 --batch 2 --steps 6 --output whole.safetensors --resume
refused 1 "holds no training state" train "${lora[@]}" --cache kept.safetensors --output made/x.safetensors --state whole.safetensors --resume
refused 1 "is no cache" train "${lora[@]}" --output made/x.safetensors --cache whole.safetensors
works convert "$emoji" eight --to q8
refused 1 "the unet is stored as q8_0" train unet --model eight --data data --output made/x
runs lora --model eight --data data --steps 1 --output eight.safetensors
refused 1 "also sees a picture|also needs" train lora --model "$models/inpaint9" --data data --resolution 64 --output made/x.safetensors
refused 1 "no vae that could be trained" train autoencoder --model "$models/ldm" --data data --resolution 64 --output made/x

# Numbers that grow beyond all others end a run; the last state stays.
runs unet --data data --steps 2 --save-every 1 --output grown --state grown.safetensors
cp grown.safetensors before.safetensors
far=(--learning-rate 10 --clip-norm 0 --save-every 1000)
timeout 60 "$ldm" train unet --data data --steps 60 --output grown-more --state grown.safetensors --resume "${far[@]}" >out 2>err </dev/null
status=$?
if [ $status = 1 ] && grep -qE "^Error: .*lower the learning rate.*state after step 2 is kept" err; then
  pass
  same before.safetensors grown.safetensors
else
  fail "a learning rate of 10: status $status: $(tail -n 1 out) $(cat err)"
fi
# A full disk: the old state stays.
if mkdir full && mount -t tmpfs -o size=300k none full 2>/dev/null; then
  runs "${lora[@]}" --steps 1 --output full/x.safetensors --cache full.safetensors
  cp full/x.state.safetensors kept.state
  head -c 1000000 /dev/zero >full/filler 2>/dev/null
  timeout 60 "$ldm" train "${lora[@]}" --steps 4 --output full/x.safetensors --cache full.safetensors --resume >out 2>err </dev/null
  if [ $? = 1 ] && grep -qE "^Error: .*disk is full|no space" err; then pass; else fail "a full disk: $(cat err)"; fi
  same kept.state full/x.state.safetensors
  umount full
fi
