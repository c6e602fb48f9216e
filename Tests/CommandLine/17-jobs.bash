# Drawings that are stopped and go on, files of jobs, grids, and pictures that say how they were made.
mkdir -p jobs/made && cd jobs
apple=(txt2img --prompt "a red apple" --seed 5)

# A drawing that is killed at any instant goes on where it was, and ends with the same bytes.
works "${apple[@]}" --steps 60 --output whole.png --save-latents whole.safetensors
kills=0
for ((round = 0; round < 50; round++)); do
  "$ldm" "${apple[@]}" --steps 60 --checkpoint kept.safetensors --output made/x.png --save-latents made/x.safetensors >out 2>err </dev/null &
  sleep "0.$(printf %02d $((RANDOM % 60)))"
  if kill -KILL $! 2>/dev/null; then kills=$((kills + 1)); fi
  wait $! 2>/dev/null
  if [ -e made/x.png ]; then
    same made/x.png whole.png
    same made/x.safetensors whole.safetensors
    rm -f made/* kept.safetensors
  fi
done
[ $kills -ge 10 ] || fail "only $kills of 50 drawings were killed"
works "${apple[@]}" --steps 60 --checkpoint kept.safetensors --output x.png --save-latents x.safetensors
same x.png whole.png
same x.safetensors whole.safetensors
holds "a checkpoint is removed at the end" [ ! -e kept.safetensors ]
rm -rf made && mkdir made

# The seed that nobody gave is that of the checkpoint, and Ctrl-C leaves one.
set -m
"$ldm" txt2img --prompt "a red apple" --steps 120 --checkpoint kept.safetensors --output made/x.png >out 2>err </dev/null &
for ((wait = 0; wait < 400; wait++)); do [ -s kept.safetensors ] && break; sleep 0.05; done
kill -INT $!
wait $! 2>/dev/null
set +m
holds "Ctrl-C leaves a checkpoint" [ -s kept.safetensors ]
cp kept.safetensors other.safetensors
works txt2img --prompt "a red apple" --steps 120 --checkpoint kept.safetensors --output x.png
cp other.safetensors kept.safetensors
works txt2img --prompt "a red apple" --steps 120 --checkpoint kept.safetensors --output y.png
same x.png y.png
cp other.safetensors kept.safetensors
refused 1 "checkpoint of another command: its prompts are others" txt2img --prompt "a green apple" --steps 120 --checkpoint kept.safetensors --output made/x.png
refused 1 "its Steps is 120 and not 20" txt2img --prompt "a red apple" --steps 20 --checkpoint kept.safetensors --output made/x.png
refused 1 "its Scheduler|its Sampler" txt2img --prompt "a red apple" --steps 120 --scheduler euler --checkpoint kept.safetensors --output made/x.png
refused 1 "is no checkpoint" "${apple[@]}" --checkpoint whole.safetensors --output made/x.png
refused 1 "no folder" "${apple[@]}" --checkpoint none/kept.safetensors --output made/x.png
head -c 3000 other.safetensors >kept.safetensors
refused 1 "kept.safetensors" txt2img --prompt "a red apple" --steps 120 --checkpoint kept.safetensors --output made/x.png
rm -f kept.safetensors

# So do drawings of two models and of two passes, and walks: in either pass, and between two frames.
goes_on() {
  local ending=$1 kills=0 round
  shift
  works "$@" --output "whole.$ending"
  for ((round = 0; round < 60 && kills < 15; round++)); do
    "$ldm" "$@" --checkpoint kept.safetensors --output "made/x.$ending" >out 2>err </dev/null &
    sleep "0.$(printf %02d $((RANDOM % 70 + 10)))"
    if kill -KILL $! 2>/dev/null; then kills=$((kills + 1)); fi
    wait $! 2>/dev/null
    [ -e "made/x.$ending" ] && same "made/x.$ending" "whole.$ending"
    rm -f made/*
  done
  [ $kills -ge 5 ] || fail "only $kills drawings were killed: ldm $*"
  works "$@" --checkpoint kept.safetensors --output "x.$ending"
  same "x.$ending" "whole.$ending"
  holds "checkpoints are removed at the end: $(ls kept* 2>/dev/null)" [ -z "$(ls kept* 2>/dev/null)" ]
}
goes_on png "${apple[@]}" --steps 90 --refiner "$emoji" --switch-at 0.5
goes_on png hires --prompt "a red apple" --seed 5 --steps 40 --scale 1.5 --strength 0.9
goes_on png hires --prompt "a red apple" --seed 5 --steps 40 --scale 1.5 --strength 0.9 --enlarge latent --count 2
goes_on webp morph --prompt "a red apple" --prompt sunflower --seed 5 --frames 7 --batch-size 2 --steps 30 --scheduler euler-a

# begun ARGUMENTS…: a drawing that is killed once it has a checkpoint.
begun() {
  rm -f kept*
  "$ldm" "$@" --steps 400 --checkpoint kept.safetensors --output made/x.png >out 2>err </dev/null &
  for ((wait = 0; wait < 400; wait++)); do [ -s kept.safetensors ] && break; sleep 0.02; done
  kill -KILL $! 2>/dev/null
  wait $! 2>/dev/null
  rm -f made/*
  holds "there is a checkpoint" [ -s kept.safetensors ]
}
begun hires --prompt "a red apple" --seed 5
refused 1 "another kind of drawing" "${apple[@]}" --steps 400 --checkpoint kept.safetensors --output made/x.png

# A model whose file was replaced is noticed, whenever its file was written.
cp -r "$emoji" model
unet=model/unet/diffusion_pytorch_model.safetensors
begun "${apple[@]}" --model model
cp $unet unet && touch $unet
works "${apple[@]}" --model model --steps 400 --checkpoint kept.safetensors --output x.png
begun "${apple[@]}" --model model
printf '\x12' | dd of=$unet bs=1 seek=$(($(stat -c %s $unet) - 2)) conv=notrunc 2>/dev/null
if cmp -s unet $unet; then printf '\x13' | dd of=$unet bs=1 seek=$(($(stat -c %s $unet) - 2)) conv=notrunc 2>/dev/null; fi
refused 1 "files of its model or adapters were replaced" "${apple[@]}" --model model --steps 400 --checkpoint kept.safetensors --output made/x.png
cp unet $unet
refused 1 "held in another form" "${apple[@]}" --model model --weights q8 --steps 400 --checkpoint kept.safetensors --output made/x.png
works "${apple[@]}" --model model --steps 400 --checkpoint kept.safetensors --output x.png
rm -rf model unet kept*

# The result for other programs.
works "${apple[@]}" --steps 2 --json --output x.png
says '^\{"files":\["x.png"\],"height":64,"seconds":[0-9.e-]+,"seed":5,"width":64\}$'
holds "nothing but the object is on standard output" [ "$(wc -l <out)" = 1 ]
refused 1 "--json" "${apple[@]}" --steps 2 --json --output -
warns "--preview needs a terminal" "${apple[@]}" --steps 2 --preview --output x.png

# How a picture was made, in each format, and the same again.
for ending in png jpg webp; do
  works txt2img --prompt "a red apple, round" --negative-prompt blurry --seed 7 --steps 3 --guidance 3 --scheduler dpmpp-2m-karras \
    --clip-skip 1 --output like.$ending
done
for ending in png jpg webp; do
  works show like.$ending
  says '^a red apple, round$'
  says '^Negative prompt: blurry$'
  says '^Steps: 3, Sampler: dpmpp-2m-karras, Schedule type: karras, CFG scale: 3.0, Seed: 7|^Steps: 3, Sampler: dpmpp-2m-karras, CFG scale: 3.0, Seed: 7'
  works txt2img --like like.$ending --output again.png
  same again.png like.png
done
works show like.png --json
says '"negative_prompt" ?: ?"blurry"'
works txt2img --like like.png --prompt "a green apple" --output again.png
differ again.png like.png
works txt2img --prompt "a green apple" --negative-prompt blurry --seed 7 --steps 3 --guidance 3 --scheduler dpmpp-2m-karras --clip-skip 1 --output green.png
same again.png green.png
works img2img --like like.png --image like.png --strength 0.5 --output again.png
refused 1 "does not say how it was made" show "$inputs/picture.png"
refused 1 "does not say how it was made" txt2img --like "$inputs/picture.png" --output made/x.png
refused 1 "no.png" show no.png

# A person's own defaults.
echo '{"threads": 1, "txt2img": {"prompt": "a red apple", "steps": 3, "seed": 7}}' >defaults.json
works "${apple[@]}" --steps 3 --seed 7 --output x.png
LDM_CONFIG=defaults.json works txt2img --output y.png
same x.png y.png
echo '{"nonsense": 1}' >defaults.json
LDM_CONFIG=defaults.json refused 1 "nonsense, which is an option of no command" txt2img --output made/x.png
echo '{"nonsense": {"steps": 1}}' >defaults.json
LDM_CONFIG=defaults.json refused 1 "command nonsense" txt2img --output made/x.png
echo '[1]' >defaults.json
LDM_CONFIG=defaults.json refused 1 "no JSON object" txt2img --output made/x.png
LDM_CONFIG=none.json refused 1 "none.json cannot be read" txt2img --output made/x.png

# Two passes.
works hires --prompt "a red apple" --seed 5 --steps 4 --scale 1.5 --output x.png
is_png x.png 96 96
works hires --prompt "a red apple" --seed 5 --steps 4 --enlarge latent --strength 0.7 --second-steps 6 --output x.png
is_png x.png 128 128
works show x.png
says 'Hires upscale: 2.0, Hires upscaler: Latent'
refused 64 "--scale" hires --prompt a --scale 1 --output made/x.png
refused 64 "--scale" hires --prompt a --scale nan --output made/x.png

# A text that no JPEG can hold is told, and the picture is there.
head -c 40000 /dev/zero | tr '\0' a >prompt
timeout 30 "$ldm" txt2img --prompt - --steps 1 --output x.jpg <prompt >out 2>err
holds "a long text is told: $(tail -n 1 err | head -c 200)" grep -q "does not say how it was made: the text is too long" err
holds "its picture is there" [ -s x.jpg ]

# A grid.
works grid --prompt "a {red|green} apple" --seed 1 --seed 2 --seed 3 --output grid.png -- --steps 2
says '^grid.png: [0-9]+×[0-9]+, 2 × 3 pictures'
works grid --prompt sunflower --scheduler euler --scheduler ddim --steps 2 --steps 3 --output grid.png -- --seed 7
cp grid.png before.png
works grid --prompt sunflower --scheduler euler --scheduler ddim --steps 2 --steps 3 --output grid.png -- --seed 7
same grid.png before.png
works grid --command img2img --prompt sunflower --vary "strength=0.4|0.8" --seed 1 --plain --output grid.png -- --image like.png --steps 4
is_png grid.png 152 80
works grid --prompt "日本 \\{a|b} 🍎 with a long label that is broken into several lines" --seed 1 --seed 2 --output grid.png -- --steps 1
refused 64 "a grid has two axes" grid --prompt a --prompt b --seed 1 --seed 2 --steps 1 --steps 2 --output made/x.png
refused 1 "nonsense" grid --prompt a --vary "nonsense=1|2" --seed 1 --output made/x.png
refused 1 "is no command that draws" grid --command inspect --prompt a --output made/x.png
refused 64 "NAME=A|vary" grid --prompt a --vary strength --output made/x.png

# Jobs.
cat >jobs.jsonl <<'END'
{"prompt": "a red apple", "seed": 5, "steps": 4}
{"id": "flower", "prompt": "sunflower", "seed": 6, "steps": 4, "negative_prompt": "blurry", "output": "flower.jpg"}

{"command": "img2img", "prompt": "sunflower", "image": "like.png", "strength": 0.5, "seed": 7, "steps": 4}
{"prompt": "a {red|green} apple", "steps": 3}
{"prompt": "a", "steps": 0}
END
timeout 60 "$ldm" batch jobs.jsonl --output pictures >out 2>err </dev/null
told $? 1 "1 of 6 jobs failed" "ldm batch"
holds "six lines tell of six jobs" [ "$(wc -l <out)" = 6 ]
holds "the same lines are in the folder" cmp -s out pictures/results.jsonl
says '^\{.*"error":"[^"]*steps must be from 1.*"job":"00006".*"status":"failed"'
says '"files":\["flower.jpg"\].*"job":"flower".*"seed":6.*"status":"done"'
for file in 00001.png flower.jpg 00004.png 00005-1.png 00005-2.png; do holds "$file is there" [ -s pictures/$file ]; done
works "${apple[@]}" --steps 4 --output x.png
same x.png pictures/00001.png
timeout 60 "$ldm" batch jobs.jsonl --output pictures >out 2>err </dev/null
told $? 1 "1 of 6 jobs failed" "ldm batch, again"
holds "only what failed is tried again" [ "$(wc -l <out)" = 1 ]
rm pictures/flower.jpg
"$ldm" batch jobs.jsonl --output pictures >out 2>err </dev/null
holds "a file that is gone is drawn again" [ -s pictures/flower.jpg ]
head -n 4 jobs.jsonl >three.jsonl
works batch three.jsonl --output pictures
holds "nothing is left to do" [ ! -s out ]
works batch three.jsonl --output other -- --scheduler euler
differ pictures/00001.png other/00001.png

# A job that was changed while it was under way begins anew, and a walk is a job, too.
for steps in 400 3; do
  echo "{\"command\": \"txt2img\", \"id\": \"changed\", \"prompt\": \"a\", \"seed\": 1, \"steps\": $steps}" >one.jsonl
  timeout -s KILL 1.5 "$ldm" batch one.jsonl --output changed >out 2>err </dev/null
done
works batch one.jsonl --output changed
is_png changed/changed.png 64 64
works morph --prompt "a red apple" --prompt sunflower --frames 3 --seed 1 --steps 2 --json --output x.webp
says '^\{"files":\["x.webp"\],"frames":3,"height":64,"seconds":[0-9.e-]+,"seed":1,"width":64\}$'
echo '{"command": "morph", "prompt": ["a red apple", "sunflower"], "frames": 3, "seed": [1], "steps": 2}' >one.jsonl
works batch one.jsonl --output changed
says '"files":\["00001.webp"\],"frames":3'

# Several processes share a folder, one of them is killed, and no job is done twice.
for ((job = 0; job < 24; job++)); do echo "{\"prompt\": \"a red apple\", \"seed\": $job, \"steps\": 8}"; done >many.jsonl
for process in 1 2 3; do
  "$ldm" batch many.jsonl --output shared -- --threads 1 >out$process 2>err$process </dev/null &
  pids[process]=$!
done
sleep 0.5
kill -KILL "${pids[2]}" 2>/dev/null
wait "${pids[1]}" "${pids[3]}" 2>/dev/null
holds "all jobs of three processes are done" [ "$(ls shared/*.png | wc -l)" = 24 ]
holds "none is done twice" [ "$(sed -E 's/.*"job":"([0-9]+)".*/\1/' shared/results.jsonl | sort | uniq -d | wc -l)" = 0 ]
works txt2img --prompt "a red apple" --seed 11 --steps 8 --output x.png
same x.png shared/00012.png

# A batch that is killed at any instant goes on.
for ((round = 0; round < 12; round++)); do
  "$ldm" batch many.jsonl --output killed >out 2>err </dev/null &
  sleep "0.$(printf %02d $((RANDOM % 50 + 5)))"
  kill -KILL $! 2>/dev/null
  wait $! 2>/dev/null
done
works batch many.jsonl --output killed
for ((job = 1; job <= 24; job++)); do name=$(printf %05d.png $job); cmp -s killed/$name shared/$name || fail "killed/$name is another picture"; done
pass

# Shares of the jobs.
works batch many.jsonl --output part --shard 1/4
holds "a quarter is six" [ "$(ls part/*.png | wc -l)" = 6 ]
holds "from the second on" [ -e part/00002.png -a -e part/00006.png ]
SLURM_ARRAY_TASK_ID=7 SLURM_ARRAY_TASK_MIN=5 SLURM_ARRAY_TASK_COUNT=4 works batch many.jsonl --output part
holds "a Slurm array's third" [ "$(ls part/*.png | wc -l)" = 12 -a -e part/00003.png ]
JOB_COMPLETION_INDEX=3 works batch many.jsonl --output part --shards 4
holds "a pod's fourth" [ "$(ls part/*.png | wc -l)" = 18 -a -e part/00004.png ]
JOB_COMPLETION_INDEX=3 refused 1 "--shards" batch many.jsonl --output made/part
for shard in 4/4 -1/4 1 a/b 1/0 1/2/3; do refused 64 "shard" batch many.jsonl --output made/part --shard "$shard"; done
refused 1 "--shard I/3" batch many.jsonl --output made/part --shards 3

# Files that are no jobs.
for line in '[1]' 'words' '{"prompt": ' '{"id": 3.5e400}' '{"id": "../x", "prompt": "a"}' '{"output": "a/b.png"}' '{"checkpoint": "x"}' '{"id": ""}'; do
  printf '{"prompt": "a"}\n%s\n' "$line" >bad.jsonl
  refused 1 "line 2 of bad.jsonl" batch bad.jsonl --output made/part
done
printf '{"id": "a"}\n{"id": "a"}\n' >bad.jsonl
refused 1 "same id" batch bad.jsonl --output made/part
refused 1 "none.jsonl cannot be read" batch none.jsonl --output made/part
: >empty.jsonl
works batch empty.jsonl --output part
cd ..
rm -rf jobs

# An installed tool works where its folder is moved, with its own resources.
if [ "$ldm" = "$root/Examples/.build/release/ldm" ]; then
  mkdir -p installed
  "$root/Scripts/install-ldm" "$PWD/installed/first" >out 2>err || fail "install-ldm: $(tail -n 1 err)"
  mv installed/first "installed/second place"
  (cd / && "$OLDPWD/installed/second place/bin/ldm" txt2img --prompt "a red apple" --seed 5 --steps 2 --output "$OLDPWD/x.png") >out 2>err ||
    fail "moved: $(tail -n 1 err)"
  is_png x.png 64 64
  rm "installed/second place/libexec/ldm/LatentDiffusion_EmojiModel.resources/emoji/model_index.json"
  if "installed/second place/bin/ldm" txt2img --prompt a --output y.png >out 2>err; then fail "a moved ldm takes resources from elsewhere"; else pass; fi
  for page in ldm ldm-txt2img ldm-batch ldm-train-lora; do holds "there is a page $page" [ -s "installed/second place/share/man/man1/$page.1" ]; done
  holds "bash reads the completions" bash -n "installed/second place/share/bash-completion/completions/ldm"
  rm -rf installed x.png
fi
