"""The tiny models: what is peculiar about each, and how their random weights are drawn."""

import json
import shutil

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from clip_tokenizer import write_json, write_tokenizer

MERGES = 400
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)

CROSS, PLAIN = "CrossAttn", ""


def unet(levels, channels, **more):
    """A U-Net configuration; `levels` says for each level whether it has cross attention."""
    return dict(
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in levels),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(levels)),
        block_out_channels=channels,
        **{"sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 4,
           "cross_attention_dim": 16, "attention_head_dim": 2, **more},
    )


def vae(channels, **more):
    return dict(
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        **{"latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 8 << len(channels) - 1, **more},
    )


def text(hidden=16, heads=2, layers=3, act="quick_gelu", length=16, projection=16, **ids):
    """`ids` are the special tokens' ids where they are not the true ones (as in Stable Diffusion 1's own configuration)."""
    return dict(hidden_size=hidden, intermediate_size=4 * hidden, num_attention_heads=heads, num_hidden_layers=layers,
                hidden_act=act, max_position_embeddings=length, projection_dim=projection, **ids)


HALVES = dict(unet=torch.float16, vae=torch.float16)
# As in the folder of SDXL.
XL_SCHEDULER = dict(**BETAS, steps_offset=1, trained_betas=None, prediction_type="epsilon", interpolation_type="linear",
                    timestep_spacing="leading", use_karras_sigmas=False)

# `timestep` and `sides` (latents h × w) are those of the single U-Net pass, `picture` (h × w) that of the autoencoder's.
MODELS = {
    "sd1": dict(
        pipeline=StableDiffusionPipeline,
        unet=unet([CROSS, CROSS, PLAIN], (8, 8, 12), layers_per_block=2),
        vae=vae((8, 8, 16), layers_per_block=2),
        text=text(length=24, bos_token_id=0, eos_token_id=2, pad_token_id=1),
        scheduler=PNDMScheduler,
        scheduler_config=dict(**BETAS, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None,
                              clip_sample=False),
        dtype=dict(unet=torch.float16, vae=torch.float16),
        timestep=501.0, sides=(8, 8), picture=(16, 24),
    ),
    "sd2": dict(
        pipeline=StableDiffusionPipeline,
        unet=unet([CROSS, CROSS, PLAIN], (8, 16, 24), attention_head_dim=(2, 4, 3), use_linear_projection=True,
                  upcast_attention=True, cross_attention_dim=24, layers_per_block=2),
        vae=vae((8, 16)),
        text=text(hidden=24, heads=3, layers=2, act="gelu", projection=24),
        pad="!",
        scheduler=DDIMScheduler,
        scheduler_config=dict(**BETAS, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None,
                              clip_sample=False, prediction_type="v_prediction"),
        dtype=dict(unet=torch.float16, vae=torch.float16, text_encoder=torch.float16),
        shard=dict(unet="160KB"),
        timestep=321.0, sides=(4, 8), picture=(16, 16), pictures=2,
    ),
    "inpaint9": dict(
        pipeline=StableDiffusionInpaintPipeline,
        unet=unet([CROSS, PLAIN], (8, 16), in_channels=9),
        vae=vae((8, 8, 16)),
        text=text(),
        scheduler=PNDMScheduler,
        scheduler_config=dict(**BETAS, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None,
                              clip_sample=False),
        dtype=dict(unet=torch.float16, vae=torch.float16),
        old_keys=True,
        timestep=81.0, sides=(8, 8), picture=(16, 16),
    ),
    "edit8": dict(
        pipeline=StableDiffusionInstructPix2PixPipeline,
        unet=unet([PLAIN, CROSS], (8, 12), in_channels=8, layers_per_block=2),
        vae=vae((8, 8, 16)),
        text=text(layers=2),
        scheduler=EulerDiscreteScheduler,
        scheduler_config=dict(**BETAS, steps_offset=1, trained_betas=None, prediction_type="epsilon",
                              interpolation_type="linear"),
        dtype=dict(unet=torch.float16, vae=torch.float16),
        old_config=True,
        timestep=961.0, sides=(8, 8), picture=(24, 16),
    ),
    "lcm": dict(
        pipeline=LatentConsistencyModelPipeline,
        unet=unet([CROSS, CROSS], (8, 16), time_cond_proj_dim=16, sample_size=16),
        vae=vae((8,)),
        text=text(layers=2),
        scheduler=LCMScheduler,
        scheduler_config=dict(**BETAS, set_alpha_to_one=True, steps_offset=1, original_inference_steps=50, clip_sample=False,
                              prediction_type="epsilon", timestep_spacing="leading", timestep_scaling=10.0),
        shard=dict(unet="160KB"),
        timestep=759.0, sides=(8, 8), picture=(16, 8),
    ),
    "odd": dict(
        pipeline=StableDiffusionPipeline,
        unet=unet([PLAIN, CROSS, PLAIN], (8, 20, 12), attention_head_dim=(2, 4, 3), transformer_layers_per_block=2,
                  cross_attention_dim=20, flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, sample_size=10),
        vae=vae((12, 4, 8), use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False, layers_per_block=1,
                scaling_factor=0.3611, sample_size=40),
        text=text(hidden=20, heads=4, layers=1, act="gelu", length=11, projection=12),
        scheduler=EulerDiscreteScheduler,
        scheduler_config=dict(**BETAS, steps_offset=1, trained_betas=None, prediction_type="epsilon",
                              interpolation_type="linear", timestep_spacing="leading"),
        dtype=dict(unet=torch.bfloat16),
        shard=dict(unet="160KB"),
        timestep=640.25, sides=(9, 7), picture=(20, 12),
    ),
    # The sizes of SDXL's parts relative to one another: no attention at the highest resolution, more transformer blocks below.
    "sdxl": dict(
        pipeline=StableDiffusionXLPipeline,
        unet=unet([PLAIN, CROSS, CROSS], (8, 16, 24), attention_head_dim=(2, 4, 3), use_linear_projection=True, cross_attention_dim=40,
                  transformer_layers_per_block=(1, 1, 2), addition_embed_type="text_time", addition_time_embed_dim=8,
                  projection_class_embeddings_input_dim=20 + 6 * 8),
        vae=vae((8, 8, 16), scaling_factor=0.13025, force_upcast=True),
        text=text(layers=3), text_2=text(hidden=24, heads=3, layers=3, act="gelu", projection=20), pad_2="!",
        scheduler=EulerDiscreteScheduler, scheduler_config=XL_SCHEDULER, dtype=HALVES, shard=dict(unet="160KB"),
        timestep=641.0, sides=(6, 8), picture=(16, 16),
    ),
    # One text encoder, and an aesthetic score instead of a target size.
    "refiner": dict(
        pipeline=StableDiffusionXLImg2ImgPipeline, settings=dict(requires_aesthetics_score=True, force_zeros_for_empty_prompt=False),
        unet=unet([PLAIN, CROSS, PLAIN], (8, 16, 16), attention_head_dim=(2, 4, 4), use_linear_projection=True, cross_attention_dim=24,
                  transformer_layers_per_block=2, addition_embed_type="text_time", addition_time_embed_dim=8,
                  projection_class_embeddings_input_dim=20 + 5 * 8),
        vae=vae((8, 8, 16), scaling_factor=0.13025, force_upcast=True),
        text_2=text(hidden=24, heads=3, layers=2, act="gelu", projection=20), pad_2="!",
        scheduler=EulerDiscreteScheduler, scheduler_config=XL_SCHEDULER, dtype=HALVES, shard=dict(unet="160KB"),
        timestep=121.0, sides=(6, 8), picture=(16, 16),
    ),
    # SSD-1B's kind: numbers of transformer blocks that differ inside of a level, one resnet in the middle, heads that do not matter.
    "ssd": dict(
        pipeline=StableDiffusionXLPipeline,
        unet=unet([PLAIN, CROSS, CROSS], (8, 16, 16), layers_per_block=2, attention_head_dim=(12, 4, 2), use_linear_projection=True,
                  cross_attention_dim=40, transformer_layers_per_block=(1, (2, 1), (1, 2)), mid_block_type="UNetMidBlock2D",
                  reverse_transformer_layers_per_block=((1, 2, 1), (2, 1, 1), 1), addition_embed_type="text_time",
                  addition_time_embed_dim=4, projection_class_embeddings_input_dim=20 + 6 * 4),
        vae=vae((8, 8, 16), scaling_factor=0.13025, force_upcast=True),
        text=text(layers=2), text_2=text(hidden=24, heads=3, layers=2, act="gelu", projection=20), pad_2="!",
        scheduler=EulerDiscreteScheduler, scheduler_config=XL_SCHEDULER, dtype=HALVES, shard=dict(unet="160KB"),
        timestep=881.0, sides=(8, 8), picture=(16, 16),
    ),
    # SDXL for inpainting, which sees mask and picture beside the latents.
    "xl-inpaint9": dict(
        pipeline=StableDiffusionXLInpaintPipeline,
        unet=unet([PLAIN, CROSS], (8, 16), in_channels=9, use_linear_projection=True, cross_attention_dim=40,
                  addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=20 + 6 * 4),
        vae=vae((8, 8, 16), scaling_factor=0.13025, force_upcast=True),
        text=text(layers=2), text_2=text(hidden=24, heads=3, layers=2, act="gelu", projection=20), pad_2="!",
        scheduler=EulerDiscreteScheduler, scheduler_config=XL_SCHEDULER, dtype=HALVES,
        timestep=81.0, sides=(8, 8), picture=(16, 16),
    ),
    # BK-SDM's and tiny-sd's kind: a level less, one resnet each, no middle.
    "tiny": dict(
        pipeline=StableDiffusionPipeline,
        unet=unet([CROSS, CROSS], (8, 16), mid_block_type=None),
        vae=vae((8, 8, 16)),
        text=text(layers=2),
        scheduler=PNDMScheduler,
        scheduler_config=dict(**BETAS, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None,
                              clip_sample=False),
        dtype=HALVES,
        timestep=301.0, sides=(8, 8), picture=(16, 16),
    ),
    # A text encoder alone, of the kind that Stable Diffusion XL has as its second.
    "projection": dict(
        text=text(hidden=16, heads=4, layers=3, act="gelu", length=13, projection=24), pad="!", text_class=CLIPTextModelWithProjection,
    ),
    # SDXL for instruction editing, which sees a picture beside the latents.
    "xl-edit8": dict(
        pipeline=StableDiffusionXLInstructPix2PixPipeline,
        unet=unet([PLAIN, CROSS], (8, 12), in_channels=8, use_linear_projection=True, cross_attention_dim=40,
                  addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=20 + 6 * 4),
        vae=vae((8, 8, 16), scaling_factor=0.13025, force_upcast=True),
        text=text(layers=2), text_2=text(hidden=24, heads=3, layers=2, act="gelu", projection=20), pad_2="!",
        scheduler=EulerDiscreteScheduler, scheduler_config=XL_SCHEDULER, dtype=HALVES,
        timestep=361.0, sides=(8, 8), picture=(16, 16),
    ),
}


# MARK: weights


# Sharper attention than chance gives; residual branches that do not drown what they are added to.
GAINS = {"to_q": 1.4, "to_k": 1.4, "q_proj": 1.4, "k_proj": 1.4, "conv2": 0.5, "to_out": 0.5, "net.2": 0.5, "proj_out": 0.5}


def randomise(module, generator):
    """Gives every parameter a value that matters: no zero bias, no norm weight of one, projections that keep the variance."""
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        owner = module.get_submodule(name.rpartition(".")[0])
        if "norm" in type(owner).__name__.lower():
            value = 1 + 0.25 * noise if name.endswith("weight") else 0.2 * noise
        elif isinstance(owner, torch.nn.Embedding):
            value = noise
        elif parameter.ndim == 1:
            value = 0.2 * noise
        else:
            gain = next((gain for part, gain in GAINS.items() if f".{part}." in name), 1.0)
            value = gain * noise / parameter[0].numel() ** 0.5
        parameter.data.copy_(value)


def told(config, rows, generator):
    """What SDXL's U-Net is told beside the text: a pooled text and sizes."""
    if not config.get("addition_embed_type"):
        return None
    numbers = 5 if config["cross_attention_dim"] == 24 else 6
    pooled = config["projection_class_embeddings_input_dim"] - numbers * config["addition_time_embed_dim"]
    return dict(text_embeds=torch.randn(rows, pooled, generator=generator),
                time_ids=torch.randint(0, 64, (rows, numbers), generator=generator).float())


def fit_prediction(model, config, scheduler, generator):
    """Chooses conv_out so that the network is a passable denoiser: loops then stay in range, as a trained model's do.

    A random network's features contain the input, so a least-squares fit of the last convolution is enough. A random
    share is added, through which text and time have their say.
    """
    features, target = [], []
    hook = model.conv_out.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    side = config["sample_size"]
    for _ in range(24):
        t = torch.randint(0, 1000, (1,), generator=generator)
        clean, noise = (torch.randn(4, 4, side, side, generator=generator) for _ in range(2))
        noisy = scheduler.add_noise(clean, noise, t.repeat(4))
        more = torch.randn(4, config["in_channels"] - 4, side, side, generator=generator)
        states = torch.randn(4, 8, config["cross_attention_dim"], generator=generator)
        condition = torch.randn(4, config.get("time_cond_proj_dim") or 1, generator=generator)
        with torch.no_grad():
            model(torch.cat([noisy, more], 1), t, states, added_cond_kwargs=told(config, 4, generator),
                  timestep_cond=condition if config.get("time_cond_proj_dim") else None)
        a = scheduler.alphas_cumprod[t]
        velocity = scheduler.config.get("prediction_type") == "v_prediction"
        target.append(a.sqrt() * noise - (1 - a).sqrt() * clean if velocity else noise)
    hook.remove()
    columns = torch.nn.functional.unfold(torch.cat(features), 3, padding=1).transpose(1, 2).flatten(0, 1)
    columns = torch.cat([columns, torch.ones(len(columns), 1)], 1).double()
    wanted = torch.cat(target).permute(0, 2, 3, 1).flatten(0, 2).double()
    gram = columns.T @ columns + 1e-3 * len(columns) * torch.eye(columns.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, columns.T @ wanted).float()
    weight = model.conv_out.weight
    random = torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5
    weight.data.copy_(solution[:-1].T.reshape(weight.shape) + 0.2 * random)
    model.conv_out.bias.data.copy_(solution[-1] + 0.05 * torch.randn(4, generator=generator))


def scale_autoencoder(model, config, generator):
    """Latents of standard deviation about one once scaled, a variance that matters, pictures that fill -1…1."""
    picture = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    last = model.quant_conv or model.encoder.conv_out
    with torch.no_grad():
        moments = model._encode(picture)
        wanted = torch.cat([torch.full((4,), 0.9 / model.config.scaling_factor), torch.full((4,), 1.0)])
        factor = wanted / moments.std(dim=(0, 2, 3))
        last.weight *= factor[:, None, None, None]
        last.bias *= factor
        latents = torch.randn(2, 4, 8, 8, generator=generator) / model.config.scaling_factor
        factor = 0.45 / model.decode(latents).sample.std(dim=(0, 2, 3))
        model.decoder.conv_out.weight *= factor[:, None, None, None]
        model.decoder.conv_out.bias *= factor


# MARK: a model's folder


def make_model(name, folder, merges_file, seed):
    """Writes the model as diffusers does, with what is peculiar to older checkpoints where the model is to have it."""
    model = MODELS[name]
    generator = torch.Generator().manual_seed(seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts, tokenizers = {}, {}
    for suffix, usual in (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection)):
        if "text" + suffix not in model:
            continue
        length, pad = model["text" + suffix]["max_position_embeddings"], model.get("pad" + suffix, "<|endoftext|>")
        count = write_tokenizer(folder / ("tokenizer" + suffix), merges_file, length, pad, MERGES)
        true_ids = dict(bos_token_id=count - 2, eos_token_id=count - 1, pad_token_id=0 if "pad" + suffix in model else count - 1)
        encoder = model.get("text_class", usual)(CLIPTextConfig(vocab_size=count, **{**true_ids, **model["text" + suffix]}))
        randomise(encoder, generator)
        parts["text_encoder" + suffix] = encoder.eval()
        tokenizers["tokenizer" + suffix] = CLIPTokenizer.from_pretrained(folder / ("tokenizer" + suffix))
    if "unet" in model:
        # As the published folders have it: what a file leaves out is the default of whichever class reads it.
        (folder / "scheduler").mkdir()
        write_json(folder / "scheduler" / "scheduler_config.json", dict(
            _class_name=model["scheduler"].__name__, _diffusers_version="0.42.1", **model["scheduler_config"]))
        scheduler = model["scheduler"].from_pretrained(folder / "scheduler")
        parts["unet"] = UNet2DConditionModel(**model["unet"]).eval()
        parts["vae"] = AutoencoderKL(**model["vae"]).eval()
        for part in (parts["unet"], parts["vae"]):
            randomise(part, generator)
        fit_prediction(parts["unet"], model["unet"], scheduler, generator)
        scale_autoencoder(parts["vae"], model["vae"], generator)
        # The pipeline's constructor may adapt configurations, and writes model_index.json.
        is_xl = "text_2" in model
        absent = {} if is_xl else dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        if is_xl and "text" not in model:
            absent = dict(text_encoder=None, tokenizer=None)
        pipeline = model["pipeline"](**parts, scheduler=scheduler, **tokenizers, **absent, **model.get("settings", {}))
        pipeline.save_config(folder)
    else:
        # No pipeline of diffusers consists of these two alone, but a folder is a model by its index.
        write_json(folder / "model_index.json", dict(
            _diffusers_version="0.42.1", text_encoder=["transformers", type(encoder).__name__],
            tokenizer=["transformers", "CLIPTokenizer"]))
    for part, module in parts.items():
        module.to(model.get("dtype", {}).get(part, torch.float32))
        module.save_pretrained(folder / part, max_shard_size=model.get("shard", {}).get(part, "10GB"))
    if model.get("old_keys"):
        rename_keys(folder)
    if model.get("old_config"):
        shorten_configurations(folder)


def rename_keys(folder):
    """The names under which older versions saved: `text_model.` and a table of positions, the autoencoder's attention."""
    path = folder / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{key}": value for key, value in load_file(path).items()}
    length = len(tensors["text_model.embeddings.position_embedding.weight"])
    tensors["text_model.embeddings.position_ids"] = torch.arange(length)[None]
    save_file(tensors, path, {"format": "pt"})
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        tensors = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): value for key, value in tensors.items()}
    save_file(tensors, path, {"format": "pt"})


def shorten_configurations(folder):
    """Configurations as short as the first ones: later keys are absent, and mean their defaults."""
    kept = {
        "unet": "_class_name act_fn attention_head_dim block_out_channels center_input_sample cross_attention_dim down_block_types"
        " downsample_padding flip_sin_to_cos freq_shift in_channels layers_per_block mid_block_scale_factor norm_eps"
        " norm_num_groups out_channels sample_size up_block_types",
        "vae": "_class_name act_fn block_out_channels down_block_types in_channels latent_channels layers_per_block"
        " norm_num_groups out_channels sample_size up_block_types",
    }
    for part, keys in kept.items():
        path = folder / part / "config.json"
        config = json.loads(path.read_text())
        write_json(path, {key: config[key] for key in keys.split()} | {"_diffusers_version": "0.6.0"})
