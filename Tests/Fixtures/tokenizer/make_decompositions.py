"""Writes Sources/TextEncoder/CanonicalDecompositions.swift.  Python's unicodedata (3.11: Unicode 14.0).

Only what Unicode 9.0 assigned: that is the version whose composition CLIP's tokenizer knows. One pair was added since.
"""
import unicodedata
from pathlib import Path

ADDED_SINCE = {0x11938}

runs, last = [], None
for scalar in range(0x110000):
    mapping = unicodedata.decomposition(chr(scalar))
    if not mapping or mapping.startswith("<") or scalar in ADDED_SINCE:
        continue
    parts = [int(part, 16) for part in mapping.split()]
    composes = len(parts) == 2 and unicodedata.normalize("NFC", chr(scalar)) == chr(scalar)
    item = "+".join(f"{part:X}" for part in parts)
    if len(parts) == 2 and not composes:
        item = "!" + item
    if last is None or scalar != last + 1:
        runs.append(f"{scalar:X}=")
        separator = ""
    else:
        separator = ","
    runs[-1] += separator + item
    last = scalar

# Long runs are cut so that lines stay short; a cut run starts anew with its own scalar.
lines, line = [], ""
for run in runs:
    start, items = run.split("=")
    start, items = int(start, 16), items.split(",")
    while items:
        head = f"{start:X}="
        count = 0
        text = head
        while count < len(items) and len(text) + len(items[count]) + 1 < 130:
            text += ("," if count else "") + items[count]
            count += 1
        if len(line) + len(text) + 1 > 134:
            lines.append(line)
            line = ""
        line += (" " if line else "") + text
        start, items = start + count, items[count:]
lines.append(line)

source = Path(__file__).resolve().parents[3] / "Sources/TextEncoder/CanonicalDecompositions.swift"
source.write_text('''/// Unicode's canonical decompositions, one level deep and without Hangul's, which are computed.
///
/// Each word is a run of neighbouring scalars: `first=a,b+c,!d+e` says that `first` decomposes to a, the next scalar to b c, the
/// one after it to d e; a pair with `!` is never composed again. Made from the Unicode Character Database (version 9.0's share,
/// which no later version may change) by `Tests/Fixtures/tokenizer/make_decompositions.py`.
let canonicalDecompositionRuns = """
''' + "\n".join("  " + line for line in lines) + '\n  """\n')
print(len(lines), "lines")
