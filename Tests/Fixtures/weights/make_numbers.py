"""Element types that PyTorch converts when weights are loaded: every float of 8 bits, and some values of the other types, with what `to(torch.float32)`
makes of them. Writes numbers.safetensors.

    pip install torch==2.13.0 safetensors && python make_numbers.py
"""
import torch
from safetensors.torch import save_file

tensors = {}
for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"):
    tensors[name] = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(getattr(torch, name))
whole = [0, 1, -1, 2, 127, -128, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 16777217, 33554435]
for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
    dtype = getattr(torch, name)
    info = torch.iinfo(dtype)
    tensors[name] = torch.tensor([v for v in whole if info.min <= v <= info.max], dtype=dtype)
tensors["bool"] = torch.tensor([True, False, True])
tensors["float64"] = torch.tensor(
    [0.0, -0.0, 1 / 3, 1e-45, 1e-50, 3.5e38, -1e300, 16777217.0, 1 + 2**-24, 1 + 3 * 2**-24, float("inf")], dtype=torch.float64)
expected = {name + ".expected": tensor.to(torch.float32) for name, tensor in tensors.items()}
save_file({**tensors, **expected}, "numbers.safetensors")
