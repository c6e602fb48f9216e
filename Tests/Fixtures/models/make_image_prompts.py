#!/usr/bin/env python3
"""Makes what draws from pictures: a tiny image encoder, IP-Adapters for the tiny models `sd1` and `sdxl`, the tiny models `unclip` and
`variation`, and the reference results for them. See README.md.

    python make_image_prompts.py         # after make_models.py, which makes the models and the pictures
"""

import shutil

import make_models  # sets the environment before torch is loaded
import diffusers
import numpy as np
import torch
from diffusers.utils import logging
from PIL import Image
from safetensors.torch import save_file
from transformers import (CLIPImageProcessorPil, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig,
                          CLIPVisionModelWithProjection)

import configurations
from clip_tokenizer import write_json, write_tokenizer
from configurations import BETAS, CROSS, MERGES, PLAIN, fit_prediction, randomise, scale_autoencoder, text, unet, vae
from pipelines import BOAT, CAT, case, drawing, run

HERE = make_models.HERE
FOLDER = HERE / "image-prompts"
EMBEDS = 12
VISION = dict(hidden_size=24, intermediate_size=48, projection_dim=EMBEDS, num_hidden_layers=3, num_attention_heads=3, image_size=20, patch_size=4,
              hidden_act="gelu")
A, B, C = "picture.png", "picture-37x50.png", "picture-48x32.png"
# Resizing and cutting: wider and higher, larger and smaller than the encoder's pictures, filters, and what a configuration can leave out.
PROCESSING = [
    dict(name="default", picture=B, config=None),
    dict(name="wide", picture=C, config=dict(size=20, crop_size=20)),
    dict(name="larger", picture=B, config=dict(size=dict(shortest_edge=61), crop_size=dict(height=50, width=70))),
    dict(name="padded", picture=A, config=dict(size=dict(shortest_edge=15), crop_size=dict(height=20, width=18))),
    dict(name="sides", picture=C, config=dict(size=dict(height=30, width=20), do_center_crop=False)),
    dict(name="bilinear", picture=C, config=dict(size=11, crop_size=9, resample=2)),
    dict(name="lanczos", picture=B, config=dict(size=23, crop_size=20, resample=1)),
    dict(name="no-resize", picture=B, config=dict(do_resize=False, crop_size=33)),
    dict(name="bytes", picture=A, config=dict(size=20, crop_size=20, do_rescale=False, do_normalize=False)),
    dict(name="means", picture=A, config=dict(size=20, crop_size=20, image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.6, 0.7], rescale_factor=0.01)),
]
SD1 = dict(model="sd1", width=32, height=32)
RUNS = [
    case("plain", "text-to-image", **SD1, guidance=5.0, seed=40, adapters=[("sd1", 0.6, [A])]),
    case("plus", "text-to-image", **SD1, guidance=5.0, seed=41, adapters=[("sd1-plus", 0.8, [B])]),
    case("plain-two-pictures", "text-to-image", **SD1, guidance=5.0, seed=42, adapters=[("sd1", 0.6, [A, C])], images_per_prompt=2),
    case("two-adapters", "text-to-image", **SD1, guidance=5.0, seed=43, adapters=[("sd1", 0.4, [A]), ("sd1-plus", 0.7, [B, C])]),
    case("plus-unguided", "text-to-image", **SD1, guidance=1.0, seed=44, adapters=[("sd1-plus", 1.0, [A])], scheduler="euler"),
    case("zero", "text-to-image", **SD1, guidance=5.0, seed=45, adapters=[("sd1", 0.0, [A])], scheduler="ddim"),
    case("img2img", "image-to-image", model="sd1", image=A, strength=0.6, guidance=5.0, seed=46, adapters=[("sd1-plus", 0.6, [C])],
         scheduler="ddim"),
    case("inpaint", "inpainting", **SD1, image=A, mask="mask.png", strength=1.0, guidance=5.0, seed=47, adapters=[("sd1", 0.6, [B])],
         scheduler="euler"),
    case("xl-plain", "text-to-image", model="sdxl", width=32, height=32, guidance=5.0, seed=48, adapters=[("sdxl", 0.6, [A])]),
    case("xl-plus-two-pictures", "text-to-image", BOAT, model="sdxl", width=32, height=32, guidance=5.0, seed=49,
         adapters=[("sdxl-plus", 0.8, [A, B])]),
]
VARIATIONS = [
    case("unclip", "unclip", model="unclip", image=A, guidance=10.0, seed=50),
    case("unclip-noise", "unclip", model="unclip", image=B, guidance=5.0, seed=51, noise_level=300, negative_prompts=["blurred, grey"]),
    case("unclip-unguided", "unclip", "", model="unclip", image=C, guidance=1.0, seed=52, images_per_prompt=2),
    case("variation", "variation", "", model="variation", image=A, guidance=7.5, seed=53),
    case("variation-unguided", "variation", "", model="variation", image=B, guidance=1.0, seed=54, images_per_prompt=2),
]
PIPELINES = {"unclip": diffusers.StableUnCLIPImg2ImgPipeline, "variation": diffusers.StableDiffusionImageVariationPipeline}


# MARK: the encoder


def make_encoder(folder, generator):
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).eval()
    randomise(encoder, generator)
    encoder.vision_model.embeddings.class_embedding.data.copy_(torch.randn(VISION["hidden_size"], generator=generator))
    encoder.save_pretrained(folder)
    return encoder


def original_tower(encoder):
    """The tower under OpenCLIP's names: one matrix for queries, keys and values, and a projection that is multiplied from the other side."""
    modules = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
               "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj", "encoder.layers": "transformer.resblocks",
               "embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding": "conv1",
               "embeddings.position_embedding.weight": "positional_embedding"}
    state, tensors = encoder.state_dict(), {}
    for key, value in state.items():
        if key == "visual_projection.weight":
            tensors["visual.proj"] = value.T
            continue
        if ".k_proj." in key or ".v_proj." in key:
            continue
        if ".q_proj." in key:
            value = torch.cat([state[key.replace("q_proj", f"{kind}_proj")] for kind in "qkv"])
            key = key.replace("self_attn.q_proj.", "attn.in_proj_")
        for new, old in modules.items():
            key = key.replace(new, old)
        tensors[key.replace("vision_model.", "visual.")] = value
    return {key: value.contiguous() for key, value in tensors.items()}


def encoder_pass(encoder, generator):
    size = VISION["image_size"]
    pixels = torch.randn(2, 3, size, size, generator=generator)
    with torch.no_grad():
        result = encoder(pixels, output_hidden_states=True)
    layers = {f"encoder.layers.{i}": state for i, state in enumerate(result.hidden_states[1:])}
    return {"input": pixels, **layers, "output.penultimate": result.hidden_states[-2], "output.image_embeds": result.image_embeds}


def processed(given):
    """The numbers that the encoder is given for a picture. Without a configuration they are those of the class, of 224 pixels: only a part is kept."""
    processor = CLIPImageProcessorPil(**(given["config"] or {}))
    values = processor(Image.open(HERE / "inputs" / given["picture"]), return_tensors="pt").pixel_values.float()
    return values if given["config"] else values[:, :, 96:128, 96:128].contiguous()


# MARK: adapters


def linear(outputs, inputs, generator, gain=1.0):
    return gain * torch.randn(outputs, inputs, generator=generator) / inputs**0.5


def norm(name, size, generator):
    return {f"{name}.weight": 1 + 0.25 * torch.randn(size, generator=generator), f"{name}.bias": 0.2 * torch.randn(size, generator=generator)}


def plain_projection(context, generator):
    return {"proj.weight": linear(4 * context, EMBEDS, generator), "proj.bias": 0.2 * torch.randn(4 * context, generator=generator),
            **norm("norm", context, generator)}


def plus_projection(context, generator):
    features, hidden, inner = VISION["hidden_size"], 16, 128
    tensors = {"latents": torch.randn(1, 3, hidden, generator=generator)}
    for name, outputs, inputs in (("proj_in", hidden, features), ("proj_out", context, hidden)):
        tensors |= {f"{name}.weight": linear(outputs, inputs, generator), f"{name}.bias": 0.2 * torch.randn(outputs, generator=generator)}
    tensors |= norm("norm_out", context, generator)
    for i in range(4):
        block = {**norm("0.norm1", hidden, generator), **norm("0.norm2", hidden, generator),
                 "0.to_q.weight": linear(inner, hidden, generator, 1.4), "0.to_kv.weight": linear(2 * inner, hidden, generator, 1.4),
                 "0.to_out.weight": linear(hidden, inner, generator, 0.7), **norm("1.0", hidden, generator),
                 "1.1.weight": linear(4 * hidden, hidden, generator), "1.3.weight": linear(hidden, 4 * hidden, generator, 0.7)}
        tensors |= {f"layers.{i}.{name}": value for name, value in block.items()}
    return tensors


def make_adapter(name, model, projection, generator):
    """An adapter under the names of published files."""
    network = diffusers.UNet2DConditionModel.from_pretrained(HERE / model / "unet")
    context = network.config.cross_attention_dim
    tensors = {f"image_proj.{key}": value for key, value in projection(context, generator).items()}
    attentions = [network.get_submodule(key.removesuffix(".processor")) for key in network.attn_processors if "attn2" in key]
    for i, attention in enumerate(attentions):
        for kind in "kv":
            inner = getattr(attention, f"to_{kind}").weight.shape[0]
            tensors[f"ip_adapter.{2 * i + 1}.to_{kind}_ip.weight"] = linear(inner, context, generator, 1.4)
    save_file({key: value.half().contiguous() for key, value in tensors.items()}, FOLDER / f"ip-adapter-{name}.safetensors")


def adapted(encoder):
    def prepare(pipeline, given):
        dtype = pipeline.unet.dtype
        size = VISION["image_size"]
        pipeline.register_modules(image_encoder=encoder.to(dtype),
                                  feature_extractor=CLIPImageProcessorPil(size=size, crop_size=size))
        files = [f"ip-adapter-{name}.safetensors" for name, _, _ in given["adapters"]]
        pipeline.load_ip_adapter([FOLDER] * len(files), subfolder=[""] * len(files), weight_name=files, image_encoder_folder=None)
        pipeline.set_ip_adapter_scale([scale for _, scale, _ in given["adapters"]])
        return dict(ip_adapter_image=[[Image.open(HERE / "inputs" / name) for name in names] for _, _, names in given["adapters"]])

    return prepare


# MARK: models that draw variations


def make_variation_model(name, generator):
    """Tiny models of both kinds. `fit_prediction` needs their inputs, so it is told how the network is called."""
    folder, is_unclip = HERE / name, name == "unclip"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    more = dict(class_embed_type="projection", projection_class_embeddings_input_dim=2 * EMBEDS) if is_unclip else {}
    config = unet([CROSS, PLAIN], (8, 16), cross_attention_dim=16 if is_unclip else EMBEDS, use_linear_projection=is_unclip, **more)
    network, autoencoder = diffusers.UNet2DConditionModel(**config).eval(), diffusers.AutoencoderKL(**vae((8, 8, 16))).eval()
    for part in (network, autoencoder):
        randomise(part, generator)
    scheduler = diffusers.DDIMScheduler(**BETAS, set_alpha_to_one=False, steps_offset=1, clip_sample=False)
    labels = torch.randn(4, 2 * EMBEDS, generator=generator)
    if is_unclip:
        hook = network.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs, "class_labels": labels}), with_kwargs=True)
    fit_prediction(network, config, scheduler, generator)
    if is_unclip:
        hook.remove()
    scale_autoencoder(autoencoder, autoencoder.config, generator)
    encoder = make_encoder(folder / "image_encoder", generator)
    size = VISION["image_size"]
    parts = dict(unet=network, vae=autoencoder, image_encoder=encoder, scheduler=scheduler,
                 feature_extractor=CLIPImageProcessorPil(size=size, crop_size=size))
    if is_unclip:
        count = write_tokenizer(folder / "tokenizer", make_models.MERGES_FILE, 16, "<|endoftext|>", MERGES)
        tower = CLIPTextModel(CLIPTextConfig(vocab_size=count, bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=count - 1, **text()))
        randomise(tower, generator)
        normalizer = diffusers.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(EMBEDS)
        normalizer.mean.data.copy_(0.3 * torch.randn(1, EMBEDS, generator=generator))
        normalizer.std.data.copy_(1 + torch.rand(1, EMBEDS, generator=generator))
        parts |= dict(text_encoder=tower.eval(), tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"), image_normalizer=normalizer,
                      image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"))
    else:
        parts |= dict(safety_checker=None, requires_safety_checker=False)
    for part in ("unet", "vae"):
        parts[part].half()
    PIPELINES[name](**parts).save_pretrained(folder)
    # As published folders name the class, whatever is installed here.
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("CLIPImageProcessorPil", "CLIPImageProcessor"))


def run_variation(given, dtype=torch.float32):
    more = {} if given["pipeline"] == "unclip" else dict(safety_checker=None, requires_safety_checker=False)
    pipeline = PIPELINES[given["pipeline"]].from_pretrained(HERE / given["model"], dtype=dtype, **more)
    pipeline.set_progress_bar_config(disable=True)
    draws, latents, timesteps = [], [], []

    def record(_, timestep, values):
        timesteps.append(float(timestep))
        latents.append(values)

    arguments = dict(image=Image.open(HERE / "inputs" / given["image"]), num_inference_steps=given["steps"], guidance_scale=given["guidance"],
                     num_images_per_prompt=given.get("images_per_prompt", 1), output_type="pt", callback=record,
                     generator=torch.Generator().manual_seed(given["seed"]))
    if given["pipeline"] == "unclip":
        arguments |= dict(prompt=given["prompts"], negative_prompt=given.get("negative_prompts"), noise_level=given.get("noise_level", 0))
    with drawing(draws, dtype):
        picture = pipeline(**arguments).images
    return dict(**{f"draw.{i}": drawn for i, drawn in enumerate(draws)}, **{f"latents.{i}": state for i, state in enumerate(latents)},
                latents=latents[-1], image=picture, timesteps=torch.tensor(timesteps))


# MARK: all of it


def described(given, run):
    """A case of cases.json, its tensors saved."""
    tensors, precise = run(torch.float32), run(torch.float64)["latents"].float()
    deviation = float((precise - tensors["latents"]).abs().max() / precise.std())
    assert deviation < 1e-4, f"{given['name']}: float32 and float64 differ by {deviation}: no case to compare with"
    timesteps = tensors.pop("timesteps")
    tensors = make_models.worth_keeping(given, tensors)
    return {**given, "files": make_models.save(tensors, FOLDER / "reference", given["name"]), "timesteps": timesteps.tolist(),
            "draws": [list(value.shape) for key, value in tensors.items() if key.startswith("draw.")],
            "float64_deviation": float(f"{deviation:.1e}")}


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    generator = torch.Generator().manual_seed(4000)
    encoder = make_encoder(FOLDER / "image_encoder", generator)
    (FOLDER / "openclip").mkdir()
    save_file(original_tower(encoder), FOLDER / "openclip" / "model.safetensors")
    shutil.copy(FOLDER / "image_encoder" / "config.json", FOLDER / "openclip")
    passes = dict(image=dict(files=make_models.save(encoder_pass(encoder, generator), FOLDER / "reference", "image")))
    make_models.save({given["name"]: processed(given) for given in PROCESSING}, FOLDER / "reference", "processing")
    for model in ("sd1", "sdxl"):
        make_adapter(model, model, plain_projection, generator)
        make_adapter(f"{model}-plus", model, plus_projection, generator)
    for name in PIPELINES:
        make_variation_model(name, generator)
    runs = [described(given, lambda dtype: run(HERE / given["model"], HERE / "inputs", given, dtype, adapted(encoder))[1]) for given in RUNS]
    runs += [described(given, lambda dtype: run_variation(given, dtype)) for given in VARIATIONS]
    for given in runs:
        given["adapters"] = [dict(file=file, scale=scale, pictures=names) for file, scale, names in given.get("adapters", [])]
    write_json(FOLDER / "cases.json", dict(passes=passes, processing=PROCESSING, pipelines=runs))


if __name__ == "__main__":
    main()
