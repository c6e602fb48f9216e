#!/bin/sh
# Measures this library and other engines side by side, and writes the tables of Docs/Performance.md. Arguments go to compare.py
# (--rows, --rounds, --threads …).
#
#   PEERS_CACHE   where the virtual environment, models and figures are kept (45 GB); ~/.cache/latent-diffusion-peers if not set
#   PEERS_PYTHON  a Python that has what requirements.txt lists, instead of an environment made for it
#   PEERS_MODEL   a model's folder, instead of the random one of Stable Diffusion 1.5's size
#   PEERS_TOOL    a built ldm, instead of building it
#   PEERS_RESULTS where the figures are kept, and PEERS_PAGE whose tables are written: for each kind of machine its own; results.json
#                 beside this file and Docs/Performance.md if not set
#   PEERS_SDCPP   a built program of stable-diffusion.cpp, or several separated by colons; without it, its rows are skipped
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${PEERS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/latent-diffusion-peers}
mkdir -p "$cache"
export PEERS_CACHE="$cache" PYTHONDONTWRITEBYTECODE=1

python=${PEERS_PYTHON:-}
if [ -z "$python" ]; then
  # Named by what is in it: another list of versions gets another environment.
  environment=$cache/venv-$(cksum < "$here/requirements.txt" | cut -d' ' -f1)
  python=$environment/bin/python
  if [ ! -e "$environment/complete" ]; then
    echo "Making a virtual environment in $environment …" >&2
    command -v python3 > /dev/null || { echo "Python 3.10 or later is needed to run the other engines: install python3 and python3-venv." >&2; exit 1; }
    rm -rf "$environment"
    python3 -m venv "$environment" || { echo "python3 cannot make virtual environments here: install python3-venv." >&2; exit 1; }
    "$python" -m pip install --quiet --requirement "$here/requirements.txt"
    touch "$environment/complete"
  fi
fi

tool=${PEERS_TOOL:-}
if [ -z "$tool" ]; then
  echo "Building ldm …" >&2
  swift build -c release --no-color-diagnostics --package-path "$root/Examples" --product ldm >&2
  tool=$(swift build -c release --package-path "$root/Examples" --show-bin-path)/ldm
fi

exec "$python" "$here/compare.py" --tool "$tool" ${PEERS_MODEL:+--model "$PEERS_MODEL"} --page "${PEERS_PAGE:-$root/Docs/Performance.md}" \
  --results "${PEERS_RESULTS:-$here/results.json}" "$@"
