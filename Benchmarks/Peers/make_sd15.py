#!/usr/bin/env python3
"""Makes a model of Stable Diffusion 1.5's shape and size with random weights: `make_sd15.py FOLDER [--dtype float16|float32]`.

Speed and memory do not depend on the weights' values, so no trained ones are needed. PyTorch's own initialisation keeps
activations in range. The same seed gives the same float32 weights; float16 ones are those, rounded.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "Tests/Fixtures/models"))
from clip_tokenizer import write_json, write_tokenizer  # noqa: E402

MERGES_FILE = REPOSITORY / "Sources/TextEncoder/Resources/CLIPVocabulary/merges.txt"
SCHEDULER = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, set_alpha_to_one=False,
                 skip_prk_steps=True, steps_offset=1, trained_betas=None, clip_sample=False)


def make(folder, dtype, seed):
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    count = write_tokenizer(folder / "tokenizer", MERGES_FILE, 77)
    text_encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=count, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768,
        max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=0, eos_token_id=2, pad_token_id=1))
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, sample_size=512)
    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8, cross_attention_dim=768,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", dict(_class_name="PNDMScheduler", _diffusers_version="0.6.0", **SCHEDULER))
    parts = dict(text_encoder=text_encoder, vae=vae, unet=unet)
    pipeline = StableDiffusionPipeline(
        **parts, scheduler=PNDMScheduler.from_pretrained(folder / "scheduler"), safety_checker=None, feature_extractor=None,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"), requires_safety_checker=False)
    pipeline.save_config(folder)
    for name, part in parts.items():
        part.to(dtype).save_pretrained(folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"{given.folder} exists already: name a folder that does not.")
    # Made beside and renamed, so that a run that was cut short leaves no half a model under the name.
    unfinished = given.folder.with_name(given.folder.name + ".unfinished")
    if unfinished.exists():
        sys.exit(f"{unfinished} is left from a run that did not finish: remove it first.")
    make(unfinished, getattr(torch, given.dtype), given.seed)
    unfinished.rename(given.folder)
