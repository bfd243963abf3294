"""Makes test/fixtures/pytorch: PyTorch files of every kind that lib/io/pytorch.ts reads, and what they hold as safetensors.

Run with Python 3.11, torch 2.15.0, numpy 2.4.6, safetensors 0.8.0:  python make_pytorch_fixtures.py ../fixtures/pytorch
Values are fixed, so that a second run differs in nothing but what torch itself puts into its archives.
"""

import os
import sys
from collections import OrderedDict

import torch
from safetensors.torch import save_file
from torch import nn

out = sys.argv[1]
os.makedirs(out, exist_ok=True)


def path(name):
    return os.path.join(out, name)


def ramp(*shape, dtype=torch.float32, scale=0.25):
    count = 1
    for dim in shape:
        count *= dim
    return (torch.arange(count, dtype=torch.float64) * scale - 1).to(dtype).reshape(shape)


base = ramp(4, 6)
tied = ramp(3, 2)
state = OrderedDict(
    f32=base,
    f16=ramp(3, dtype=torch.float16),
    bf16=ramp(2, 2, dtype=torch.bfloat16),
    i64=torch.tensor([-1, 1 << 40]),
    i32=torch.tensor([[1], [-(1 << 31)]], dtype=torch.int32),
    i8=torch.tensor([-128, 127], dtype=torch.int8),
    u8=torch.tensor([0, 255], dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
    scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 3),
    transposed=base.t(),
    sliced=base[1:3, 2:5],
    channels_last=ramp(2, 3, 2, 2).to(memory_format=torch.channels_last),
    expanded=torch.tensor([[1.5], [2.5]]).expand(2, 3),
    parameter=nn.Parameter(ramp(2)),
    tied_a=tied,
    tied_b=tied,
)
unread = OrderedDict(f64=ramp(2, dtype=torch.float64), i16=torch.tensor([1], dtype=torch.int16), c64=torch.tensor([1 + 2j]))
both = OrderedDict(**state, **unread)

save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, path("expected.safetensors"))
torch.save(both, path("zip.bin"))
torch.save(both, path("legacy.bin"), _use_new_zipfile_serialization=False)
torch.save(state, path("protocol4.bin"), pickle_protocol=4)
torch.save(state, path("protocol5.bin"), pickle_protocol=5)
torch.save(state, path("legacy-protocol3.bin"), pickle_protocol=3, _use_new_zipfile_serialization=False)

# Types without a storage class of their own, a parameter with an attribute, a conjugated view.
attributed = nn.Parameter(ramp(2))
attributed.note = "kept by torch, of no meaning here"
torch.save(
    {
        "u16": torch.tensor([1, 65535], dtype=torch.uint16),
        "f8": ramp(4, dtype=torch.float8_e4m3fn),
        "attributed": attributed,
        "conjugated": torch.tensor([1 + 2j]).conj(),
        "plain": ramp(3),
    },
    path("newer.bin"),
)

model = nn.Sequential(OrderedDict(first=nn.Linear(3, 2), norm=nn.LayerNorm(2)))
with torch.no_grad():
    for i, parameter in enumerate(model.parameters()):
        parameter.copy_(ramp(*parameter.shape, scale=0.5 + i))
optimizer = torch.optim.AdamW(model.parameters())
model(ramp(1, 3)).sum().backward()
optimizer.step()
torch.save({"epoch": 3, "best": 0.5, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, path("nested.pt"))
save_file(dict(model.state_dict()), path("nested.expected.safetensors"))


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Linear(3, 2)
        self.blocks = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.LayerNorm(2)])
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("input_resolution", torch.tensor(224))
        self.sizes = [1, 2, 3]
        self.ratios = [0.5]
        self.label = "tower"

    def forward(self, x):
        x = self.proj(x) * self.scale
        for block in self.blocks:
            x = block(x)
        return x + torch.tensor([1.0, 2.0])


tower = Tower().eval()
with torch.no_grad():
    for i, parameter in enumerate(tower.parameters()):
        parameter.copy_(ramp(*parameter.shape, scale=0.5 + i))
tower.blocks[0].half()
save_file(dict(tower.state_dict()), path("torchscript.expected.safetensors"))
torch.jit.script(tower).save(path("torchscript.pt"))
tower.blocks[0].float()
torch.jit.trace(tower, torch.zeros(1, 3)).save(path("torchscript-traced.pt"))


class Attack:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def touch(name):
    return Attack(os.system, f"touch {name}")


torch.save({"weight": ramp(2), "x": touch("pwned")}, path("attack-zip.bin"))
torch.save({"weight": ramp(2), "x": touch("pwned")}, path("attack-legacy.bin"), _use_new_zipfile_serialization=False)
torch.save({"weight": ramp(2), "x": Attack(eval, "1 + 1")}, path("attack-eval.bin"))
torch.save({"weight": ramp(2), "x": Attack(torch.load, "other.bin")}, path("attack-torch.bin"), pickle_protocol=4)
torch.save(nn.Linear(2, 2), path("whole-module.bin"))
