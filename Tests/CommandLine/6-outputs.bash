# Places that cannot be written to: told before the work where that is possible, and nothing is left.
draw=(txt2img --prompt "a red apple" --steps 2)
works "${draw[@]}" --output a.png
refused 1 "no folder" "${draw[@]}" --output missing/x.png
refused 1 "a\.png" "${draw[@]}" --output a.png/x.png
refused 1 "format" "${draw[@]}" --output made
refused 1 "format|\.png" "${draw[@]}" --output made/x.gif
refused 1 "format|\.png" "${draw[@]}" --output made/x
refused 1 "output|file|folder|format" "${draw[@]}" --output ""
refused 1 "/proc" "${draw[@]}" --output /proc/x.png
refused 1 "no folder" "${draw[@]}" --output made/x.png --save-latents missing/x.safetensors
refused 1 "no folder" "${draw[@]}" --output made/x.png --save-image-tensor missing/x.safetensors
refused 1 "no folder" encode --image a.png --save-latents missing/x.safetensors
refused 1 "." "${draw[@]}" --output "made/$(printf 'x%.0s' $(seq 300)).png"
mkdir folder.png
refused 1 "is a folder" "${draw[@]}" --output folder.png
if [ "$(id -u)" != 0 ]; then
  mkdir locked && chmod 555 locked
  refused 1 "permissions" "${draw[@]}" --output locked/x.png
fi

# A full disk.
if [ -w /dev/full ]; then
  ln -s /dev/full full.png
  refused 1 "space" "${draw[@]}" --output full.png
  refused 1 "space" encode --image a.png --save-latents /dev/full
  "$ldm" schedule --scheduler ddim --steps 3 >/dev/full 2>err
  told $? 1 "standard output" "schedule to a full disk"
  "$ldm" tokenize text >/dev/full 2>err
  told $? 1 "standard output" "tokenize to a full disk"
fi
mkdir small
if mount -t tmpfs -o size=4k tmpfs small 2>/dev/null; then
  refused 1 "space" "${draw[@]}" --output small/x.png
  holds "a full disk was left something" test -z "$(ls -A small)"
  echo old >small/x.png
  refused 1 "space" "${draw[@]}" --output small/x.png
  holds "the old file is gone" grep -q old small/x.png
  umount small
fi
# A limit on the size of files is met in the middle of one, as a full disk is.
(ulimit -f 2 && exec timeout 60 "$ldm" "${draw[@]}" --output made/x.png) >out 2>err
told $? 1 "x\.png" "a picture larger than allowed"

# A reader that has gone away.
{ sleep 0.2; "$ldm" schedule --scheduler ddim --steps 1000 2>err; echo $? >status; } | true
told "$(cat status)" 1 "standard output" "schedule into a closed pipe"
"$ldm" tokenize text >&- 2>err
told $? 1 "standard output" "tokenize without standard output"

# Another place and an environment with nothing in it: the embedded model is found all the same.
(mkdir elsewhere && cd elsewhere && ln -s "$ldm" tool && env -i ./tool txt2img --prompt heart --steps 1 --output h.png >/dev/null 2>&1)
holds "a link to the tool does not find the embedded model" test -s elsewhere/h.png
