#!/usr/bin/env python3
"""Makes the tiny random models beside this script and the reference results for them. See README.md.

    python make_models.py                # all of it
    python make_models.py sd1 odd        # these models only
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from configurations import MODELS, make_model, write_json
from passes import decode_pass, encode_pass, text_pass, unet_pass
from pictures import mask, picture
from pipelines import CASES, MASKS, PICTURES, run

HERE = Path(__file__).resolve().parent
MERGES_FILE = HERE.parents[2] / "Sources/TextEncoder/Resources/CLIPVocabulary/merges.txt"
LARGEST = 190_000
PROMPTS = ["a photo of the cat",
           "Two boats, there and 7 MORE — in the rain & the sun: naïve café 日本 with more words than fit the length"]


def save(tensors, folder, name):
    """Writes float32 files of less than 200 KB each and returns their names."""
    parts, size = [{}], 0
    for key, tensor in tensors.items():
        tensor = tensor.detach().float().contiguous().clone()
        assert tensor.isfinite().all(), f"{name}: {key} is not finite"
        if size + tensor.nbytes > LARGEST:
            parts.append({})
            size = 0
        parts[-1][key] = tensor
        size += tensor.nbytes
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"{name}.safetensors"] if len(parts) == 1 else [f"{name}-{i}.safetensors" for i in range(len(parts))]
    for part, file in zip(parts, files):
        save_file(part, folder / file)
    return files


def single_passes(name, folder, seed):
    """The single passes of a model, and what cases.json says about them."""
    model, reference = MODELS[name], folder / "reference"
    generator = torch.Generator().manual_seed(seed)
    passes = {} if "text_2" in model else text_passes(model, folder, reference)
    if "unet" in model:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32).eval()
        vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=torch.float32).eval()
        files = save(unet_pass(unet, model["sides"], model["timestep"], generator), reference, "unet")
        passes["unet"] = dict(timestep=model["timestep"], files=files)
        for kind, run in (("encode", encode_pass), ("decode", decode_pass)):
            tensors = run(vae, model.get("pictures", 1), model["picture"], generator)
            passes[f"vae-{kind}"] = dict(files=save(tensors, reference, f"vae-{kind}"))
    return passes


def text_passes(model, folder, reference):
    """The text encoder's pass. SDXL's encoders are those of other models here."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = model.get("text_class", CLIPTextModel).from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    ids = tokenizer(PROMPTS, padding="max_length", truncation=True, max_length=tokenizer.model_max_length).input_ids
    return {"text": dict(prompts=PROMPTS, ids=ids, files=save(text_pass(encoder, ids), reference, "text"))}


def worth_keeping(given, tensors):
    """Leaves out what other cases show as well: pictures of runs that differ in the scheduler alone, steps of whole batches."""
    if "scheduler" in given:
        tensors = {key: value for key, value in tensors.items() if key not in ("image", "input.image", "input.mask")}
    if len(tensors["latents"]) > 1:
        tensors = {key: value for key, value in tensors.items() if not key.startswith("latents.")}
    return tensors


def end_to_end(name, folder, inputs, base=None, parts=lambda dtype: {}):
    """The pipelines' cases of a model, run and described; `parts(dtype)` take the place of those in the folder `base`."""
    described = []
    for given in CASES.get(name, []):
        config, tensors = run(base or folder, inputs, given, **parts(torch.float32))
        precise = run(base or folder, inputs, given, torch.float64, **parts(torch.float64))[1]["latents"].float()
        deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
        assert deviation < 1e-4, f"{name} {given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
        timesteps = tensors.pop("timesteps")
        tensors = worth_keeping(given, tensors)
        described.append({**given, "files": save(tensors, folder / "reference", given["name"]), "timesteps": timesteps.tolist(),
                          "draws": [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")],
                          "float64_deviation": float(f"{deviation:.1e}"),
                          "scheduler_config": config})
    return described


def main(names):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    inputs = HERE / "inputs"
    inputs.mkdir(exist_ok=True)
    for seed, (file, size) in enumerate(PICTURES.items()):
        picture(*size, seed).save(inputs / file)
    for file, size in MASKS.items():
        mask(*size).save(inputs / file)
    for name in names or MODELS:
        seed = 1000 + list(MODELS).index(name)
        folder = HERE / name
        make_model(name, folder, MERGES_FILE, seed)
        cases = dict(passes=single_passes(name, folder, seed + 100), pipelines=end_to_end(name, folder, inputs))
        write_json(folder / "cases.json", cases)
        print(name, "made")


if __name__ == "__main__":
    main(sys.argv[1:])
