"""Makes the *.safetensors beside it: what PyTorch's operations answer.

    pip install torch==2.13.0 safetensors==0.8.0
    python make_operations.py

One file a family of operations. Its `cases` (JSON in the file's metadata) name each case and its parameters; a tensor `CASE.x` belongs to
the case CASE. Inputs are float32 (weights also float16 and bfloat16), in PyTorch's own layouts. PyTorch computes in float64 and the
answers are rounded to float32 once, so that a difference is ours alone.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
torch.manual_seed(20)


class Family:
    def __init__(self, name):
        self.name, self.cases, self.tensors = name, [], {}

    def add(self, name, tensors, **parameters):
        assert name not in [case["name"] for case in self.cases], name
        self.cases.append({"name": name, **parameters})
        for key, value in tensors.items():
            if value is not None:
                value = value.float() if value.dtype == torch.float64 else value
                self.tensors[f"{name}.{key}"] = value.contiguous().clone()

    def save(self):
        path = HERE / f"{self.name}.safetensors"
        save_file(self.tensors, path, metadata={"cases": json.dumps(self.cases)})
        assert path.stat().st_size < 200_000, (path, path.stat().st_size)
        print(path.name, len(self.cases), "cases", path.stat().st_size, "bytes")


def convolutions():
    family = Family("convolution")

    def case(name, size, inputs, outputs, kernel, stride=1, padding=(0, 0, 0, 0), resized=None, bias=None, residual=False, batch=1):
        """padding: top, left, bottom, right. bias: None, "shared" or "each" picture's own."""
        xs = [torch.randn(batch, channels, *size) for channels in inputs]
        weight = torch.randn(outputs, sum(inputs), *kernel) / (sum(inputs) * kernel[0] * kernel[1]) ** 0.5
        b = {None: None, "shared": torch.randn(outputs), "each": torch.randn(batch, outputs)}[bias]
        x = torch.cat(xs, 1).double()
        if resized:
            x = F.interpolate(x, size=resized, mode="nearest")
        top, left, bottom, right = padding
        y = F.conv2d(F.pad(x, (left, right, top, bottom)), weight.double(), stride=stride)
        if b is not None:
            y = y + b.double().reshape(-1, outputs, 1, 1)
        r = torch.randn(y.shape) if residual else None
        if residual:
            y = y + r.double()
        family.add(
            name, {**{f"input{i}": x for i, x in enumerate(xs)}, "weight": weight, "bias": b, "residual": r, "result": y},
            inputs=len(xs), kernel=list(kernel), stride=stride, padding=list(padding), resized=list(resized) if resized else None)

    one = (1, 1, 1, 1)
    case("point", (5, 7), [3], 4, (1, 1))
    case("point, stride 2", (5, 7), [3], 4, (1, 1), stride=2, bias="shared")
    case("point, wide", (3, 3), [37], 35, (1, 1), bias="shared", residual=True)
    case("3x3", (8, 8), [4], 33, (3, 3), padding=one, bias="shared")
    case("3x3 without padding", (6, 5), [2], 3, (3, 3))
    case("3x3 on one pixel", (1, 1), [5], 3, (3, 3), padding=one, bias="shared")
    case("3x3 on a row", (1, 9), [2], 3, (3, 3), padding=one)
    case("3x3 on a column", (9, 1), [2], 3, (3, 3), padding=one)
    case("3x3, stride 2, odd", (9, 7), [3], 5, (3, 3), stride=2, padding=one, bias="shared")
    case("3x3, stride 2, asymmetric", (8, 8), [3], 5, (3, 3), stride=2, padding=(0, 0, 1, 1), bias="shared")
    case("3x3, stride 2, asymmetric, odd", (7, 9), [3], 5, (3, 3), stride=2, padding=(0, 0, 1, 1))
    case("3x3, stride 3", (10, 8), [2], 3, (3, 3), stride=3, padding=one)
    case("7x5", (9, 8), [3], 4, (7, 5), padding=(3, 2, 3, 2), bias="shared")
    case("7x5, asymmetric", (9, 8), [3], 4, (7, 5), padding=(1, 0, 2, 3))
    case("7x5, larger than the picture", (3, 2), [3], 4, (7, 5), padding=(3, 2, 3, 2))
    case("2x2, asymmetric", (5, 6), [3], 4, (2, 2), padding=(1, 1, 0, 0))
    case("4x4, stride 2", (8, 6), [3], 4, (4, 4), stride=2, padding=one)
    case("1x3", (4, 7), [3], 4, (1, 3), padding=(0, 1, 0, 1))
    case("two inputs", (6, 5), [3, 5], 7, (3, 3), padding=one, bias="shared", batch=2)
    case("three inputs", (4, 5), [1, 2, 4], 3, (3, 3), padding=one, bias="each", residual=True, batch=2)
    case("two inputs, point", (4, 5), [17, 16], 9, (1, 1), bias="shared", residual=True)
    case("a bias a picture", (3, 5), [4], 6, (3, 3), padding=one, bias="each", batch=3)
    case("residual", (5, 3), [4], 6, (3, 3), padding=one, residual=True, batch=2)
    case("upsampled", (4, 5), [3], 4, (3, 3), padding=one, resized=(8, 10), bias="shared", batch=2)
    case("upsampled, two inputs", (3, 3), [2, 3], 4, (3, 3), padding=one, resized=(6, 6), residual=True)
    case("upsampled to odd sizes", (5, 7), [3], 4, (3, 3), padding=one, resized=(8, 15), bias="shared")
    case("downsampled", (9, 9), [3], 4, (3, 3), padding=one, resized=(4, 5))
    case("more channels than a chunk", (3, 3), [330], 2, (3, 3), padding=one, bias="shared")
    case("more channels than a chunk, two inputs", (2, 3), [330, 5], 3, (1, 1))
    family.save()


def products():
    family = Family("product")
    functions = {"none": lambda x: x, "silu": F.silu, "gelu": F.gelu, "quickGELU": lambda x: x * torch.sigmoid(1.702 * x)}

    def case(name, rows, inputs, outputs, bias=False, residual=False, activation="none", dtype=torch.float32):
        x = torch.randn(*rows, inputs)
        weight = (torch.randn(outputs, inputs) / inputs**0.5).to(dtype)
        b = torch.randn(outputs) if bias else None
        r = torch.randn(*rows, outputs) if residual else None
        y = F.linear(x.double(), weight.double(), b.double() if bias else None)
        if residual:
            y = y + r.double()
        y = functions[activation](y)
        family.add(name, {"input": x, "weight": weight, "bias": b, "residual": r, "result": y}, activation=activation)

    case("one number", [1], 1, 1)
    case("a row", [1], 7, 3, bias=True)
    case("odd", [3], 5, 7, bias=True, residual=True)
    case("three axes", [2, 3], 33, 31, bias=True)
    case("15 rows", [15], 16, 32)
    case("33 outputs", [14], 17, 33, residual=True)
    case("more inputs than a chunk", [3], 700, 5, bias=True)
    case("twice as many inputs as a chunk", [2], 640, 3, bias=True)
    for activation in ["silu", "gelu", "quickGELU"]:
        case(activation, [5], 9, 35, bias=True, residual=True, activation=activation)
        case(f"{activation} over two chunks", [2], 330, 3, bias=True, activation=activation)
    for name, dtype in [("float16", torch.float16), ("bfloat16", torch.bfloat16)]:
        case(name, [5], 9, 35, bias=True, dtype=dtype)
        case(f"{name} over two chunks", [3], 330, 5, dtype=dtype)
    family.save()


def normalizations():
    family = Family("normalization")

    def group(name, shape, inputs, groups, epsilon=1e-5, silu=False, mean=0.0, deviation=1.0):
        """shape: N and the extents between it and the channels."""
        xs = [torch.randn(shape[0], channels, *shape[1:]) * deviation + mean for channels in inputs]
        weight, bias = torch.randn(sum(inputs)), torch.randn(sum(inputs))
        y = F.group_norm(torch.cat(xs, 1).double(), groups, weight.double(), bias.double(), epsilon)
        tensors = {**{f"input{i}": x for i, x in enumerate(xs)}, "weight": weight, "bias": bias, "result": F.silu(y) if silu else y}
        family.add(name, tensors, inputs=len(xs), groups=groups, epsilon=epsilon, silu=silu)

    def layer(name, shape, epsilon=1e-5, mean=0.0, deviation=1.0):
        x = torch.randn(*shape) * deviation + mean
        weight, bias = torch.randn(shape[-1]), torch.randn(shape[-1])
        y = F.layer_norm(x.double(), shape[-1:], weight.double(), bias.double(), epsilon)
        family.add(name, {"input0": x, "weight": weight, "bias": bias, "result": y}, inputs=1, groups=0, epsilon=epsilon, silu=False)

    group("group", [2, 5, 3], [12], 3)
    group("group, SiLU", [2, 5, 3], [12], 3, epsilon=1e-6, silu=True)
    group("group, one channel each", [2, 3, 3], [5], 5)
    group("group, all channels", [1, 3, 3], [17], 1)
    group("group, one pixel", [2, 1, 1], [16], 4)
    group("group, 33 channels", [1, 4, 7], [33], 11)
    group("group, two inputs", [2, 3, 5], [5, 7], 3)
    group("group, three inputs, SiLU", [2, 3, 4], [1, 2, 13], 4, silu=True)
    group("group, large mean", [1, 6, 5], [8], 2, mean=100.0, deviation=1.0)
    group("group, small variance", [1, 6, 5], [8], 2, mean=1.0, deviation=1e-3)
    group("group, nearly constant", [1, 6, 5], [8], 2, deviation=1e-4)
    for columns in [1, 2, 5, 15, 16, 17, 33, 768]:
        layer(f"layer, {columns} columns", [2, 3, columns])
    layer("layer, large mean", [3, 40], mean=100.0)
    layer("layer, small variance", [3, 40], mean=1.0, deviation=1e-3)
    family.save()


def functions():
    family = Family("function")
    grid = torch.cat([torch.linspace(-30, 30, 1201), torch.linspace(-1e-3, 1e-3, 41)])
    extremes = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 50, -50, 87.3, -87.3, 88.7, -88.7, 88.8, -88.8, 104, -104, 1e3, -1e3,
                             1e10, -1e10, 1e30, -1e30, 3e38, -3e38])
    x = torch.cat([grid, extremes])
    for name, function in [("silu", F.silu), ("gelu", F.gelu), ("quickGELU", lambda x: x * torch.sigmoid(1.702 * x)), ("relu", F.relu),
                           ("tanh", torch.tanh)]:
        family.add(name, {"input": x, "result": function(x.double())})
    for columns in [1, 3, 8, 16, 19, 33, 80]:
        x = torch.randn(2, 3, 2 * columns) * 3
        value, gate = x.double().chunk(2, dim=-1)
        family.add(f"geglu, {columns} columns", {"input": x, "result": value * F.gelu(gate)})
    for columns in [1, 2, 7, 16, 17, 33, 300]:
        x = torch.randn(3, columns) * 4
        family.add(f"softmax, {columns} columns", {"input": x, "result": x.double().softmax(-1)})
    masked = torch.randn(4, 21)
    masked[0, 5:] = masked[1, :20] = masked[2, ::2] = -torch.inf
    steep = torch.randn(3, 20) * 1e4
    for name, x in [("masked", masked), ("steep", steep), ("equal", torch.full((2, 9), -3e38)), ("far from zero", torch.randn(2, 18) - 1e4)]:
        family.add(f"softmax, {name}", {"input": x, "result": x.double().softmax(-1)})
    for size, target in [((4, 5), (8, 10)), ((5, 7), (8, 15)), ((9, 9), (4, 5)), ((7, 10), (3, 23)), ((1, 1), (3, 2)), ((3, 5), (3, 5)),
                         ((11, 13), (29, 31))]:
        x = torch.randn(2, 3, *size)
        y = F.interpolate(x, size=target, mode="nearest")
        family.add(f"nearest, {size[0]}x{size[1]} to {target[0]}x{target[1]}", {"input": x, "result": y})
    generator = torch.Generator().manual_seed(1)
    for entries, columns in [(1, 3), (24, 4), (300, 7)]:
        x, table = (torch.randn(*shape, columns, generator=generator) for shape in [(2, 70), (entries,)])
        codes = torch.cdist(x.double(), table.double()).argmin(-1)
        family.add(f"codes, {entries} of {columns}", {"input": x, "table": table, "result": table[codes]})
    family.save()


def attentions():
    family = Family("attention")

    def case(name, heads, width, queries, keys, batch=1, causal=False, scale=None, spread=1.0):
        q = torch.randn(batch, queries, heads * width) * spread
        k, v = torch.randn(batch, keys, heads * width), torch.randn(batch, keys, heads * width)
        scale = scale or width**-0.5
        split = lambda x: x.double().unflatten(-1, (heads, width)).transpose(1, 2)
        y = F.scaled_dot_product_attention(split(q), split(k), split(v), is_causal=causal, scale=scale)
        family.add(
            name, {"queries": q, "keys": k, "values": v, "result": y.transpose(1, 2).flatten(2)}, heads=heads, scale=scale, causal=causal)

    for width in [1, 5, 8, 40, 64, 160]:
        case(f"width {width}", 2, width, 5, 7)
    case("width 512", 1, 512, 3, 5)
    case("one token", 3, 4, 1, 1)
    case("batch", 2, 6, 9, 11, batch=3)
    case("many queries", 2, 3, 100, 6)
    case("long keys", 1, 3, 7, 600)
    case("77 keys", 2, 8, 20, 77)
    case("causal", 2, 6, 13, 13, batch=2, causal=True)
    case("causal over blocks", 1, 3, 270, 270, causal=True)
    case("causal, more queries", 1, 4, 9, 5, causal=True)
    case("causal, more keys", 1, 4, 5, 9, causal=True)
    case("steep", 1, 8, 5, 300, spread=50.0)
    case("another scale", 1, 8, 5, 7, scale=1.5)
    family.save()


convolutions()
products()
normalizations()
functions()
attentions()
