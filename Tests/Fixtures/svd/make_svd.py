#!/usr/bin/env python3
"""Makes a tiny random Stable Video Diffusion, and what diffusers makes of pictures with it.

    python make_svd.py      # with the environment of ../models/requirements.txt

`tiny` is a folder as StableVideoDiffusionPipeline saves it, with weights in float16. Its cases.json has single passes (every block's output under its
module's name, as in ../models), resizings of pictures for the image encoder, and runs of whole pipelines. `large.png` is a picture that the resizing makes
smaller. Latents are laid out as diffusers' pipeline has them: [N, F, 4, h, w].
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "models")]

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, StableVideoDiffusionPipeline, UNetSpatioTemporalConditionModel
from diffusers.models.attention import TemporalBasicTransformerBlock
from diffusers.models.resnet import SpatioTemporalResBlock, TemporalResnetBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from diffusers.utils import logging
from PIL import Image, ImageDraw
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

import make_models
import passes
from configurations import randomise, write_json
from make_models import save
from passes import recorded
from pipelines import drawing

INPUTS = HERE.parent / "models" / "inputs"
MODEL = HERE / "tiny"
REFERENCE = MODEL / "reference"
make_models.LARGEST = 150_000
passes.BLOCKS += (SpatioTemporalResBlock, TemporalResnetBlock, TransformerSpatioTemporalModel, TemporalBasicTransformerBlock)
passes.NAMES += ("time_conv_out",)

FRAMES, EMBEDS, NUMBERS = 4, 16, 8
UNET = dict(
    sample_size=4, block_out_channels=(32, 64), down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), layers_per_block=1, cross_attention_dim=EMBEDS,
    num_attention_heads=(2, 4), addition_time_embed_dim=NUMBERS, projection_class_embeddings_input_dim=3 * NUMBERS, num_frames=FRAMES)
VAE = dict(block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4, layers_per_block=2, latent_channels=4,
           sample_size=32, scaling_factor=0.18215, force_upcast=True)
VISION = dict(hidden_size=24, intermediate_size=48, projection_dim=EMBEDS, num_hidden_layers=2, num_attention_heads=3, image_size=224, patch_size=32,
              hidden_act="gelu")
# That of the published models.
SCHEDULER = dict(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, interpolation_type="linear", num_train_timesteps=1000,
    prediction_type="v_prediction", set_alpha_to_one=False, sigma_max=700.0, sigma_min=0.002, skip_prk_steps=True, steps_offset=1,
    timestep_spacing="leading", timestep_type="continuous", trained_betas=None, use_karras_sigmas=True)
A, B, LARGE = "picture.png", "picture-37x50.png", "large.png"


def case(name, image, **more):
    return dict(name=name, image=image, **{**dict(width=32, height=32, steps=5, seed=60), **more})


# Frames, their rate, motion and noise, the range of guidance, and how many frames are decoded together: the defaults are diffusers'.
CASES = [
    case("usual", A),
    case("chunks", B, frames=7, fps=12, motion_bucket=30, noise=0.1, min_guidance=1.5, max_guidance=4.0, decode_chunk=3, width=40, height=24),
    # Of one frame, diffusers needs the smallest guidance above 1.
    case("one-frame", LARGE, frames=1, min_guidance=1.5, decode_chunk=1, seed=61),
    case("one-by-one", A, frames=3, fps=1, noise=0.0, min_guidance=3.0, max_guidance=1.2, decode_chunk=1, width=24, height=40),
    case("unguided", B, frames=3, motion_bucket=255, max_guidance=1.0, seed=62, steps=25),
    case("two-clips", LARGE, frames=2, clips=2, width=24, height=24, steps=3),
]
RESIZINGS = [A, B, "picture-48x32.png", LARGE]


# MARK: the model


def fit_prediction(unet, generator):
    """As for pictures: a least-squares fit of the last convolution, and a random share through which all else has its say."""
    features, target = [], []
    hook = unet.conv_out.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    for _ in range(48):
        sigma = torch.exp(torch.rand(1, generator=generator) * 12.5 - 6)
        clean, noise, beside = (torch.randn(1, FRAMES, 4, 4, 4, generator=generator) for _ in range(3))
        noisy, scale = clean + sigma * noise, (sigma**2 + 1) ** 0.5
        states, told = torch.randn(1, 1, EMBEDS, generator=generator), torch.tensor([[6, 127, 0.02]])
        with torch.no_grad():
            unet(torch.cat([noisy / scale, beside], 2), 0.25 * sigma.log(), states, told)
        target.append((noisy / scale**2 - clean) * scale / sigma)
    hook.remove()
    columns = torch.nn.functional.unfold(torch.cat(features), 3, padding=1).transpose(1, 2).flatten(0, 1)
    columns = torch.cat([columns, torch.ones(len(columns), 1)], 1).double()
    wanted = torch.cat(target).flatten(0, 1).permute(0, 2, 3, 1).flatten(0, 2).double()
    gram = columns.T @ columns + 1e-3 * len(columns) * torch.eye(columns.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, columns.T @ wanted).float()
    weight = unet.conv_out.weight
    weight.data.copy_(solution[:-1].T.reshape(weight.shape) + 0.2 * torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
    unet.conv_out.bias.data.copy_(solution[-1] + 0.05 * torch.randn(4, generator=generator))


def scale_autoencoder(vae, generator):
    """Latents of standard deviation about one once scaled, and pictures that fill -1…1."""
    with torch.no_grad():
        moments = vae.quant_conv(vae.encoder(torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1))
        factor = torch.cat([torch.full((4,), 0.9 / vae.config.scaling_factor), torch.full((4,), 1.0)]) / moments.std(dim=(0, 2, 3))
        vae.quant_conv.weight *= factor[:, None, None, None]
        vae.quant_conv.bias *= factor
        decoded = vae.decode(torch.randn(3, 4, 4, 4, generator=generator) / vae.config.scaling_factor, num_frames=3).sample
        vae.decoder.time_conv_out.weight *= 0.45 / decoded.std()
        vae.decoder.time_conv_out.bias *= 0.45 / decoded.std()


def make_model(folder):
    generator = torch.Generator().manual_seed(5000)
    shutil.rmtree(folder, ignore_errors=True)
    unet, vae = UNetSpatioTemporalConditionModel(**UNET).eval(), AutoencoderKLTemporalDecoder(**VAE).eval()
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).eval()
    for module in (unet, vae, encoder):
        randomise(module, generator)
    encoder.vision_model.embeddings.class_embedding.data.copy_(torch.randn(VISION["hidden_size"], generator=generator))
    fit_prediction(unet, generator)
    scale_autoencoder(vae, generator)
    for name, module in (("unet", unet), ("vae", vae), ("image_encoder", encoder)):
        module.half().save_pretrained(folder / name, max_shard_size="150KB")
    # As the published folders have them: what a file leaves out is the default of whichever class reads it.
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", dict(_class_name="EulerDiscreteScheduler", _diffusers_version="0.24.0.dev0", **SCHEDULER))
    (folder / "feature_extractor").mkdir()
    write_json(folder / "feature_extractor" / "preprocessor_config.json", dict(
        crop_size=dict(height=224, width=224), do_center_crop=True, do_convert_rgb=True, do_normalize=True, do_rescale=True, do_resize=True,
        feature_extractor_type="CLIPFeatureExtractor", image_mean=[0.48145466, 0.4578275, 0.40821073], image_processor_type="CLIPImageProcessor",
        image_std=[0.26862954, 0.26130258, 0.27577711], resample=3, rescale_factor=0.00392156862745098, size=dict(shortest_edge=224)))
    write_json(folder / "model_index.json", dict(
        _class_name="StableVideoDiffusionPipeline", _diffusers_version="0.24.0.dev0", feature_extractor=["transformers", "CLIPImageProcessor"],
        image_encoder=["transformers", "CLIPVisionModelWithProjection"], scheduler=["diffusers", "EulerDiscreteScheduler"],
        unet=["diffusers", "UNetSpatioTemporalConditionModel"], vae=["diffusers", "AutoencoderKLTemporalDecoder"]))


def make_picture(path):
    """Smooth, with edges, larger than what the image encoder takes."""
    x, y = np.meshgrid(np.linspace(0, 1, 530), np.linspace(0, 1, 340))
    values = np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x * y)], -1)
    picture = Image.fromarray((255 * values).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((80, 60, 260, 250), fill=(250, 220, 40))
    draw.rectangle((330, 200, 470, 300), fill=(20, 60, 160))
    picture.quantize(64).convert("RGB").save(path, optimize=True)


# MARK: single passes


def kept(outputs, largest=40_000):
    """What is small enough to be kept: the rest is seen in what follows from it."""
    return {key: value for key, value in outputs.items()
            if value.numel() * 4 <= largest and not (".attentions." in key and key.endswith(".time_proj"))}


def passes_of(folder):
    generator, described = torch.Generator().manual_seed(5001), {}
    unet = UNetSpatioTemporalConditionModel.from_pretrained(folder / "unet", dtype=torch.float32).eval()
    vae = AutoencoderKLTemporalDecoder.from_pretrained(folder / "vae", dtype=torch.float32).eval()
    inputs = dict(sample=torch.randn(2, 3, 8, 3, 3, generator=generator), encoder_hidden_states=torch.randn(2, 1, EMBEDS, generator=generator),
                  added_time_ids=torch.tensor([[6, 127, 0.02], [11, 30, 0.1]]))
    result, outputs = recorded(unet, lambda: unet(inputs["sample"], torch.tensor(0.7), *list(inputs.values())[1:]).sample)
    tensors = {**{f"input.{key}": value for key, value in inputs.items()}, **kept(outputs), "output": result}
    described["unet"] = dict(timestep=0.7, files=save(tensors, REFERENCE, "pass-unet"))
    latents = torch.randn(3, 4, 2, 3, generator=generator) / vae.config.scaling_factor
    result, outputs = recorded(vae, lambda: vae.decode(latents, num_frames=3).sample)
    described["decode"] = dict(files=save({"input": latents, **kept(outputs), "output": result}, REFERENCE, "pass-decode"))
    picture = torch.rand(1, 3, 16, 24, generator=generator) * 2 - 1
    mode, outputs = recorded(vae, lambda: vae.encode(picture).latent_dist.mode())
    described["encode"] = dict(files=save({"input": picture, **kept(outputs, 15_000), "output": mode}, REFERENCE, "pass-encode"))
    return described


def opened(name):
    return Image.open(HERE / name if name == LARGE else INPUTS / name).convert("RGB")


def resizings(folder):
    """Every eighth row and column of what the image encoder is shown, before it is normalised, and what the encoder makes of it."""
    pipeline, tensors = StableVideoDiffusionPipeline.from_pretrained(folder, dtype=torch.float32), {}
    for name in RESIZINGS:
        picture = torch.from_numpy(np.array(opened(name), dtype=np.float32) / 255).permute(2, 0, 1)[None]
        resized = (_resize_with_antialiasing(picture * 2 - 1, (224, 224)) + 1) / 2
        with torch.no_grad():
            tensors[f"{name}.embeds"] = pipeline._encode_image(opened(name), "cpu", 1, False)
        tensors[f"{name}.resized"] = resized[:, :, ::8, ::8]
    return save(tensors, REFERENCE, "resized")


# MARK: whole pipelines


def run(folder, given, dtype):
    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    names = dict(frames="num_frames", fps="fps", motion_bucket="motion_bucket_id", noise="noise_aug_strength", min_guidance="min_guidance_scale",
                 max_guidance="max_guidance_scale", decode_chunk="decode_chunk_size", clips="num_videos_per_prompt")
    arguments = {names[key]: given[key] for key in names if key in given}
    draws, latents, timesteps = [], [], []

    def record(_, __, timestep, values):
        timesteps.append(float(timestep))
        latents.append(values["latents"])
        return values

    with drawing(draws, dtype):
        frames = pipeline(
            opened(given["image"]), height=given["height"], width=given["width"], num_inference_steps=given["steps"], output_type="pt",
            generator=torch.Generator().manual_seed(given["seed"]), callback_on_step_end=record, **arguments).frames
    tensors = {f"draw.{i}": drawn for i, drawn in enumerate(draws)}
    # As pipelines with motion modules have latents, too: [N, 4, F, h, w].
    clip = latents[-1].transpose(1, 2)
    return timesteps, tensors | {"latents.0": latents[0], "latents": latents[-1], "clip": clip, "frames": frames}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    make_picture(HERE / LARGE)
    make_model(MODEL)
    described = passes_of(MODEL)
    resized = resizings(MODEL)
    runs = []
    for given in CASES:
        timesteps, tensors = run(MODEL, given, torch.float32)
        precise = run(MODEL, given, torch.float64)[1]["latents"].float()
        deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
        assert deviation < 1e-4, f"{given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
        draws = [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")]
        runs.append({**given, "files": save(tensors, REFERENCE, given["name"]), "timesteps": timesteps, "draws": draws,
                     "float64_deviation": float(f"{deviation:.1e}")})
        print(given["name"], f"{deviation:.1e}", float(tensors["latents"].std()), list(tensors["frames"].shape), float(tensors["frames"].std()))
    write_json(MODEL / "cases.json", dict(passes=described, resized=dict(pictures=RESIZINGS, files=resized), pipelines=runs))


if __name__ == "__main__":
    main()
