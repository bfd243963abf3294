"""Makes test/fixtures/processors/patched.json: what Hugging Face's Pillow processors of ViLT and SigLIP 2 make of several images at once.

Run with Python 3.11, Pillow 12.0.0, numpy 2.4.6, transformers 5.23.0 (no PyTorch), after make_image_fixtures.py:
    python make_patch_processor_fixtures.py ../fixtures/images ../fixtures/processors/patched.json
A list of { config, files, outputs: { name: { dims, sha256 of the float32 or int64 numbers } } }. See make_image_fixtures.py for Pillow 13.
"""

import hashlib
import json
import os
import sys

import numpy as np
from PIL import Image
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.vilt.image_processing_pil_vilt import ViltImageProcessorPil

images, out = sys.argv[1:]
CLASSES = {"ViltImageProcessor": ViltImageProcessorPil, "Siglip2ImageProcessor": Siglip2ImageProcessorPil}
vilt = {"image_processor_type": "ViltImageProcessor"}
siglip2 = {"image_processor_type": "Siglip2ImageProcessor"}
configs = [
    vilt,
    {"feature_extractor_type": "ViltFeatureExtractor", "size": 64, "size_divisor": 32, "resample": 3, "do_resize": True, "do_normalize": True},
    {**vilt, "size": {"shortest_edge": 50}, "size_divisor": 8, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.3]},
    {**vilt, "size": {"shortest_edge": 40}, "size_divisor": 1, "resample": 2},
    {**vilt, "do_resize": False},
    siglip2,
    {**siglip2, "patch_size": 14, "max_num_patches": 30},
    {**siglip2, "patch_size": 7, "max_num_patches": 5, "resample": 3, "do_normalize": False},
    {**siglip2, "max_num_patches": 1024},
]
files = ["photo-90x140.jpg", "photo-151x100.jpg", "photo-20x31.jpg"]
found = []
for config in configs:
    name = config.get("image_processor_type") or config["feature_extractor_type"].replace("FeatureExtractor", "ImageProcessor")
    processor = CLASSES[name].from_dict({key: value for key, value in config.items() if not key.endswith("_type")})
    result = processor(images=[Image.open(os.path.join(images, file)).convert("RGB") for file in files], return_tensors="np")
    outputs = {}
    for key, values in result.items():
        values = np.asarray(values).astype(np.float32 if key == "pixel_values" else np.int64)
        outputs[key] = {"dims": list(values.shape), "sha256": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}
    found.append({"config": config, "files": files, "outputs": outputs})
with open(out, "w") as file:
    json.dump(found, file, indent=1)
    file.write("\n")
