# Files that are not what they should be.
draw=(txt2img --prompt "a red apple" --steps 2)
works "${draw[@]}" --output a.png --save-latents a.safetensors --save-image-tensor ai.safetensors

# Models.
rm -rf model
fresh() {
  rm -rf model
  mkdir model
  cp -r "$models/sd1/"{model_index.json,scheduler,text_encoder,tokenizer,unet,vae} model/
  unet=model/unet/diffusion_pytorch_model.safetensors
}
broken() { # WORDS: drawing with the model fails with these words, and inspecting it works or fails with one sentence.
  refused 1 "$1" "${draw[@]}" --model model --output made/x.png
  timeout 60 "$ldm" inspect model >out 2>err </dev/null
  local status=$?
  if [ $status = 0 ]; then is_json out; else told $status 1 "." "ldm inspect ($1)"; fi
}
refused 1 "no model|no folder" "${draw[@]}" --model missing --output made/x.png
refused 1 "model" "${draw[@]}" --model "" --output made/x.png
refused 1 "model_index.json" "${draw[@]}" --model made --output made/x.png
refused 1 "missing" inspect missing
refused 1 "missing" tokenize --model missing text
refused 1 "safetensors" "${draw[@]}" --model a.png --output made/x.png
refused 1 "." "${draw[@]}" --model /dev/null --output made/x.png
mkfifo pipe.safetensors
refused 1 "pipe.safetensors" "${draw[@]}" --model pipe.safetensors --output made/x.png
fresh
works "${draw[@]}" --model model --output e.png
sed -i 's/"conv_in\.weight"/"conv_in.weighx"/' $unet
broken "conv_in\.weight is missing"
fresh && sed -i 's/\[8,4,3,3\]/[4,8,3,3]/' $unet
broken "conv_in\.weight.*shape.*expected"
fresh && sed -i 's/\[8,4,3,3\]/[8,4,3,9]/' $unet
broken "conv_in\.weight"
fresh && sed -i '0,/"F16"/s//"F99"/' $unet
broken "F99"
fresh && sed -i '0,/"F16"/s//"F6_E2M3"/' $unet
broken "damaged"
fresh && sed -i 's/"data_offsets":\[0,16\]/"data_offsets":[1,17]/' $unet
broken "conv_in\.bias|conv_in\.weight|offset|gap|overlap"
fresh && sed -i 's/"data_offsets":\[16,592\]/"data_offsets":[ 0,576]/' $unet
broken "overlap"
fresh && sed -i 's/"data_offsets":\[1208,1224\]/"data_offsets":[9999999,9]/' $unet
broken "."
fresh && sed -i 's/"__metadata__":{"format":"pt"}/"__metadata__":{"format":"p}/' $unet
broken "header"
fresh && truncate -s -1 $unet
broken "diffusion_pytorch_model\.safetensors"
fresh && truncate -s 1000 $unet
broken "diffusion_pytorch_model\.safetensors"
fresh && truncate -s 7 $unet
broken "diffusion_pytorch_model\.safetensors"
fresh && : >$unet
broken "diffusion_pytorch_model\.safetensors"
fresh && printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of=$unet conv=notrunc status=none
broken "header"
fresh && printf '\xff\xff\xff\xff\xff\xff\xff\xff' | dd of=$unet conv=notrunc status=none
broken "header"
fresh && printf '\xff\xff\xff\x00' | dd of=$unet conv=notrunc status=none
broken "header"
fresh && head -c 64 /dev/zero | tr '\0' '\377' | dd of=$unet bs=1 seek=$(($(stat -c %s $unet) - 64)) conv=notrunc status=none
broken "not numbers"
fresh && rm $unet
broken "unet"
fresh && rm -r model/vae
broken "vae"
fresh && rm model/unet/config.json
broken "unet"
fresh && rm model/tokenizer/merges.txt
broken "merges"
fresh && echo '{' >model/unet/config.json
broken "unet"
fresh && sed -i 's/"norm_num_groups": 4/"norm_num_groups": 0/' model/unet/config.json
broken "norm_num_groups"
fresh && sed -i 's/"norm_num_groups": 4/"norm_num_groups": 3/' model/unet/config.json
broken "norm_num_groups|groups"
fresh && sed -i 's/"attention_head_dim": 2/"attention_head_dim": 9223372036854775807/' model/unet/config.json
broken "attention_head_dim"
fresh && sed -i 's/"cross_attention_dim": 16/"cross_attention_dim": -16/' model/unet/config.json
broken "cross_attention_dim"
fresh && sed -i 's/"UpBlock2D"/"Up"/' model/unet/config.json
broken "Up"
fresh && sed -i 's/"num_train_timesteps": 1000/"num_train_timesteps": 0/' model/scheduler/scheduler_config.json
broken "num_train_timesteps"
fresh && sed -i 's/"scaled_linear"/"round"/' model/scheduler/scheduler_config.json
broken "round"
fresh && echo '[]' >model/model_index.json
broken "model_index.json"
fresh && head -c 100000 /dev/zero | tr '\0' '[' >model/model_index.json
broken "model_index.json"
fresh && echo '{"a": 1' >model/tokenizer/vocab.json
broken "vocab.json"
rm -r model

# Noise and latents.
refused 1 "noise" "${draw[@]}" --load-noise ai.safetensors --output made/x.png
refused 1 "safetensors" "${draw[@]}" --load-noise a.png --output made/x.png
refused 1 "missing.safetensors" "${draw[@]}" --load-noise missing.safetensors --output made/x.png
latents() { refused 1 "$1" decode --latents l.safetensors --output made/x.png; }
head -c 900 a.safetensors >l.safetensors
latents "l\.safetensors"
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[1,4,16,16],"data_offsets":[0,4096]}}' 4096
works decode --latents l.safetensors --output e.png
safetensors l.safetensors '{"anything":{"dtype":"F16","shape":[1,4,2,2],"data_offsets":[0,32]}}' 32
works decode --latents l.safetensors --output e.png
safetensors l.safetensors '{"a":{"dtype":"F32","shape":[1,4,1,1],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[1,4,1,1],"data_offsets":[16,32]}}' 32
latents "latents"
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[1,3,16,16],"data_offsets":[0,3072]}}' 3072
latents "channels"
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[4,16,16],"data_offsets":[0,4096]}}' 4096
latents "shape"
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[1,4,0,16],"data_offsets":[0,0]}}' 0
latents "shape"
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[1,4,16,16],"data_offsets":[0,18446744073709551615]}}' 4096
latents "l\.safetensors"
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[4294967296,4,4294967296,16],"data_offsets":[0,4096]}}' 4096
latents "l\.safetensors|shape"
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[-1,4,-16,16],"data_offsets":[0,4096]}}' 4096
latents "l\.safetensors|shape"
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[1,4,16,16],"data_offsets":[4096,0]}}' 4096
latents "l\.safetensors"
safetensors l.safetensors '{"latents":{"dtype":"C64","shape":[1,4,8,16],"data_offsets":[0,4096]}}' 4096
latents "C64"
safetensors l.safetensors '{"latents":{"dtype":"I64","shape":[1,4,8,16],"data_offsets":[0,4096]}}' 4096
works decode --latents l.safetensors --output e.png
safetensors l.safetensors '{"latents":{"dtype":"F32","shape":[1,4,16,16],"data_offsets":[0,4096]}}' 4096
printf '\x00\x00\xc0\x7f' | dd of=l.safetensors bs=1 seek=$(($(stat -c %s l.safetensors) - 4)) conv=notrunc status=none
latents "not numbers"

# Pictures: any PNG, JPEG or WebP works, what is none or damaged is told.
images=$root/Tests/Fixtures/images
for file in colour2-depth16 colour3-depth1 colour3-depth8-interlaced colour4-depth16 colour6-depth16 transparent-palette orientation6; do
  works img2img --prompt heart --image "$images/$file.png" --steps 2 --output e.png
done
works img2img --prompt heart --image "$images/progressive.jpg" --steps 2 --output e.png
for file in lossy-large lossless-alpha orientation6; do works img2img --prompt heart --image "$images/$file.webp" --steps 2 --output e.png; done
works inpaint --prompt heart --image "$images/colour2-depth16.png" --mask "$images/colour3-depth1.png" --steps 2 --output e.png
pictures() { refused 1 "$1" img2img --prompt heart --image "$2" --steps 2 --output made/x.png; }
pictures "too small" "$images/one-pixel.png"
pictures "too small" "$images/one-pixel.jpg"
refused 1 "multiples" encode --image "$images/one-pixel.png" --save-latents made/x.safetensors
works outpaint --prompt heart --image "$images/one-pixel.png" --right 31 --bottom 31 --steps 2 --output e.png
for file in bad-compression bad-depth no-palette no-pixels no-width too-little huge; do pictures "$file" "$images/$file.png"; done
for file in huge no-frame; do pictures "$file" "$images/$file.jpg"; done
for file in huge long animated no-size no-chunks; do pictures "$file" "$images/$file.webp"; done
head -c 900 a.png >cut.png && pictures "cut.png" cut.png
head -c 8 a.png >cut.png && pictures "cut.png" cut.png
: >cut.png && pictures "cut.png" cut.png
echo text >cut.png && pictures "cut.png" cut.png
pictures "missing.png" missing.png
pictures "made" made
pictures "/dev/null" /dev/null
works inpaint --prompt heart --image a.png --mask "$inputs/mask-48x32.png" --steps 2 --output e.png
is_png e.png 64 64
refused 1 "missing.png" inpaint --prompt heart --image a.png --mask missing.png --output made/x.png

# Configurations of schedulers.
refused 1 "missing.json" schedule --scheduler ddim --steps 3 --config missing.json
echo '{"beta_end": "high"}' >c.json && refused 1 "beta_end" schedule --scheduler ddim --steps 3 --config c.json
echo '{"beta_schedule": "high"}' >c.json && refused 1 "high" schedule --scheduler ddim --steps 3 --config c.json
echo '{"num_train_timesteps": 1000000000000}' >c.json && refused 1 "num_train_timesteps" schedule --scheduler ddim --steps 3 --config c.json
echo '{' >c.json && refused 1 "JSON|configuration" schedule --scheduler ddim --steps 3 --config c.json
refused 1 "JSON|configuration" schedule --scheduler ddim --steps 3 --config a.png

# Models in shards, and in a single file.
shards() {
  rm -rf model
  mkdir model
  cp -r "$models/odd/"{model_index.json,scheduler,text_encoder,tokenizer,unet,vae} model/
  index=model/unet/diffusion_pytorch_model.safetensors.index.json
}
shards && works "${draw[@]}" --model model --output e.png
rm model/unet/*-00002-of-00002.safetensors
broken "00002-of-00002"
shards && sed -i 's/diffusion_pytorch_model-00002-of-00002/missing/' $index
broken "missing"
shards && sed -i 's|"diffusion_pytorch_model-00002-of-00002.safetensors"|"../../../../etc/passwd"|' $index
broken "passwd"
# The files count, not where the index says that a tensor is.
shards && sed -i '0,/"conv_in.bias"/s//"conv_out.bias"/' $index
works "${draw[@]}" --model model --output e.png
shards && sed -i '0,/"conv_in.bias"/s//"nowhere.bias"/' $index
broken "nowhere.bias"
shards && echo '{"weight_map": 3}' >$index
broken "index.json"
shards && truncate -s -4 model/unet/*-00002-of-00002.safetensors
broken "00002-of-00002"
rm -r model
works inspect "$root/Tests/Fixtures/weights/sd1.safetensors"
says '"className" : "StableDiffusionPipeline"'
works inspect "$root/Tests/Fixtures/weights/pytorch/sd1.ckpt"
says '"className" : "StableDiffusionPipeline"'
printf "cos\nsystem\n(S'touch made/run'\ntR." >run.ckpt && refused 1 "os\.system" "${draw[@]}" --model run.ckpt --output made/x.png
refused 1 "vocabulary" "${draw[@]}" --model "$root/Tests/Fixtures/weights/sd1.safetensors" --output made/x.png
refused 1 "not a model" "${draw[@]}" --model "$root/Tests/Fixtures/weights/mixed.safetensors" --output made/x.png
refused 1 "not a model" "${draw[@]}" --model a.safetensors --output made/x.png

# Names that would break a line or move a terminal's cursor.
refused 1 "no file|missing" "${draw[@]}" --model $'missing\n\x1b[31mmodel' --output made/x.png
holds "an escape sequence reaches the terminal" test -z "$(grep $'\x1b' err)"

# IP-Adapters: of another model, none at all, without their encoder, and models that take no pictures, or nothing else.
prompts=$models/image-prompts
draw=(txt2img --prompt a --steps 1 --model "$models/sd1" --output made/x.png)
look=(--ip-adapter-image "$inputs/picture.png")
refused 1 "ip-adapter-sdxl.safetensors.*image_proj.norm.weight.*40.*16" "${draw[@]}" --ip-adapter "$prompts/ip-adapter-sdxl.safetensors" "${look[@]}"
refused 1 "no IP-Adapter" "${draw[@]}" --ip-adapter "$models/sd1/vae/diffusion_pytorch_model.safetensors" "${look[@]}" \
  --image-encoder "$prompts/image_encoder"
refused 1 "none=x" "${draw[@]}" --ip-adapter none=x "${look[@]}" --image-encoder "$prompts/image_encoder"
refused 1 "none" "${draw[@]}" --ip-adapter "$prompts/ip-adapter-sd1.safetensors" "${look[@]}" --image-encoder none
refused 1 "no.*CLIPVisionModelWithProjection" "${draw[@]}" --ip-adapter "$prompts/ip-adapter-sd1.safetensors" "${look[@]}" \
  --image-encoder "$models/sd1"
refused 1 "none.png" "${draw[@]}" --ip-adapter "$prompts/ip-adapter-sd1.safetensors" --ip-adapter-image none.png
refused 1 "takes no pictures" variation --model "$models/sd1" --image "$inputs/picture.png" --output made/x.png
refused 1 "image prompt" txt2img --prompt a --model "$models/unclip" --output made/x.png
refused 1 "noise level.*999" variation --model "$models/unclip" --image "$inputs/picture.png" --noise-level 1000 --output made/x.png
refused 1 "no prompt" variation --model "$models/variation" --prompt a --image "$inputs/picture.png" --output made/x.png
