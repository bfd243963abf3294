"""Makes checkpoints with random weights in the folders of open_clip and timm, and what these libraries make of random inputs.

Run with Python 3.11 or later:
    python make_open_clip_fixtures.py FOLDER            all of them, for test/models/parity.ts with CHIASMA_PARITY=FOLDER
    python make_open_clip_fixtures.py FOLDER NAME...    those alone (test/fixtures/parity has a few)
Where open_clip is not there, it makes an environment of its own in build/references/open-clip and goes on in that.
"""

import os
import subprocess
import sys
import venv

REQUIREMENTS = ["torch==2.15.0", "torchvision==0.29.2", "transformers==5.23.0", "safetensors==0.8.0", "numpy==2.4.6", "open_clip_torch==3.3.0", "timm==1.0.31"]
try:
    import open_clip
except ImportError:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folder = os.path.join(root, "build", "references", "open-clip")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(python):
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    os.execv(python, [python, *sys.argv])

from functools import partial
import json
import shutil

from open_clip.coca_model import CoCa
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
import torch
from torch import nn
import transformers

from fixture_kit import disturb, out, skip, stream

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write(name, model, weights, config, config_name, inputs, expected, leave_out=None):
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    json.dump(config, open(os.path.join(folder, config_name), "w"), indent=2)
    save_file({k: v.contiguous() for k, v in model.state_dict().items() if not (leave_out and k.startswith(leave_out))}, os.path.join(folder, weights), metadata={"format": "pt"})
    save_file({k: v.contiguous() for k, v in inputs.items()}, os.path.join(folder, "inputs.safetensors"))
    save_file({k: v.detach().clone().contiguous() for k, v in expected.items()}, os.path.join(folder, "expected.safetensors"))


def disturb_all(model, random):
    """The kit's, and what it leaves as it was made: scales, tokens and tables that are no matrices."""
    disturb(model, random)
    for name, p in model.named_parameters():
        if p.dim() > 0 and (p.dim() == 3 or name.endswith(("positional_embedding", "gamma"))):
            p.copy_((0.8 if name.endswith("gamma") else 0) + 0.4 * torch.randn(p.shape, generator=random))
    return model.eval()


def joint(name, vision=None, text=None, trunk=None, custom=False, length=None, bias=None, quick_gelu=False, size=32, embed=24, encoder=None, multimodal=None, keep_config=False):
    """trunk: fields of timm's VisionTransformer, in the place of the one that vision's timm_model_name means. encoder: the config of the one that text's
    hf_model_name means, which is beside the weights if keep_config. multimodal: the model is a CoCa."""
    if skip(name):
        return
    random = stream(name)
    v = dict(dict(image_size=size, layers=2, width=32, head_width=16, patch_size=8, mlp_ratio=1.5) if not trunk else dict(image_size=size), **(vision or {}))
    t = {**dict(context_length=12, vocab_size=80, width=32, heads=2, layers=2, mlp_ratio=1.5), **(text or {})}
    kind = partial(CoCa, multimodal_cfg=multimodal) if multimodal else CustomTextCLIP if custom or encoder else CLIP
    if multimodal:
        v, t = {**v, "output_tokens": True}, {**t, "output_tokens": True}
    start = {**v, "timm_model_name": None, "width": 64, "layers": 1, "patch_size": 8} if trunk else v
    plain = {k: v for k, v in t.items() if not k.startswith("hf_")}
    model = kind(embed_dim=embed, vision_cfg=start, text_cfg=plain, quick_gelu=quick_gelu, init_logit_bias=bias)
    if encoder:
        model.text = HFTextEncoder("", embed, config=encoder, pooler_type=t["hf_pooler_type"], proj_type=t["hf_proj_type"], output_tokens=bool(multimodal))
        if t["hf_pooler_type"] != "cls_pooler":
            model.text.transformer.pooler = None
    if trunk:
        adapter = TimmModel("vit_tiny_patch16_224", embed, v["image_size"], pool=v["timm_pool"] or "avg", proj=v["timm_proj"], proj_bias=v.get("timm_proj_bias", False))
        adapter.trunk = VisionTransformer(img_size=size, patch_size=8, num_classes=embed if v["timm_proj"] is None else 0, **trunk)
        width = trunk["embed_dim"]
        if v["timm_proj"] == "linear":
            adapter.head.proj = nn.Linear(width, embed, bias=v.get("timm_proj_bias", False))
        if v["timm_proj"] == "mlp":
            adapter.head.mlp.fc1 = nn.Linear(width, 2 * embed)
        model.visual = adapter
    disturb_all(model, random)
    pad = encoder.pad_token_id if encoder else t.get("pad_id", 0)
    ids = torch.randint(3, t["vocab_size"] - 1, (3, t["context_length"]), generator=random)
    for row in range(3):
        end = t["context_length"] - 1 - 3 * row
        ids[row, end] = t.get("eos_id", t["vocab_size"] - 1)
        ids[row, end + 1 :] = pad
    if encoder or multimodal:
        ids[2, 3] = pad  # it counts as little there
    pixels = torch.randn(2, 3, size, size, generator=random)
    image, texts = model.encode_image(pixels), model.encode_text(ids)
    expected = {"image_embeds_unnormalized": image, "text_embeds_unnormalized": texts, "image_embeds": model.encode_image(pixels, normalize=True), "text_embeds": model.encode_text(ids, normalize=True)}
    if multimodal:
        expected["image_embeds_unnormalized"], expected["text_embeds_unnormalized"] = model.encode_image(pixels, normalize=False), model.encode_text(ids, normalize=False)
        per_image = model.logit_scale.exp() * expected["image_embeds"] @ expected["text_embeds"].T
        per_text = per_image.T
    else:
        per_image, per_text = model.get_logits(pixels, ids)
    expected.update(logits_per_image=per_image, logits_per_text=per_text)
    if encoder:
        t = {k: v for k, v in t.items() if k.startswith("hf_")} | {"context_length": t["context_length"]}
    config = {"model_cfg": {"embed_dim": embed, **({"multimodal_cfg": multimodal} if multimodal else {}), "vision_cfg": v, "text_cfg": t, **({"quick_gelu": True} if quick_gelu else {}), **({"custom_text": True} if custom else {})}, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    write(name, model, "open_clip_model.safetensors", config, "open_clip_config.json", {"pixel_values": pixels, "input_ids": ids}, expected, leave_out="text_decoder.")
    if keep_config:
        encoder.to_json_file(os.path.join(out, name, "config.json"))


SIGLIP = dict(no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs={"eps": 1e-6}, act_kwargs={"approximate": "tanh"}, pad_id=1)
trunk = dict(embed_dim=64, depth=1, num_heads=1, mlp_ratio=0.5)
joint("open-clip-vit", custom=False)
joint("open-clip-vit-quick", quick_gelu=True, custom=True, text=dict(pool_type="eos", eos_id=79))
joint("open-clip-vit-scaled", vision=dict(ls_init_value=0.1, no_ln_pre=True, pool_type="avg", final_ln_after_pool=True, head_width=16), text=dict(ls_init_value=0.1), custom=True)
joint("open-clip-resnet", vision=dict(layers=[1, 1, 1, 1], width=8, head_width=64, patch_size=None), text=dict(width=64, heads=4))
joint("open-clip-average", vision=dict(pool_type="avg", patch_size=16), text=dict(pool_type="last", no_causal_mask=True, pad_id=2))
joint("open-clip-trunk-siglip", vision=dict(timm_model_name="vit_base_patch32_siglip_256", timm_pool="map", timm_proj="none"), text=SIGLIP, embed=64, custom=True, bias=-2.0, trunk={**trunk, "class_token": False, "global_pool": "map", "act_layer": "gelu_tanh"})
joint("open-clip-trunk-clip", vision=dict(timm_model_name="vit_base_patch16_clip_224", timm_pool="token", timm_proj=None), custom=True, trunk={**trunk, "pre_norm": True, "norm_layer": partial(nn.LayerNorm, eps=1e-5), "global_pool": "token"})
joint("open-clip-trunk-linear", vision=dict(timm_model_name="vit_medium_patch16_gap_256", timm_pool="", timm_proj="linear"), trunk={**trunk, "class_token": False, "global_pool": "avg", "fc_norm": False})
joint("open-clip-trunk-mlp", vision=dict(timm_model_name="vit_base_patch16_224", timm_pool="avg", timm_proj="mlp", timm_proj_bias=True), custom=True, trunk={**trunk, "global_pool": "avg"})

TEXT = dict(vocab_size=70, num_hidden_layers=1, intermediate_size=40, layer_norm_eps=1e-5)
SMALL = dict(layers=1, width=16, head_width=8, mlp_ratio=1.0)
roberta = partial(transformers.RobertaConfig, **TEXT, max_position_embeddings=20, type_vocab_size=1, pad_token_id=1)
bert = partial(transformers.BertConfig, **{**TEXT, "layer_norm_eps": 1e-12}, max_position_embeddings=16, pad_token_id=0)
for_encoder = lambda pooler, way: dict(hf_model_name="encoder", hf_tokenizer_name="encoder", hf_pooler_type=pooler, hf_proj_type=way, vocab_size=70)
joint("open-clip-roberta", vision=SMALL, size=16, text=for_encoder("mean_pooler", "mlp"), encoder=roberta(hidden_size=32, num_attention_heads=1))
joint("open-clip-xlm-roberta-config", text=for_encoder("cls_last_hidden_state_pooler", None), embed=48, encoder=transformers.XLMRobertaConfig(**TEXT, hidden_size=48, num_attention_heads=3, max_position_embeddings=16, type_vocab_size=1, pad_token_id=2), keep_config=True)
joint("open-clip-bert-first-pooled", text=for_encoder("cls_pooler", "linear"), encoder=bert(hidden_size=128, num_attention_heads=2))
MULTIMODAL = dict(context_length=12, vocab_size=80, width=32, heads=2, layers=1)
joint("coca", vision=dict(**SMALL, attentional_pool=True, attn_pooler_heads=3, attn_pooler_queries=5), size=16, text=dict(embed_cls=True, layers=2, width=16, mlp_ratio=1.0), multimodal=MULTIMODAL)
joint("coca-average-equal", vision=dict(attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=4, pool_type="avg", width=32), text=dict(embed_cls=True, pad_id=2, no_causal_mask=True), embed=32, multimodal=MULTIMODAL, quick_gelu=True)
joint("coca-roberta", text=for_encoder("mean_pooler", "linear"), encoder=roberta(hidden_size=64, num_attention_heads=1), multimodal=MULTIMODAL)


def alone(name, architecture, size=(3, 32, 32), kind=VisionTransformer, change=None, **fields):
    if skip(name):
        return
    random = stream(name)
    options = {**dict(embed_dim=32, depth=2, num_heads=4, mlp_ratio=1.5, num_classes=6), **fields}
    model = disturb_all(kind(img_size=size[1:], patch_size=8, **options), random)
    pixels = torch.randn(2, *size, generator=random)
    last = model.forward_features(pixels)
    expected = {"last_hidden_state": last, "pooler_output": model.forward_head(last, pre_logits=True)}
    if options["num_classes"] > 0:
        expected["logits"] = model(pixels)
    config = {
        "architecture": architecture,
        "num_classes": options["num_classes"],
        "num_features": options["embed_dim"],
        **({"global_pool": options["global_pool"]} if "global_pool" in options else {}),
        "model_args": {"num_heads": options["num_heads"]},
        "pretrained_cfg": {"input_size": list(size), "interpolation": "bicubic", "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    if change:
        change(config)
    write(name, model, "model.safetensors", config, "config.json", {"pixel_values": pixels}, expected)


alone("timm-vit", "vit_base_patch16_224", global_pool="token")
alone("timm-vit-oblong", "vit_base_patch16_224", size=(3, 24, 48), global_pool="avg", num_classes=3)
alone("timm-vit-registers", "vit_base_patch14_reg4_dinov2", reg_tokens=3, no_embed_class=True, init_values=0.1, num_classes=0, global_pool="token")
alone("timm-vit-placed-registers", "vit_base_patch16_224", reg_tokens=2, global_pool="avg", fc_norm=False)
alone("timm-vit-no-class", "vit_medium_patch16_gap_256", class_token=False, reg_tokens=1, no_embed_class=True, global_pool="avg", qkv_bias=False)
alone("timm-vit-map", "vit_so400m_patch16_siglip_256", class_token=False, global_pool="map", num_classes=0, act_layer="gelu_tanh")
alone("timm-vit-map-registers", "vit_base_patch16_224", size=(3, 16, 24), embed_dim=16, num_heads=2, depth=1, reg_tokens=1, global_pool="map", act_layer="relu", change=lambda c: c["model_args"].update(act_layer="relu"))
alone("timm-vit-heads-by-width", "vit_small_patch16_224", embed_dim=128, num_heads=2, depth=1, mlp_ratio=0.5, change=lambda c: c.pop("model_args"))
alone("timm-vit-largest", "vit_base_patch16_224", embed_dim=24, depth=1, global_pool="max")
alone("timm-vit-head-norms", "vit_base_patch16_224", size=(3, 16, 24), embed_dim=12, num_heads=3, depth=1, num_classes=3, global_pool="avgmax", qk_norm=True, change=lambda c: c.pop("model_args"))
alone("timm-vit-distilled", "deit_tiny_distilled_patch16_224", size=(3, 16, 24), kind=VisionTransformerDistilled, embed_dim=12, num_heads=3, depth=1, num_classes=3, global_pool="token")
