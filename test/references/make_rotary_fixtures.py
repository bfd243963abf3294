"""Makes checkpoints with random weights of the kinds with rotary positions, and what transformers makes of random inputs.

Run with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6:
    python make_rotary_fixtures.py FOLDER            all of them, for test/models/parity.ts with CHIASMA_PARITY=FOLDER
    python make_rotary_fixtures.py FOLDER NAME...    those alone (test/fixtures/parity has a few)
"""

import torch
import transformers

from fixture_kit import build, outputs_of, save, skip, stream

MASKS = ("right", "left", "holes", "none")


def mask_of(kind, rows, length):
    """right, left: less and less from there; holes: some in the middle, another for each row, the last row's first column too."""
    mask = torch.ones(rows, length, dtype=torch.int64)
    for row in range(rows):
        n = row * (length // rows)
        if kind == "right" and n:
            mask[row, length - n :] = 0
        if kind == "left" and n:
            mask[row, :n] = 0
        if kind == "holes":
            mask[row, 2 + row : 5 + row] = 0
            mask[row, length - 3 - row] = 0
            if row == rows - 1:
                mask[row, 0] = 0
    return mask


def text(name, cls, mask="right", rows=3, length=21, positions=False, change=None, tensors=None, **config):
    if skip(name):
        return
    random = stream(name)
    kind = "ModernBert" if cls.startswith("ModernBert") else "Qwen3"
    fields = dict(vocab_size=100, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40, max_position_embeddings=64)
    fields.update(dict(local_attention=6, pad_token_id=0) if kind == "ModernBert" else dict(num_key_value_heads=2, head_dim=12))
    model = build(cls, getattr(transformers, kind + "Config")(**{**fields, **config}), random)
    inputs = {"input_ids": torch.randint(3, fields["vocab_size"], (rows, length), generator=random)}
    if mask != "none":
        inputs["attention_mask"] = mask_of(mask, rows, length)
    if positions:
        inputs["position_ids"] = torch.randint(0, 64, (rows, length), generator=random)
    result = model.base_model(**inputs, output_hidden_states=True)
    expected = outputs_of(result, ["last_hidden_state"])
    del expected[f"hidden_state_{len(result.hidden_states) - 1}"]  # the reference has the normalised one there
    if "Classification" in cls:
        expected["logits"] = model(**inputs).logits
    save(name, model, inputs, expected, change, tensors)


def older_modern_bert(config):
    """As transformers 4 wrote it."""
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.48.0"
    rope = config.pop("rope_parameters")
    config["global_rope_theta"] = rope["full_attention"]["rope_theta"]
    config["local_rope_theta"] = rope["sliding_attention"]["rope_theta"]
    del config["layer_types"]
    config["global_attn_every_n_layers"] = 3


def older_qwen3(config):
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.51.0"
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = None
    del config["layer_types"]


def older_scaling(config):
    scaling = config["rope_parameters"]
    config["rope_theta"] = scaling.pop("rope_theta")
    scaling["type"] = scaling.pop("rope_type")
    config["rope_scaling"] = config.pop("rope_parameters")
    del config["layer_types"]


def bf16(tensors):
    return {k: v.to(torch.bfloat16) for k, v in tensors.items()}


def modern_rope(full, sliding):
    return {"full_attention": {"rope_type": "default", "rope_theta": full}, "sliding_attention": {"rope_type": "default", "rope_theta": sliding}}


for mask in MASKS:
    text(f"modernbert-{mask}", "ModernBertModel", mask=mask, change=older_modern_bert if mask == "left" else None)
    text(f"qwen3-{mask}", "Qwen3Model", mask=mask, change=older_qwen3 if mask == "left" else None)
    text(f"qwen3-sliding-{mask}", "Qwen3Model", mask=mask, use_sliding_window=True, sliding_window=4, max_window_layers=1)
text("modernbert-masked-lm", "ModernBertForMaskedLM", mask="holes")
text("modernbert-classifier", "ModernBertForSequenceClassification", mask="right", num_labels=5)
text("modernbert-classifier-holes", "ModernBertForSequenceClassification", mask="holes", num_labels=5)
text("modernbert-classifier-mean", "ModernBertForSequenceClassification", mask="holes", classifier_pooling="mean", classifier_bias=True, classifier_activation="relu")
text("modernbert-biases", "ModernBertModel", attention_bias=True, mlp_bias=True, norm_bias=True, hidden_activation="silu", norm_eps=1e-6)
text("modernbert-odd", "ModernBertModel", hidden_size=42, num_attention_heads=3, intermediate_size=33, local_attention=5, num_hidden_layers=1)
text("modernbert-oneself", "ModernBertModel", local_attention=1, num_hidden_layers=4, mask="holes")
text("modernbert-long", "ModernBertModel", length=700, rows=2, max_position_embeddings=800, local_attention=128, num_hidden_layers=4)
text("modernbert-long-holes", "ModernBertModel", length=300, rows=2, max_position_embeddings=400, local_attention=100, mask="holes")
text("modernbert-thetas", "ModernBertModel", rope_parameters=modern_rope(500.0, 50.0), layer_types=["sliding_attention", "full_attention", "sliding_attention"])
text("modernbert-all-global", "ModernBertModel", layer_types=["full_attention"] * 3, mask="holes")
text("modernbert-positions", "ModernBertModel", positions=True, mask="none", local_attention=12)
text("qwen3-causal-lm", "Qwen3ForCausalLM", mask="left", tie_word_embeddings=True)
text("qwen3-one-kv-head", "Qwen3Model", num_key_value_heads=1, attention_bias=True, head_dim=8)
text("qwen3-as-many-kv-heads", "Qwen3Model", num_key_value_heads=4, head_dim=10, hidden_size=35, intermediate_size=21, rms_norm_eps=1e-5, change=older_qwen3)
text("qwen3-long", "Qwen3Model", length=600, rows=2, max_position_embeddings=700, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
text("qwen3-positions", "Qwen3Model", positions=True, mask="none")
text("qwen3-bidirectional", "Qwen3Model", mask="right", is_causal=False)
text("qwen3-bidirectional-holes", "Qwen3Model", mask="holes", is_causal=False, use_sliding_window=True, sliding_window=4, max_window_layers=1, num_hidden_layers=2)

SCALED = dict(num_hidden_layers=1, hidden_size=24, num_attention_heads=2, num_key_value_heads=1, intermediate_size=20, head_dim=16, max_position_embeddings=256, length=50, rows=2, mask="right")
text("qwen3-linear", "Qwen3Model", **SCALED, rope_parameters={"rope_type": "linear", "factor": 3.7, "rope_theta": 1e4})
text("qwen3-dynamic", "Qwen3Model", **SCALED, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
text("qwen3-yarn", "Qwen3Model", **SCALED, rope_parameters={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4})
text("qwen3-yarn-scales", "Qwen3Model", **SCALED, rope_parameters={"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 128, "rope_theta": 1e3, "mscale": 1.2, "mscale_all_dim": 0.7, "beta_fast": 16, "beta_slow": 2, "truncate": False}, change=older_scaling)
text("qwen3-yarn-attention", "Qwen3Model", **SCALED, rope_parameters={"rope_type": "yarn", "factor": 2.5, "rope_theta": 1e6, "attention_factor": 0.8})
text("qwen3-llama3", "Qwen3Model", **SCALED, rope_parameters={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4})
text("modernbert-scaled", "ModernBertModel", length=50, rows=2, num_hidden_layers=3, rope_parameters={"full_attention": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0}, "sliding_attention": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 50.0, "original_max_position_embeddings": 16}})


def dinov3(name, pictures=(32, 48), change=None, tensors=None, **config):
    if skip(name):
        return
    random = stream(name)
    fields = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8, num_register_tokens=3)
    model = build("DINOv3ViTModel", transformers.DINOv3ViTConfig(**{**fields, **config}), random)
    pixels = torch.randn(2, 3, *pictures, generator=random)
    result = model(pixel_values=pixels, output_hidden_states=True)
    save(name, model, {"pixel_values": pixels}, outputs_of(result, ["last_hidden_state", "pooler_output"]), change, tensors)


def below_model(tensors):
    return {("model." + k if k.startswith("layer.") else k): v for k, v in tensors.items()}


dinov3("dinov3-native", pictures=(32, 32))
dinov3("dinov3-oblong", pictures=(23, 61), key_bias=True)
dinov3("dinov3-gated", use_gated_mlp=True, hidden_act="silu", pictures=(40, 16), num_register_tokens=0, tensors=below_model)
dinov3("dinov3-no-biases", query_bias=False, value_bias=False, proj_bias=False, mlp_bias=False, num_register_tokens=1, layer_norm_eps=1e-6)
dinov3("dinov3-one-head", num_attention_heads=1, hidden_size=20, patch_size=5, image_size=20, pictures=(20, 20), rope_theta=37.0)
