# Models in other forms: converted into files, and at loading.
draw=(txt2img --prompt "a red apple" --seed 3 --steps 3)
mkdir forms
image() { works "${draw[@]}" "${@:2}" --output e.png --save-image-tensor "$1"; }
image original.safetensors
for form in f32 f16 bf16 q8 q4_0; do
  works convert "$emoji" forms/$form --to $form
  says "^forms/$form: [0-9.]+ MB of weights from 18\.9 MB \("
  works inspect forms/$form
  holds "inspect forms/$form tells of a problem" test -z "$(grep '"problem"' out)"
  # A converted model and one that is converted at loading are the same; 16 bits hold what the embedded model has.
  image written.safetensors --model forms/$form
  image held.safetensors --weights $form
  same written.safetensors held.safetensors
  case $form in
    f32 | f16) same written.safetensors original.safetensors ;;
    q4_0) differ written.safetensors original.safetensors ;;
    *) differ written.safetensors original.safetensors && close_to 0.3 written.safetensors image original.safetensors image ;;
  esac
done
works inspect forms/q8
says '"Q8_0" : [0-9]+'
# Wider and back is the same, byte for byte.
works convert forms/f32 forms/back --to f16
for file in text_encoder/model unet/diffusion_pytorch_model vae/diffusion_pytorch_model; do
  same "$emoji/$file.safetensors" forms/back/$file.safetensors
done
for file in model_index.json generation_defaults.json NOTICE unet/config.json scheduler/scheduler_config.json tokenizer/vocab.json; do
  same "$emoji/$file" forms/q8/$file
done
# From blocks to anything else, and shards to one file.
works convert forms/q8 forms/unquantised --to f32
image a.safetensors --model forms/unquantised
image b.safetensors --model forms/q8
close_to 0.3 a.safetensors image b.safetensors image
works convert "$models/sd2" forms/sd2 --to bf16 --threads 1
works txt2img --model forms/sd2 --prompt a --steps 2 --output e.png
for command in "img2img --image $inputs/picture.png" "inpaint --image $inputs/picture.png --mask $inputs/mask.png" \
  "outpaint --image $inputs/picture.png --left 8" "encode --image $inputs/picture.png --save-latents e.safetensors"; do
  read -ra words <<<"$command"
  [ "${words[0]}" = encode ] || words+=(--prompt a --steps 2 --output e.png)
  works "${words[@]}" --model "$models/sd1" --weights q8
done
works edit --model "$models/edit8" --weights bf16 --prompt a --image "$inputs/picture.png" --steps 2 --output e.png
for pass in predictor text vae-decode; do works bench --pass $pass --weights q8 --repeats 1 --json; done

# A single file.
single=$root/Tests/Fixtures/weights/sd1.safetensors
works convert "$single" forms/single.safetensors --to q8
works inspect forms/single.safetensors
holds "inspect forms/single.safetensors tells of a problem" test -z "$(grep '"problem"' out)"
refused 1 "safetensors" convert "$single" made/folder --to q8
# GGUF files.
for form in f16 q8 q4_0; do
  works convert "$single" forms/$form.gguf --to $form
  works inspect forms/$form.gguf
  holds "inspect forms/$form.gguf tells of a problem" test -z "$(grep '"problem"' out)"
done
works convert forms/f16.gguf forms/from-gguf.safetensors --to f16
works convert "$single" forms/direct.safetensors --to f16
same forms/from-gguf.safetensors forms/direct.safetensors
refused 1 "a folder becomes a folder" convert "$emoji" made/x.gguf --to f16
refused 1 "name that ends in .gguf" convert "$single" made/x.safetensors --to f16 --format gguf
refused 64 "format" convert "$emoji" made/x --to f16 --format onnx
works convert "$models/sd2" forms/folder-of-gguf --to f16 --format gguf
works convert "$models/sd2" forms/folder --to f16
holds "no GGUF file of the U-Net" test -f forms/folder-of-gguf/unet/diffusion_pytorch_model.gguf
for folder in folder-of-gguf folder; do
  works txt2img --model forms/$folder --prompt cat --seed 1 --steps 2 --width 16 --height 16 --output a.png --save-latents $folder.safetensors
done
same folder-of-gguf.safetensors folder.safetensors
works inspect forms/folder-of-gguf
holds "inspect forms/folder-of-gguf tells of a problem" test -z "$(grep '"problem"' out)"
head -c 3000 forms/folder-of-gguf/unet/diffusion_pytorch_model.gguf >forms/cut.gguf
mv forms/cut.gguf forms/folder-of-gguf/unet/diffusion_pytorch_model.gguf
refused 1 "unet/diffusion_pytorch_model.gguf" txt2img --model forms/folder-of-gguf --prompt cat --steps 1 --output made/a.png
refused 1 "U-Net alone" inspect "$root/Tests/Fixtures/weights/gguf-comfy.gguf"

# Command lines that make no sense, and places that are taken or not to be written to.
refused 64 "to" convert "$emoji" made/x
refused 64 "q8" convert "$emoji" made/x --to q4
refused 64 "output" convert "$emoji" --to f16
refused 64 "place" convert "$emoji" "" --to f16
refused 64 "threads" convert "$emoji" made/x --to f16 --threads 0
refused 64 "weights.*bf16" "${draw[@]}" --weights q4 --output made/x.png
refused 64 "weights" bench --pass predictor --weights 8
refused 1 "no model" convert missing made/x --to f16
refused 1 "exists already" convert "$emoji" forms/q8 --to q8
refused 1 "exists already" convert forms/q8 forms/q8 --to f16
refused 1 "exists already" convert "$emoji" forms --to q8
refused 1 "exists already" convert "$single" "$single" --to q8
refused 1 "no folder" convert "$emoji" missing/x --to f16
refused 1 "." convert "$emoji" forms/q8/model_index.json/x --to f16
refused 1 "." convert "$emoji" /proc/x --to f16
refused 1 "." convert "$emoji" "made/$(printf 'x%.0s' $(seq 300))" --to f16
mkdir tiny
if mount -t tmpfs -o size=4m tmpfs tiny 2>/dev/null; then
  refused 1 "tiny/x/.*space" convert "$emoji" tiny/x --to f32
  holds "a full disk was left something" test -z "$(ls -A tiny)"
  umount tiny
fi
(ulimit -f 2000 && exec timeout 60 "$ldm" convert "$emoji" made/x --to f32) >out 2>err
told $? 1 "made/x/" "a model larger than allowed"

# Damaged quantised files.
damaged() { # WORDS: drawing with forms/m and converting it fail with these words.
  refused 1 "$1" "${draw[@]}" --model forms/m --output made/x.png
}
fresh_q8() {
  rm -rf forms/m
  cp -r forms/q8 forms/m
  unet=forms/m/unet/diffusion_pytorch_model.safetensors
}
fresh_q8 && truncate -s -1 $unet
damaged "truncated"
refused 1 "truncated" convert forms/m made/x --to f16
fresh_q8 && truncate -s 3000000 $unet
damaged "truncated"
fresh_q8 && sed -i '0,/\.q8_0"/s//.q4_1"/' $unet
damaged "form q4_1.*not supported"
fresh_q8 && sed -i '0,/\.q8_0"/s//.q4_0"/' $unet
damaged "blocks of 18 bytes"
fresh_q8 && sed -i '0,/\.q8_0"/s//.xx_0"/' $unet
damaged "is missing"
fresh_q8 && sed -i '0,/"U8"/s//"I8"/' $unet
damaged "blocks of 34 bytes"
fresh_q8 && sed -i -E '0,/"shape":\[([0-9]+),([0-9]+),34\]/s//"shape":[\1,34,\2]/' $unet
damaged "blocks of 34 bytes"
fresh_q8 && sed -i -E 's/"shape":\[([0-9]+),([0-9]+),34\]/"shape":[\2,\1,34]/' $unet
damaged "shape.*expected"
fresh_q8 && head -c 68 /dev/zero | tr '\0' '\377' | dd of=$unet bs=1 seek=$(($(stat -c %s $unet) - 68)) conv=notrunc status=none
damaged "not numbers"
rm -rf forms
