#!/usr/bin/env python3
"""Times OpenVINO on one part of a model or on a whole picture, in float32 on the CPU, or with the U-Net and the text encoder in 8 bits.

    openvino_pass.py MODEL --pass PASS --batch N --width W --height H --repeats R --threads T --json
                     [--weights f32|int8] [--cache FOLDER]

Prints one line: {"seconds": [one a repeat, the warm-up not counted], "peak_bytes": …}. The first time, a process of its own converts
the model from PyTorch and keeps it in the cache; it is compiled for exactly these shapes. Neither is counted. 8 bits are NNCF's
quantisation after training, of weights and activations. A picture is the text encoder, the U-Net and the decoder, with the scheduler
and the tokenizer of diffusers and transformers between them.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import passes


def main():
    given = passes.arguments(
        __doc__.splitlines()[0], weights=dict(choices=["f32", "int8"], default="f32"),
        convert=dict(type=Path, help="only convert, into this folder"))
    if given.weights == "int8" and given.part not in (*IN_8_BITS, "picture"):
        sys.exit("Only the U-Net and the text encoder are measured in 8 bits: leave --weights out.")
    if given.convert:
        (quantise if given.weights == "int8" else convert)(given, given.convert)
    else:
        print(json.dumps(measured(given)))


# What pictures in 8 bits have in 8 bits: ours too keep the autoencoder in float32.
IN_8_BITS = ("predictor", "text")


def measured(given):
    run, warm_up = picture(given) if given.part == "picture" else (compiled(given, passes.inputs(given)), None)
    seconds = passes.timed(run, given.repeats, warm_up)
    return {"seconds": seconds, "peak_bytes": passes.peak_bytes(), "threads": given.threads,
            "engine": f"OpenVINO {version('openvino')}" + (f", NNCF {version('nncf')}" if given.weights == "int8" else "")}


def compiled(given, inputs):
    """The pass as a function of as many arrays as are changed since the last call; at first it has these."""
    import openvino

    # One stream of all threads, as for one answer at a time.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": given.threads, "NUM_STREAMS": 1}
    core = openvino.Core()
    folder = converted(given, given.weights if given.part in IN_8_BITS else "f32")
    request = core.compile_model(static(core, folder, inputs), "CPU", settings).create_infer_request()
    for index, array in enumerate(inputs.values()):
        request.set_input_tensor(index, openvino.Tensor(array))

    def run(*changed):
        for index, array in enumerate(changed):
            request.set_input_tensor(index, openvino.Tensor(array))
        request.infer()
        return request.get_output_tensor(0).data

    return run


def picture(given):
    """A whole picture, and a first one of so few steps that everything has run once."""
    passes.quiet_libraries()
    import diffusers
    import torch
    from transformers import CLIPTokenizer

    index = json.loads((given.model / "model_index.json").read_text())
    scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(given.model, subfolder="scheduler")
    tokenizer = CLIPTokenizer.from_pretrained(given.model, subfolder="tokenizer")
    recommended = passes.recommendations(given.model)
    guidance, steps = recommended.get("guidance", 7.5), given.steps or recommended.get("steps", 20)
    prompts = [passes.PROMPT] * given.batch if guidance <= 1 else [""] * given.batch + [passes.PROMPT] * given.batch
    encode, predict, decode = (part(given, name, rows) for name, rows in
                               [("text", len(prompts)), ("predictor", len(prompts)), ("vae-decode", given.batch)])
    shape = passes.inputs(argparse.Namespace(**{**vars(given), "part": "vae-decode"}))["latents"].shape

    def run(steps):
        generator = torch.Generator().manual_seed(0)
        scheduler.set_timesteps(steps)
        states = encode(tokenizer(prompts, padding="max_length", truncation=True, return_tensors="np")["input_ids"])
        latents = torch.randn(shape, generator=generator) * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            rows = torch.cat([scheduler.scale_model_input(latents, time)] * (len(prompts) // given.batch))
            noise = torch.from_numpy(predict(rows.numpy(), time.to(torch.int64).numpy(), states))
            if guidance > 1:
                plain, guided = noise.chunk(2)
                noise = plain + guidance * (guided - plain)
            latents = scheduler.step(noise, time, latents, generator=generator).prev_sample
        return decode(latents.numpy())

    return lambda: run(steps), lambda: run(min(steps, 2))


def part(given, name, rows):
    """A part of a whole picture, compiled for so many rows."""
    own = argparse.Namespace(**{**vars(given), "part": name, "batch": rows})
    return compiled(own, passes.inputs(own))


def static(core, folder, inputs):
    """The converted model with the shapes of these inputs, and no others."""
    model = core.read_model(folder / "model.xml")
    model.reshape({index: list(array.shape) for index, array in enumerate(inputs.values())})
    return model


def converted(given, weights):
    """The folder of the converted model, made where it is not there yet."""
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns)
             for file in sorted((given.model / passes.component(given)).iterdir())]
    versions = [version(name) for name in ("openvino", "nncf", "torch", "diffusers", "transformers")]
    digest = hashlib.sha256(json.dumps([str(given.model.resolve()), files, versions]).encode()).hexdigest()[:12]
    folder = given.cache / "openvino" / f"{given.part}-{weights}-{digest}"
    if not folder.exists():
        print(f"Converting {given.part} for OpenVINO into {folder} …", file=sys.stderr)
        # Made beside and renamed, so that a run that was cut short leaves no half a model under the name.
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        own = [sys.executable, "-B", __file__, given.model, "--pass", given.part, "--batch", given.batch, "--width", given.width,
               "--height", given.height, "--threads", given.threads, "--cache", given.cache, "--weights", weights, "--convert", unfinished]
        done = subprocess.run([str(word) for word in own], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"The model could not be converted for OpenVINO:\n{done.stdout[-2000:]}")
        unfinished.rename(folder)
    return folder


def convert(given, folder):
    """With shapes left open, so that one conversion serves all sizes and batches."""
    import openvino
    import torch

    passes.quiet_libraries()
    inputs = [torch.from_numpy(array) for array in passes.inputs(given).values()]
    shapes = [openvino.PartialShape([-1, tensor.shape[1], -1, -1] if tensor.ndim == 4 else [-1, *tensor.shape[1:]] if tensor.ndim else [])
              for tensor in inputs]
    with torch.no_grad():
        model = openvino.convert_model(passes.module(given), example_input=tuple(inputs), input=shapes)
    # Weights that a file holds in half precision stay so on disk, which loses nothing; arithmetic is in float32 all the same.
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=is_half(given))


def is_half(given):
    for file in (given.model / passes.component(given)).glob("*.safetensors"):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        if any(entry["dtype"] != "F16" for name, entry in header.items() if name != "__metadata__"):
            return False
    return True


def quantise(given, folder):
    """W8A8. The few samples are small pieces of noise: what counts here is speed, which depends on neither."""
    import nncf
    import numpy
    import openvino

    given.batch, given.width, given.height = 1, 128, 128
    inputs = passes.inputs(given)
    noise = numpy.random.default_rng(1)

    def sample(_):
        return [noise.standard_normal(array.shape, dtype=array.dtype) if array.dtype == numpy.float32 else array
                for array in inputs.values()]

    model = openvino.Core().read_model(converted(given, "f32") / "model.xml")
    # Correcting biases takes minutes and changes constants only, so not the speed.
    quantised = nncf.quantize(
        model, nncf.Dataset(range(2), sample), subset_size=2, model_type=nncf.ModelType.TRANSFORMER,
        advanced_parameters=nncf.AdvancedQuantizationParameters(disable_bias_correction=True))
    openvino.save_model(quantised, folder / "model.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
