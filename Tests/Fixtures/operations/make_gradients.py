"""Makes *.gradients.safetensors beside it: PyTorch's gradients of the operations that make_operations.py has made.

    pip install torch==2.13.0 safetensors==0.8.0
    python make_gradients.py

The gradient of each result is given by a formula (`gradient` below), so that it needs no file. PyTorch computes in float64, and the answers
are rounded to float32 once. A tensor `CASE.x` is the gradient of x in the case CASE.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
ACTIVATIONS = {"none": lambda x: x, "silu": F.silu, "gelu": F.gelu, "quickGELU": lambda x: x * torch.sigmoid(1.702 * x), "relu": F.relu,
               "tanh": torch.tanh}


def gradient(shape):
    """From -1 to 0.998, in the order of PyTorch's layout."""
    i = torch.arange(torch.Size(shape).numel())
    return ((i * 7919 % 1000).double() / 500 - 1).reshape(shape)


class Family:
    def __init__(self, name):
        self.name, self.answers, self.kept = name, {}, []
        self.file = safe_open(HERE / f"{name}.safetensors", "pt")
        self.cases = json.loads(self.file.metadata()["cases"])

    def inputs(self, case):
        prefix = case["name"] + "."
        keys = [key for key in self.file.keys() if key.startswith(prefix) and key != prefix + "result"]
        return {key[len(prefix):]: self.file.get_tensor(key).double().requires_grad_() for key in keys}

    def add(self, case, tensors, result):
        result.backward(gradient(result.shape))
        self.kept.append(case)
        for key, value in tensors.items():
            self.answers[f"{case['name']}.{key}"] = value.grad.float().contiguous()

    def save(self):
        path = HERE / f"{self.name}.gradients.safetensors"
        save_file(self.answers, path, metadata={"cases": json.dumps(self.kept)})
        assert path.stat().st_size < 200_000, (path, path.stat().st_size)
        print(path.name, len(self.kept), "cases", path.stat().st_size, "bytes")


def convolutions():
    family = Family("convolution")
    for case in family.cases:
        x = family.inputs(case)
        joined = torch.cat([x[f"input{i}"] for i in range(case["inputs"])], 1)
        if case["resized"]:
            joined = F.interpolate(joined, size=case["resized"], mode="nearest")
        top, left, bottom, right = case["padding"]
        y = F.conv2d(F.pad(joined, (left, right, top, bottom)), x["weight"], stride=case["stride"])
        if "bias" in x:
            y = y + x["bias"].reshape(-1, y.shape[1], 1, 1)
        if "residual" in x:
            y = y + x["residual"]
        family.add(case, x, y)
    family.save()


def products():
    family = Family("product")
    for case in family.cases:
        x = family.inputs(case)
        y = F.linear(x["input"], x["weight"], x.get("bias"))
        if "residual" in x:
            y = y + x["residual"]
        family.add(case, x, ACTIVATIONS[case["activation"]](y))
    family.save()


def normalizations():
    family = Family("normalization")
    for case in family.cases:
        x = family.inputs(case)
        if case["groups"]:
            joined = torch.cat([x[f"input{i}"] for i in range(case["inputs"])], 1)
            y = F.group_norm(joined, case["groups"], x["weight"], x["bias"], case["epsilon"])
        else:
            y = F.layer_norm(x["input0"], x["weight"].shape, x["weight"], x["bias"], case["epsilon"])
        family.add(case, x, F.silu(y) if case["silu"] else y)
    family.save()


def functions():
    family = Family("function")
    for case in family.cases:
        x, kind = family.inputs(case), case["name"].split(",")[0]
        if kind in ACTIVATIONS:
            y = ACTIVATIONS[kind](x["input"])
        elif kind == "geglu":
            value, gate = x["input"].chunk(2, dim=-1)
            y = value * F.gelu(gate)
        elif kind == "softmax":
            y = x["input"].softmax(-1)
        elif kind == "nearest":
            y = F.interpolate(x["input"], size=family.file.get_tensor(case["name"] + ".result").shape[2:], mode="nearest")
        else:
            continue
        family.add(case, x, y)
    family.save()


def attentions():
    family = Family("attention")
    for case in family.cases:
        x, heads = family.inputs(case), case["heads"]
        q, k, v = (x[name].unflatten(-1, (heads, -1)).transpose(1, 2) for name in ["queries", "keys", "values"])
        y = F.scaled_dot_product_attention(q, k, v, is_causal=case["causal"], scale=case["scale"])
        family.add(case, x, y.transpose(1, 2).flatten(2))
    family.save()


convolutions()
products()
normalizations()
functions()
attentions()
