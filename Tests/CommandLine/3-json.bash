# What programs read from standard output.
works tokenize "a red apple"
same out <(echo "[8190,320,736,3055,$(printf '8191,%.0s' $(seq 27))8191]")
works tokenize --model "$models/sd1" "a photo of the cat"
same out <(echo "[912,320,816,531,539,518,66,536$(printf ',913%.0s' $(seq 16))]")
works tokenize --model "$models/sd2" ""
holds "no ids: $(cat out)" grep -qE '^\[[0-9]+(,[0-9]+)*\]$' out
works tokenize -- "--help"
works tokenize "$(printf 'word %.0s' $(seq 20000))"
holds "the ids of a long text are no 32" test "$(tr ',' '\n' <out | wc -l)" = 32

number='-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?'
# Where there is no signal, σ is infinite, which JSON has no number for.
level="($number|\"inf\")"
table="^\{\"sigmas\":\[($level(,$level)*)?\],\"timesteps\":\[$number(,$number)*\]\}\$"
for scheduler in ddpm ddim pndm lms euler euler-a heun dpmpp-2m dpmpp-2m-karras unipc lcm dpm2 dpm2-a dpmpp-2s-a dpmpp-sde dpmpp-3m-sde res-multistep er-sde \
  restart heunpp2 dpmpp-singlestep deis sa-solver tcd edm-euler edm-dpmpp-2m ipndm ddim-inverse dpmpp-2m-inverse; do
  for steps in 1 2 7 50; do
    [ "$scheduler$steps" = pndm1 ] || [ "$scheduler$steps" = pndm2 ] && continue # its Runge-Kutta steps need more
    works schedule --scheduler $scheduler --steps $steps
    says "$table"
    is_json out
  done
  works schedule --scheduler $scheduler --steps 10 --config "$models/sd1/scheduler/scheduler_config.json"
  says "$table"
done
works schedule --scheduler euler --steps 3
says '^\{"sigmas":\[157\.407[0-9]*,3\.4335[0-9]*,0\.0100[0-9]*,0\],"timesteps":\[999,499\.5,0\]\}$'
works schedule --steps 4 --config "$models/edit8/scheduler/scheduler_config.json"
works schedule --scheduler ddim --steps 4 --config "$models/sd1/scheduler/scheduler_config.json"
says '"timesteps":\[751,501,251,1\]'

works inspect "$emoji"
is_json out
for words in '"className" : "UNet2DConditionModel"' '"predictionType" : "v_prediction"' '"F16" :' '"missing" :' '"unused" :' '"family" :' '"parameters" :'; do
  says "$words"
done
for model in sd1 sd2 inpaint9 edit8 lcm odd; do
  works inspect "$models/$model"
  is_json out
  holds "inspect $model tells of a problem: $(grep problem out)" test -z "$(grep '"problem"' out)"
done

works --help
works txt2img --help

for pass in predictor vae-decode vae-encode text picture train-lora train-unet train-autoencoder; do
  works bench --model "$models/sd1" --pass $pass --batch 2 --repeats 3 --threads 1 --json
  says "^\{\"peak_bytes\":[0-9]+,\"seconds\":\[$number(,$number){2}\]\}\$"
done
works bench --model "$models/sd1" --pass controlnet --controlnet "$root/Tests/Fixtures/controls/sd1" --repeats 2 --json
says "^\{\"peak_bytes\":[0-9]+,\"seconds\":\[$number,$number\]\}\$"
works bench --model "$models/sd1" --pass train-unet --recompute --repeats 1 --json
says "^\{\"peak_bytes\":[0-9]+,\"seconds\":\[$number\]\}\$"
works bench --pass predictor --repeats 1 --width 32 --height 32
says '^median '

# How marks in prompts are read.
works prompt --json --profile webui 'an (important) word'
says '\[\["an ",1\],\["important",1\.1'
works prompt --json --profile comfy '(a:1.5) b'
says '\[\["a",1\.5\],\[" b",1\]\]'
works prompt --json '(a:1.5) b'
says '\[\["\(a:1\.5\) b",1\]\]'
works prompt --json --profile webui --schedule --steps 10 'a [b:c:0.5]'
says '\[\[5,"a b"\],\[10,"a c"\]\]'
works prompt --json --profile webui --composition 'a :1.5 AND b'
says '\[\["a",1\.5\],\[" b",1\]\]'
works prompt --json --profile compel 'a (cat)1.5 b'
says '\[\["a",1\],\["cat",1\.5\],\["b",1\]\]'
works prompt --json --profile compel --composition '("a", "b++").blend(1, 3)'
says '\[\[\[\[\[\["a",1\]\],0\.25\],\[\[\["b",1\.21[0-9]*\]\],0\.75\]\],1\]\]'
works prompt --profile compel --composition '("a (c)2", "b").and(1, 0.5)'
says '^  1.0 \(a\)1.0 \(c\)2.0$'
refused 1 "cross-attention control" prompt --profile compel 'cat.swap(dog)'
works prompt --profile webui '(cat:1.3)'
says "1.3 cat"
refused 64 "either --schedule or --composition" prompt --schedule --composition a
refused 64 "goes with --schedule" prompt --steps 3 a
refused 64 "diffusers" prompt --profile other a
