#!/usr/bin/env python3
"""Times PyTorch (diffusers, transformers, PEFT) on one part of a model, in float32 on the CPU.

    pytorch_pass.py MODEL --pass PASS --batch N --width W --height H --repeats R --threads T --json

Prints one line: {"seconds": [one a repeat, the warm-up not counted], "peak_bytes": …, "layout": …}. Each memory layout is measured in a
process of its own, so that the peak is that layout's, and the fastest one is reported. What is loaded is what the pass needs. A pass that
trains has each layout twice: with gradient checkpointing, which needs less memory, and without.
"""

import json
import os
import statistics
import subprocess
import sys

import passes
import training

LAYOUTS = ["contiguous", "channels_last"]
CHECKPOINTED = {f"{layout}_checkpointed": layout for layout in LAYOUTS}


def main():
    given = passes.arguments(__doc__.splitlines()[0], [*passes.PASSES, *training.PASSES],
                             layout=dict(choices=[*LAYOUTS, *CHECKPOINTED, "better"], default="better"))
    # The text encoder has no pictures, so no layout to choose.
    layout = "contiguous" if given.part == "text" else given.layout
    if layout != "better":
        print(json.dumps(measured(given, layout)))
        return
    layouts = [*LAYOUTS, *(CHECKPOINTED if given.part in training.PASSES else [])]
    answers = [json.loads(in_own_process(layout).splitlines()[-1]) for layout in layouts]
    print(json.dumps(min(answers, key=lambda answer: statistics.median(answer["seconds"]))))


def in_own_process(layout):
    return subprocess.run([sys.executable, "-B", *sys.argv, "--layout", layout], stdout=subprocess.PIPE, text=True, check=True).stdout


def measured(given, layout):
    # Before the first import of PyTorch: its libraries read it then.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(given.threads)
    import torch

    torch.set_num_threads(given.threads)
    passes.quiet_libraries()
    memory = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[CHECKPOINTED.get(layout, layout)]
    if given.part in training.PASSES:
        seconds = passes.timed(training.step(given, memory, layout in CHECKPOINTED), given.repeats)
    else:
        with torch.no_grad():
            run, warm_up = picture(given, memory) if given.part == "picture" else part(given, memory)
            seconds = passes.timed(run, given.repeats, warm_up)
    return {"seconds": seconds, "peak_bytes": passes.peak_bytes(), "layout": layout, "threads": given.threads,
            "engine": f"PyTorch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"}


def part(given, memory):
    import torch

    module = passes.module(given)
    inputs = [torch.from_numpy(array) for array in passes.inputs(given).values()]
    if given.part != "text":
        module.to(memory_format=memory)
        inputs = [tensor.contiguous(memory_format=memory) if tensor.ndim == 4 else tensor for tensor in inputs]
    return lambda: module(*inputs), None


def picture(given, memory):
    """A whole picture, and a first one of so few steps that everything has run once."""
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        given.model, dtype=torch.float32, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.unet.to(memory_format=memory)
    pipeline.vae.to(memory_format=memory)
    pipeline.set_progress_bar_config(disable=True)
    recommended = passes.recommendations(given.model)
    if "steps" not in recommended:
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    steps = given.steps or recommended.get("steps", 20)

    def run(steps):
        pipeline(passes.PROMPT, width=given.width, height=given.height, num_inference_steps=steps,
                 guidance_scale=recommended.get("guidance", 7.5), num_images_per_prompt=given.batch,
                 generator=torch.Generator().manual_seed(0))

    return lambda: run(steps), lambda: run(min(steps, 2))

if __name__ == "__main__":
    main()
