#!/usr/bin/env python3
"""Makes token-merging.safetensors: merged sequences, and passes of the tiny U-Nets of ../models that merge tokens (Bolya and Hoffman 2023).

Versions: those of ../models/requirements.txt.
"""

import json
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
MASK = 2**64 - 1


def choices(seed):
    """SplitMix64, reduced to the four pixels of a square."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
        yield (z ^ (z >> 31)) % 4


def destinations(height, width, seed):
    draw = choices(seed)
    chosen = []
    for y in range(height // 2):
        for x in range(width // 2):
            place = next(draw)
            chosen.append((2 * y + place // 2) * width + 2 * x + place % 2)
    return sorted(chosen)


def matching(tokens, chosen, count):
    """For each row of [N, L, C] the token that every token is merged into (itself, where it is not), and how clear the choices are."""
    sources = [i for i in range(tokens.shape[1]) if i not in set(chosen)]
    directions = tokens / tokens.norm(dim=-1, keepdim=True)
    scores = directions[:, sources] @ directions[:, chosen].transpose(1, 2)
    ranked = scores.sort(dim=-1, descending=True).values
    best, nearest = scores.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    into = torch.arange(tokens.shape[1]).repeat(len(tokens), 1)
    margin = float((ranked[..., 0] - ranked[..., 1]).min()) if len(chosen) > 1 else 1.0
    for row in range(len(tokens)):
        for source in order[row, :count]:
            into[row, sources[source]] = chosen[nearest[row, source]]
        if 0 < count < len(sources):
            margin = min(margin, float(best[row, order[row, count - 1]] - best[row, order[row, count]]))
    return into, margin


def merged(x, into):
    """The merged tokens of one row, and where each token's is among them."""
    kept, places = into.unique(return_inverse=True)
    return torch.stack([x[into == token].mean(dim=0) for token in kept]), places


class Merging:
    """Takes the place of the forward pass of a transformer block."""

    def __init__(self, block, size, ratio, seed):
        self.block, self.size, self.ratio, self.seed, self.margin = block, size, ratio, seed, 1.0

    def __call__(self, hidden_states, encoder_hidden_states=None, **_):
        block, x = self.block, hidden_states
        into, margin = matching(x, destinations(*self.size, self.seed), int(x.shape[1] * self.ratio))
        self.margin = min(self.margin, margin)
        normed, rows = block.norm1(x), []
        for row in range(len(x)):
            short, places = merged(normed[row], into[row])
            rows.append(block.attn1(short[None])[0][places])
        x = x + torch.stack(rows)
        x = x + block.attn2(block.norm2(x), encoder_hidden_states=encoder_hidden_states)
        return x + block.ff(block.norm3(x))


def sequences(tensors, cases):
    for number, (name, height, width, channels, ratio) in enumerate(
            [("even", 6, 8, 20, 0.5), ("few", 4, 4, 16, 0.2), ("all", 4, 6, 40, 0.75), ("odd-sides", 5, 7, 33, 0.6), ("none", 4, 4, 8, 0.0)]):
        generator = torch.Generator().manual_seed(70 + number)
        while True:
            tokens = torch.randn(3, height * width, channels, generator=generator)
            chosen = destinations(height, width, 9 + number)
            into, margin = matching(tokens, chosen, min(int(height * width * ratio), height * width - len(chosen)))
            if margin > 1e-4:
                break
        values = torch.randn(3, height * width, 12, generator=generator)
        pairs = [merged(values[row], into[row]) for row in range(3)]
        tensors |= {f"{name}.tokens": tokens, f"{name}.values": values,
                    f"{name}.output": torch.stack([short[places] for short, places in pairs])}
        cases.append(dict(name=name, kind="sequence", height=height, width=width, ratio=ratio, seed=9 + number, length=len(pairs[0][0])))


def passes(tensors, cases):
    # Model, latents' sides, sides of the highest resolution with attention, ratio.
    given = [("sd1", (8, 8), (8, 8), 0.5), ("sd2", (6, 8), (6, 8), 0.75), ("odd", (9, 7), (5, 4), 0.3), ("edit8", (8, 12), (4, 6), 0.5)]
    for number, (name, sides, size, ratio) in enumerate(given):
        seed, generator = 2**63 + number, torch.Generator().manual_seed(90 + number)
        unet = UNet2DConditionModel.from_pretrained(HERE.parent / "models" / name / "unet", torch_dtype=torch.float32).eval()
        text = torch.randn(2, 5, unet.config.cross_attention_dim, generator=generator)
        while True:
            sample = torch.randn(2, unet.config.in_channels, *sides, generator=generator)
            plain = unet(sample, 501.0, text).sample
            blocks = []
            for path, block in unet.named_modules():
                if isinstance(block, BasicTransformerBlock) and int(path.split(".")[1] if "mid" not in path else -1) in level(unet, path):
                    block.original, block.forward = block.forward, Merging(block, size, ratio, seed)
                    blocks.append(block)
            output = unet(sample, 501.0, text).sample
            margin = min(block.forward.margin for block in blocks)
            for block in blocks:
                block.forward = block.original
            if margin > 1e-4:
                break
        assert (output - plain).abs().max() > 1e-3, f"{name}: nothing was merged"
        tensors |= {f"{name}.text": text, f"{name}.sample": sample, f"{name}.output": output}
        cases.append(dict(name=name, kind="pass", ratio=ratio, seed=seed, timestep=501.0))
        print(name, len(blocks), "blocks merge")


def level(unet, path):
    """The index, among the blocks of this way, of the highest resolution with attention; nothing for the middle."""
    down = ["CrossAttn" in kind for kind in unet.config.down_block_types]
    highest = down.index(True)
    if path.startswith("down_blocks"):
        return [highest]
    return [len(down) - 1 - highest] if path.startswith("up_blocks") else []


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    tensors, cases = {}, []
    sequences(tensors, cases)
    passes(tensors, cases)
    tensors = {key: value.contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, HERE / "token-merging.safetensors", metadata={"cases": json.dumps(cases)})


if __name__ == "__main__":
    main()
