"""Makes checkpoints with random weights, of the kinds that lib/models reads, and what transformers makes of random inputs.

Run with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6:
    python make_model_fixtures.py FOLDER            all of them, for test/models/parity.ts with CHIASMA_PARITY=FOLDER
    python make_model_fixtures.py FOLDER NAME...    those alone (test/fixtures/parity has a few)
Each folder has config.json, model.safetensors, inputs.safetensors, expected.safetensors. Attention is the reference's plain one, in float32. The
weights are drawn so that no tensor can be skipped or swapped unnoticed.
"""

import torch
from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
import transformers

from fixture_kit import build, disturb, outputs_of, save, skip, stream

# --- pictures ---


def vit(name, cls="ViTModel", batch=2, size=32, patch=8, change=None, tensors=None, pooler=True, **config):
    if skip(name):
        return
    random = stream(name)
    fields = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=size, patch_size=patch)
    model = build_vit(cls, transformers.ViTConfig(**{**fields, **config}), random, pooler)
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    pixels = torch.randn(batch, 3, height, width, generator=random)
    result = model(pixel_values=pixels, output_hidden_states=True)
    expected = outputs_of(result, ["last_hidden_state", "pooler_output", "logits"])
    save(name, model, {"pixel_values": pixels}, expected, change, tensors)


def build_vit(cls, config, random, pooler):
    config._attn_implementation = "eager"
    kind = getattr(transformers, cls)
    model = kind(config) if pooler or cls != "ViTModel" else kind(config, add_pooling_layer=False)
    return disturb(model, random)


def old_config(config):
    """As transformers 4 wrote it."""
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.30.2"
    config.setdefault("initializer_range", 0.02)


vit("vit-odd-patch", patch=7, size=32, hidden_size=30, num_attention_heads=3, intermediate_size=37)
vit("vit-no-pooler", pooler=False, hidden_size=20, num_attention_heads=1, intermediate_size=64, num_hidden_layers=1)
vit("vit-no-qkv-bias", qkv_bias=False, hidden_act="relu")
vit("vit-gelu-new", hidden_act="gelu_new", layer_norm_eps=1e-6)
vit("vit-silu", hidden_act="silu", num_hidden_layers=3)
vit("vit-gelu-fast", hidden_act="gelu_fast", pooler_act="relu", pooler_output_size=12)
vit("vit-oblong", size=(24, 40), patch=8)
vit("vit-oblong-odd", size=(45, 31), patch=14)
vit("vit-patch16", size=48, patch=16, hidden_size=50, num_attention_heads=5)
vit("vit-patch32", size=64, patch=32)
vit("vit-one-patch", size=16, patch=16)
vit("vit-head-dim-5", hidden_size=35, num_attention_heads=7, intermediate_size=13)
vit("vit-head-dim-96", hidden_size=192, num_attention_heads=2, intermediate_size=64)
vit("vit-head-dim-160", hidden_size=160, num_attention_heads=1, intermediate_size=64)
vit("vit-many-tokens", size=64, patch=4, hidden_size=24, num_attention_heads=2)
vit("vit-classifier", cls="ViTForImageClassification", id2label={0: "cat", 1: "dog", 2: "owl"}, label2id={"cat": 0, "dog": 1, "owl": 2})
vit("vit-classifier-11", cls="ViTForImageClassification", num_labels=11, change=old_config)
vit("vit-encoder-stride", encoder_stride=8, change=old_config)


def dinov2(name, kind="Dinov2", pictures=(42, 42), change=None, cls=None, **config):
    """Pictures of another size than the table of positions was made for."""
    if skip(name):
        return
    random = stream(name)
    fields = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=42, patch_size=14)
    model = build(cls or kind + "Model", getattr(transformers, kind + "Config")(**{**fields, **config}), random)
    pixels = torch.randn(2, 3, *pictures, generator=random)
    expected = outputs_of(model.base_model(pixel_values=pixels, output_hidden_states=True), ["last_hidden_state", "pooler_output"])
    if cls:
        expected["logits"] = model(pixel_values=pixels).logits
    save(name, model, {"pixel_values": pixels}, expected, change)


dinov2("dinov2-native")
dinov2("dinov2-larger-oblong", pictures=(70, 57))
dinov2("dinov2-smaller", pictures=(14, 28), image_size=70)
dinov2("dinov2-gated", use_swiglu_ffn=True, mlp_ratio=3, pictures=(28, 42), change=old_config)
dinov2("dinov2-classifier", cls="Dinov2ForImageClassification", num_labels=5, pictures=(28, 42), num_hidden_layers=1, image_size=28)
dinov2("dinov2-registers-classifier", kind="Dinov2WithRegisters", cls="Dinov2WithRegistersForImageClassification", num_register_tokens=3, num_labels=4)
dinov2("dinov2-registers-native", kind="Dinov2WithRegisters", num_register_tokens=3)
dinov2("dinov2-registers-smaller", kind="Dinov2WithRegisters", pictures=(28, 42), image_size=98)
dinov2("dinov2-registers-none", kind="Dinov2WithRegisters", pictures=(9, 22), image_size=16, num_register_tokens=0, num_hidden_layers=1, hidden_size=12, patch_size=4)
dinov2("dinov2-registers-larger", kind="Dinov2WithRegisters", pictures=(84, 56), use_swiglu_ffn=True, num_register_tokens=1)


def clip(name, cls="CLIPModel", size=32, patch=8, texts=3, length=12, change=None, tensors=None, mask=None, vision=None, text=None, projection=20, end=None, **config):
    if skip(name):
        return
    random = stream(name)
    v = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=size, patch_size=patch)
    t = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40, vocab_size=99, max_position_embeddings=14, bos_token_id=97, eos_token_id=98)
    v.update(vision or {})
    t.update(text or {})
    if cls == "CLIPModel":
        whole = CLIPConfig(text_config=t, vision_config=v, projection_dim=projection, **config)
    elif "Vision" in cls:
        whole = CLIPVisionConfig(**v, projection_dim=projection, **config)
    else:
        whole = CLIPTextConfig(**t, projection_dim=projection, **config)
    model = build(cls, whole, random)
    inputs, expected = {}, {}
    one = cls != "CLIPModel"
    if "Text" not in cls:
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        inputs["pixel_values"] = torch.randn(2, 3, height, width, generator=random)
    if "Vision" not in cls:
        top = end if end is not None else t["vocab_size"] - 1
        ids = torch.randint(3, t["vocab_size"] - 2, (texts, length), generator=random)
        ids[:, 0] = t["vocab_size"] - 2
        for row in range(texts):
            place = length - 1 - 3 * row
            ids[row, place] = top
            ids[row, place + 1 :] = top if row % 2 == 0 else 0
        inputs["input_ids"] = ids
        if mask == "padding":
            inputs["attention_mask"] = torch.tensor([[1 if c <= length - 1 - 3 * row else 0 for c in range(length)] for row in range(texts)])
        elif mask == "holes":
            holes = torch.ones(texts, length, dtype=torch.int64)
            holes[0, 3:5] = 0
            holes[1, 2] = 0
            inputs["attention_mask"] = holes
    result = model(**inputs, output_hidden_states=True)
    if one:
        expected = outputs_of(result, ["last_hidden_state", "pooler_output", "image_embeds", "text_embeds"])
    else:
        names = ["last_hidden_state", "pooler_output"]
        expected = outputs_of(result, ["image_embeds", "text_embeds", "logits_per_image", "logits_per_text"])
        # Not of the joint result: there pooler_output is the projected embedding, and hidden states are alike.
        expected.update(outputs_of(model.vision_model(inputs["pixel_values"], output_hidden_states=True), names, "vision_"))
        tokens = {k: v for k, v in inputs.items() if k != "pixel_values"}
        expected.update(outputs_of(model.text_model(**tokens, output_hidden_states=True), names, "text_"))
    save(name, model, inputs, expected, change, tensors)


def flat_dict_config(config):
    """As openai/clip-vit-base-patch32 has it: sections repeated as *_config_dict."""
    old_config(config)
    for section in ("text_config", "vision_config"):
        config[section + "_dict"] = {k: v for k, v in config[section].items() if k in ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")}


clip("clip-quick")
clip("clip-old-eos", text=dict(eos_token_id=2, bos_token_id=0, pad_token_id=1), change=old_config)
clip("clip-old-dicts", text=dict(eos_token_id=2, bos_token_id=0, pad_token_id=1), change=flat_dict_config)
clip("clip-gelu", vision=dict(hidden_act="gelu"), text=dict(hidden_act="gelu"), mask="padding")
clip("clip-mixed-act", vision=dict(hidden_act="relu", layer_norm_eps=1e-6), text=dict(hidden_act="gelu_pytorch_tanh"), mask="holes")
clip("clip-patch14", size=37, patch=14, vision=dict(hidden_size=48, num_attention_heads=3))
clip("clip-patch-odd", size=29, patch=5, vision=dict(hidden_size=35, num_attention_heads=5, intermediate_size=33))
clip("clip-patch32", size=64, patch=32, projection=7)
clip("clip-wide-projection", projection=130, text=dict(hidden_size=50, num_attention_heads=5, intermediate_size=21, num_hidden_layers=1))
clip("clip-odd-vocab", text=dict(vocab_size=131, eos_token_id=130, bos_token_id=129, hidden_size=40, num_attention_heads=8))
clip("clip-vision-projection", cls="CLIPVisionModelWithProjection", projection=11)
clip("clip-vision", cls="CLIPVisionModel", size=40, patch=10)
clip("clip-text-projection", cls="CLIPTextModelWithProjection", projection=9, mask="padding")
clip("clip-text", cls="CLIPTextModel", text=dict(eos_token_id=2))
clip("clip-one-layer", vision=dict(num_hidden_layers=1), text=dict(num_hidden_layers=1))
clip("clip-middle-eos", text=dict(eos_token_id=50), end=50)


def clip_classifier(name, change=None, tensors=None, **vision):
    if skip(name):
        return
    random = stream(name)
    v = dict(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=13, patch_size=4, **vision)
    t = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=20, max_position_embeddings=5)
    model = build("CLIPForImageClassification", CLIPConfig(text_config=t, vision_config=v, num_labels=5), random)
    pixels = torch.randn(2, 3, 13, 13, generator=random)
    result = model(pixels, output_hidden_states=True)
    expected = {"logits": result.logits, **outputs_of(model.vision_model(pixels), ["last_hidden_state", "pooler_output"])}
    save(name, model, {"pixel_values": pixels}, expected, change, tensors)


clip_classifier("clip-classifier", hidden_act="gelu", layer_norm_eps=1e-3)


def chinese_clip_tower(name, cls, change=None, tensors=None, **config):
    """One of Chinese-CLIP's towers as a model of its own."""
    if skip(name):
        return
    random = stream(name)
    kinds = transformers.models.chinese_clip
    fields = dict(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, **config)
    if cls == "ChineseCLIPVisionModel":
        model = build(cls, kinds.ChineseCLIPVisionConfig(**fields, image_size=12, patch_size=4), random)
        inputs = {"pixel_values": torch.randn(2, 3, 12, 12, generator=random)}
    else:
        model = build(cls, kinds.ChineseCLIPTextConfig(**fields, vocab_size=40, max_position_embeddings=14), random)
        attention = mask_of("holes", 3, 13)
        inputs = {"input_ids": torch.randint(3, 40, (3, 13), generator=random), "attention_mask": attention, "token_type_ids": torch.randint(0, 2, (3, 13), generator=random)}
    result = model(**inputs)
    save(name, model, inputs, outputs_of(result, ["last_hidden_state", "pooler_output"]), change, tensors)


def below(prefix):
    """As transformers 4 named the tensors of a tower alone."""
    return lambda tensors: {f"{prefix}.{k}": v for k, v in tensors.items()}


# --- texts ---

MASKS = ("right", "left", "holes", "none", "single")


def mask_of(kind, rows, length):
    mask = torch.ones(rows, length, dtype=torch.int64)
    for row in range(rows):
        n = row * (length // rows)
        if kind == "right" and n:
            mask[row, length - n :] = 0
        if kind == "left" and n:
            mask[row, :n] = 0
        if kind == "holes":
            mask[row, 2 + row : 4 + row] = 0
            mask[row, length - 2 - row] = 0
            if row == 2:
                mask[row, 0] = 0
        if kind == "single":
            mask[row, 1:] = 0
    return mask


def text(name, cls, mask="right", rows=3, length=13, pad=None, types=False, positions=False, change=None, tensors=None, kind=None, pooler=None, encoder=None, **config):
    if skip(name):
        return
    random = stream(name)
    kinds = {"Bert": "BertConfig", "Roberta": "RobertaConfig", "XLMRoberta": "XLMRobertaConfig", "DistilBert": "DistilBertConfig", "MPNet": "MPNetConfig", "Camembert": "CamembertConfig"}
    kind = next(k for k in sorted(kinds, key=len, reverse=True) if cls.startswith(k))
    if kind == "DistilBert":
        fields = dict(vocab_size=101, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=20)
    else:
        fields = dict(vocab_size=101, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=20)
    fields.update(config)
    whole = getattr(transformers, kinds[kind])(**fields)
    whole._attn_implementation = "eager"
    model_class = getattr(transformers, cls)
    model = disturb(model_class(whole) if pooler is None else model_class(whole, add_pooling_layer=pooler), random)
    pad_id = whole.pad_token_id if pad is None else pad
    ids = torch.randint(5, fields["vocab_size"], (rows, length), generator=random)
    attention = mask_of(mask, rows, length)
    if mask != "none":
        ids[attention == 0] = pad_id if pad_id is not None else 0
    inputs = {"input_ids": ids}
    if mask != "none":
        inputs["attention_mask"] = attention
    if types:
        inputs["token_type_ids"] = torch.randint(0, fields.get("type_vocab_size", 2), (rows, length), generator=random)
    if positions:
        inputs["position_ids"] = torch.randint(0, fields["max_position_embeddings"], (rows, length), generator=random)
    base = model.base_model
    result = base(**inputs, output_hidden_states=True)
    expected = outputs_of(result, ["last_hidden_state", "pooler_output"])
    save(name, model, inputs, expected, change, tensors)


def gamma_beta(tensors):
    return {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in tensors.items()}


def with_position_ids(tensors):
    return {**tensors, "embeddings.position_ids": torch.arange(20)[None]}


def half(tensors):
    return {k: v.to(torch.float16) for k, v in tensors.items()}


NAMES = {("MPNetModel", "holes"): "mpnet-holes"}  # those in test/fixtures
for mask in MASKS:
    for cls in ("BertModel", "RobertaModel", "XLMRobertaModel", "DistilBertModel", "MPNetModel"):
        text(NAMES.get((cls, mask), f"{cls.lower()}-{mask}"), cls, mask=mask)
text("bert-types", "BertModel", types=True, type_vocab_size=2, tensors=with_position_ids)
text("bert-one-type", "BertModel", types=True, type_vocab_size=1)
text("bert-five-types", "BertModel", types=True, type_vocab_size=5, mask="holes")
text("bert-positions", "BertModel", positions=True, mask="left")
text("bert-no-pooler", "BertModel", pooler=False, mask="left")
text("bert-masked-lm", "BertForMaskedLM", tensors=gamma_beta)
text("bert-pretraining", "BertForPreTraining", change=old_config, tensors=gamma_beta)
text("bert-classifier", "BertForSequenceClassification", num_labels=3)
text("bert-token-classifier", "BertForTokenClassification", num_labels=3, mask="holes")
text("bert-odd-widths", "BertModel", hidden_size=35, num_attention_heads=7, intermediate_size=41, vocab_size=97)
text("bert-head-20", "BertModel", hidden_size=60, num_attention_heads=3, intermediate_size=70, num_hidden_layers=1)
text("bert-one-head", "BertModel", hidden_size=18, num_attention_heads=1, intermediate_size=9)
for act in ("gelu_new", "relu", "silu", "swish", "gelu_pytorch_tanh", "gelu_fast", "gelu_python", "quick_gelu", "tanh", "gelu_accurate", "gelu_python_tanh", "linear"):
    text(f"bert-{act}", "BertModel", hidden_act=act)
text("bert-eps", "BertModel", layer_norm_eps=1e-5, change=old_config)
text("bert-long", "BertModel", length=200, max_position_embeddings=256, rows=2)
text("roberta-positions", "RobertaModel", positions=True, mask="none")
text("roberta-types", "RobertaModel", types=True, type_vocab_size=2)
text("roberta-pad-0", "RobertaModel", pad_token_id=0, mask="left")
text("roberta-pad-3", "RobertaModel", pad_token_id=3, mask="right")
text("roberta-padding-inside", "RobertaModel", pad=7, mask="holes")
text("roberta-masked-lm", "RobertaForMaskedLM")
text("roberta-classifier", "RobertaForSequenceClassification")
text("xlmr-masked-lm", "XLMRobertaForMaskedLM", type_vocab_size=1, mask="left")
text("camembert", "CamembertModel", mask="left")
text("camembert-masked-lm", "CamembertForMaskedLM")
text("distilbert-masked-lm", "DistilBertForMaskedLM", activation="relu")
text("distilbert-classifier", "DistilBertForSequenceClassification", mask="left")
text("distilbert-sinusoidal", "DistilBertModel", sinusoidal_pos_embds=True)
text("mpnet-masked-lm", "MPNetForMaskedLM")
text("mpnet-buckets", "MPNetModel", relative_attention_num_buckets=40, mask="left")
text("mpnet-long", "MPNetModel", length=190, max_position_embeddings=200, rows=2)
text("mpnet-pad-5", "MPNetModel", pad_token_id=5, mask="right")
text("mpnet-no-pooler", "MPNetModel", pooler=False, mask="holes")


chinese_clip_tower("chinese-clip-vision", "ChineseCLIPVisionModel", change=old_config, tensors=below("vision_model"), num_channels=3)
chinese_clip_tower("chinese-clip-text", "ChineseCLIPTextModel", hidden_act="relu", layer_norm_eps=1e-5)
