"""Writes CLIP's tokenizer in the files that transformers 4 and earlier wrote, from its list of merges alone."""

import json

from transformers.convert_slow_tokenizer import bytes_to_unicode


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(folder, merges_file, length, pad="<|endoftext|>", count=None):
    """CLIP's tokenizer with its first `count` merges; returns the number of its tokens."""
    lines = merges_file.read_text(encoding="utf-8").split("\n")
    lines = [line for line in lines if line]
    lines = lines[: None if count is None else count + 1]
    symbols = list(bytes_to_unicode().values())
    tokens = symbols + [s + "</w>" for s in symbols] + [line.replace(" ", "") for line in lines[1:]]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False), encoding="utf-8")

    def special(content):
        return dict(content=content, lstrip=False, normalized=True, rstrip=False, single_word=False)

    marks = dict(bos_token=special("<|startoftext|>"), eos_token=special("<|endoftext|>"), unk_token=special("<|endoftext|>"),
                 pad_token=pad)
    write_json(folder / "special_tokens_map.json", marks)
    write_json(folder / "tokenizer_config.json", dict(
        add_prefix_space=False, do_lower_case=True, errors="replace", model_max_length=length, tokenizer_class="CLIPTokenizer", **marks))
    return len(tokens)
