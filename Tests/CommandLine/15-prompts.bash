# Prompts whose marks change the picture.
said=(txt2img --model "$models/sd1" --steps 4 --seed 1 --width 32 --height 32)
works "${said[@]}" -p "a cat" -o said-plain.png --save-image-tensor said-plain.safetensors
holds "a plain picture names a profile" test -z "$(grep -a "Profile\|RNG" said-plain.png)"
works "${said[@]}" -p "a cat" --profile webui --noise cpu -o said-cpu.png --save-image-tensor said-cpu.safetensors
same said-plain.safetensors said-cpu.safetensors
holds "the picture does not say its profile" grep -aq "Profile: webui, RNG: CPU" said-cpu.png
works "${said[@]}" -p "a cat" --profile webui -o said-gpu.png --save-image-tensor said-gpu.safetensors
differ said-plain.safetensors said-gpu.safetensors
works "${said[@]}" -p "a cat" --noise gpu -o said-noise.png --save-image-tensor said-noise.safetensors
same said-gpu.safetensors said-noise.safetensors
holds "the picture does not say its generator" grep -aq "RNG: NV" said-noise.png

# Weights: a literal parenthesis in a plain prompt means itself.
for text in "a (cat:1.5)" "a [cat]" "a cat BREAK a dog" "a cat AND a dog" "a cat :1.5" "a [cat:dog:0.5]" "a [cat|dog]"; do
  works "${said[@]}" -p "$text" --profile webui --noise cpu -o said-marked.png --save-image-tensor said-marked.safetensors
  differ said-plain.safetensors said-marked.safetensors
  works "${said[@]}" -p "$text" -o said-letters.png --save-image-tensor said-letters.safetensors
  differ said-marked.safetensors said-letters.safetensors
done
works "${said[@]}" -p "a (cat:1.5)" --profile comfy -o said-comfy.png --save-image-tensor said-comfy.safetensors
works "${said[@]}" -p "a (cat:1.5)" --profile webui --noise cpu -o said-webui.png --save-image-tensor said-webui.safetensors
differ said-comfy.safetensors said-webui.safetensors
works "${said[@]}" -p "a cat" --negative-prompt "(dog:1.3)" --profile webui --noise cpu -o said-away.png --save-image-tensor said-away.safetensors
works "${said[@]}" -p "a cat" --negative-prompt "(dog:1.3)" -o said-away-plain.png --save-image-tensor said-away-plain.safetensors
differ said-away.safetensors said-away-plain.safetensors

# compel: its weights, what is blended, what stands side by side, and LoRAs of the prompt.
for text in "a cat++" "a (cat)0.5" '("a cat", "a dog").blend(1, 0.5)' '("a cat", "a dog").and()'; do
  works "${said[@]}" -p "$text" --profile compel -o said-compel.png --save-image-tensor said-compel.safetensors
  differ said-plain.safetensors said-compel.safetensors
done
works "${said[@]}" -p "a cat" --profile compel -o said-compel.png --save-image-tensor said-compel.safetensors
same said-plain.safetensors said-compel.safetensors
works "${said[@]}" -p '("a cat", "a dog").and()' --negative-prompt "(rain)1.2" --profile compel --memory-limit 1GB -o said-compel.png
works "${said[@]}" --model "$models/sdxl" -p '("a cat", "a dog").and(1, 0.5)' --prompt-2 "cat-" --profile compel -o said-xl.png
refused 1 "swap" "${said[@]}" -p "a cat.swap(dog)" --profile compel -o made/x.png
refused 1 "lora-folder" "${said[@]}" -p "a cat withLora(style, 0.5)" --profile compel -o made/x.png
refused 1 "LoRA" "${said[@]}" -p "a cat" --negative-prompt "withLora(style)" --profile compel -o made/x.png
refused 1 "blend" "${said[@]}" -p '("a", "b").blend(1)' --profile compel -o made/x.png

# Long prompts: read in chunks, or cut and told.
long=$(printf 'a cat on the table, %.0s' $(seq 12))
for profile in webui comfy; do
  works "${said[@]}" -p "$long" --profile $profile -o said-long.png
  works "${said[@]}" -p "$long" --negative-prompt dog --profile $profile --memory-limit 1GB -o said-long.png
done
warns "left out: \"" "${said[@]}" -p "$long" -o said-long.png
warns "the negative prompt has" "${said[@]}" -p cat --negative-prompt "$long" -o said-long.png
warns "left out" "${said[@]}" -p "$(printf 'cat %.0s' $(seq 2300))" --profile webui -o said-long.png
# Told once, of a prompt that two models read.
warns "left out: \"" "${said[@]}" -p "$long" --refiner "$models/sd1" -o said-long.png
holds "it is told once" test "$(wc -l <err)" = 1
works img2img --model "$models/sd1" --steps 4 --seed 1 --image said-plain.png -p "a [cat:dog:1] AND the sea :0.4" --profile webui -o said-over.png
works "${said[@]}" --model "$models/sdxl" -p "$long" --prompt-2 "(a cat:1.2)" --profile webui -o said-xl.png
works "${said[@]}" --model "$models/sdxl" -p "a [cat:dog:0.5] AND snow" --profile webui -o said-xl.png
works morph --model "$models/sd1" --steps 2 -p "(a cat:1.2)" -p "$long" --seed 1 --frames 3 --width 32 --height 32 --profile webui -o said-walk.webp
refused 1 "change from step to step" morph --model "$models/sd1" --steps 2 -p "a [cat|dog]" -p b --seed 1 --frames 3 --profile webui -o made/x.webp
refused 1 "added up" "${said[@]}" --model "$models/lcm" -p "a AND b" --profile webui -o made/x.png
refused 1 "prompts with marks" "${said[@]}" --model "$models/ldm-text" -p "a" --profile webui -o made/x.png
refused 1 "changes from step to step" "${said[@]}" -p "$(printf '[a|b]%.0s' $(seq 15000))" --steps 900 --profile webui -o made/x.png

# Pictures of the webui have seeds that follow one another.
works "${said[@]}" -p "a cat" --profile webui --count 2 -o said-two.png
holds "the second picture has no seed of its own" grep -aq "Seed: 2, " said-two-2.png

# Clip skip as each program counts it.
works "${said[@]}" -p "a cat" --guidance 1 --clip-skip 1 -o said-skip.png --save-image-tensor said-skip.safetensors
works "${said[@]}" -p "a cat" --guidance 1 --clip-skip 2 --profile webui --noise cpu -o said-skip-2.png --save-image-tensor said-skip-2.safetensors
works "${said[@]}" -p "a cat" --guidance 1 --clip-skip -2 --profile comfy -o said-skip-3.png --save-image-tensor said-skip-3.safetensors
same said-skip.safetensors said-skip-2.safetensors
same said-skip.safetensors said-skip-3.safetensors
for file in said-skip.png said-skip-2.png said-skip-3.png; do holds "$file does not tell its clip skip" grep -aq "Clip skip: 2" $file; done
refused 64 "clip-skip" "${said[@]}" -p "a cat" --clip-skip 1 --profile comfy -o made/x.png
warns "no effect" "${said[@]}" --model "$models/sdxl" -p "a cat" --clip-skip 2 --profile webui -o said-xl.png
refused 64 "webui" "${said[@]}" -p "a cat" --profile other -o made/x.png
refused 64 "cpu" "${said[@]}" -p "a cat" --noise tpu -o made/x.png

# Words, tokens, chunks and weights.
works tokenize --model "$models/sd1" --words --profile webui "a (photo:1.5) BREAK the cat"
says "^6 tokens in 2 chunks"
says "^    1     1.5  photo: "
says "^    2       1  the: "
works tokenize --model "$models/sd1" --words --json --profile webui "a (photo:1.5)"
is_json out
works tokenize --model "$models/sd1" --profile webui "cat BREAK dog"
says '^\[\[912,'
works tokenize --model "$models/sd1" --words --profile compel 'a (photo)1.5 of a cat-'
says "^    1     1.5  photo: "
says "^    1     0.9  cat: "
works tokenize --model "$models/sd1" --profile compel '("cat", "dog").and()'
says '^\[\[912,'
refused 1 "swap" tokenize --model "$models/sd1" --profile compel 'cat.swap(dog)'
warns "left out" tokenize --model "$models/sd1" --words "$long"
says "^    –"
refused 64 "goes with --words" tokenize --json cat
# What changes from step to step, by its steps; and parts that are added up.
works tokenize --model "$models/sd1" --words --profile webui --steps 20 "a [cat:dog:0.5]"
says "^steps 1–10 of 20: a cat$"
says "^steps 11–20 of 20: a dog$"
holds "the marks are no words" test -z "$(grep -F '[' out)"
works tokenize --model "$models/sd1" --words --json --profile webui --steps 20 "a [cat:dog:5] AND the sea:0.4"
is_json out
says '"steps":\[1,5\],"text":"a cat","weight":1'
says '"steps":\[1,20\],"text":" the sea","weight":0.4'
works tokenize --model "$models/sd1" --profile webui --steps 4 "[cat|dog]"
says '"chunks":\[\[912,.*"steps":\[4,4\],"text":"dog"'
refused 64 "--steps must be" tokenize --steps 0 cat
