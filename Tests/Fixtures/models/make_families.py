#!/usr/bin/env python3
"""Makes the tiny models of the families around the same U-Net, and what diffusers makes of them: see README.md.

    python make_families.py              # all of it
    python make_families.py depth5 ldm   # these models only
"""

import json
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
import sys
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    LDMPipeline,
    LDMTextToImagePipeline,
    PNDMScheduler,
    StableDiffusionDepth2ImgPipeline,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from diffusers.utils import logging
from PIL import Image
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from clip_tokenizer import write_json, write_tokenizer
from configurations import BETAS, CROSS, HALVES, MERGES, PLAIN, fit_prediction, randomise, scale_autoencoder, text, unet, vae
from make_models import HERE, MERGES_FILE, save, worth_keeping
from passes import recorded
from pictures import picture
from pipelines import drawing

BERT = HERE.parent / "tokenizer" / "bert"
# As the folders of the first models have it.
LDM_BETAS = dict(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False,
                 set_alpha_to_one=False, steps_offset=1)
UPSCALER_BETAS = dict(beta_start=0.0001, beta_end=0.02, beta_schedule="scaled_linear", num_train_timesteps=1000)


def pixel_unet(down, up, channels, **more):
    return dict(down_block_types=tuple(f"{kind}DownBlock2D" for kind in down), up_block_types=tuple(f"{kind}UpBlock2D" for kind in up),
                block_out_channels=channels, in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=4, sample_size=8, **more)


ATTN = "Attn"
MODELS = {
    "depth5": dict(
        unet=unet([CROSS, PLAIN], (8, 16), in_channels=5, attention_head_dim=(2, 4), use_linear_projection=True),
        vae=vae((8, 8, 16)), text=text(layers=2, act="gelu"), scheduler=(PNDMScheduler, dict(**BETAS, skip_prk_steps=True, steps_offset=1)),
        timestep=201.0, sides=(8, 8)),
    "upscale7": dict(
        unet=unet([PLAIN, CROSS, CROSS], (8, 16, 24), in_channels=7, attention_head_dim=2, use_linear_projection=True, cross_attention_dim=20,
                  num_class_embeds=64, only_cross_attention=(True, True, False), sample_size=16),
        vae=vae((8, 8, 16), scaling_factor=0.08333), text=text(hidden=20, layers=2, act="gelu"),
        scheduler=(DDIMScheduler, dict(**UPSCALER_BETAS, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction")),
        timestep=401.0, sides=(8, 12)),
    "ldm": dict(
        unet=pixel_unet([PLAIN, ATTN, ATTN], [ATTN, ATTN, PLAIN], (8, 16, 24), attention_head_dim=8, attn_norm_num_groups=2),
        vae=vae((8, 8, 16)), scheduler=(DDIMScheduler, LDM_BETAS), timestep=601.0, sides=(8, 8)),
    "ldm-class": dict(
        unet=pixel_unet([ATTN, PLAIN], [PLAIN, ATTN], (8, 12), attention_head_dim=None, add_attention=False, num_class_embeds=10,
                        downsample_padding=0, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6),
        vae=vae((8, 16)), scheduler=(DDIMScheduler, LDM_BETAS), timestep=41.0, sides=(8, 4)),
    "ldm-text": dict(
        unet=unet([CROSS, CROSS], (8, 16)), vae=vae((8, 8, 8, 16), sample_size=64),
        bert=dict(max_position_embeddings=77, encoder_layers=2, encoder_ffn_dim=40, encoder_attention_heads=2, head_dim=6, d_model=16),
        scheduler=(DDIMScheduler, LDM_BETAS), timestep=801.0, sides=(8, 8)),
    # The kind of the original code's model of ImageNet's classes: a class is a text of one token, and the last class none.
    "ldm-table": dict(
        unet=unet([PLAIN, CROSS], (8, 16), attention_head_dim=1, cross_attention_dim=12), vae=vae((8, 16)), table=(11, 12),
        scheduler=(DDIMScheduler, LDM_BETAS), timestep=241.0, sides=(8, 8)),
}
CAT = "A photo of the cat"


def case(name, pipeline, steps=8, prompts=(CAT,), **more):
    return {"name": name, "pipeline": pipeline, "prompts": list(prompts), "steps": steps, **more}


DEPTH = dict(image="picture.png", depth="depth-40x24.png")
CASES = {
    "depth5": [
        case("depth", "depth-to-image", **DEPTH, strength=0.8, guidance=7.5, seed=40),
        case("depth-batch", "depth-to-image", **DEPTH, strength=0.5, guidance=5.0, seed=41, images_per_prompt=2,
             negative_prompts=["blurred"]),
        case("depth-odd-sides", "depth-to-image", image="picture-37x50.png", depth="depth-40x24.png", strength=1.0, guidance=1.0, seed=42),
    ],
    "upscale7": [
        case("upscale", "upscaling", image="picture-16x16.png", noise_level=20, guidance=9.0, seed=43),
        case("upscale-batch", "upscaling", image="picture-16x16.png", noise_level=50, guidance=4.0, seed=44, images_per_prompt=2,
             negative_prompts=["blurred"]),
        case("upscale-unguided", "upscaling", prompts=[""], image="picture-24x12.png", noise_level=0, guidance=1.0, seed=45, steps=4),
        case("upscale-resampled", "upscaling", image="picture-18x13.png", noise_level=20, guidance=9.0, seed=56, steps=4),
    ],
    "ldm": [
        case("unconditional", "unconditional", prompts=[""], guidance=1.0, seed=46),
        case("unconditional-batch", "unconditional", prompts=[""], guidance=1.0, seed=47, steps=5, images_per_prompt=3),
    ],
    "ldm-class": [
        case("class", "class", prompts=["7"], guidance=1.0, seed=48),
        case("class-named", "class", prompts=["Great White Shark"], classes=[2], guidance=1.0, seed=49, steps=5),
        case("class-guided", "class", prompts=["3"], negative_prompts=["9"], guidance=3.0, seed=50, steps=5),
    ],
    "ldm-table": [
        case("class", "class", prompts=["4"], guidance=1.0, seed=54, steps=5),
        case("class-guided", "class", prompts=["goldfish"], classes=[1, 10], guidance=3.0, seed=55),
    ],
    "ldm-text": [
        case("text", "text-to-image", guidance=5.0, seed=51),
        case("text-unguided", "text-to-image", prompts=["Two bóats, in the rain!", CAT], guidance=1.0, seed=52, steps=5),
        case("text-wide", "text-to-image", guidance=3.0, seed=53, steps=5, width=96, height=64),
    ],
}
LABELS = {"0": "tench, Tinca tinca", "1": "goldfish", "2": "great white shark, white shark", "9": "ostrich"}


class ClassEmbedder(ModelMixin, ConfigMixin):
    """The original code's, with one entry for each class."""

    @register_to_config
    def __init__(self, n_classes=1000, embed_dim=8):
        super().__init__()
        self.embedding = torch.nn.Embedding(n_classes, embed_dim)


class Denoiser:
    """A U-Net as `fit_prediction` calls it: with a class where it takes one, without a text where it takes none."""

    def __init__(self, model, config):
        self.model, self.config, self.conv_out = model, config, model.conv_out

    def __call__(self, sample, timestep, states, **_):
        more = {}
        if self.config.get("num_class_embeds"):
            more["class_labels"] = torch.full((len(sample),), int(timestep) % self.config["num_class_embeds"])
        if "cross_attention_dim" in self.config:
            more["encoder_hidden_states"] = states
        return self.model(sample, timestep, **more)


def make_model(name, folder, seed):
    model, generator = MODELS[name], torch.Generator().manual_seed(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind, betas = model["scheduler"]
    scheduler = kind.from_config(betas)
    network = (UNet2DConditionModel if "cross_attention_dim" in model["unet"] else UNet2DModel)(**model["unet"]).eval()
    autoencoder = AutoencoderKL(**model["vae"]).eval()
    parts = {"unet": network, "vae" if "text" in model else "vqvae": autoencoder}
    others = {"scheduler": scheduler}
    if "text" in model:
        count = write_tokenizer(folder / "tokenizer", MERGES_FILE, model["text"]["max_position_embeddings"], "<|endoftext|>", MERGES)
        config = dict(bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=count - 1)
        parts["text_encoder"] = CLIPTextModel(CLIPTextConfig(vocab_size=count, **config, **model["text"])).eval()
        others["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    if "bert" in model:
        shutil.copytree(BERT, folder / "tokenizer")
        others["tokenizer"] = BertTokenizer.from_pretrained(folder / "tokenizer")
        parts["bert"] = LDMBertModel(LDMBertConfig(vocab_size=len(others["tokenizer"]), **model["bert"])).eval()
    if "table" in model:
        parts["class_embedder"] = ClassEmbedder(*model["table"])
    for part in parts.values():
        randomise(part, generator)
    fit_prediction(Denoiser(network, model["unet"]), {"cross_attention_dim": 1, **model["unet"]}, scheduler, generator)
    scale_autoencoder(autoencoder, model["vae"], generator)
    index = {"_diffusers_version": "0.42.1", "_class_name": {
        "depth5": "StableDiffusionDepth2ImgPipeline", "upscale7": "StableDiffusionUpscalePipeline",
        "ldm-text": "LDMTextToImagePipeline"}.get(name, "LDMPipeline")}
    if name == "depth5":
        index |= {"depth_estimator": ["transformers", "DPTForDepthEstimation"], "feature_extractor": ["transformers", "DPTImageProcessor"]}
    if name == "upscale7":
        others["low_res_scheduler"] = DDPMScheduler(**UPSCALER_BETAS)
        index["max_noise_level"] = 50
    if name in ("ldm-class", "ldm-table"):
        index["id2label"] = LABELS
    for part, module in parts.items():
        module.to(HALVES.get(part.replace("vqvae", "vae"), torch.float32)).save_pretrained(folder / part, max_shard_size="150KB")
        index[part] = ["diffusers" if part in ("unet", "vae", "vqvae", "class_embedder") else "transformers", type(module).__name__]
    for part, thing in others.items():
        if "scheduler" in part:
            thing.save_pretrained(folder / part)
        index[part] = ["diffusers" if "scheduler" in part else "transformers", type(thing).__name__]
    write_json(folder / "model_index.json", index)


def loaded(folder, dtype):
    """The parts of a model by their names."""
    index = json.loads((folder / "model_index.json").read_text())
    classes = dict(unet=UNet2DConditionModel if (folder / "unet/config.json").read_text().find("cross_attention_dim") >= 0 else UNet2DModel,
                   vae=AutoencoderKL, vqvae=AutoencoderKL, text_encoder=CLIPTextModel, bert=LDMBertModel, class_embedder=ClassEmbedder)
    parts = {part: kind.from_pretrained(folder / part, dtype=dtype).eval() if part in ("text_encoder", "bert")
             else kind.from_pretrained(folder / part, torch_dtype=dtype).eval() for part, kind in classes.items() if part in index}
    schedulers = {"DDIMScheduler": DDIMScheduler, "DDPMScheduler": DDPMScheduler, "PNDMScheduler": PNDMScheduler}
    parts |= {part: schedulers[index[part][1]].from_pretrained(folder / part) for part in ("scheduler", "low_res_scheduler") if part in index}
    if "tokenizer" in index:
        parts["tokenizer"] = {"CLIPTokenizer": CLIPTokenizer, "BertTokenizer": BertTokenizer}[index["tokenizer"][1]].from_pretrained(
            folder / "tokenizer")
    return parts


def unet_pass(model, network, generator):
    config = model["unet"]
    inputs = {"sample": torch.randn(2, config["in_channels"], *model["sides"], generator=generator)}
    if "cross_attention_dim" in config:
        inputs["encoder_hidden_states"] = torch.randn(2, 7, config["cross_attention_dim"], generator=generator)
    if config.get("num_class_embeds"):
        inputs["class_labels"] = torch.tensor([3, config["num_class_embeds"] - 1])
    result, outputs = recorded(network, lambda: network(timestep=torch.tensor(model["timestep"], dtype=torch.float64), **inputs).sample)
    return {**{f"input.{key}": value for key, value in inputs.items()}, **outputs, "output": result}


def bert_pass(model, parts):
    prompts = [CAT, "Naïve CAFÉ: 2 boats"]
    ids = parts["tokenizer"](prompts, padding="max_length", max_length=77, truncation=True).input_ids
    with torch.no_grad():
        result = parts["bert"](torch.tensor(ids), output_hidden_states=True)
    layers = {f"model.layers.{i}": state for i, state in enumerate(result.hidden_states[1:-1])}
    return dict(prompts=prompts, ids=ids), {**layers, "output": result.last_hidden_state}


def class_images(parts, given, generator):
    """What diffusers has no pipeline for: `LDMPipeline`'s loop with classes."""
    network, scheduler = parts["unet"], parts["scheduler"]
    dtype = next(network.parameters()).dtype
    scheduler.set_timesteps(given["steps"])
    side = network.config.sample_size
    latents = torch.randn((1, 4, side, side), generator=generator, dtype=dtype) * scheduler.init_noise_sigma
    classes = [int(label) for label in given.get("classes", given["prompts"] + given.get("negative_prompts", []))]

    def predicted(label):
        label = torch.tensor([label])
        if "class_embedder" in parts:
            return network(latents, t, parts["class_embedder"].embedding(label)[:, None]).sample
        return network(latents, t, label).sample

    with torch.no_grad():
        for t in scheduler.timesteps:
            predictions = [predicted(label) for label in classes]
            prediction = predictions[0]
            if given["guidance"] > 1:
                prediction = predictions[1] + given["guidance"] * (predictions[0] - predictions[1])
            latents = scheduler.step(prediction, t, latents).prev_sample
        image = parts["vqvae"].decode(latents / parts["vqvae"].config.scaling_factor).sample
    return (image / 2 + 0.5).clamp(0, 1)


def quiet(kind, **parts):
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(folder, inputs, given, dtype=torch.float32):
    """Runs a case and returns its tensors: draws, latents after each step, the picture."""
    parts = loaded(folder, dtype)
    CLIPTextModel.text_model = property(lambda encoder: encoder)
    draws, latents, timesteps = [], [], []
    step = parts["scheduler"].step

    def recording(prediction, timestep, sample, **more):
        result = step(prediction, timestep, sample, **more)
        timesteps.append(float(timestep))
        latents.append(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    parts["scheduler"].step = recording
    generator = torch.Generator().manual_seed(given["seed"])
    arguments = dict(num_inference_steps=given["steps"], generator=generator)
    size = {key: given[key] for key in ("width", "height", "strength", "noise_level") if key in given}
    guided = dict(prompt=given["prompts"], guidance_scale=given["guidance"], **size)
    more = dict(negative_prompt=given.get("negative_prompts"), num_images_per_prompt=given.get("images_per_prompt", 1), output_type="pt")
    if "image" in given:
        more["image"] = Image.open(inputs / given["image"])
    with drawing(draws, dtype):
        if given["pipeline"] == "depth-to-image":
            depth = torch.tensor(list(Image.open(inputs / given["depth"]).getdata()), dtype=torch.float32) / 255
            depth = depth.reshape(1, *reversed(Image.open(inputs / given["depth"]).size))
            pipeline = quiet(StableDiffusionDepth2ImgPipeline, **parts, depth_estimator=None, feature_extractor=None)
            picture = pipeline(**arguments, **guided, **more, depth_map=depth.to(dtype)).images
        elif given["pipeline"] == "upscaling":
            pipeline = quiet(StableDiffusionUpscalePipeline, **parts)
            picture = pipeline(**arguments, **guided, **more).images
        elif given["pipeline"] == "text-to-image":
            picture = quiet(LDMTextToImagePipeline, **parts)(**arguments, **guided, output_type="pt").images
        elif given["pipeline"] == "class":
            picture = class_images(parts, given, generator)
        else:
            images = quiet(LDMPipeline, **parts)(**arguments, batch_size=given.get("images_per_prompt", 1), output_type="np").images
            picture = torch.tensor(images).permute(0, 3, 1, 2)
    tensors = {f"draw.{i}": drawn for i, drawn in enumerate(draws)}
    tensors |= {f"latents.{i}": state for i, state in enumerate(latents)}
    return {**tensors, "latents": latents[-1], "image": picture, "timesteps": torch.tensor(timesteps)}


def end_to_end(name, folder, inputs):
    described = []
    for given in CASES[name]:
        tensors = run(folder, inputs, given)
        precise = run(folder, inputs, given, torch.float64)["latents"].float()
        deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
        assert deviation < 1e-4, f"{name} {given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
        timesteps = tensors.pop("timesteps")
        tensors = worth_keeping(given, tensors)
        draws = [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")]
        described.append({**given, "files": save(tensors, folder / "reference", given["name"]), "timesteps": timesteps.tolist(),
                          "draws": draws, "float64_deviation": float(f"{deviation:.1e}")})
    return described


def main(names):
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    picture(40, 24, 9).convert("L").save(HERE / "inputs" / "depth-40x24.png")
    picture(24, 12, 10).save(HERE / "inputs" / "picture-24x12.png")
    picture(18, 13, 11).save(HERE / "inputs" / "picture-18x13.png")
    for name in names or MODELS:
        folder, seed = HERE / name, 2000 + list(MODELS).index(name)
        make_model(name, folder, seed)
        parts = loaded(folder, torch.float32)
        tensors = unet_pass(MODELS[name], parts["unet"], torch.Generator().manual_seed(seed + 100))
        passes = dict(unet=dict(timestep=MODELS[name]["timestep"], files=save(tensors, folder / "reference", "unet")))
        if "bert" in parts:
            given, tensors = bert_pass(MODELS[name], parts)
            passes["bert"] = dict(**given, files=save(tensors, folder / "reference", "bert"))
        write_json(folder / "cases.json", dict(passes=passes, pipelines=end_to_end(name, folder, HERE / "inputs")))
        print(name, "made")


if __name__ == "__main__":
    main(sys.argv[1:])
