#!/usr/bin/env python3
"""Times stable-diffusion.cpp drawing one picture with guidance, and tells what of it were U-Net steps and decoding.

    PEERS_SDCPP=PROGRAM sdcpp_pass.py MODEL --pass picture --width W --height H --threads T --steps N [--program PROGRAM] [--cache FOLDER]

Prints one line: {"seconds": {"predictor": [one a step but the first], "vae-decode": [one], "picture": [one]}, "peak_bytes": …}. A step is two
passes of batch 1. Weights are loaded before; the picture is the program's own figure, from the prompt to the pixels. Words of options in
PEERS_SDCPP_OPTIONS are passed on.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import passes


def main():
    given = passes.arguments(__doc__.splitlines()[0], choices=["picture"],
                             program=dict(type=Path, help="the built program; what PEERS_SDCPP names if not given"))
    program = given.program or os.environ.get("PEERS_SDCPP")
    if not program:
        sys.exit("PEERS_SDCPP is not set: let it name a built program of stable-diffusion.cpp.")
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "-m", readable(given), "-p", passes.PROMPT, "-W", given.width, "-H", given.height, "-t", given.threads,
                   "--steps", given.steps or 20, "--cfg-scale", 7.5, "--sampling-method", "dpm++2m", "--seed", 0, "--eager-load", "-v",
                   "-o", f"{folder}/picture.png", *shlex.split(os.environ.get("PEERS_SDCPP_OPTIONS", ""))]
        with open(f"{folder}/log", "w+") as log:
            process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
            log.seek(0)
            text = log.read()
    if status != 0:
        sys.exit(f"{program} failed:\n{text[-1500:]}")
    print(json.dumps({"seconds": seconds(text), "peak_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
                      "threads": given.threads, "engine": f"stable-diffusion.cpp{' with OpenBLAS' if has_openblas(program) else ''}"}))


def seconds(log):
    # A line of progress is drawn over the last one, and says what that step took.
    steps = {int(index): float(figure) if unit == "s/it" else 1 / float(figure)
             for index, figure, unit in re.findall(r"\| (\d+)/\d+ - ([\d.]+)(s/it|it/s)", log.partition("sampling using")[2])}
    decode = re.search(r"decode_first_stage completed, taking ([\d.]+)s", log)
    picture = re.search(r"generate_image completed in ([\d.]+)s", log)
    if len(steps) < 2 or not decode or not picture:
        sys.exit(f"stable-diffusion.cpp's messages have no times in the form that is known here; it said:\n{log[-1500:]}")
    counted = [steps[index] for index in sorted(steps) if index > 1]
    return {"predictor": counted, "vae-decode": [float(decode[1])], "picture": [float(picture[1])]}


def readable(given):
    """The model's folder, with the text encoder's keys as transformers 4 wrote them, which are the ones that the program knows."""
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    source = given.model / "text_encoder/model.safetensors"
    with safe_open(source, "numpy") as file:
        if any(name.startswith("text_model.") for name in file.keys()):
            return given.model
    folder = given.cache / "stable-diffusion.cpp" / f"{given.model.name}-{source.stat().st_mtime_ns}"
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / "text_encoder").mkdir(parents=True)
        for name in ("unet", "vae"):
            (unfinished / name).symlink_to((given.model / name).resolve())
        renamed = {f"text_model.{name}": tensor for name, tensor in load_file(source).items()}
        save_file(renamed, unfinished / "text_encoder/model.safetensors")
        unfinished.rename(folder)
    return folder


def has_openblas(program):
    if not shutil.which("ldd"):
        return False
    return "openblas" in subprocess.run(["ldd", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


if __name__ == "__main__":
    main()
