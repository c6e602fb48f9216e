"""What a whole `ldm txt2img`, or another command, takes of memory and time, and how long it is until a model is loaded."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engines import Failed, why
from passes import PROMPT


def add_arguments(parser):
    parser.add_argument("--memory-rounds", type=int, default=1, help="pictures of a memory row, whose peak hardly varies")
    parser.add_argument("--memory-steps", type=int, default=8, help="steps of the pictures of the memory rows")


def measured(row, given):
    """Peaks, and seconds from start to end of the process; where there is a limit to these, in turn with runs without the options."""
    side = given.side or row.side
    runs, plain = [], []
    for _ in range(given.memory_rounds):
        runs.append(picture(row, given, side, row.options))
        if row.slowdown:
            plain.append(picture(row, given, side, ()))
    told = {"side": side, "steps": steps(row, given), "peak_bytes": max(peak for _, peak in runs), "seconds": [s for s, _ in runs]}
    if row.slowdown:
        told["slowdown"] = statistics.median(told["seconds"]) / statistics.median(s for s, _ in plain)
    print(f"{row.title}: {told['peak_bytes'] / 1e9:.2f} GB, {told['seconds'][0]:.1f} s", file=sys.stderr, flush=True)
    return told


def steps(row, given):
    return row.steps or given.memory_steps


def picture(row, given, side, options):
    options = [option.format(model=given.model) for option in options]
    with tempfile.TemporaryDirectory() as folder:
        command = [given.tool, row.command, "--model", given.model, "--prompt", PROMPT, "--seed", 0, "--steps", steps(row, given),
                   "--scheduler", "dpmpp-2m", "--guidance", 7.5, "--width", side, "--height", side, "--threads", given.threads,
                   "--output", Path(folder) / "picture.png", *options]
        with open(Path(folder) / "messages", "w+") as messages:
            start = time.perf_counter()
            process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=messages)
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            messages.seek(0)
            said = messages.read()
    if process.returncode != 0:
        raise Failed(f"ldm {row.command} {' '.join(options)} failed: {why(process.returncode, said)}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def start(given):
    """Seconds from the start of a process until its model is loaded; a first process has brought the files into memory."""
    seconds = []
    command = [given.tool, "bench", "--model", given.model, "--pass", "picture", "--steps", 1, "--width", 64, "--height", 64,
               "--repeats", 1, "--threads", given.threads]
    for _ in range(given.rounds + 1):
        begin = time.perf_counter()
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        first = process.stdout.readline()
        seconds.append(time.perf_counter() - begin)
        _, said = process.communicate()
        if process.returncode != 0:
            raise Failed(f"ldm bench failed: {why(process.returncode, said)}")
        if not first.startswith("loaded"):
            raise Failed("ldm bench does not say when it has loaded the model")
    print(f"start: {statistics.median(seconds[1:]):.2f} s", file=sys.stderr, flush=True)
    return {"seconds": seconds[1:]}
