"""What the scripts here that make checkpoints share: random numbers, weights that no model may skip or swap unnoticed, and saving."""

import hashlib
import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file
import transformers

out, wanted = sys.argv[1], sys.argv[2:]
torch.set_num_threads(1)
torch.set_grad_enabled(False)
made = set()


def stream(name):
    """Random numbers of a fixture's own, so that it is the same whatever else is made."""
    return torch.Generator().manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))


def disturb(model, random):
    for name, p in model.named_parameters():
        if p.dim() == 0:
            p.fill_(2.5 + torch.rand((), generator=random).item())
            continue
        noise = torch.randn(p.shape, generator=random)
        if p.dim() == 1:
            norm = "norm" in name.lower() and name.endswith("weight")
            p.copy_(1 + 0.2 * noise if norm else 0.1 * noise)
        elif "embedding" in name:
            p.copy_(0.7 * noise / (p[0].numel() ** 0.5 if p.dim() == 4 else 1))
        else:
            p.copy_(1.3 * noise / p[0].numel() ** 0.5)
    for p in model.parameters():
        p.copy_(p)  # tied ones stay tied
    return model.eval()


def build(cls, config, random):
    config._attn_implementation = "eager"
    return disturb(getattr(transformers, cls)(config), random)


def outputs_of(result, names, prefix="", unprefixed=("image_embeds", "text_embeds", "logits_per_image", "logits_per_text")):
    found = {}
    for name in names:
        value = getattr(result, name, None)
        if value is not None:
            found[name if name in unprefixed else prefix + name] = value
    for i, state in enumerate(getattr(result, "hidden_states", None) or ()):
        found[f"{prefix}hidden_state_{i}"] = state
    return found


def save(name, model, inputs, expected, change_config=None, change_tensors=None, masks=None):
    """masks: for outputs with padding, the inputs that side by side say which columns count; 'all' where all do."""
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    for extra in ("generation_config.json",):
        if os.path.exists(os.path.join(folder, extra)):
            os.remove(os.path.join(folder, extra))
    file = os.path.join(folder, "config.json")
    if change_config:
        config = json.load(open(file))
        change_config(config)
        json.dump(config, open(file, "w"), indent=2)
    if change_tensors:
        file = os.path.join(folder, "model.safetensors")
        save_file({k: v.contiguous() for k, v in change_tensors(load_file(file)).items()}, file)
    save_file({k: v.contiguous() for k, v in inputs.items()}, os.path.join(folder, "inputs.safetensors"))
    save_file({k: v.detach().clone().contiguous() for k, v in expected.items()}, os.path.join(folder, "expected.safetensors"))
    if masks:
        json.dump({"masks": masks}, open(os.path.join(folder, "meta.json"), "w"))



def save_plain(name, model, config, inputs, expected, masks):
    """A model that is not of the library; tied weights are stored once."""
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    json.dump(config, open(os.path.join(folder, "config.json"), "w"), indent=2)
    save_file({k: v.detach().clone().contiguous() for k, v in model.named_parameters()}, os.path.join(folder, "model.safetensors"))
    save_file({k: v.contiguous() for k, v in inputs.items()}, os.path.join(folder, "inputs.safetensors"))
    save_file({k: v.detach().clone().contiguous() for k, v in expected.items()}, os.path.join(folder, "expected.safetensors"))
    json.dump({"masks": masks}, open(os.path.join(folder, "meta.json"), "w"))


def skip(name):
    assert name not in made, name
    made.add(name)
    return bool(wanted) and name not in wanted
