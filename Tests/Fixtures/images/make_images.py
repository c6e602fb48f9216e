"""Makes the pictures beside this file and images.json, which says what Pillow reads in them.

Pinned: Pillow 13.0.0 (libjpeg-turbo 3.2, libwebp 1.6), NumPy 2. Run it in this folder: python make_images.py
"""

import base64
import io
import json
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

rng = np.random.default_rng(7)
W, H = 13, 9
cases = {"reading": [], "flattening": [], "luminance": [], "resizing": [], "text": [], "rounding": None, "broken": []}


def b64(array):
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.uint8).tobytes()).decode()


def write(name, data):
    with open(name, "wb") as file:
        file.write(data)


# The colours are PNG's types: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha.
# PNG, chunk by chunk: Pillow cannot write every colour type.


def chunk(kind, payload):
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def packed(samples, depth):
    """The bytes of rows of samples [h, w, channels]."""
    rows = []
    for row in samples.reshape(samples.shape[0], -1):
        if depth == 16:
            rows.append(row.astype(">u2").tobytes())
        elif depth == 8:
            rows.append(row.astype(np.uint8).tobytes())
        else:
            bits = ((row[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)
            rows.append(np.packbits(bits).tobytes())
    return b"".join(b"\0" + row for row in rows)


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples, depth, colour, extra=b"", interlaced=False):
    h, w = samples.shape[:2]
    if interlaced:
        passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7]
        data = b"".join(packed(p, depth) for p in passes if p.size)
    else:
        data = packed(samples, depth)
    header = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def reading(name, data, pixels=None, alpha=None, tolerance=0):
    """A file and what Pillow reads in it, unless that is given."""
    write(name, data)
    if pixels is None:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        pixels = np.asarray(image.convert("RGB"))
        if image.mode in ("RGBA", "LA") or "transparency" in image.info:
            rgba = np.asarray(image.convert("RGBA"))
            pixels, alpha = rgba[..., :3], rgba[..., 3]
    cases["reading"].append({
        "file": name, "width": pixels.shape[1], "height": pixels.shape[0], "pixels": b64(pixels),
        "alpha": None if alpha is None else b64(alpha), "tolerance": tolerance,
    })


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
palette = rng.integers(0, 256, (256, 3), dtype=np.uint8)
for colour, depths in {0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16]}.items():
    for depth in depths:
        samples = rng.integers(0, 1 << depth, (H, W, CHANNELS[colour]))
        extra = chunk(b"PLTE", palette[: 1 << depth].tobytes()) if colour == 3 else b""
        wanted = {}
        if depth == 16:
            # Pillow takes the higher byte of colour but clips grey.
            high = samples >> 8
            wanted = {"pixels": high[..., :1].repeat(3, -1) if colour in (0, 4) else high[..., :3]}
            if colour >= 4:
                # Colours come back from being multiplied by alpha, which is exact to one level where alpha has one.
                samples[..., -1] = samples[..., -1].clip(512)
                wanted |= {"alpha": samples[..., -1] >> 8, "tolerance": 1}
        for interlaced in (False, True):
            name = f"colour{colour}-depth{depth}{'-interlaced' if interlaced else ''}.png"
            data = png(samples, depth, colour, extra, interlaced)
            reading(name, data, **wanted)
            if depth == 16 and colour != 0:
                image = Image.open(io.BytesIO(data)).convert("RGB")
                assert (np.asarray(image) == wanted["pixels"]).all()

rgb = rng.integers(0, 256, (H, W, 3))
rgb[2, 3] = rgb[5, 1] = [10, 20, 30]
reading("transparent-colour.png", png(rgb, 8, 2, chunk(b"tRNS", struct.pack(">3H", 10, 20, 30))))
grey = rng.integers(0, 4, (H, W, 1))
seen = np.where((rgb == [10, 20, 30]).all(-1), 0, 255)
reading(
    "transparent-colour-16.png", png(rgb * 256, 16, 2, chunk(b"tRNS", struct.pack(">3H", 2560, 5120, 7680))),
    pixels=rgb * (seen[..., None] > 0), alpha=seen)
# Pillow compares the transparent value of fewer than 8 bits with the pixel of 8.
reading(
    "transparent-grey.png", png(grey, 2, 0, chunk(b"tRNS", struct.pack(">H", 2))), pixels=(grey * 85).repeat(3, -1),
    alpha=(grey != 2) * 255)
indices = rng.integers(0, 16, (H, W, 1))
reading("transparent-palette.png", png(indices, 4, 3, chunk(b"PLTE", palette[:16].tobytes()) + chunk(b"tRNS", bytes(range(0, 256, 32)))))
# Chunks that describe the colour space change nothing.
for name, extra in {
    "gamma-linear": chunk(b"gAMA", struct.pack(">I", 100000)),
    "gamma-dark": chunk(b"gAMA", struct.pack(">I", 30000))
    + chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
    "srgb": chunk(b"sRGB", b"\0"),
    "profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())),
    "background": chunk(b"bKGD", struct.pack(">3H", 1, 2, 3)),
}.items():
    reading(f"{name}.png", png(rgb, 8, 2, extra))
reading("gamma-16.png", png(rgb * 257, 16, 2, chunk(b"gAMA", struct.pack(">I", 100000))), pixels=rgb)
reading("one-pixel.png", png(np.array([[[1, 2, 3]]]), 8, 2))
reading("wide.png", png(rng.integers(0, 256, (1, 400, 3)), 8, 2))

# JPEG.

y, x = np.mgrid[0:21, 0:29]
smooth = np.stack([x * 8, y * 12, 255 - x * 4 - y * 5], -1).clip(0, 255).astype(np.uint8)
smooth = (smooth.astype(int) + rng.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)
photo = Image.fromarray(smooth)


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


for name, sampling in {"444": 0, "422": 1, "420": 2, "411": "4:1:1"}.items():
    reading(f"sampling-{name}.jpg", jpeg(photo, quality=90, subsampling=sampling))
reading("progressive.jpg", jpeg(photo, quality=80, progressive=True))
reading("restarts.jpg", jpeg(photo, quality=80, restart_marker_blocks=1))
reading("grey.jpg", jpeg(photo.convert("L"), quality=90))
reading("rgb.jpg", jpeg(photo, quality=90, keep_rgb=True))
inks = jpeg(photo.convert("CMYK"), quality=95)
reading("inks-adobe.jpg", inks)
adobe = inks.index(b"\xff\xee")
reading("inks-plain.jpg", inks[:adobe] + inks[adobe + 2 + struct.unpack(">H", inks[adobe + 2 : adobe + 4])[0] :])
reading("one-pixel.jpg", jpeg(photo.crop((0, 0, 1, 1)), quality=90))
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    reading(f"orientation{orientation}.jpg", jpeg(photo.crop((0, 0, 16, 9)), quality=95, exif=exif))
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)).save(file, "PNG", exif=exif)
    reading(f"orientation{orientation}.png", file.getvalue())

# WebP: with and without loss, with and without alpha, with EXIF, extended by a profile, and with filters of all kinds in a larger picture.

webp_rng = np.random.default_rng(17)


def webp(image, **options):
    file = io.BytesIO()
    image.save(file, "WEBP", **options)
    return file.getvalue()


veiled = Image.fromarray(np.dstack([smooth, webp_rng.integers(0, 256, smooth.shape[:2], dtype=np.uint8)]))
reading("lossless.webp", webp(photo, lossless=True))
reading("lossless-alpha.webp", webp(veiled, lossless=True, exact=True))
reading("lossless-palette.webp", webp(photo.quantize(12).convert("RGB"), lossless=True))
for quality in (5, 80, 100):
    reading(f"lossy-{quality}.webp", webp(photo, quality=quality))
reading("lossy-alpha.webp", webp(veiled, quality=75))
reading("lossy-large.webp", webp(photo.resize((131, 77), Image.Resampling.BICUBIC), quality=30, method=6))
reading("profile.webp", webp(photo, quality=80, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()))
reading("one-pixel.webp", webp(photo.crop((0, 0, 1, 1)), lossless=True))
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    reading(f"orientation{orientation}.webp", webp(photo.crop((0, 0, 16, 9)), lossless=orientation % 2 == 0, quality=90, exif=exif))

# What becomes of alpha, luminance and size.

rgba = np.asarray(Image.open("colour6-depth8.png"))
for background in ([255, 255, 255], [0, 128, 7]):
    canvas = Image.new("RGB", (W, H), tuple(background))
    canvas.paste(Image.fromarray(rgba), mask=Image.fromarray(rgba).getchannel("A"))
    cases["flattening"].append({"file": "colour6-depth8.png", "background": background, "pixels": b64(np.asarray(canvas))})
for name in ("colour2-depth8.png", "colour6-depth8.png", "grey.jpg"):
    cases["luminance"].append({"file": name, "pixels": b64(np.asarray(Image.open(name).convert("L")))})

file = io.BytesIO()
spots = (rng.integers(0, 2, (24, 37, 3)) * 255).astype(np.uint8)
Image.fromarray(spots).save(file, "PNG")
reading("spots.png", file.getvalue())
sizes = [(8, 8), (36, 23), (1, 1), (3, 40), (37, 30), (44, 24), (111, 5), (74, 48)]
for name in ("spots.png", "colour6-depth8.png", "sampling-420.jpg", "one-pixel.png"):
    image = Image.open(name)
    for size in sizes if name == "spots.png" else sizes[:4]:
        for kind, resample in {"lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST}.items():
            resized = np.asarray(image.resize(size, resample))
            cases["resizing"].append({
                "file": name, "width": size[0], "height": size[1], "filter": kind, "pixels": b64(resized[..., :3]),
                "alpha": b64(resized[..., 3]) if resized.shape[-1] == 4 else None,
            })

# Text: stable-diffusion-webui stores it so.

settings = "Steps: 25, Sampler: Euler a, CFG scale: 4.0, Seed: 0, Size: 64x64, Model: emoji"
for name, text in {
    "latin": f"a red apple, café\nNegative prompt: blurry\n{settings}",
    "unicode": f"ein Apfel 🍎 りんご\n{settings}",
}.items():
    info = PngInfo()
    info.add_text("parameters", text)
    file = io.BytesIO()
    Image.fromarray(rgb.astype(np.uint8)).save(file, "PNG", pnginfo=info)
    data = file.getvalue()
    write(f"text-{name}.png", data)
    kind = b"tEXt" if name == "latin" else b"iTXt"
    start = data.index(kind) - 4
    length = struct.unpack(">I", data[start : start + 4])[0] + 12
    cases["text"].append({"file": f"text-{name}.png", "text": text, "chunk": base64.b64encode(data[start : start + length]).decode()})

# Rounding, as diffusers' VaeImageProcessor.numpy_to_pil: halves, ends and beyond.

halves, whole_levels = (np.arange(0, 255) + 0.5) / 255, np.arange(256) / 255
values = np.concatenate([halves, whole_levels, [-1, 2, 1e30, -1e30, 0.99999994], rng.random(250), [0.5, 0.25]])
values = np.resize(values.astype(np.float32), (1, 16, 16, 3))
rounded = (values.clip(0, 1) * 255).round().astype(np.uint8)
cases["rounding"] = {"values": base64.b64encode(values.tobytes()).decode(), "pixels": b64(rounded)}

# Broken files.


def riff(kind, payload):
    """A WebP file of one chunk."""
    chunks = b"WEBP" + kind + struct.pack("<I", len(payload)) + payload
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


extended = webp(photo, quality=80, exif=exif)

whole = png(rgb, 8, 2)


def header(w, h):
    return whole[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + whole[33:]


photo_bytes = jpeg(photo, quality=90)
frame = photo_bytes.index(b"\xff\xc0")
bomb = photo_bytes[: frame + 5] + struct.pack(">HH", 65000, 65000) + photo_bytes[frame + 9 :]
idat = whole.index(b"IDAT")
for name, data in {
    "huge.png": header(0x7FFFFFFF, 0x7FFFFFFF), "long.png": header(16385, 1), "many.png": header(16384, 16385),
    "no-width.png": header(0, 5),
    "too-little.png": png(rgb[:4], 8, 2)[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 0)) + png(rgb[:4], 8, 2)[33:],
    "checksum.png": whole[: idat + 9] + bytes([whole[idat + 9] ^ 1]) + whole[idat + 10 :],
    "no-pixels.png": whole[: idat - 4] + chunk(b"IEND", b""), "no-palette.png": png(indices, 4, 3), "bad-depth.png": png(rgb, 5, 2),
    "bad-compression.png": whole[: idat - 4] + chunk(b"IDAT", b"nonsense") + chunk(b"IEND", b""),
    "huge.jpg": bomb, "no-frame.jpg": photo_bytes[:frame] + b"\xff\xd9",
    "animated.webp": webp(photo, save_all=True, append_images=[photo.transpose(Image.Transpose.ROTATE_180)]),
    "long.webp": riff(b"VP8X", struct.pack("<I", 0) + struct.pack("<I", 16384)[:3] + b"\0\0\0"),
    "huge.webp": riff(b"VP8X", struct.pack("<I", 0) + b"\xff" * 6), "no-size.webp": riff(b"VP8 ", b"\0\0\0\x9d\x01\x2a"),
    "no-chunks.webp": riff(b"", b"")[:12], "bad-start.webp": riff(b"VP8 ", b"\0\0\0\0\0\0\1\0\1\0"),
    "other-size.webp": extended[:24] + struct.pack("<I", 8)[:3] + extended[27:],
}.items():
    write(name, data)
    cases["broken"].append(name)

with open("images.json", "w") as out:
    json.dump(cases, out, indent=0)
