#!/usr/bin/env python3
"""Writes GGUF files with gguf-py, as stable-diffusion.cpp and ComfyUI-GGUF lay them out, what gguf-py makes of them, and 8-bit floats with scales.

    pip install torch==2.13.0 diffusers==0.42.1 transformers==5.23 safetensors==0.8.0 gguf==0.19.0   # the versions that made the committed files
    python make_gguf.py

gguf-types.gguf: a tensor and a value of metadata of each type; gguf-types.safetensors: the values, and what was quantised.
gguf-comfy.gguf: a tiny U-Net alone, its larger tensors in rows of 256 and in blocks of many types; gguf-comfy.safetensors: a pass of diffusers with the
values of the blocks. gguf-whole.gguf: sd1.safetensors without any metadata. scaled-fp8.safetensors: floats of 8 bits with scales, and their values.
"""

from pathlib import Path

import gguf
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file
from safetensors.torch import load_file
from safetensors.torch import save_file as save_torch

from make_checkpoints import CROSS, original_unet, randomise, unet_config

HERE = Path(__file__).resolve().parent

QUANTISED = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]
# Where the numbers in half precision are in a block.
HALVES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82], Type.Q3_K: [108],
          Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}


def random_blocks(rows, columns, kind, generator, deviation=None):
    """Any bits, but for scales that are ordinary numbers, or that give values of a deviation."""
    length, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (rows * columns // length, size), dtype=np.uint8)
    def scaled(scale):
        for offset in HALVES[kind]:
            scales = scale * generator.normal(1, 0.25, (len(blocks), 1))
            blocks[:, offset:offset + 2] = scales.astype("<f2").view(np.uint8)
        return gguf.quants.dequantize(blocks.reshape(rows, -1), kind)
    values = scaled(0.01)
    if deviation:
        values = scaled(0.01 * deviation / values.std())
    return blocks.reshape(rows, -1), values


def types():
    generator = np.random.default_rng(18)
    writer = gguf.GGUFWriter(HERE / "gguf-types.gguf", "test")
    writer.add_custom_alignment(64)
    writer.add_uint8("test.uint8", 200)
    writer.add_int8("test.int8", -100)
    writer.add_uint16("test.uint16", 60000)
    writer.add_int16("test.int16", -30000)
    writer.add_uint32("test.uint32", 4000000000)
    writer.add_int32("test.int32", -2000000000)
    writer.add_uint64("test.uint64", 2**64 - 1)
    writer.add_int64("test.int64", -(2**63))
    writer.add_float32("test.float32", 0.5)
    writer.add_float64("test.float64", -1e300)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "a line\nand 水彩画")
    writer.add_array("test.integers", [320, 4, 3, 3])
    writer.add_array("test.strings", [f"word {i}" for i in range(100)])
    expected = {}
    for kind in HALVES:
        blocks, values = random_blocks(3, 512, kind, generator)
        writer.add_tensor(kind.name, blocks, raw_dtype=kind)
        expected[kind.name] = values
    exact = generator.normal(size=(6, 64)).astype(np.float32)
    exact[0] = 0
    exact[1] *= 1e-7  # a scale below half precision's normal numbers
    exact[2] = np.linspace(-8, 7.75, 64)  # many ties
    exact[3, :32] = -5
    exact[4] *= 1e4
    expected["exact"] = exact
    quantised = gguf.quants.quantize(exact, Type.Q4_0)
    writer.add_tensor("exact", quantised, raw_dtype=Type.Q4_0)
    expected["exact.Q4_0"] = gguf.quants.dequantize(quantised, Type.Q4_0)
    for kind, dtype in [(Type.F32, np.float32), (Type.F16, np.float16), (Type.F64, np.float64), (Type.I8, np.int8), (Type.I16, np.int16),
                        (Type.I32, np.int32), (Type.I64, np.int64)]:
        values = generator.integers(-100, 100, (2, 3, 1, 5)).astype(dtype)
        writer.add_tensor(kind.name, values)
        expected[kind.name] = values.astype(np.float32)
    bits = gguf.quants.quantize(exact, Type.BF16)
    writer.add_tensor("BF16", bits, raw_dtype=Type.BF16)
    expected["BF16"] = gguf.quants.dequantize(bits, Type.BF16)
    finish(writer)
    save_file(expected, HERE / "gguf-types.safetensors")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def comfy():
    """ComfyUI-GGUF's convention: tensors of 512 elements and more whose rows are no multiple of 256 are cut into rows of 256."""
    generator = np.random.default_rng(19)
    config = unet_config([CROSS], block_out_channels=[32], layers_per_block=1, norm_num_groups=32, cross_attention_dim=32, attention_head_dim=8)
    unet = UNet2DConditionModel(**config).eval()
    randomise(unet, torch.Generator().manual_seed(3))
    unet = unet.float()
    state = unet.state_dict()
    writer = gguf.GGUFWriter(HERE / "gguf-comfy.gguf", "sd1")
    kinds = [Type.Q4_0, Type.Q4_K, Type.Q5_0, Type.Q8_0, Type.Q5_1, Type.Q6_K, Type.Q4_1, Type.Q3_K, Type.Q2_K, Type.Q5_K]
    names = dict(zip(original_unet({k: k for k in state}, config).keys(), state.keys()))
    for index, (name, key) in enumerate(names.items()):
        name, tensor = name.removeprefix("model.diffusion_model."), state[key].numpy()
        if tensor.ndim == 1 or name.startswith(("input_blocks.0.", "out.")):
            writer.add_tensor(name, tensor.astype(np.float32 if tensor.ndim == 1 else np.float16))
            continue
        rows = tensor
        if tensor.size >= 512 and tensor.size % 256 == 0 and tensor.shape[-1] % 256:
            rows = tensor.reshape(-1, 256)
            writer.add_array(f"comfy.gguf.orig_shape.{name}", [int(n) for n in tensor.shape])
        kind = kinds[index % len(kinds)]
        if kind == Type.Q8_0 and tensor[0, 0].size == 1:
            kind = Type.Q5_0  # products of matrices of 8 bits may round activations, too
        if kind in QUANTISED:
            blocks = gguf.quants.quantize(rows, kind)
            values = gguf.quants.dequantize(blocks, kind)
        else:
            blocks, values = random_blocks(*rows.shape, kind, generator, tensor.std())
        writer.add_tensor(name, blocks, raw_dtype=kind)
        state[key] = torch.from_numpy(values.reshape(tensor.shape).copy())
    finish(writer)
    unet.load_state_dict(state)
    latents, states = (torch.from_numpy(generator.normal(size=shape).astype(np.float32)) for shape in [(1, 4, 16, 16), (1, 5, 32)])
    weights = {f"weight.{name}": state[key] for name, key in list(names.items())[::7]}
    save_torch(dict(latents=latents, states=states, prediction=unet(latents, 321.0, states).sample, **weights), HERE / "gguf-comfy.safetensors")


def whole():
    """stable-diffusion.cpp's convention: the original names and no metadata, not even an architecture."""
    tensors = {name: tensor for name, tensor in load_file(HERE / "sd1.safetensors").items() if tensor.ndim and tensor.dtype != torch.int64}
    path = HERE / "gguf-whole.gguf"
    writer = gguf.GGUFWriter(path, "none")
    del writer.kv_data[0]["general.architecture"]
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.numpy())
    finish(writer)


def scaled():
    """ComfyUI's two ways to keep scales beside floats of 8 bits, and one scale for each row."""
    generator = torch.Generator().manual_seed(4)
    exact = {name: torch.randn(8, 32, generator=generator) * 0.03 for name in "abc"}
    file = dict(scaled_fp8=torch.zeros(2).to(torch.float8_e4m3fn))
    def store(name, dtype, scale, suffix):
        bits = (exact[name] / scale).to(dtype)
        file[f"{name}.weight"], file[f"{name}.{suffix}"] = bits, scale
        file[f"expected.{name}"] = (bits.float() * scale).half()
    store("a", torch.float8_e4m3fn, torch.tensor(0.0003), "scale_weight")
    store("b", torch.float8_e5m2, exact["b"].abs().amax(1, keepdim=True) / 50000, "weight_scale")
    store("c", torch.float8_e4m3fn, torch.tensor([0.125]), "weight_scale")
    file["a.scale_input"] = torch.tensor(2.0)
    file["plain.weight"] = exact["a"].to(torch.float8_e4m3fn)
    save_torch(file, HERE / "scaled-fp8.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    types()
    comfy()
    whole()
    scaled()
    for path in sorted([*HERE.glob("gguf*"), HERE / "scaled-fp8.safetensors"]):
        path.chmod(0o644)
        print(f"{path.stat().st_size:>8} {path.name}")
