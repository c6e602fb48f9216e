#!/usr/bin/env python3
"""Times PyTorch (diffusers, transformers) on one part of a model, in float32 on the CPU.

    pytorch_pass.py MODEL --pass unet|vae-decode|vae-encode|text|picture --batch N --width W --height H --repeats R --threads T --json

Prints one line: {"seconds": [one a repeat, the warm-up not counted], "peak_bytes": …, "layout": …}. Each memory layout is measured in a
process of its own, so that the peak is that layout's, and the faster one is reported. What is loaded is what the pass needs.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

PASSES = ["unet", "vae-decode", "vae-encode", "text", "picture"]
LAYOUTS = ["contiguous", "channels_last"]
PROMPT = "a photograph of an astronaut riding a horse"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder as diffusers saves it")
    parser.add_argument("--pass", dest="part", choices=PASSES, required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, help="of a whole picture; 20 of DPM-Solver++ 2M where the model recommends none")
    parser.add_argument("--layout", choices=[*LAYOUTS, "better"], default="better")
    parser.add_argument("--json", action="store_true", help="accepted for symmetry: the answer is always JSON")
    return parser.parse_args()


def main():
    given = arguments()
    # The text encoder has no pictures, so no layout to choose.
    layout = "contiguous" if given.part == "text" else given.layout
    if layout != "better":
        print(json.dumps(measured(given, layout)))
        return
    answers = [json.loads(in_own_process(layout).splitlines()[-1]) for layout in LAYOUTS]
    print(json.dumps(min(answers, key=lambda answer: statistics.median(answer["seconds"]))))


def in_own_process(layout):
    return subprocess.run([sys.executable, *sys.argv, "--layout", layout], stdout=subprocess.PIPE, text=True, check=True).stdout


def measured(given, layout):
    # Before the first import of PyTorch: its libraries read it then.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(given.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(given.threads)
    seconds = []
    with torch.no_grad():
        run = prepared(given, layout)
        for _ in range(given.repeats + 1):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"seconds": seconds[1:], "peak_bytes": peak, "layout": layout, "threads": given.threads,
            "engine": f"PyTorch {torch.__version__}"}


def prepared(given, layout):
    """Loads what the pass needs, and returns the pass."""
    import torch
    from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.utils import logging
    from transformers import CLIPTextModel, CLIPTokenizer

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    generator = torch.Generator().manual_seed(0)
    memory = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}[layout]

    def part(kind, name):
        loaded = kind.from_pretrained(given.model, subfolder=name, dtype=torch.float32).eval()
        return loaded if name == "text_encoder" else loaded.to(memory_format=memory)

    def scale():
        config = AutoencoderKL.load_config(given.model, subfolder="vae")
        return 2 ** (len(config["block_out_channels"]) - 1)

    def random(*shape):
        return torch.randn(*shape, generator=generator).contiguous(memory_format=memory)

    def tokens():
        tokenizer = CLIPTokenizer.from_pretrained(given.model, subfolder="tokenizer")
        length = tokenizer.model_max_length
        prompts = [PROMPT] * given.batch
        return tokenizer(prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt").input_ids

    if given.part == "unet":
        unet = part(UNet2DConditionModel, "unet")
        latents = random(given.batch, unet.config.in_channels, given.height // scale(), given.width // scale())
        length = tokens().shape[1]
        states = torch.randn(given.batch, length, unet.config.cross_attention_dim, generator=generator)
        return lambda: unet(latents, 501, states).sample
    if given.part == "vae-decode":
        vae = part(AutoencoderKL, "vae")
        latents = random(given.batch, vae.config.latent_channels, given.height // scale(), given.width // scale())
        return lambda: vae.decode(latents / vae.config.scaling_factor).sample
    if given.part == "vae-encode":
        vae = part(AutoencoderKL, "vae")
        picture = random(given.batch, 3, given.height, given.width).clamp(-1, 1)
        return lambda: vae.encode(picture).latent_dist.parameters
    if given.part == "text":
        encoder, ids = part(CLIPTextModel, "text_encoder"), tokens()
        return lambda: encoder(ids).last_hidden_state
    pipeline = StableDiffusionPipeline.from_pretrained(
        given.model, dtype=torch.float32, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipeline.unet.to(memory_format=memory)
    pipeline.vae.to(memory_format=memory)
    pipeline.set_progress_bar_config(disable=True)
    recommended = recommendations(given.model)
    if "steps" not in recommended:
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    return lambda: pipeline(
        PROMPT, width=given.width, height=given.height, num_inference_steps=given.steps or recommended.get("steps", 20),
        guidance_scale=recommended.get("guidance", 7.5),
        num_images_per_prompt=given.batch, generator=torch.Generator().manual_seed(0))


def recommendations(model):
    """What a model says of steps and guidance, which `ldm` follows too."""
    file = Path(model) / "generation_defaults.json"
    return json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    main()
