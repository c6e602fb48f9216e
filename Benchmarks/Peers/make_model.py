#!/usr/bin/env python3
"""Makes a model of a published shape and size with random weights: `make_model.py FOLDER [--shape sd15] [--dtype float16|float32]`.

Speed and memory do not depend on the weights' values, so no trained ones are needed. PyTorch's own initialisation keeps
activations in range. The same seed gives the same float32 weights; float16 ones are those, rounded.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import sys
from pathlib import Path

import torch
from diffusers import (AutoencoderKL, AutoencoderTiny, ControlNetModel, EulerDiscreteScheduler, MotionAdapter, PNDMScheduler,
                       StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "Tests/Fixtures/models"))
from clip_tokenizer import write_json, write_tokenizer  # noqa: E402

MERGES_FILE = REPOSITORY / "Sources/TextEncoder/Resources/CLIPVocabulary/merges.txt"
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1)
CROSS_DOWN, CROSS_UP, DOWN, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "DownBlock2D", "UpBlock2D"


def text_encoder(kind, features, layers, heads, activation):
    return kind(CLIPTextConfig(
        vocab_size=49408, hidden_size=features, intermediate_size=4 * features, num_hidden_layers=layers, num_attention_heads=heads,
        projection_dim=features, max_position_embeddings=77, hidden_act=activation, bos_token_id=0, eos_token_id=2, pad_token_id=1))


def autoencoder(side, **more):
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2, sample_size=side, **more)


def unet_of_four_levels(heads, context, **more):
    return UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=heads, cross_attention_dim=context,
        down_block_types=(CROSS_DOWN,) * 3 + (DOWN,), up_block_types=(UP,) + (CROSS_UP,) * 3, **more)


def sd15():
    """Stable Diffusion 1.5, and beside it a ControlNet and AnimateDiff's motion modules."""
    text = text_encoder(CLIPTextModel, 768, 12, 12, "quick_gelu")
    vae, unet = autoencoder(512), unet_of_four_levels(8, 768)
    scheduler = PNDMScheduler(**BETAS, set_alpha_to_one=False, skip_prk_steps=True)
    return StableDiffusionPipeline, dict(text_encoder=text, vae=vae, unet=unet), scheduler, {}


def sd_turbo():
    """SD-Turbo, which is Stable Diffusion 2.1 made to take one step, with TAESD as its autoencoder."""
    text = text_encoder(CLIPTextModel, 1024, 23, 16, "gelu")
    unet = unet_of_four_levels((5, 10, 20, 20), 1024, use_linear_projection=True)
    return (StableDiffusionPipeline, dict(text_encoder=text, vae=AutoencoderTiny(), unet=unet),
            EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing"), dict(steps=1, guidance=1))


def sdxl():
    """Stable Diffusion XL's base model."""
    first = text_encoder(CLIPTextModel, 768, 12, 12, "quick_gelu")
    second = text_encoder(CLIPTextModelWithProjection, 1280, 32, 20, "gelu")
    unet = UNet2DConditionModel(
        sample_size=128, block_out_channels=(320, 640, 1280), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
        down_block_types=(DOWN, CROSS_DOWN, CROSS_DOWN), up_block_types=(CROSS_UP, CROSS_UP, UP), transformer_layers_per_block=[1, 2, 10],
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=1280 + 6 * 256)
    return (StableDiffusionXLPipeline,
            dict(text_encoder=first, text_encoder_2=second, vae=autoencoder(1024, scaling_factor=0.13025), unet=unet),
            EulerDiscreteScheduler(**BETAS), {})


SHAPES = {"sd15": sd15, "sd-turbo": sd_turbo, "sdxl": sdxl}


def make(folder, shape, dtype, seed):
    torch.manual_seed(seed)
    kind, parts, scheduler, recommended = SHAPES[shape]()
    folder.mkdir(parents=True)
    tokenizers = {"tokenizer" + name.removeprefix("text_encoder"): None for name in parts if name.startswith("text_encoder")}
    for name in tokenizers:
        write_tokenizer(folder / name, MERGES_FILE, 77)
        tokenizers[name] = CLIPTokenizer.from_pretrained(folder / name)
    own = {} if kind is StableDiffusionXLPipeline else dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    kind(**parts, **tokenizers, **own, scheduler=scheduler).save_config(folder)
    scheduler.save_pretrained(folder / "scheduler")
    if recommended:
        write_json(folder / "generation_defaults.json", recommended)
    if shape == "sd15":
        ControlNetModel.from_unet(parts["unet"]).to(dtype).save_pretrained(folder / "controlnet")
        MotionAdapter(use_motion_mid_block=True).to(dtype).save_pretrained(folder / "motion")
    for name, part in parts.items():
        part.to(dtype).save_pretrained(folder / name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="sd15")
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"{given.folder} exists already: name a folder that does not.")
    # Made beside and renamed, so that a run that was cut short leaves no half a model under the name.
    unfinished = given.folder.with_name(given.folder.name + ".unfinished")
    if unfinished.exists():
        sys.exit(f"{unfinished} is left from a run that did not finish: remove it first.")
    make(unfinished, given.shape, getattr(torch, given.dtype), given.seed)
    unfinished.rename(given.folder)
