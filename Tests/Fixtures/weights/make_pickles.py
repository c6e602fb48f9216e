#!/usr/bin/env python3
"""Writes files of PyTorch as checkpoints have them, and what torch.load makes of them.

    pip install torch==2.13.0 safetensors==0.8.0 numpy==2.4.6   # the versions that made the committed files
    python make_pickles.py

In the folder pytorch:
- sd1.ckpt: the tensors of sd1.safetensors as a training run saves them, all in one storage for each type: views with offsets, some of
  them transposed, parameters, what Lightning leaves beside them (a class as a key, an optimiser, counters).
- lcm-vae.bin: the autoencoder of models/lcm in the format before version 1.6, with a parameter, a transposed view and two storages that are parts of one,
  as the first versions wrote them.
- lcm-text.bin: the text encoder of models/lcm under the names of transformers 4, with its table of positions.
- types.pt and types.safetensors: every type of number, shapes without elements, tensors that share a storage, strides of 0.
- protocol-N.pt: plain containers around a tensor in each protocol of pickle.
- embedding.pt: a textual inversion whose vectors lie in a ParameterDict.
"""

import io
import pickle
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

HERE = Path(__file__).resolve().parent
PLACE = HERE / "pytorch"


def same(a, b):
    assert a.shape == b.shape and a.dtype == b.dtype
    return a.contiguous().view(-1).view(torch.uint8).equal(b.contiguous().view(-1).view(torch.uint8))


def in_one_storage(tensors):
    """The same tensors as views of one storage for each type. Every third matrix is kept transposed, every fifth tensor is a parameter."""
    result = OrderedDict()
    for dtype in sorted({t.dtype for t in tensors.values()}, key=str):
        group = [(k, t) for k, t in sorted(tensors.items()) if t.dtype == dtype]
        flip = {k: t.dim() > 1 and i % 3 == 0 for i, (k, t) in enumerate(group)}
        flat = torch.cat([(t.transpose(0, 1) if flip[k] else t).reshape(-1) for k, t in group])
        offset = 0
        for index, (key, tensor) in enumerate(group):
            shape = tensor.transpose(0, 1).shape if flip[key] else tensor.shape
            view = flat[offset:offset + tensor.numel()].view(shape)
            view = view.transpose(0, 1) if flip[key] else view
            offset += tensor.numel()
            result[key] = nn.Parameter(view) if index % 5 == 0 and view.is_floating_point() else view
    result._metadata = OrderedDict({"": {"version": 1}, "model": {"version": 2}})
    return result


def lightning_class():
    """A class of a package that readers do not have."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    cls = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = cls
    for parent in ["pytorch_lightning", "pytorch_lightning.callbacks"]:
        sys.modules[parent] = types.ModuleType(parent)
    sys.modules[name] = module
    return cls


def checkpoint():
    tensors = load_file(HERE / "sd1.safetensors")
    state = in_one_storage(tensors)
    assert all(same(state[k], t) for k, t in tensors.items())
    return {
        "epoch": 3, "global_step": 875000, "pytorch-lightning_version": "1.4.2", "state_dict": state,
        "callbacks": {lightning_class(): {"monitor": "val/loss", "best_model_score": torch.tensor(0.25), "wait": np.int64(7),
                                          "current_score": np.float32(1.5), "dirpath": None}},
        "optimizer_states": [{"state": {0: {"step": 12, "exp_avg": torch.arange(6.0).view(2, 3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
        "lr_schedulers": [],
    }


def save_old(value, path, parts):
    """The format before version 1.6. Tensors in `parts` get storages that are parts of one, which no version of today writes."""
    root = torch.cat([t.reshape(-1) for t in parts.values()])
    first = {}
    offset = 0
    for tensor in parts.values():
        first[tensor.untyped_storage()._cdata] = offset
        offset += tensor.numel()
    storages = {"root": root.untyped_storage()}

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, torch.storage.TypedStorage):
                return None
            cdata = obj._untyped_storage._cdata
            kind = getattr(torch, obj._pickle_storage_type())
            if cdata in first:
                return ("storage", kind, "root", "cpu", root.numel(), (str(cdata), first[cdata], obj._size()))
            storages[str(cdata)] = obj._untyped_storage
            return ("storage", kind, str(cdata), "cpu", obj._size(), None)

    file = io.BytesIO()
    for part in [0x1950A86A20F9469CFC6C, 1001, dict(protocol_version=1001, little_endian=True, type_sizes=dict(short=2, int=4, long=4))]:
        pickle.dump(part, file, protocol=2)
    Pickler(file, protocol=2).dump(value)
    keys = sorted(storages)
    pickle.dump(keys, file, protocol=2)
    for key in keys:
        data = bytes(storages[key])
        file.write((len(data) // root.element_size()).to_bytes(8, "little") + data)
    path.write_bytes(file.getvalue())


def old_autoencoder():
    tensors = load_file(HERE.parent / "models/lcm/vae/diffusion_pytorch_model.safetensors")
    keys = sorted(tensors)
    parts = {k: tensors[k] for k in keys[:2]}
    value = OrderedDict(tensors)
    matrix = next(k for k in keys[2:] if tensors[k].dim() == 2)
    value[matrix] = tensors[matrix].t().contiguous().t()
    value[keys[3]] = nn.Parameter(tensors[keys[3]])
    path = PLACE / "lcm-vae.bin"
    save_old(value, path, parts)
    loaded = torch.load(path)
    assert all(same(loaded[k].data, t) for k, t in tensors.items()) and not loaded[matrix].is_contiguous()


def old_text_encoder():
    tensors = load_file(HERE.parent / "models/lcm/text_encoder/model.safetensors")
    value = in_one_storage({"text_model." + k.removeprefix("text_model."): t for k, t in tensors.items()})
    value["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    torch.save(value, PLACE / "lcm-text.bin")


def all_types():
    bits = torch.arange(24, dtype=torch.uint8) * 11
    names = ["float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "complex64",
             "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"]
    tensors = {name: bits.clone().view(getattr(torch, name)) for name in names}
    tensors["bool"] = bits > 99
    shared = torch.arange(40.0)
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3), "shared.a": shared[3:9].view(2, 3), "shared.b": shared[4:],
                "columns": shared.view(5, 8)[:, 2:4], "steps": shared[1::3], "permuted": shared.half().view(2, 4, 5).permute(2, 0, 1),
                "bytes.permuted": bits.clone().view(2, 3, 4).permute(1, 2, 0), "wide.permuted": shared.double().view(8, 5).t(),
                "expanded": torch.tensor([1.0, 2.0, 3.0])[None].expand(5, 3)}
    torch.save(tensors, PLACE / "types.pt")
    save_file({k: t.contiguous().clone() for k, t in tensors.items()}, PLACE / "types.safetensors")


def protocols():
    value = OrderedDict(
        text="a\nb\\ ü🙂", number=-7, big=1 << 40, huge=1 << 80, minus=-(1 << 35), half=0.5, yes=True, no=False, nothing=None, raw=b"\x00\xff",
        array=bytearray(b"ab"), items=[1, (2, 3), (), (4,), (5, 6, 7), {8, 9}, frozenset([10])], nested={"deep": {"er": "x", 5: 6}},
        default=defaultdict(list, a="b"), size=torch.Size([2, 3]), device=torch.device("cpu"), dtype=torch.float16, layers=[torch.tensor([1.0, 2.0])],
        pair=(torch.tensor([3, 4]), "x"))
    value["again"] = value["nested"]
    for protocol in range(1, 6):
        torch.save(value, PLACE / f"protocol-{protocol}.pt", pickle_protocol=protocol)


def embedding():
    vectors = nn.ParameterDict({"*": nn.Parameter(torch.arange(8.0).view(2, 4))})
    torch.save({"string_to_token": {"*": 265}, "string_to_param": vectors, "name": "thing", "step": 500}, PLACE / "embedding.pt")


if __name__ == "__main__":
    PLACE.mkdir(exist_ok=True)
    torch.save(checkpoint(), PLACE / "sd1.ckpt")
    old_autoencoder()
    old_text_encoder()
    all_types()
    protocols()
    embedding()
