"""Writes the tokenizer's fixtures: transformers' tokens for lines in many scripts, and for many configurations.

transformers 5.23.0, tokenizers 0.23.3.  Run from anywhere; `--lines N --out FOLDER` makes a larger set of lines elsewhere, which
the tests compare too when LATENTDIFFUSION_TOKENIZER_LINES names that folder.
"""
import argparse, base64, json, random, struct, tempfile, unicodedata
from pathlib import Path

from transformers import CLIPTokenizer

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parents[2] / "Sources"
CLIP_MERGES = SOURCES / "TextEncoder/Resources/CLIPVocabulary/merges.txt"
EMOJI_FOLDER = SOURCES / "EmojiModel/Resources/emoji/tokenizer"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"


# ------------------------------------------------------------------ vocabularies
def byte_characters():
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def write_vocabulary(folder, merges, drop=(), extra=(BEGIN, END)):
    base = byte_characters()
    tokens = base + [c + "</w>" for c in base] + ["".join(m.split(" ")) for m in merges] + list(extra)
    tokens = [t for t in dict.fromkeys(tokens) if t not in drop]
    vocabulary = {t: i for i, t in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(m + "\n" for m in merges), "utf-8")
    return vocabulary


def added(content, **flags):
    return {"__type": "AddedToken", "content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False, **flags}


def clip_tokenizer(folder):
    merges = CLIP_MERGES.read_text("utf-8").split("\n")[1:-1]
    assert len(write_vocabulary(folder, merges)) == 49408
    (folder / "tokenizer_config.json").write_text(json.dumps(SD1))
    return CLIPTokenizer.from_pretrained(folder)


SD1 = dict(tokenizer_class="CLIPTokenizer", model_max_length=77, do_lower_case=True, errors="replace", add_prefix_space=False,
           bos_token=added(BEGIN), eos_token=added(END), unk_token=added(END), pad_token=END)


# ------------------------------------------------------------------ lines
BLOCKS = [  # ranges of the scripts that words are drawn from
    (0x41, 0x7A), (0xC0, 0xFF), (0x100, 0x17F), (0x180, 0x24F), (0x250, 0x2AF), (0x2B0, 0x2FF), (0x370, 0x3FF), (0x400, 0x4FF),
    (0x500, 0x52F), (0x531, 0x58F), (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F), (0x750, 0x77F), (0x780, 0x7BF), (0x7C0, 0x7FF),
    (0x800, 0x83F), (0x840, 0x85F), (0x8A0, 0x8FF), (0x900, 0x97F), (0x980, 0x9FF), (0xA00, 0xA7F), (0xA80, 0xAFF), (0xB00, 0xB7F),
    (0xB80, 0xBFF), (0xC00, 0xC7F), (0xC80, 0xCFF), (0xD00, 0xD7F), (0xD80, 0xDFF), (0xE00, 0xE7F), (0xE80, 0xEFF), (0xF00, 0xFFF),
    (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1400, 0x167F), (0x1680, 0x169F),
    (0x16A0, 0x16FF), (0x1780, 0x17FF), (0x1800, 0x18AF), (0x1950, 0x197F), (0x1A00, 0x1AFF), (0x1B00, 0x1BFF), (0x1C00, 0x1CFF),
    (0x1D00, 0x1DBF), (0x1DC0, 0x1DFF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2C00, 0x2DFF), (0x3040, 0x30FF), (0x3100, 0x318F),
    (0x3190, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA4CF), (0xA4D0, 0xA6FF), (0xA720, 0xA7FF), (0xA800, 0xA8FF),
    (0xA900, 0xA9FF), (0xAA00, 0xAAFF), (0xAB00, 0xABFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFB4F), (0xFB50, 0xFDFF),
    (0xFE70, 0xFEFE), (0xFF00, 0xFFEF), (0x10000, 0x100FF), (0x10280, 0x103DF), (0x10400, 0x104FF), (0x10800, 0x10CFF),
    (0x10F00, 0x11FFF), (0x12000, 0x1254F), (0x13000, 0x1345F), (0x16A00, 0x16F9F), (0x1B000, 0x1B16F), (0x1D400, 0x1D7FF),
    (0x1E000, 0x1E95F), (0x1EE00, 0x1EEFF), (0x20000, 0x2A6DF), (0x2F800, 0x2FA1D), (0x30000, 0x3134A)]
WORDS = """a an the of in with and photo painting portrait studio lighting highly detailed 4k 8K unreal engine trending artstation
oil canvas cyberpunk city neon night rain reflections castle mountains astronaut riding horse moon cat wearing hat masterpiece
best quality sharp focus bokeh Greg-style watercolor ink sketch anime girl robot steampunk airship sunset ocean waves forest
mist volumetric god rays close-up macro dragonfly wing golden hour f/1.8 85mm ISO100 red apple blue heart emoji rocket smiling
face extraordinarily counterrevolutionaries antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis""".split()
DIACRITICS = """café naïve Ångström Zürich façade jalapeño crème brûlée Łódź Dvořák Škoda İstanbul IĞDIR ılık ÆON œuvre STRAẞE
straße Việt Nguyễn Hồ Chí Minh ắằẳẵặ ǅungla ǈ ǋ ĳ ﬁre ﬂow ﬀ ﬃ ſharp Kelvin Åsa Ωhm ŉ ǰ ΰ ẖ ẗ ẘ ẙ ẚ""".split()
GREEK = """ΟΔΥΣΣΕΥΣ Οδυσσεύς σίγμα ΣΑΣ ΣΣΣ άέήίόύώ ΆΈΉΊΌΎΏ ᾳ ᾼ ᾲ ῼ Ὀδυσσεύς ᾍ ϐ ϑ ϕ ϖ ϰ ϱ ϵ ΐ ΰ ʹ ; ·""".split()
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u2003", "\u2009", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"]
INVISIBLE = ["\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u202a", "\u202e", "\u2060", "\u2066", "\ufeff", "\u00ad", "\u034f",
             "\u061c", "\u180e", "\ufe0e", "\ufe0f", "\U000e0001", "\U000e0041", "\U000e007f", "\U000e0100"]
EMOJI_BASE = [chr(c) for r in ((0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF), (0x1FA70, 0x1FAFF),
                               (0x2600, 0x26FF), (0x2700, 0x27BF), (0x2190, 0x21FF), (0x2B00, 0x2BFF)) for c in range(*r)]
EMOJI = ["👨‍👩‍👧‍👦", "👩🏽‍🚀", "🏳️‍🌈", "🏴‍☠️", "🇩🇪🇫🇷", "🇯🇵", "1️⃣", "#️⃣", "*⃣", "👍🏿", "🧑🏻‍❤️‍💋‍🧑🏿", "❤️", "❤", "☺︎", "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
         "🫠", "🥲", "🐦‍🔥", "👁️‍🗨️", "🤷🏽‍♀️", "⏏︎", "©️", "™", "㊗️", "🅰️", "🈚"]
APOSTROPHES = ["'", "’", "‘", "ʼ", "＇", "`", "´", "′"]
CONTRACTIONS = ["s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "Ve", "M", "LL", "lL", "D", "x", "st", "rex", "", "tis", "ſ", "cause"]
NUMBERS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c))[0] == "N"]
MARKS = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c))[0] == "M"]
MATHS = [chr(c) for c in range(0x1D400, 0x1D800)] + [chr(c) for c in range(0x2100, 0x2150)]
EDGES = [chr(c) for c in (0xD7FF, 0xE000, 0xE001, 0xF8FF, 0xFFFD, 0xFFFE, 0xFFFF, 0xFDD0, 0x10FFFF, 0x10FFFE, 0x1FFFE, 0xF0000, 0x100000,
                          0x378, 0x88F, 0xC5C, 0xA7CE, 0x10940, 0x11DE0, 0x323B0, 0x16FF4, 0x11938, 0x1DF6, 0x10F48, 0x1E130, 0x1C89, 0x7F, 0x80)]
SPECIAL = [BEGIN, END, "<|STARTOFTEXT|>", "<|EndOfText|>", "<|startoftext|", "<|endoftext", "|>", "<|", "<", "|", "startoftext",
           "<| endoftext |>", "<|endoftext|>!", "!<|startoftext|>", "<|startoftext|>'s", "<|ENDOFTEXT|>!?", "?<|ENDOFTEXT|>", "</w>", "a</w>",
           "<｜endoftext｜>", "<|start of text|>", "<|endo\u0301ftext|>", "<|endoftext|>\u0301", "\u0338<|endoftext|>", "!", "a!", "Ġ", "Ā"]
PUNCTUATION = list("!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~") + ["(((", ":1.3)", "--", "…", "—", "«", "»", "¿", "。", "、", "！", "،", "।", "၊", "\u2044", "№"]


def draw(rng, pool, low, high, separator=""):
    return separator.join(rng.choice(pool) for _ in range(rng.randint(low, high)))


def block_word(rng, block):
    low, high = block
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 8)))


def decomposed(rng, text):
    return unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)


def jamo(rng):
    pool = [range(0x1100, 0x1113), range(0x1161, 0x1176), range(0x11A7, 0x11C3), range(0xAC00, 0xD7A4)]
    return "".join(chr(rng.choice(rng.choice(pool))) for _ in range(rng.randint(1, 9)))


def marked(rng):
    bases = ["a", "e", "o", "O", "α", "и", "é", "ở", "ا", "न", "ก", "か", "가", "ᄀ", "1", " ", "", "👍", "≠", "Å", "\u0b47", "\u09c7"]
    return "".join(rng.choice(bases) + draw(rng, MARKS[:400] if rng.random() < 0.7 else MARKS, 0, 6) for _ in range(rng.randint(1, 4)))


def scalar(rng):
    while 0xD800 <= (value := rng.choice([rng.randrange(0x300), rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x110000)])) < 0xE000:
        pass
    return chr(value)


KINDS = [  # (weight, maker)
    (4, lambda r: draw(r, WORDS, 1, 20, " ")),
    (4, lambda r: "".join(r.choice(WORDS) + r.choice([" ", ", ", " (", ") ", ". ", "!!", " - ", ":"]) for _ in range(r.randint(1, 8)))),
    (12, lambda r: " ".join(block_word(r, b) for b in [r.choice(BLOCKS)] for _ in range(r.randint(1, 4)))),
    (4, lambda r: " ".join(block_word(r, r.choice(BLOCKS)) for _ in range(r.randint(1, 4)))),
    (3, lambda r: decomposed(r, draw(r, DIACRITICS + GREEK, 1, 6, r.choice([" ", ""])))),
    (3, lambda r: decomposed(r, block_word(r, r.choice(BLOCKS[:60])))),
    (3, lambda r: draw(r, EMOJI_BASE + EMOJI * 20 + ["\u200d", "\ufe0f", "🏽", " "], 1, 8)),
    (4, marked),
    (2, jamo),
    (3, lambda r: draw(r, NUMBERS + list("0123456789") * 20 + [" ", ".", "x"] * 20, 1, 10)),
    (2, lambda r: draw(r, MATHS, 1, 10)),
    (4, lambda r: " ".join(r.choice(WORDS + ["it", "I", "DON", "é", "1", "", "'"]) + r.choice(APOSTROPHES[:1] * 6 + APOSTROPHES) + r.choice(CONTRACTIONS) for _ in range(r.randint(1, 5)))),
    (3, lambda r: "".join(r.choice([chr(r.randrange(32)), chr(0x7F + r.randrange(34)), r.choice(INVISIBLE), r.choice(WORDS), " "]) for _ in range(r.randint(1, 8)))),
    (3, lambda r: "".join(r.choice(SPACES) + r.choice(WORDS + [""]) for _ in range(r.randint(1, 6))) + r.choice(SPACES + [""])),
    (2, lambda r: draw(r, EDGES + [" ", "a", "1", "!"], 1, 8)),
    (5, lambda r: draw(r, SPECIAL + SPACES[:4] + WORDS[:8], 1, 6, r.choice(["", "", " "]))),
    (3, lambda r: draw(r, PUNCTUATION + WORDS[:6], 1, 12, r.choice(["", " "]))),
    (5, lambda r: "".join(scalar(r) for _ in range(r.randint(1, 10)))),
    (2, lambda r: "".join(r.choice([block_word, lambda r, b: marked(r), lambda r, b: r.choice(SPECIAL), lambda r, b: jamo(r),
                                    lambda r, b: r.choice(EMOJI + SPACES + INVISIBLE)])(r, r.choice(BLOCKS)) for _ in range(r.randint(2, 6)))),
]


def long_lines(rng):
    letters = "etaoinshrdlu"
    yield "a" * 3000
    yield "ab" * 1000
    yield "na" * 700 + "!" * 900 + "🍎" * 200
    yield "".join(rng.choice(letters) for _ in range(4000))
    yield "".join(rng.choice(WORDS) for _ in range(500))
    yield "語" * 500 + "".join(chr(rng.randint(0x4E00, 0x9FFF)) for _ in range(500))
    yield "e" + "".join(MARKS[rng.randrange(300)] for _ in range(800))
    yield draw(rng, WORDS, 800, 800, " ")
    yield " " * 3000 + "x" + "\n" * 3000
    yield "9" * 700
    yield END * 100 + BEGIN * 100 + "<|" * 200


def make_lines(count, seed):
    rng = random.Random(seed)
    lines = ["", " ", "\n", "\0", "\ufeff", "\u0301", "'", "'s", "<|endoftext|>", "a", "é", "e\u0301", "Σ", "ΑΣ", "İ", "ẞ"]
    lines += DIACRITICS + GREEK + EMOJI + SPECIAL + SPACES + INVISIBLE + EDGES
    lines += [unicodedata.normalize("NFD", w) for w in DIACRITICS + GREEK]
    lines += [a + b for a in APOSTROPHES for b in CONTRACTIONS] + ["we" + a + b for a in APOSTROPHES for b in CONTRACTIONS]
    lines += list(long_lines(rng))
    weights, makers = zip(*KINDS)
    seen = set(lines)
    lines = list(dict.fromkeys(lines))
    while len(lines) < count:
        line = rng.choices(makers, weights)[0](rng)
        if line not in seen:
            seen.add(line)
            lines.append(line)
    return lines


def pack(ids):
    """Little-endian 16-bit words in base64."""
    return base64.b64encode(struct.pack(f"<{len(ids)}H", *ids)).decode()


def write_lines(folder, count, seed, size=190_000):
    """Files of rows [line, CLIP's tokens, the small vocabulary's tokens]."""
    with tempfile.TemporaryDirectory() as temporary:
        clip = clip_tokenizer(Path(temporary))
    emoji = CLIPTokenizer.from_pretrained(EMOJI_FOLDER)
    rows = []
    for line in make_lines(count, seed):
        rows.append(json.dumps([line, pack(clip(line).input_ids), pack(emoji(line).input_ids)], ensure_ascii=False, separators=(",", ":")))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("lines-*.json"):
        old.unlink()
    files, part, length = 0, [], 0
    for row in rows + [None]:
        if row is None or length + len(row.encode()) > size:
            (folder / f"lines-{files:02}.json").write_text("[\n" + ",\n".join(part) + "\n]\n", "utf-8")
            files, part, length = files + 1, [], 0
        if row is not None:
            part.append(row)
            length += len(row.encode()) + 2
    print(len(rows), "lines in", files, "files")


def write_decoding():
    """Rows [tokens, their text, the text without special tokens], of tokens drawn at random: bytes need not be UTF-8."""
    rng = random.Random(4)
    with tempfile.TemporaryDirectory() as temporary:
        clip = clip_tokenizer(Path(temporary))
    rows = []
    for _ in range(600):
        pool = rng.choice([range(512), range(49408), [49406, 49407, 0, 320, 256], range(94, 256), range(188, 600)])
        ids = [rng.choice(pool) for _ in range(rng.randint(0, 12))]
        rows.append(json.dumps([pack(ids), clip.decode(ids), clip.decode(ids, skip_special_tokens=True)], ensure_ascii=False, separators=(",", ":")))
    (HERE / "decoding.json").write_text("[\n" + ",\n".join(rows) + "\n]\n", "utf-8")


# ------------------------------------------------------------------ configurations
TEXTS = ["", " ", "!", "a red apple", "A RED apple!", "hello! world !", "a<|endoftext|>b", "a <|ENDOFTEXT|> b", "<|startoftext|>x<|StartOfText|>",
         "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty "
         "one two three four five six seven eight nine ten eleven twelve thirteen", "<cat-toy> in a box", "my<cat-toy>s", "<Cat-Toy>", "x  <style one>  y",
         "word words sword word", "WORD, word!", "pre post pre  post", "a <mask> b <sep>c<cls>", "</s><s><unk><pad>", "é<É>e\u0301<e\u0301>", "<é>", "日本 日本語", "zz\x00zz",
         "snowman ☃ snow", "!!!!", "<|endoftext|>!", "  lead and trail  ", "it's we'RE", "a\u00a0<strip>\u2003b <strip>", "<lstrip> a <rstrip> b"]


def folder_cases():
    ids = {"!": 0, BEGIN: 8190, END: 8191}
    plain = dict(content="", lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
    sdxl2 = {**SD1, "pad_token": "!", "bos_token": BEGIN, "eos_token": END, "unk_token": END, "added_tokens_decoder": {
        str(ids[c]): {**plain, "content": c, "normalized": c != "!"} for c in ("!", BEGIN, END)}}
    decoder = {"8190": {**plain, "content": BEGIN}, "8191": {**plain, "content": END}}
    extra = [dict(content="word", single_word=True, special=False), dict(content="<strip>", lstrip=True, rstrip=True, special=True),
             dict(content="<lstrip>", lstrip=True, normalized=True, special=False), dict(content="<rstrip>", rstrip=True, special=False),
             dict(content="<É>", normalized=True, special=False), dict(content="<style one>", special=True), dict(content="<style", special=False),
             dict(content="日本", special=False), dict(content="pre  post", normalized=True, special=False)]
    flags = {**SD1, "bos_token": BEGIN, "eos_token": END, "unk_token": END, "added_tokens_decoder": {
        **decoder, **{str(8192 + i): {**plain, **t} for i, t in enumerate(extra)}}}
    map_dicts = {k: {x: y for x, y in added(c).items() if x != "__type"} for k, c in (("bos_token", BEGIN), ("eos_token", END), ("unk_token", END))}
    yield "sd1", {"tokenizer_config.json": SD1}
    yield "sd1 with map", {"tokenizer_config.json": {**SD1, "model_max_length": 32}, "special_tokens_map.json": {**map_dicts, "pad_token": END}}
    yield "sd2", {"tokenizer_config.json": SD1, "special_tokens_map.json": {**map_dicts, "pad_token": "!"}}
    yield "sdxl second", {"tokenizer_config.json": sdxl2, "special_tokens_map.json": {**map_dicts, "pad_token": "!"}}
    yield "map of objects", {"tokenizer_config.json": SD1, "special_tokens_map.json": {**map_dicts, "pad_token": map_dicts["eos_token"]}}
    yield "bare strings", {"tokenizer_config.json": {**SD1, "bos_token": BEGIN, "eos_token": END, "unk_token": END}}
    for length in (2, 3, 8, 16):
        yield f"length {length}", {"tokenizer_config.json": {**SD1, "model_max_length": length}}
    yield "truncated left", {"tokenizer_config.json": {**SD1, "model_max_length": 9, "truncation_side": "left"}}
    yield "padded left", {"tokenizer_config.json": {**SD1, "model_max_length": 12, "padding_side": "left"}}
    yield "both left", {"tokenizer_config.json": {**SD1, "model_max_length": 10, "padding_side": "left", "truncation_side": "left", "pad_token": "!"}}
    yield "textual inversion", {"tokenizer_config.json": SD1, "added_tokens.json": {"<cat-toy>": 8192, "<style one>": 8193}}
    yield "flags", {"tokenizer_config.json": flags}
    yield "split special", {"tokenizer_config.json": {**flags, "split_special_tokens": True}}
    yield "other names", {"tokenizer_config.json": dict(model_max_length=20, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
                                                        mask_token="<mask>", sep_token="<sep>", cls_token=added("<cls>", lstrip=True))}
    yield "extra tokens", {"tokenizer_config.json": {**SD1, "additional_special_tokens": ["<cat-toy>", "<mask>"]}}
    yield "extra in map", {"tokenizer_config.json": SD1, "special_tokens_map.json": {"additional_special_tokens": ["<sep>", "snow"]}}
    yield "extra in both", {"tokenizer_config.json": {**SD1, "extra_special_tokens": ["word"]}, "special_tokens_map.json": {
        "additional_special_tokens": ["<sep>"], "extra_special_tokens": ["snow", "<mask>"]}}
    yield "added and named", {"tokenizer_config.json": {**SD1, "mask_token": added("<Cat-Toy>", rstrip=True), "cls_token": "<mask>"},
                              "added_tokens.json": {"<Cat-Toy>": 8192, "<mask>": 8193}}
    yield "white space", {"tokenizer_config.json": {**SD1, "mask_token": added(" ", lstrip=True, rstrip=True)}}
    yield "bare folder", {}
    yield "unset length", {"tokenizer_config.json": {**SD1, "model_max_length": 1000000000000000019884624838656}}


def results(tokenizer, texts):
    length = tokenizer.model_max_length if tokenizer.model_max_length < 1e20 else 77
    for text in texts:
        ids = tokenizer(text).input_ids
        padded = tokenizer(text, padding="max_length", truncation=True, max_length=length).input_ids
        yield dict(text=text, ids=ids, padded=padded, decoded=tokenizer.decode(ids), content=tokenizer.decode(padded, skip_special_tokens=True))


def write_configurations():
    """The small vocabulary under many configurations."""
    cases = []
    for name, files in folder_cases():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for file in ("vocab.json", "merges.txt"):
                (folder / file).write_bytes((EMOJI_FOLDER / file).read_bytes())
            for file, content in files.items():
                (folder / file).write_text(json.dumps(content))
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            cases.append(dict(name=name, files={k: json.dumps(v, ensure_ascii=False) for k, v in files.items()}, cases=list(results(tokenizer, TEXTS))))
    part = (len(cases) + 1) // 2
    for index in range(2):
        rows = ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases[index * part:(index + 1) * part])
        (HERE / f"configurations-{index}.json").write_text("[\n" + rows + "\n]\n", "utf-8")
    print(len(cases), "configurations")


# ------------------------------------------------------------------ small vocabularies
def write_small():
    """Vocabularies made up at random: merges whose results coincide, repeated merges, bytes that lack."""
    rng = random.Random(9)
    cases = []
    for number in range(12):
        alphabet = "abcd"[:rng.randint(2, 4)]
        tokens = list(alphabet) + [c + "</w>" for c in alphabet]
        merges = []
        while len(merges) < rng.randint(10, 60):
            left, right = rng.choice(tokens), rng.choice(tokens)
            if "</w>" in left:
                continue
            merges.append(f"{left} {right}")
            if left + right not in tokens and len(left + right) < 14:
                tokens.append(left + right)
            elif left + right not in tokens:
                merges.pop()
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            drop = set(byte_characters()) | {c + "</w>" for c in byte_characters()}
            drop -= set(tokens)
            if number % 3 == 0:
                drop = set()
            vocabulary = write_vocabulary(folder, merges, drop=drop)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
            texts = ["".join(rng.choice(alphabet + " "[:rng.random() < 0.3]) for _ in range(rng.randint(1, 40))) for _ in range(60)]
            texts += ["xyz", "a!b", "aé", "☃ab"]
            cases.append(dict(vocabulary=json.dumps(vocabulary, ensure_ascii=False), merges=(folder / "merges.txt").read_text("utf-8"),
                              cases=[[t, tokenizer(t).input_ids] for t in texts]))
            if number == 1:   # what transformers 5 itself saves: one file for both
                tokenizer.model_max_length = 11
                tokenizer.add_tokens(["<toy>"])
                tokenizer.save_pretrained(HERE / "saved")
                saved = CLIPTokenizer.from_pretrained(HERE / "saved")
                texts += ["<toy>", "a<toy>b", "a <|endoftext|> b", "<|STARTOFTEXT|>"]
                (HERE / "saved-cases.json").write_text(json.dumps(list(results(saved, texts)), ensure_ascii=False, separators=(",", ":")), "utf-8")
    (HERE / "small.json").write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases) + "\n]\n", "utf-8")
    print(len(cases), "small vocabularies")




if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    write_lines(arguments.out or HERE, arguments.lines, arguments.seed)
    if not arguments.out:
        write_decoding()
        write_configurations()
        write_small()
