#!/usr/bin/env bash
# Builds the reference of all public symbols into .build/docs, with the toolchain's own docc.
# Fails where a public symbol has no comment, a comment has a broken link or names a parameter that is not there, or Scripts/check-links finds a link
# that leads nowhere.
set -euo pipefail
cd "$(dirname "$0")/.."
modules=(Tensor LatentDiffusionFiles LatentDiffusionComponents LatentDiffusionWeights LatentDiffusionLayers Autoencoder UNet TextEncoder LatentDiffusionImageEncoder Schedulers Pipeline LatentDiffusion EmojiModel ImageFiles LatentDiffusionVideoFiles LatentDiffusionTrainingData LatentDiffusionTraining
  LatentDiffusionMPI)
output=.build/docs
graphs=.build/docs-graphs
log=.build/docs.log
mkdir -p .build

docc=$(xcrun --find docc 2>/dev/null || true)
[ -n "$docc" ] || docc=$(dirname "$(readlink -f "$(command -v swift)")")/docc
[ -x "$docc" ] || docc=$(command -v docc || true)
[ -n "$docc" ] || { echo "This toolchain has no docc; install one from https://www.swift.org/install." >&2; exit 1; }

echo "Reading the public symbols …"
touch "$log.begin"
# It also tries the tests' modules, which this does not build, and calls that an error: what counts is that ours are there.
swift package dump-symbol-graph --minimum-access-level public --skip-synthesized-members --pretty-print >"$log" 2>&1 || true
dumped=$(sed -n 's/^Files written to //p' "$log" | tail -n 1)
rm -rf "$graphs" "$output"
mkdir -p "$graphs"
for module in "${modules[@]}"; do
  graph=${dumped:-.}/$module.symbols.json
  if [ ! "$graph" -nt "$log.begin" ]; then
    cat "$log" >&2
    exit 1
  fi
  cp "$graph" "$graphs/"
  # What a module adds to the types of another.
  for extension in "$dumped/$module"@*.symbols.json; do [ ! -e "$extension" ] || cp "$extension" "$graphs/"; done
done

# A symbol is an object with its path, its comment where it has one, and its access level after it.
undocumented=$(awk '
  /"pathComponents": \[/ { path = ""; in_path = 1; commented = 0; next }
  in_path && /\]/ { in_path = 0 }
  in_path { gsub(/^ *"|",?$/, ""); path = path (path == "" ? "" : ".") $0 }
  /"docComment": \{/ { commented = 1 }
  /"accessLevel": "(public|open)"/ { if (!commented) { file = FILENAME; sub(/.*\//, "", file); sub(/\.symbols\.json/, "", file); print file ": " path } }
' "$graphs"/*.json | sort -u)
if [ -n "$undocumented" ]; then
  printf 'These public symbols have no comment:\n%s\n' "$undocumented" >&2
  exit 1
fi

echo "Building the pages …"
failed=0
# The articles show some of the pictures that the pages of Docs show, and the tutorials steps of the examples.
catalog=.build/docs-catalog/LatentDiffusion.docc
rm -rf "$catalog"
mkdir -p "${catalog%/*}"
cp -r Docs/LatentDiffusion.docc "$catalog"
cp Docs/Images/{latent-*,tutorial-*,schedulers.*,sigma-spacings.*} "$catalog/"
Scripts/write-tutorial-steps "$catalog/Tutorials"
"$docc" convert "$catalog" --fallback-display-name LatentDiffusion --fallback-bundle-identifier LatentDiffusion \
  --fallback-default-module-kind Module --additional-symbol-graph-dir "$graphs" --output-path "$output" --ide-console-output \
  >"$log" 2>&1 || failed=1
# A parameter whose name and the sentence above say enough needs no entry of its own.
if grep -E '(warning|error): ' "$log" | grep -vE "Parameter '[^']*' is missing documentation|External name '[^']*' used to document" >&2; then
  failed=1
fi
[ "$failed" = 0 ] || { echo "The documentation has mistakes; all messages are in $log." >&2; exit 1; }
# docc makes no page for the root.
cat >"$output/index.html" <<'END'
<!DOCTYPE html>
<meta charset="utf-8">
<meta http-equiv="refresh" content="0; url=documentation/latentdiffusion/">
<title>LatentDiffusion</title>
<a href="documentation/latentdiffusion/">LatentDiffusion</a>
END
Scripts/check-links "$output" "$graphs"
echo "The pages are in $output. To read them: python3 -m http.server --directory $output"
echo "and then http://localhost:8000"
