#!/usr/bin/env python3
"""Makes bert/, a small vocabulary of word pieces, and bert.json, what transformers' BertTokenizer makes of texts and of every scalar.

    python make_bert.py    # transformers 5.24.0, tokenizers 0.23.3
"""

import json
import random
from pathlib import Path

from transformers import BertTokenizer

HERE = Path(__file__).resolve().parent
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = "the photo of cat boat rain two in a and dog on with boats caf ##e ##ing ##s ##er ##at naive un ##happy ßtraße".split()
MARKS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~—«»。、日本語猫αβσςжя")
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{c}" for c in LETTERS + "0123456789αβσжя"), *"0123456789",
              *MARKS, *WORDS]
TEXTS = [
    "", " ", "a photo of the cat", "A PHOTO of The Cat!", "unhappy boats, boating", "naïve café CAFÉ cafe\u0301", "日本語の猫", "two日本boats",
    "[MASK] the [SEP]cat", "[mask]", "Σας σας ΣΑΣ", "İstanbul", "straße ẞ", "a\tb\nc\rd\u00a0e\u2003f\u0085g\u200bh", "x" * 100, "x" * 101,
    "x" * 101 + " cat", "don't stop-now... $5.00 #1", "«guillemets» — dash", "\ufffd\x00\u0007cat", "cat\U0001F600dog", "zażółć gęślą jaźń",
    "a photo of the cat " * 30, "ÅÄÖ åäö ñ ç", "한국어", "q\u0323\u0307q\u0307\u0323", "\u1734\u111c9\u166d", "cat[UNK]dog", "[PAD][CLS]",
]


def runs(tokenizer):
    """Of every scalar between two letters: r removed, s a space, i by itself, where the tokens say it; the others are left out."""
    found, backend = [], tokenizer._tokenizer
    for code in [*range(0xD800), *range(0xE000, 0x110000)]:
        text = backend.normalizer.normalize_str(f"a{chr(code)}b")
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        kind = "r" if words == ["ab"] else "s" if words == ["a", "b"] else "i" if len(words) == 3 else ""
        if kind and found and found[-1][0] == kind and found[-1][2] == code - 1:
            found[-1][2] = code
        elif kind:
            found.append([kind, code, code])
    return " ".join(f"{kind}{first:X}" if first == last else f"{kind}{first:X}-{last:X}" for kind, first, last in found)


def main():
    folder = HERE / "bert"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(
        dict(do_lower_case=True, model_max_length=512, tokenizer_class="BertTokenizer", unk_token="[UNK]", sep_token="[SEP]",
             pad_token="[PAD]", cls_token="[CLS]", mask_token="[MASK]"), indent=2) + "\n")
    tokenizer = BertTokenizer.from_pretrained(folder)
    draw = random.Random(1)
    pieces = [*"abcXYZ éÜßñçæ", *MARKS, "the", "cat", " ", " ", "\u0301", "\u0323", "\u00ad", "한", "か\u3099", "ﬁ", "Å", "\u212b"]
    texts = TEXTS + ["".join(draw.choice(pieces) for _ in range(draw.randint(1, 30))) for _ in range(60)]
    cased = BertTokenizer.from_pretrained(folder, do_lower_case=False, tokenize_chinese_chars=False)
    serialized = HERE / "bert.json"
    serialized.write_text(json.dumps(dict(
        cases=[dict(text=text, ids=tokenizer(text).input_ids, cased=cased(text).input_ids) for text in texts],
        padded=[tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids for text in texts[:30]],
        scalars=runs(tokenizer)), ensure_ascii=True, separators=(",", ":")) + "\n")
    print(len(texts), serialized.stat().st_size)


if __name__ == "__main__":
    main()
