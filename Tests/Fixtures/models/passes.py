"""Single passes: every block's output, under its module's name."""

import torch
from diffusers.models.attention import BasicTransformerBlock, FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D, KDownsample2D
from diffusers.models.embeddings import GaussianFourierProjection, TimestepEmbedding, Timesteps
from diffusers.models.normalization import AdaGroupNorm
from diffusers.models.resnet import ResnetBlock2D, ResnetBlockCondNorm2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock, KAttentionBlock
from diffusers.models.upsampling import KUpsample2D, Upsample2D

from configurations import told

BLOCKS = (ResnetBlock2D, Transformer2DModel, BasicTransformerBlock, FeedForward, Attention, Downsample2D, Upsample2D, Timesteps,
          TimestepEmbedding, AutoencoderTinyBlock, KDownsample2D, KUpsample2D, GaussianFourierProjection, AdaGroupNorm,
          ResnetBlockCondNorm2D, KAttentionBlock)
NAMES = ("conv_in", "conv_norm_out", "conv_out", "quant_conv", "post_quant_conv", "mid_block", "quantize")


def recorded(module, run):
    """Runs `run` and returns its result with the outputs of the module's blocks, NCHW or [N, tokens, C], by their paths."""
    outputs, hooks = {}, []

    def record(name):
        def hook(_, __, output):
            outputs[name] = output if torch.is_tensor(output) else output[0]

        return hook

    for name, part in module.named_modules():
        last = name.rpartition(".")[2]
        parent = name.rpartition(".")[0].rpartition(".")[2]
        if isinstance(part, BLOCKS) or last in NAMES or parent in ("down_blocks", "up_blocks") or (
                parent == "layers" and isinstance(part, torch.nn.Conv2d)):
            hooks.append(part.register_forward_hook(record(name)))
    with torch.no_grad():
        result = run()
    for hook in hooks:
        hook.remove()
    return result, outputs


def unet_pass(unet, sides, timestep, generator):
    config = unet.config
    inputs = {
        "input.sample": torch.randn(2, config.in_channels, *sides, generator=generator),
        "input.encoder_hidden_states": torch.randn(2, 7, config.cross_attention_dim, generator=generator),
    }
    if config.time_cond_proj_dim:
        inputs["input.timestep_cond"] = torch.randn(2, config.time_cond_proj_dim, generator=generator)
    more = told(config, 2, generator) or {}

    def run(model=unet, kind=torch.float32):
        at = torch.tensor(timestep, dtype=torch.float64)
        given = {key.removeprefix("input."): value.to(kind) for key, value in inputs.items()}
        return model(timestep=at, **given, added_cond_kwargs={key: value.to(kind) for key, value in more.items()}).sample

    result, outputs = recorded(unet, run)
    return {**inputs, **{f"input.{key}": value for key, value in more.items()}, **outputs, "output": result}


def encode_pass(vae, count, sides, generator):
    picture = torch.rand(count, 3, *sides, generator=generator) * 2 - 1
    posterior, outputs = recorded(vae, lambda: vae.encode(picture).latent_dist)
    return {"input": picture, **outputs, "moments": posterior.parameters, "output.mean": posterior.mean,
            "output.logvar": posterior.logvar, "output.std": posterior.std}


def decode_pass(vae, count, sides, generator):
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    latents = torch.randn(count, vae.config.latent_channels, *(s // scale for s in sides), generator=generator)
    latents /= vae.config.scaling_factor
    result, outputs = recorded(vae, lambda: vae.decode(latents).sample)
    return {"input": latents, **outputs, "output": result}


def text_pass(encoder, ids):
    with torch.no_grad():
        result = encoder(torch.tensor(ids), output_hidden_states=True)
        model = getattr(encoder, "text_model", encoder)
        layers = {f"encoder.layers.{i}": state for i, state in enumerate(result.hidden_states[1:])}
        tensors = {"embeddings": result.hidden_states[0], **layers, "output.last_hidden_state": result.last_hidden_state,
                   "output.penultimate": result.hidden_states[-2],
                   "output.penultimate_normed": model.final_layer_norm(result.hidden_states[-2]),
                   "output.pooled": model(torch.tensor(ids)).pooler_output}
    if hasattr(result, "text_embeds"):
        tensors["output.text_embeds"] = result.text_embeds
    return tensors
