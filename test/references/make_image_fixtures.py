"""Makes test/fixtures/images: image files of every kind, and what Hugging Face's Pillow image processors make of them.

Run with Python 3.11, Pillow 12.0.0, numpy 2.4.6, transformers 5.23.0 (no PyTorch):
    python make_image_fixtures.py ../fixtures/images [../../../shared]
Pillow 13 resizes some tall pictures in another order of passes, with differences of a level; 9.4 to 12.0 agree.

expected.json:
  files       name -> { mode, crop: sha256 of the uint8 RGB crop [32, 32, 3] by CLIP's rules at size 32 }, or { refused } where Pillow refuses
  processors  list of { config, file, dims, sha256 of float32 pixel_values, crop: [height, width] }
NAME.crop.png: the crop itself where sharp does not decode as Pillow does
With the shared folder: parity.json, sha256 of the expected crops of parity/preprocess-clip, and photos.json, the first 16 digits of the sha256 of
each photo's crop by the rules of models/vit-tiny-imagenet.
"""

import hashlib
import io
import json
import os
import shutil
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

warnings.simplefilter("ignore")
out = sys.argv[1]
shared = sys.argv[2] if len(sys.argv) > 2 else None
shutil.rmtree(out, ignore_errors=True)
os.makedirs(out)
W, H = 72, 48


def path(name):
    return os.path.join(out, name)


def photo(width, height, seed=0):
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.RandomState(seed).normal(0, 12, (height, width, 3))
    waves = np.stack([np.sin(x / 9 + seed), np.cos(y / 7), np.sin((x + y) / 11)], -1)
    return Image.fromarray((127 + 100 * waves + noise).clip(0, 255).astype(np.uint8))


def chunk(kind, data, damage=0):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ damage)


def write_png(name, depth, colour, rows):
    header = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    with open(path(name), "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def p3_profile():
    """A Display P3 profile (ICC 2, matrix and gamma), written by hand."""
    fixed = lambda value: struct.pack(">i", round(value * 65536))
    xyz = lambda x, y, z: b"XYZ \0\0\0\0" + fixed(x) + fixed(y) + fixed(z)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 3) + b"P3\0" + b"\0" * 79
    tags = {
        b"desc": text + b"\0" * (-len(text) % 4),
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.51512, 0.24120, -0.00105),
        b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.15710, 0.06657, 0.78407),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", offset + len(body), len(data))
        body += data
    head = struct.pack(">I", offset + len(body)) + b"\0\0\0\0" + struct.pack(">I", 0x02400000) + b"mntrRGB XYZ " + b"\0" * 12 + b"acsp"
    head += b"\0" * 28 + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return head.ljust(128, b"\0") + table + body


# --- Files ---
image = photo(W, H)
grey = image.convert("L")
alpha = Image.fromarray((np.mgrid[0:H, 0:W][1] * 255 // W).astype(np.uint8))
rgba = image.copy()
rgba.putalpha(alpha)
la = grey.copy()
la.putalpha(alpha)
noise = np.random.RandomState(0)
grey16 = (np.asarray(grey).astype(np.int64) * 3 + noise.randint(-100, 100, (H, W))).clip(0, 65535).astype(np.uint16)
rgb16 = (np.asarray(image).astype(np.int64) * 257 + noise.randint(-120, 120, (H, W, 3))).clip(0, 65535).astype(">u2")
alpha16 = noise.randint(0, 65535, (H, W, 1)).astype(">u2")

for sampling in ("4:4:4", "4:2:2", "4:2:0"):
    image.save(path(f"rgb-{sampling.replace(':', '')}.jpg"), subsampling=sampling, quality=85)
image.save(path("progressive.jpg"), progressive=True)
grey.save(path("grey.jpg"))
image.convert("CMYK").save(path("cmyk.jpg"))
image.save(path("p3.jpg"), icc_profile=p3_profile(), quality=90)
image.save(path("p3.png"), icc_profile=p3_profile())
image.save(path("p3.webp"), icc_profile=p3_profile())
photo(31, 17).save(path("odd.jpg"), subsampling="4:2:0")

image.save(path("rgb.png"))
grey.save(path("grey.png"))
la.save(path("grey-alpha.png"))
rgba.save(path("rgba.png"))
image.quantize(64).save(path("palette.png"))
image.quantize(4).save(path("palette-2bit.png"))
image.quantize(64).save(path("palette-transparent.png"), transparency=bytes(range(0, 256, 4)))
image.convert("1").save(path("1bit.png"))
image.save(path("rgb-colour-key.png"), transparency=(10, 20, 30))
grey.save(path("grey-colour-key.png"), transparency=100)
write_png("grey-2bit.png", 2, 0, [np.packbits(np.unpackbits((row >> 6)[:, None], axis=1)[:, -2:]).tobytes() for row in np.asarray(grey)])
Image.fromarray(grey16).save(path("grey16.png"))
write_png("rgb16.png", 16, 2, [row.tobytes() for row in rgb16])
write_png("rgba16.png", 16, 6, [row.tobytes() for row in np.concatenate([rgb16, alpha16], -1)])
write_png("grey-alpha16.png", 16, 4, [row.tobytes() for row in np.concatenate([grey16[..., None].astype(">u2") * 60, alpha16], -1).astype(">u2")])
image.save(path("animated.png"), save_all=True, append_images=[photo(W, H, 1)], duration=100)

image.save(path("rgb.webp"), quality=80)
rgba.save(path("rgba.webp"), lossless=True, exact=True)
rgba.save(path("rgba-lossy.webp"), quality=80)
image.save(path("animated.webp"), save_all=True, append_images=[photo(W, H, 1)])

image.save(path("opaque.gif"))
frames = [photo(W, H, seed).quantize(32) for seed in range(3)]
frames[0].save(path("animated.gif"), save_all=True, append_images=frames[1:], duration=50)
frames[0].save(path("transparent.gif"), transparency=5)

image.save(path("rgb.avif"), quality=90)
image.save(path("rgb-444.avif"), quality=100, subsampling="4:4:4")
image.save(path("turned.avif"), quality=100, subsampling="4:4:4", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")

for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"):
    image.save(path(f"{compression.removeprefix('tiff_')}.tif"), compression=compression)
grey.save(path("grey.tif"))
rgba.save(path("rgba.tif"))
image.quantize(32).save(path("palette.tif"))
image.convert("1").save(path("1bit.tif"), compression="group4")
image.convert("CMYK").save(path("cmyk.tif"))

for orientation in range(10):
    exif = Image.Exif()
    exif[0x112] = orientation
    image.save(path(f"exif{orientation}.jpg"), exif=exif, quality=70)
    if orientation in (5, 6, 8):
        for ending in ("png", "webp", "tif"):
            image.crop((0, 0, 40, 24)).save(path(f"exif{orientation}.{ending}"), exif=exif)
xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
image.save(path("xmp6.jpg"), xmp=xmp, quality=70)
exif = Image.Exif()
exif[0x112] = 3
image.save(path("exif3-xmp6.jpg"), xmp=xmp, exif=exif, quality=70)
text = PngImagePlugin.PngInfo()
text.add_itxt("XML:com.adobe.xmp", xmp.decode())
image.crop((0, 0, 40, 24)).save(path("xmp6.png"), pnginfo=text)

for width, height in ((1, 1), (2, 1), (1, 300), (2000, 1), (20000, 1), (1, 20000), (3, 5), (640, 9)):
    photo(width, height).save(path(f"{width}x{height}.png"))
photo(1, 1).save(path("1x1.jpg"))

# Damaged: some of it Pillow reads with no more than a warning, some it refuses.
jpeg = open(path("rgb-420.jpg"), "rb").read()
middle = len(jpeg) * 2 // 3
first_table = jpeg.index(b"\xff\xdb")
png = open(path("rgb.png"), "rb").read()
png_data = png.index(b"IDAT") + 4
png_size = struct.unpack(">I", png[png_data - 8 : png_data - 4])[0]
damaged = {
    "damaged-data.jpg": jpeg[:middle] + b"\x55" * 12 + jpeg[middle + 12 :],
    "damaged-restart.jpg": jpeg[:middle] + b"\xff\xd3" + jpeg[middle + 2 :],
    "damaged-end.jpg": jpeg[:middle] + b"\xff\xd9" + jpeg[middle + 2 :],
    "extra-bytes.jpg": jpeg[:first_table] + b"\1\2\3" + jpeg[first_table:],
    "trailing-bytes.jpg": jpeg + b"\0" * 99,
    "no-end.png": png[:-12],
    "wrong-sum.png": png[: png_data + png_size] + b"\0\0\0\0" + png[png_data + png_size + 4 :],
    "truncated.jpg": jpeg[: len(jpeg) // 2],
    "truncated-end.jpg": jpeg[:-2],
    "truncated.png": png[: len(png) // 2],
    "truncated.webp": open(path("rgb.webp"), "rb").read()[:500],
    "truncated.gif": open(path("opaque.gif"), "rb").read()[:-200],
    "truncated.tif": open(path("raw.tif"), "rb").read()[:-2000],
    "truncated.avif": open(path("rgb.avif"), "rb").read()[:-400],
}
for name, data in damaged.items():
    with open(path(name), "wb") as file:
        file.write(data)


# --- What comes of them ---
def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def load(name):
    opened = Image.open(path(name))
    rgb = ImageOps.exif_transpose(opened).convert("RGB")
    # Alpha is dropped; transformers 5 would blend what still says that it has some with white.
    rgb.info.pop("transparency", None)
    return opened.mode, rgb


clip32 = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_rescale=False, do_normalize=False)
files = {}
for name in sorted(os.listdir(out)):
    try:
        mode, rgb = load(name)
    except Exception as error:
        files[name] = {"refused": type(error).__name__}
        continue
    crop = clip32(images=[rgb], return_tensors="np")["pixel_values"][0]
    assert crop.dtype == np.uint8
    files[name] = {"mode": mode, "crop": digest(crop.transpose(1, 2, 0))}
    if name.endswith(".avif") or name == "transparent.gif":
        # sharp decodes these a little differently.
        Image.fromarray(crop.transpose(1, 2, 0)).save(path(f"{name}.crop.png"))

CLASSES = {
    "BitImageProcessor": BitImageProcessorPil,
    "BlipImageProcessor": BlipImageProcessorPil,
    "CLIPImageProcessor": CLIPImageProcessorPil,
    "ConvNextImageProcessor": ConvNextImageProcessorPil,
    "DeiTImageProcessor": DeiTImageProcessorPil,
    "SiglipImageProcessor": SiglipImageProcessorPil,
    "ViTImageProcessor": ViTImageProcessorPil,
}
square = lambda side: {"height": side, "width": side}
clip = {"image_processor_type": "CLIPImageProcessor"}
vit = {"image_processor_type": "ViTImageProcessor"}
convnext = {"image_processor_type": "ConvNextImageProcessor"}
configs = [
    # Class defaults alone, in every spelling.
    clip,
    {"image_processor_type": "CLIPImageProcessorFast"},
    {"image_processor_type": "CLIPImageProcessorPil"},
    {"feature_extractor_type": "CLIPFeatureExtractor"},
    vit,
    {"feature_extractor_type": "ViTFeatureExtractor"},
    {"image_processor_type": "SiglipImageProcessor"},
    {"image_processor_type": "BlipImageProcessor"},
    {"image_processor_type": "DeiTImageProcessor"},
    {"image_processor_type": "BitImageProcessor"},
    convnext,
    # As checkpoints have them.
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 40, "resample": 3, "do_resize": True, "do_center_crop": True, "do_normalize": True},
    {"feature_extractor_type": "ViTFeatureExtractor", "size": 40, "resample": 2, "do_resize": True, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    {**vit, "size": {"shortest_edge": 45}, "resample": 3, "do_center_crop": True, "crop_size": square(40)},
    {**vit, "size": [36, 44]},
    {**vit, "size": {"height": 36, "width": 44}, "image_mean": 0.4, "image_std": 0.25},
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 46}, "crop_size": square(40), "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    {"image_processor_type": "SiglipImageProcessor", "size": square(40), "do_convert_rgb": None},
    {"image_processor_type": "DeiTImageProcessor", "size": 41, "crop_size": 37},
    {**convnext, "size": {"shortest_edge": 40}},
    {**convnext, "size": 40, "crop_pct": 0.9},
    {**convnext, "size": {"shortest_edge": 400}, "crop_pct": 0.875},
    # Single rules.
    *({**clip, "size": {"shortest_edge": 33}, "crop_size": square(33), "resample": filter} for filter in range(6)),
    {**clip, "size": {"shortest_edge": 30}, "crop_size": {"height": 41, "width": 35}},
    {**clip, "size": {"shortest_edge": 30}, "crop_size": square(200)},
    {**clip, "size": {"shortest_edge": 31}, "do_center_crop": False},
    {**clip, "size": {"shortest_edge": 31, "longest_edge": 40}, "do_center_crop": False},
    {**clip, "size": {"shortest_edge": 31, "longest_edge": 40}, "crop_size": square(24)},
    {**clip, "do_resize": False, "crop_size": square(50)},
    {**clip, "do_resize": False, "do_center_crop": False},
    {**clip, "size": 20, "crop_size": 20, "do_normalize": False},
    {**clip, "size": 20, "crop_size": 20, "do_rescale": False},
    {**clip, "size": 20, "crop_size": 20, "rescale_factor": 0.0078},
    # A flag that is null is off, whatever the class's default.
    {**clip, "size": None, "resample": None, "do_resize": None, "crop_size": square(30)},
    {**clip, "size": square(30), "do_center_crop": None, "crop_size": None, "do_rescale": None},
]
for width, height in ((90, 140), (151, 100), (20, 31)):
    photo(width, height, 4).save(path(f"photo-{width}x{height}.jpg"), quality=85)
processors = []
for config in configs:
    name = config.get("image_processor_type") or config["feature_extractor_type"].replace("FeatureExtractor", "ImageProcessor")
    fields = {key: value for key, value in config.items() if not key.endswith("_type")}
    processor = CLASSES[name.removesuffix("Fast").removesuffix("Pil")].from_dict(fields)
    for file in ("photo-90x140.jpg", "photo-151x100.jpg", "photo-20x31.jpg"):
        values = processor(images=[load(file)[1]], return_tensors="np")["pixel_values"].astype(np.float32)
        processors.append({"config": config, "file": file, "dims": list(values.shape), "sha256": digest(values)})


def write(name, value):
    with open(path(name), "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


write("expected.json", {"files": files, "processors": processors})
if shared:
    parity = os.path.join(shared, "parity", "preprocess-clip")
    meta = json.load(open(os.path.join(parity, "meta.json")))
    os.makedirs(path("parity"))
    crops = {}
    for name, about in meta["files"].items():
        shutil.copy(os.path.join(parity, name), path(f"parity/{name}"))
        os.chmod(path(f"parity/{name}"), 0o644)
        crops[name] = {processor: digest(np.asarray(Image.open(os.path.join(parity, png)).convert("RGB"))) for processor, png in about["expected"].items()}
    write("parity.json", crops)

    rules = json.load(open(os.path.join(shared, "models", "vit-tiny-imagenet", "preprocessor_config.json")))
    processor = ViTImageProcessorPil.from_dict({**rules, "do_rescale": False, "do_normalize": False})
    photos = {}
    folder = os.path.join(shared, "data", "photos")
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".JPEG"):
            continue
        rgb = ImageOps.exif_transpose(Image.open(os.path.join(folder, name))).convert("RGB")
        crop = processor(images=[rgb], return_tensors="np")["pixel_values"][0]
        photos[name] = digest(crop.transpose(1, 2, 0))[:16]
    write("photos.json", photos)
