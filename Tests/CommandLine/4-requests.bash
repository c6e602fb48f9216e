# Command lines that make no sense: status 64.
draw=(txt2img --prompt "a red apple" --steps 2)
works "${draw[@]}" --output a.png --save-latents a.safetensors --save-image-tensor ai.safetensors

refused 64 "prompt" txt2img --output made/x.png
refused 64 "output" "${draw[@]}"
refused 64 "steps" txt2img --prompt a --steps 0 --output made/x.png
refused 64 "steps" txt2img --prompt a --steps -3 --output made/x.png
refused 64 "steps" txt2img --prompt a --steps 2.5 --output made/x.png
refused 64 "steps" txt2img --prompt a --steps 99999999999999999999 --output made/x.png
refused 64 "seed" "${draw[@]}" --seed -1 --output made/x.png
refused 64 "seed" "${draw[@]}" --seed 18446744073709551616 --output made/x.png
refused 64 "guidance" "${draw[@]}" --guidance nan --output made/x.png
refused 64 "guidance" "${draw[@]}" --guidance -1 --output made/x.png
refused 64 "guidance" "${draw[@]}" --guidance inf --output made/x.png
refused 64 "scheduler.*no scheduler named.*best.*dpmpp-2m" "${draw[@]}" --scheduler best --output made/x.png
for scheduler in ddpm ddim pndm lcm; do
  refused 64 "The scheduler $scheduler does not have the spacing karras; those that have it are lms, euler, euler-a, heun, dpmpp-2m, unipc" \
    "${draw[@]}" --scheduler $scheduler --spacing karras --output made/x.png
done
refused 64 "euler does not have the spacing lu; those that have it are dpmpp-2m" "${draw[@]}" --scheduler euler --spacing lu --output made/x.png
refused 64 "ddim has no use for sigmas" schedule --scheduler ddim --sigmas 9,3,1
refused 64 "sigmas is a list that does not fall" schedule --scheduler euler --sigmas 3,9,1
refused 64 "eta is 1.5; it must be a number from 0.0 to 1.0" schedule --scheduler euler-a --eta 1.5 --steps 3
refused 64 "dpm2 has no use for eta" "${draw[@]}" --model missing --scheduler dpm2 --eta 0.5 --output made/x.png
refused 64 "s_tmin changes nothing without s_churn" "${draw[@]}" --scheduler euler --s-tmin 1 --output made/x.png
# What only the model's own scheduler can say.
refused 1 "ddim has no use for s_churn" "${draw[@]}" --s-churn 5 --output made/x.png
for name in "DPM++ 2M SDE Heun Exponential" dpmpp_2m_sde dpmpp-2m-sde-karras euler_ancestral EulerAncestralDiscreteScheduler uni_pc_bh2 Restart heunpp2; do
  works schedule --scheduler "$name" --steps 4
done
refused 64 "DPM adaptive. is not among the schedulers" schedule --scheduler "DPM adaptive" --steps 4
works "${draw[@]}" --scheduler "DPM++ 2M SDE Karras" --steps 3 --output sde.png
holds "the picture does not say its scheduler" grep -aq "Sampler: dpmpp-2m-sde-karras" sde.png
works schedule --scheduler euler --spacing gits --steps 4
says '"sigmas":\[14\.6146[0-9]*,2\.3632[0-9]*,0\.9219[0-9]*,0\.3661[0-9]*,0\]'
works schedule --scheduler "DPM++ 2M SGM Uniform" --steps 4
works schedule --scheduler euler --timesteps 999,600,300
says '"timesteps":\[999,600,300\]'
works schedulers
says "dpmpp-2m .DPM.. 2M.: the usual choice"
# The article has this list as tables.
page=made/page.md
tr -d '`' <"$root/Docs/LatentDiffusion.docc/ChoosingAScheduler.md" >"$page"
while read -r row; do
  holds "ChoosingAScheduler.md lacks the row $row" grep -qFx -- "$row" "$page"
done < <(sed -nE 's/^([a-z0-9-]+) \((.+)\): (.*)$/| \1 | \2 | \3 |/p' out | sed -E 's/; (any |no )?--spacing.* \|$/ |/')
# Two heads and two rules beside them.
holds "ChoosingAScheduler.md has rows of other schedulers" \
  test "$(grep -c '^| [a-z0-9-]* | .* | .* |$' "$page")" = "$(($(grep -c '^[a-z0-9-]* (' out) + 4))"
rm "$page"
refused 64 "lcm does not have the spacing trailing" schedule --scheduler lcm --timesteps trailing --steps 4
refused 64 "trailing changes nothing.* unipc" "${draw[@]}" --scheduler unipc --spacing beta --timesteps trailing --output made/x.png
refused 64 "dpmpp-2m-karras has the spacing karras" "${draw[@]}" --scheduler dpmpp-2m-karras --spacing beta --output made/x.png
refused 64 "spacing.*karras" "${draw[@]}" --scheduler euler --spacing narrow --output made/x.png
refused 64 "timesteps.*trailing" "${draw[@]}" --timesteps all --output made/x.png
refused 64 "threads" "${draw[@]}" --threads 0 --output made/x.png
refused 64 "threads" "${draw[@]}" --threads -1 --output made/x.png
refused 64 "threads" "${draw[@]}" --threads 1000000000 --output made/x.png
refused 64 "count" "${draw[@]}" --count 0 --output made/x.png
for limit in 0MB -1GB 12 GB 1.2.3GB nanGB infMB 1e30GB 99999999999999999999GB 1600KB ""; do
  refused 64 "memory-limit" "${draw[@]}" --memory-limit "$limit" --output made/x.png
done
refused 64 "memory-limit" bench --pass predictor --memory-limit 0GiB
refused 64 "memory-limit" inspect "$emoji" --memory-limit many
refused 64 "memory-limit" inspect "$emoji" --width 64
refused 64 "width" inspect "$emoji" --memory-limit 1GB --width 0
refused 64 "go with --memory-limit" inspect "$emoji" --controlnet a
refused 64 "go with --memory-limit" inspect "$emoji" --ip-adapter a
refused 64 "image-encoder is for an IP-Adapter" inspect "$emoji" --memory-limit 1GB --image-encoder a
for tile in 0 -8 64.5 some ""; do refused 64 "tile" "${draw[@]}" --tile "$tile" --output made/x.png; done
refused 64 "count" "${draw[@]}" --count 1000000000000 --output made/x.png
refused 64 "step-cache" "${draw[@]}" --step-cache 0 --output made/x.png
refused 64 "step-cache" "${draw[@]}" --step-cache -2 --output made/x.png
refused 64 "step-cache" "${draw[@]}" --step-cache 1.5 --output made/x.png
refused 64 "step-cache" "${draw[@]}" --step-cache 99999999999999999999 --output made/x.png
refused 64 "merge-tokens" "${draw[@]}" --merge-tokens -0.1 --output made/x.png
refused 64 "merge-tokens" "${draw[@]}" --merge-tokens 0.8 --output made/x.png
refused 64 "merge-tokens" "${draw[@]}" --merge-tokens nan --output made/x.png
refused 64 "merge-tokens" "${draw[@]}" --merge-tokens half --output made/x.png
refused 64 "ip-adapter-image" "${draw[@]}" --ip-adapter a.safetensors --output made/x.png
refused 64 "ip-adapter" "${draw[@]}" --ip-adapter-image a.png --output made/x.png
refused 64 "ip-adapter" "${draw[@]}" --image-encoder a --output made/x.png
refused 64 "ip-adapter" "${draw[@]}" --ip-adapter a=nan --ip-adapter-image a.png --output made/x.png
refused 64 "3 pictures do not fit 2 IP-Adapters" "${draw[@]}" --ip-adapter a --ip-adapter b --ip-adapter-image a.png --ip-adapter-image a.png \
  --ip-adapter-image a.png --output made/x.png
refused 64 "image" variation --output made/x.png
refused 64 "noise-level" variation --image a.png --noise-level some --output made/x.png
refused 64 "pass picture" bench --pass predictor --step-cache 2
refused 64 "width" "${draw[@]}" --width 0 --output made/x.png
refused 64 "height" "${draw[@]}" --height -64 --output made/x.png
refused 64 "strength" img2img --prompt a --image a.png --strength 1.5 --output made/x.png
refused 64 "strength" img2img --prompt a --image a.png --strength nan --output made/x.png
refused 64 "image" img2img --prompt a --output made/x.png
refused 64 "mask" inpaint --prompt a --image a.png --output made/x.png
refused 64 "--left" outpaint --prompt a --image a.png --output made/x.png
refused 64 "--left" outpaint --prompt a --image a.png --left -5 --output made/x.png
refused 64 "bottom" outpaint --prompt a --image a.png --bottom 9223372036854775807 --output made/x.png
refused 64 "image-guidance" edit --prompt a --image a.png --image-guidance nan --output made/x.png
refused 64 "scheduler" schedule --steps 3
refused 64 "steps" schedule --scheduler ddim --steps 0
refused 64 "steps" schedule --scheduler ddim
refused 64 "text" tokenize
refused 64 "path" inspect
refused 64 "latents" decode --output made/x.png
refused 64 "pass" bench --pass everything
refused 64 "controlnet" bench --pass controlnet
refused 64 "controlnet" bench --pass predictor --controlnet "$root/Tests/Fixtures/controls/sd1"
refused 64 "memory-limit" bench --pass controlnet --controlnet "$root/Tests/Fixtures/controls/sd1" --memory-limit 1GB
refused 64 "memory-limit" bench --pass train-unet --memory-limit 1GB
refused 64 "recompute" bench --pass predictor --recompute
refused 64 "repeats" bench --pass predictor --repeats 0
refused 64 "xyz" xyz
refused 64 "bogus" "${draw[@]}" --bogus --output made/x.png

# Requests that make sense but cannot be carried out: status 1.
refused 1 "smallest limit that would do is [0-9]+ MB" "${draw[@]}" --memory-limit 20MB --output made/x.png
refused 1 "smallest limit" bench --pass predictor --repeats 1 --memory-limit 1.5MiB
refused 1 "smallest limit" "${draw[@]}" --memory-limit 100MB --width 1024 --height 1024 --count 8 --output made/x.png
refused 1 "multiples of 4" inspect "$emoji" --memory-limit 1GB --width 63
refused 1 "too many pixels" inspect "$emoji" --memory-limit 1GB --width 1048576 --height 1048576
refused 1 "multiple of 4" "${draw[@]}" --tile 30 --output made/x.png
refused 1 "multiples of 4" "${draw[@]}" --width 63 --output made/x.png
refused 1 "multiples of 4" txt2img --model "$models/sd1" --prompt a --height 30 --output made/x.png
refused 1 "too many pixels" "${draw[@]}" --width 1048576 --height 1048576 --output made/x.png
refused 1 "width" "${draw[@]}" --width 9223372036854775804 --height 9223372036854775804 --output made/x.png
refused 1 "too many pixels" "${draw[@]}" --width 4096 --height 4096 --count 1000 --output made/x.png
refused 1 "8 channels|needs 8" edit --prompt a --image a.png --output made/x.png
refused 1 "9 channels" txt2img --model "$models/inpaint9" --prompt a --output made/x.png
refused 1 "leaves none" img2img --prompt a --image a.png --strength 0.01 --steps 3 --output made/x.png
refused 1 "leaves none" img2img --prompt a --image a.png --strength 0 --steps 3 --output made/x.png
refused 1 "multiples of 4" encode --image "$inputs/picture-37x50.png" --save-latents made/x.safetensors
refused 1 "too many pixels" outpaint --prompt a --image a.png --right 16000 --bottom 16000 --output made/x.png
refused 1 "multiples" bench --pass predictor --width 30 --height 30
refused 1 "multiples" bench --pass train-unet --width 30 --height 30
refused 1 "made for" bench --pass controlnet --controlnet "$root/Tests/Fixtures/controls/sdxl"
refused 1 "missing" bench --pass predictor --model missing
refused 1 "steps" schedule --scheduler pndm --steps 1
refused 1 "steps" schedule --scheduler dpmpp-2m --steps 5000
# The embedded model's own scheduler is DDIM.
refused 1 "ddim does not have the spacing karras" "${draw[@]}" --spacing karras --output made/x.png
refused 1 "karras" schedule --config "$models/sd1/scheduler/scheduler_config.json" --spacing karras --steps 4

# Prompts through standard input, because an argument is limited to 128 KB.
from_input() { timeout 60 "$ldm" txt2img --prompt - --steps 2 --output "$1" >out 2>err; }
yes "a red apple on a green table" | head -c 10485760 | from_input made/x.png
told $? 1 "prompt.*too long" "a prompt of 10 MB"
from_input made/x.png </dev/zero
told $? 1 "prompt.*too long" "a prompt without end"
from_input e.png </dev/null
holds "an empty prompt on standard input" test $? = 0
printf 'caf\xe9' | from_input made/x.png
told $? 1 "UTF-8" "Latin-1 on standard input"
yes "a red apple" | head -c 1000000 | from_input e.png
holds "a prompt of 1 MB" test $? = 0
echo "a red apple" | "$ldm" txt2img --prompt - --steps 2 --seed 1 --output e.png >out 2>err
works "${draw[@]}" --seed 1 --output f.png
same e.png f.png
