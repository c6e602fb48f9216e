#!/usr/bin/env python3
"""Writes what stable-diffusion-webui and ComfyUI make of prompts with the tiny text encoders of ../models, computed anew with transformers.

    python make_conditionings.py WEBUI COMFYUI      # checkouts of both, for their parsers; torch, transformers and safetensors are needed

The arithmetic is that of modules/sd_hijack_clip.py and modules/sd_emphasis.py ("Original") of the one, and of comfy/sd1_clip.py of the other. Their lengths
are those of the tiny encoders here: a chunk has room for model_max_length - 2 tokens.
conditionings.json is a list: the model, the profile, the layers that are skipped, the texts of one batch, the chunks of each with the identifiers and the
weights of its tokens, and the names of `states` and `pooled` in conditionings.safetensors.
Pinned: torch 2.13 (CPU), transformers 5.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from make_prompts import comfyui, webui

torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
WORD, VECTORS = "zzq", 3
LONG = "a photo of the cat, a dog and a red house by the sea, in the sun with snow and rain on it, old trees, birds, and a boat"
TEXTS = {
    "webui": [
        ["a photo of a cat"], [""], ["a (photo:1.3) of [a] ((cat))"], ["a cat BREAK (a dog:0.7)"], ["BREAK"], ["a cat BREAK"], [LONG],
        [LONG.replace("red", "(red:1.5)")], ["cat " * 40], ["(cat:0)"], ["a (cat:-0.5) and a dog"], ["a cat, a dog, " * 6],
        # A prompt that changes is one batch.
        ["a (red:1.4) cat", "a (red:1.4) dog", "a (red:1.4) cat"], ["(a cat:1.2)", "(a cat:1.2) BREAK a dog, a bird"],
        [f"a {WORD} cat"], [f"a ({WORD}:1.3) on " + "the " * 9 + f"{WORD} by {WORD}, {WORD} {WORD} {WORD} {WORD} {WORD}"],
    ],
    "comfy": [
        ["a photo of a cat"], [""], ["a (photo:1.3) of (a) ((cat))"], ["a (cat:0.5) and \\(a dog\\)"], [LONG], [LONG.replace("red", "(red:1.5)")],
        ["(a cat and a dog:1.1) (a house by the sea:0.9) (a bird in the sun:1.2) (old trees:1.3) and snow"], ["(cat:0)"], ["cat " * 40],
        [f"a {WORD} cat"], [f"a ({WORD}:1.3) on " + "the " * 9 + f"{WORD} by {WORD}, {WORD} {WORD} {WORD} {WORD} {WORD}"],
    ],
}


class Tower:
    """A text encoder with its tokenizer, and a word of several vectors."""

    def __init__(self, folder, number, is_xl):
        suffix = "" if number == 0 else f"_{number + 1}"
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / f"tokenizer{suffix}")
        config = json.loads((folder / f"text_encoder{suffix}/config.json").read_text())
        kind = CLIPTextModelWithProjection if "WithProjection" in config["architectures"][0] else CLIPTextModel
        self.model = kind.from_pretrained(folder / f"text_encoder{suffix}").float().eval()
        self.is_xl, self.length = is_xl, self.tokenizer.model_max_length
        self.bos, self.eos, self.pad = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        self.comma = self.tokenizer.get_vocab().get(",</w>")
        old = self.model.get_input_embeddings().weight.data
        self.first = old.shape[0]
        generator = torch.Generator().manual_seed(7 + number)
        self.vectors = torch.randn(VECTORS, old.shape[1], generator=generator) * old.std()
        embedding = torch.nn.Embedding.from_pretrained(torch.cat([old, self.vectors]))
        self.model.set_input_embeddings(embedding)

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"] if text else []

    def groups(self, text):
        """Tokens one by one, and the word's vectors together."""
        groups, parts = [], text.split(WORD)
        for index, part in enumerate(parts):
            if index > 0:
                groups.append(list(range(self.first, self.first + VECTORS)))
            groups += [[token] for token in self.ids(part)]
        return groups

    def chunk(self, tokens, weights):
        room = self.length - 2
        assert len(tokens) <= room
        rest = room - len(tokens)
        return ([self.bos] + tokens + [self.eos] + [self.pad] * rest, [1.0] + weights + [1.0] * (rest + 1))

    def run(self, rows, skipped):
        with torch.no_grad():
            result = self.model(torch.tensor(rows), output_hidden_states=True)
            text = getattr(self.model, "text_model", self.model)
            last = getattr(text, "final_layer_norm")
            skipped += 1 if self.is_xl else 0
            hidden = result.hidden_states[-1 - skipped]
            states = hidden if self.is_xl else last(hidden)
            whole = last(result.hidden_states[-1])
            if not hasattr(self.model, "text_projection"):
                whole = states
            ends = torch.tensor([row.index(self.eos) for row in rows])
            pooled = whole[torch.arange(len(rows)), ends]
            if hasattr(self.model, "text_projection"):
                pooled = self.model.text_projection(pooled)
        return states, pooled


def webui_chunks(tower, parsed):
    room, chunks = tower.length - 2, []
    tokens, weights, comma = [], [], -1

    def finish(tokens, weights):
        chunks.append(tower.chunk(tokens, weights))

    for text, weight in parsed:
        if text == "BREAK" and weight == -1:
            finish(tokens, weights)
            tokens, weights, comma = [], [], -1
            continue
        for group in tower.groups(text):
            if group[0] == tower.comma:
                comma = len(tokens)
            elif len(tokens) == room and comma != -1 and len(tokens) - comma <= 20:
                place = comma + 1
                moved = tokens[place:], weights[place:]
                finish(tokens[:place], weights[:place])
                tokens, weights = list(moved[0]), list(moved[1])
                comma = -1
            if len(tokens) == room or len(tokens) + len(group) > room:
                finish(tokens, weights)
                tokens, weights, comma = [], [], -1
            tokens += group
            weights += [weight] * len(group)
    if tokens or not chunks:
        finish(tokens, weights)
    return chunks


def comfy_chunks(tower, parsed):
    groups = []
    for text, weight in parsed:
        run = []
        for group in tower.groups(text):
            if len(group) > 1:
                groups += [(run, weight)] if run else []
                groups.append((group, weight))
                run = []
            else:
                run += group
        groups += [(run, weight)] if run else []
    room, chunks, batch = tower.length - 2, [], []
    for group, weight in groups:
        is_large = len(group) >= 8
        while group:
            if len(group) + len(batch) > room:
                left = room - len(batch)
                if is_large:
                    batch += [(token, weight) for token in group[:left]]
                    group = group[left:]
                chunks.append(batch)
                batch = []
            else:
                batch += [(token, weight) for token in group]
                group = []
    chunks.append(batch)
    return [tower.chunk([token for token, _ in chunk], [weight for _, weight in chunk]) for chunk in chunks]


def webui_states(tower, prompts, skipped):
    count = max(len(chunks) for chunks in prompts)
    parts, pooled = [], None
    for index in range(count):
        batch = [chunks[index] if index < len(chunks) else tower.chunk([], []) for chunks in prompts]
        z, ends = tower.run([tokens for tokens, _ in batch], skipped)
        pooled = ends if index == 0 else pooled
        multipliers = torch.tensor([weights for _, weights in batch])
        mean = z.mean()
        z = z * multipliers[..., None]
        parts.append(z * (mean / z.mean()))
    return torch.cat(parts, dim=1), pooled


def comfy_states(tower, prompts, skipped):
    assert len(prompts) == 1
    chunks = prompts[0]
    rows = [tokens for tokens, _ in chunks] + [tower.chunk([], [])[0]]
    z, ends = tower.run(rows, skipped)
    has_weights = any(weight != 1 for _, weights in chunks for weight in weights)
    parts = []
    for index, (_, weights) in enumerate(chunks):
        part = z[index:index + 1].clone()
        if has_weights:
            for place, weight in enumerate(weights):
                if weight != 1:
                    part[0, place] = (part[0, place] - z[-1, place]) * weight + z[-1, place]
        parts.append(part)
    return torch.cat(parts, dim=1), ends[:1]


def main():
    parser, comfy = webui(sys.argv[1]), comfyui(sys.argv[2])

    def parsed(profile, text):
        if profile == "webui":
            return [(part, weight) for part, weight in parser.parse_prompt_attention(text)]
        return [(comfy["unescape_important"](part), weight) for part, weight in comfy["token_weights"](comfy["escape_important"](text), 1.0)]

    tensors, cases = {}, []
    for name in ("sd1", "sd2", "sdxl"):
        is_xl = name == "sdxl"
        towers = [Tower(MODELS / name, number, is_xl) for number in range(2 if is_xl else 1)]
        for number, tower in enumerate(towers):
            tensors[f"{name}.vectors.{number}"] = tower.vectors
        for profile, batches in TEXTS.items():
            for number, texts in enumerate(batches):
                if is_xl and number % 3 == 1:
                    continue
                skipped = 1 if number in (2, 9) and not is_xl else 0
                chunked = [[(webui_chunks if profile == "webui" else comfy_chunks)(tower, parsed(profile, text)) for text in texts] for tower in towers]
                results = [(webui_states if profile == "webui" else comfy_states)(t, prompts, skipped) for t, prompts in zip(towers, chunked)]
                key = f"{name}.{profile}.{number}"
                tensors[f"{key}.states"] = torch.cat([states for states, _ in results], dim=-1)
                if is_xl:
                    tensors[f"{key}.pooled"] = results[-1][1]
                cases.append(dict(
                    model=name, profile=profile, skipped=skipped, texts=texts, key=key,
                    chunks=[[dict(tokens=tokens, weights=weights) for tokens, weights in chunks] for chunks in chunked[0]]))
    for name in ("sd1", "sd2", "sdxl"):
        own = {key: value.contiguous() for key, value in tensors.items() if key.startswith(f"{name}.")}
        save_file(own, HERE / f"conditionings-{name}.safetensors")
    (HERE / "conditionings.json").write_text("[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n")
    print(len(cases), "cases", max(len(c) for case in cases for c in case["chunks"]), "chunks at most")


if __name__ == "__main__":
    main()
