"""Makes test/fixtures/audio: WAV files of every format that is read, the samples that they hold, their resampling to 16 kHz, and what transformers'
feature extractor makes of clips of different lengths.

Run with Python 3.11, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6, scipy 1.17.1:
    python make_audio_fixtures.py FOLDER
"""

import math
import os
import struct
import sys

import numpy as np
from safetensors.numpy import save_file
from scipy.io import wavfile
from transformers import Wav2Vec2FeatureExtractor

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
random = np.random.default_rng(7)
expected = {}


def sound(frames, channels=1):
    time = np.arange(frames)[:, None] / 1000
    tones = 0.5 * np.sin(2 * np.pi * (7 + 31 * np.arange(channels)) * time) + 0.1 * random.standard_normal((frames, channels))
    return np.clip(tones, -0.99, 0.99)


def write(name, rate, data):
    path = os.path.join(out, f"{name}.wav")
    wavfile.write(path, rate, data)
    read = wavfile.read(path)[1].astype(np.float64)
    kind = data.dtype
    if kind == np.uint8:
        read = (read - 128) / 128
    elif kind.kind == "i":
        read = read / 2 ** (8 * kind.itemsize - 1)
    expected[f"{name}.samples"] = (read if read.ndim == 1 else read.mean(1)).astype(np.float32)


mono, stereo = sound(500)[:, 0], sound(400, 2)
write("pcm8-8000", 8000, np.round(mono * 127 + 128).astype(np.uint8))
write("pcm16-16000-stereo", 16000, np.round(stereo * 32767).astype(np.int16))
write("pcm32-44100", 44100, np.round(mono * 2147483647).astype(np.int32))
write("float32-48000-stereo", 48000, stereo.astype(np.float32))
write("float64-11025", 11025, mono)

# 24 bits, three channels, by the extensible format, which scipy does not write; an odd chunk stands before the data.
whole = np.round(sound(301, 3) * 8388607).astype(np.int64)
data = b"".join(struct.pack("<i", value)[:3] for value in whole.reshape(-1))
guid = struct.pack("<HHI", 22, 24, 7) + struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
format_chunk = struct.pack("<HHIIHH", 0xFFFE, 3, 22050, 22050 * 9, 9, 24) + guid
chunks = b"fmt " + struct.pack("<I", len(format_chunk)) + format_chunk + b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data" + struct.pack("<I", len(data)) + data
with open(os.path.join(out, "pcm24-22050-three-channels.wav"), "wb") as file:
    file.write(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
expected["pcm24-22050-three-channels.samples"] = (whole / 8388608).mean(1).astype(np.float32)


def resampled(samples, old, fresh, crossings=6, rolloff=0.99):
    """torchaudio's sinc_interp_hann, written as one sum over all samples in float64."""
    if old == fresh:
        return samples
    cut = min(old, fresh) * rolloff
    length = math.ceil(len(samples) * fresh / old)
    t = (np.arange(len(samples))[None, :] / old - np.arange(length)[:, None] / fresh) * cut
    window = np.where(np.abs(t) < crossings, np.cos(t * np.pi / crossings / 2) ** 2, 0)
    return ((np.sinc(t) * window) @ samples.astype(np.float64) * cut / old).astype(np.float32)


for name in [key[: -len(".samples")] for key in expected]:
    expected[f"{name}.at_16000"] = resampled(expected[f"{name}.samples"], int(name.split("-")[1]), 16000)

clips = [expected["pcm8-8000.at_16000"], expected["pcm16-16000-stereo.at_16000"]]
for masks in (False, True):
    for normalize in (False, True):
        extractor = Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=masks)
        result = extractor([clip.copy() for clip in clips], padding=True, sampling_rate=16000, return_tensors="np")
        key = f"extractor.{'masks' if masks else 'plain'}.{'normalized' if normalize else 'raw'}"
        expected[key] = result["input_values"].astype(np.float32)
        if masks:
            expected[f"{key}.attention_mask"] = result["attention_mask"].astype(np.int64)

save_file(expected, os.path.join(out, "expected.safetensors"))
