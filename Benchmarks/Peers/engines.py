"""Each engine as a process of its own that does the work of a row and answers with seconds and peak memory."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from passes import CACHE

HERE = Path(__file__).resolve().parent
TITLES = {"ours": "ours", "pytorch": "PyTorch", "openvino": "OpenVINO", "openvino-int8": "OpenVINO in 8 bits",
          "pictures": "ours over as many pictures", "ours-float16": "ours with float16 weights",
          "sdcpp": "stable-diffusion.cpp"}


class Failed(Exception):
    """One sentence that says why there is no figure."""


class Engines:
    def __init__(self, given):
        self.given = given
        # Of PyTorch's memory layouts, the faster one for a row, and of stable-diffusion.cpp's programs, the faster one: found in the first
        # round, used in the others.
        self.layouts = {}
        self.programs = [Path(name) for name in os.environ.get("PEERS_SDCPP", "").split(":") if name]
        # Three rows come out of one picture: what a round's run said, by its number.
        self.pictures = {}

    def run(self, engine, row, number=0):
        """One process. `number` is that of the round."""
        run = {"ours": self.ours, "pytorch": self.pytorch, "openvino": self.openvino, "openvino-int8": self.openvino_int8,
               "pictures": self.pictures_alone, "ours-float16": self.as_in_the_file}
        return self.sdcpp(row, number) if engine == "sdcpp" else run[engine](row)

    def model(self, row):
        """The folder of the row's model: the one that was named, or a random one."""
        return row.model or (self.given.model if row.shape == "sd15" else made(row.shape))

    def ours(self, row):
        model = [] if row.model else ["--model", self.model(row)]
        options = [option.format(model=self.model(row)) for option in row.options]
        return answer([self.given.tool, "bench", *model, *self.work(row._replace(frames=None)), *options], row.environment)

    def as_in_the_file(self, row):
        """The same pass with the model's own weights, which are computed with in float32."""
        return self.ours(row._replace(options=()))

    def pictures_alone(self, row):
        """The network without its layers between frames, over as many pictures as there are frames."""
        return self.ours(row._replace(batch=row.batch * row.frames, options=()))

    def pytorch(self, row):
        work = [*self.work(row), "--layout", self.layouts.get(row.title, "better")]
        told = self.script("pytorch_pass.py", row, work)
        self.layouts[row.title] = told["layout"]
        return {**told, "how": told["layout"].replace("_", "-")}

    def openvino(self, row, *more):
        return self.script("openvino_pass.py", row, [*self.work(row), *more])

    def openvino_int8(self, row):
        return self.openvino(row, "--weights", "int8")

    def sdcpp(self, row, number):
        if not self.programs:
            raise Failed("skipped: PEERS_SDCPP names no built program of stable-diffusion.cpp")
        if number not in self.pictures:
            size = ["--width", self.side(row), "--height", self.side(row), "--steps", 4, "--threads", self.given.threads]
            told = [(self.script("sdcpp_pass.py", row, ["--pass", "picture", *size, "--program", program]), program)
                    for program in self.programs]
            best, program = min(told, key=lambda pair: pair[0]["seconds"]["picture"])
            self.programs = [program]
            self.pictures[number] = best
        told = self.pictures[number]
        return {**told, "seconds": told["seconds"][row.part]}

    def script(self, name, row, work):
        return answer([sys.executable, "-B", HERE / name, self.model(row), *work], row.peers_environment)

    def work(self, row):
        side = self.side(row)
        more = (["--steps", row.steps] if row.steps else []) + (["--frames", row.frames] if row.frames else [])
        return ["--pass", row.part, "--batch", row.batch, "--width", side, "--height", side, "--repeats", row.repeats,
                "--threads", self.given.threads, "--json", *more]

    def side(self, row):
        return row.side if row.model else self.given.side or row.side


def made(shape):
    """The folder of a random model of a shape, made where it is not there yet."""
    folder = CACHE / f"{shape}-random-float16"
    if not folder.exists():
        print(f"Making a random model of the shape {shape} in {folder} …", file=sys.stderr, flush=True)
        shutil.rmtree(folder.with_name(f"{folder.name}.unfinished"), ignore_errors=True)
        done = subprocess.run([sys.executable, "-B", str(HERE / "make_model.py"), str(folder), "--shape", shape],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise Failed(f"the model could not be made: {why(done.returncode, done.stderr)}")
    return folder


def answer(command, environment=None):
    """The JSON line that a command ends with."""
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})
    name = Path(command[2] if command[0] == sys.executable else command[0]).name
    if done.returncode != 0:
        raise Failed(f"{name} failed: {why(done.returncode, done.stderr)}")
    try:
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"{name} did not end with a line of JSON") from None
    if not isinstance(told, dict) or not {"seconds", "peak_bytes"} <= told.keys():
        raise Failed(f"{name} did not tell seconds and peak_bytes")
    return told


def why(status, messages):
    """What the messages of a process that failed say of it: its first error, or the last line."""
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line.lower()]
    return (errors[:1] or lines[-1:] or [f"it ended with {status} and said nothing"])[0][:300].replace("|", "/")


def summary(answers):
    """All rounds of one engine."""
    seconds = [float(figure) for told in answers for figure in told["seconds"]]
    return {"seconds": seconds, "median": statistics.median(seconds), "peak_bytes": max(told["peak_bytes"] for told in answers),
            "rounds": len(answers), "engine": answers[-1].get("engine"), "how": answers[-1].get("how")}
