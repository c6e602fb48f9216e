# The example of editing by inversion: the same words give the picture back, and others another one.
# Before a model is loaded.
refused 1 "leads from a picture to its noise" txt2img --prompt a --model missing --scheduler ddim-inverse --output made/x.png
editor=$(dirname "$ldm")/EditByInversion
holds "there is no $editor; build all of Examples" test -x "$editor"
"$editor" inversion >out 2>err
holds "EditByInversion: $(tail -n 1 err)" test "$(wc -l <out)" = 3
for name in drawn again edited; do is_png "inversion/$name.png" 64 64; done
apart() { sed -nE "s/^$1\.png differs .* by ([0-9]+) .*/\1/p" out; }
holds "the same words give back a picture that is $(apart again) away" test "$(apart drawn)" = 0 -a "$(apart again)" -le 8
holds "other words change no more: $(apart edited)" test "$(apart edited)" -gt "$(apart again)"
