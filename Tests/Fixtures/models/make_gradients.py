"""Makes MODEL/reference/*.gradients.safetensors: PyTorch's gradients of every parameter of the tiny networks, for the inputs of their single passes.

    pip install -r requirements.txt
    python make_gradients.py

The gradient of each result is given by a formula (`gradient` below). PyTorch computes in float64. Of each parameter the file has a vector under its name: the
root mean square of its gradient, then the values at the indices i * count // n for i below n = min(count, SAMPLES). `input.NAME` are those of inputs.
Of a table that is looked up it has the rows whose gradient is not zero, `[k, D]`, and their numbers, `NAME.rows`.
"""

import json
import pathlib

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent
SAMPLES = 11


def gradient(shape):
    """From -1 to 0.998, in the order of PyTorch's layout."""
    i = torch.arange(torch.Size(shape).numel())
    return ((i * 7919 % 1000).double() / 500 - 1).reshape(shape)


def sampled(value):
    flat = value.flatten()
    n = min(len(flat), SAMPLES)
    return torch.cat([flat.pow(2).mean().sqrt().reshape(1), flat[[i * len(flat) // n for i in range(n)]]]).float()


def tables(network):
    """The gradients of what is looked up, as the rows that have one, and the numbers of these."""
    answers = {}
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Embedding) and module.weight.grad is not None:
            rows = module.weight.grad.abs().sum(-1).nonzero().flatten()
            answers |= {f"{name}.weight": module.weight.grad[rows].float(), f"{name}.weight.rows": rows.float()}
    return answers


def save(model, name, network, inputs, result):
    result.backward(gradient(result.shape))
    answers = {key: sampled(value.grad) for key, value in network.named_parameters() if value.grad is not None} | tables(network)
    answers |= {f"input.{key}": sampled(value.grad) for key, value in inputs.items() if value.grad is not None}
    # transformers 4 writes `text_model.` before its keys, transformers 5 does not.
    answers = {key.removeprefix("text_model."): value for key, value in answers.items()}
    path = HERE / model / "reference" / f"{name}.gradients.safetensors"
    save_file(answers, path)
    assert path.stat().st_size < 200_000, (path, path.stat().st_size)
    print(path.relative_to(HERE), len(answers), "gradients", path.stat().st_size, "bytes")


def given(model, kind):
    passes = json.loads((HERE / model / "cases.json").read_text())["passes"][kind]
    tensors = {}
    for file in passes["files"]:
        tensors |= load_file(HERE / model / "reference" / file)
    return passes, {key: value.double() if value.is_floating_point() else value for key, value in tensors.items()}


def unet(model):
    passes, tensors = given(model, "unet")
    kind = UNet2DConditionModel if "input.encoder_hidden_states" in tensors else UNet2DModel
    network = kind.from_pretrained(HERE / model / "unet", torch_dtype=torch.float64)
    inputs = {key: tensors[f"input.{key}"].requires_grad_() for key in ("sample", "encoder_hidden_states") if f"input.{key}" in tensors}
    more = {key: tensors[f"input.{key}"] for key in ("text_embeds", "time_ids") if f"input.{key}" in tensors}
    more = {"added_cond_kwargs": more} if more else {}
    if "input.class_labels" in tensors:
        more["class_labels"] = tensors["input.class_labels"].long()
    result = network(timestep=torch.tensor(passes["timestep"], dtype=torch.float64), **inputs, **more).sample
    save(model, "unet", network, inputs, result)


def autoencoder(model):
    for half in ("encode", "decode"):
        _, tensors = given(model, f"vae-{half}")
        network = AutoencoderKL.from_pretrained(HERE / model / "vae", torch_dtype=torch.float64)
        inputs = {"sample": tensors["input"].requires_grad_()}
        result = network.encode(inputs["sample"]).latent_dist.parameters if half == "encode" else network.decode(inputs["sample"]).sample
        save(model, f"vae-{half}", network, inputs, result)


def text(model, folder="text_encoder", kind=CLIPTextModel):
    passes, _ = given("sd2" if model == "sd2" else "sd1", "text")
    network = kind.from_pretrained(HERE / model / folder, dtype=torch.float64)
    network.requires_grad_(True)
    length = network.config.max_position_embeddings
    result = network(torch.tensor([ids[:length] for ids in passes["ids"]]), output_hidden_states=True)
    states = result.text_embeds if kind is CLIPTextModelWithProjection else result.last_hidden_state
    save(model, folder, network, {}, states)


def bert(model="ldm-text"):
    passes, _ = given(model, "bert")
    network = LDMBertModel.from_pretrained(HERE / model / "bert", dtype=torch.float64).eval()
    # Without padding, whose vector diffusers holds fixed (`padding_idx`) and the original code trains.
    save(model, "bert", network, {}, network(torch.tensor([ids[:7] for ids in passes["ids"]])).last_hidden_state)


def classes(model="ldm-table"):
    """The original code's table of classes; its last class stands for none."""
    network = torch.nn.ModuleDict({"embedding": torch.nn.Embedding(11, 12, dtype=torch.float64)})
    save(model, "class_embedder", network, {}, network["embedding"](torch.tensor([4, 1, 4, 10]))[:, None])


for name in ("sd1", "sd2", "sdxl", "upscale7", "ldm-class"):
    unet(name)
autoencoder("sd1")
text("sd1")
text("sd2")
text("sdxl", "text_encoder_2", CLIPTextModelWithProjection)
bert()
classes()
