#!/usr/bin/env python3
"""Trains with ldm, and lets diffusers draw with what came out: the pictures are compared with ldm's own.

    Tests/Reference/trained_in_diffusers.py [--tool Examples/.build/release/ldm]

It needs torch, diffusers, transformers, peft, numpy and Pillow.
"""
import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
EMOJI = ROOT / "Sources/EmojiModel/Resources/emoji"
PROMPT, SEED, STEPS = "a heart", 5, 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", type=Path, default=ROOT / "Examples/.build/release/ldm")
    tool = str(parser.parse_args().tool.resolve())
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        data = pictures(work / "data")
        failures = [name for name, run in CASES.items() if not compared(name, run, tool, work, data)]
    sys.exit(1 if failures else 0)


def pictures(folder):
    folder.mkdir()
    for index in range(4):
        pixels = numpy.full((64, 64, 3), 255, numpy.uint8)
        pixels[8 + index:48, 10:40 + index] = [220, 40 * index, 60]
        Image.fromarray(pixels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"a heart of the kind {index}")
    return folder


def train(tool, *arguments):
    subprocess.run([tool, "train", *map(str, arguments), "--batch", "2"], check=True, capture_output=True, text=True)


def lora(pipeline, tool, work, data, *options):
    file = work / "lora.safetensors"
    train(tool, "lora", "--data", data, "--output", file, "--rank", 4, "--steps", 30, "--learning-rate", 1e-3, *options)
    pipeline.load_lora_weights(str(file))
    return pipeline, ["--lora", file], PROMPT


def embedding(pipeline, tool, work, data):
    file = work / "word.safetensors"
    train(tool, "embedding", "--data", data, "--output", file, "--word", "<kind>", "--initial-text", "heart", "--default-caption", "a <kind>",
          "--steps", 20, "--learning-rate", 5e-3, "--vectors", 2)
    pipeline.load_textual_inversion(str(file), token="<kind>")
    return pipeline, ["--embedding", f"<kind>={file}"], "a <kind> heart"


def whole(pipeline, tool, work, data, *options):
    folder = work / "model"
    train(tool, *options, "--data", data, "--output", folder, "--steps", 4, "--learning-rate", 1e-4)
    return None, ["--model", folder], PROMPT


CASES = {
    "lora": lora,
    "lora with the text encoder": lambda *known: lora(*known, "--text-encoder"),
    "lora with convolutions": lambda *known: lora(*known, "--layers", "convolutions"),
    "lora in kohya's names": lambda *known: lora(*known, "--keys", "kohya", "--text-encoder"),
    "embedding": embedding,
    "U-Net and text encoder from nothing": lambda *known: whole(*known, "unet", "--text-encoder", "--from-nothing"),
    "autoencoder from nothing": lambda *known: whole(*known, "autoencoder", "--from-nothing"),
}


def loaded(folder):
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compared(name, run, tool, work, data):
    """Draws with both, and compares the pictures before they are rounded."""
    for old in work.glob("*.safetensors"):
        old.unlink()
    subprocess.run(["rm", "-rf", str(work / "model")], check=True)
    pipeline, options, prompt = run(loaded(EMOJI), tool, work, data)
    pipeline = pipeline or loaded(work / "model")
    image = work / "image.safetensors"
    subprocess.run(
        [tool, "txt2img", "--prompt", prompt, "--seed", str(SEED), "--steps", str(STEPS), "--guidance", "4", "--scheduler", "ddim", *map(str, options),
         "--output", str(work / "own.png"), "--save-image-tensor", str(image)], check=True, capture_output=True)
    own = load_file(image)["image"][0].numpy()
    expected = pipeline(prompt, num_inference_steps=STEPS, guidance_scale=4.0, generator=torch.Generator().manual_seed(SEED),
                        height=own.shape[0], width=own.shape[1], output_type="np").images[0]
    plain = loaded(EMOJI)(PROMPT, num_inference_steps=STEPS, guidance_scale=4.0, generator=torch.Generator().manual_seed(SEED),
                          height=own.shape[0], width=own.shape[1], output_type="np").images[0]
    difference, change = abs(own - expected).max(), abs(expected - plain).max()
    good = difference < 1e-3 and change > 0.05
    print(f"{'ok' if good else 'FAILED'}: {name}: {own.size} values, largest difference {difference:.1e}, moved by training {change:.2f}")
    return good


if __name__ == "__main__":
    main()
