"""Makes convolutional checkpoints with random weights (ResNet, ALIGN, CLIP's ModifiedResNet, wav2vec 2.0), and what their references make of random inputs.

Run with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6:
    python make_conv_fixtures.py FOLDER            all of them, for test/models/parity.ts with CHIASMA_PARITY=FOLDER
    python make_conv_fixtures.py FOLDER NAME...    those alone (test/fixtures/parity has a few)
"""

import json
import os

import torch
import transformers
from safetensors.torch import save_file

from fixture_kit import build, out, outputs_of, save, skip, stream


def disturb_norms(model, random):
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=random))
        if name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=random))
    return model


def pixels(random, *shape):
    return {"pixel_values": torch.randn(*shape, generator=random)}


def old_config(config):
    """As transformers 4 wrote it."""
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.46.0"


# --- ResNet ---


def resnet(name, size=(32, 32), cls="ResNetModel", change=None, **config):
    if skip(name):
        return
    random = stream(name)
    fields = dict(embedding_size=8, hidden_sizes=[16, 24], depths=[1, 2])
    fields.update(config)
    model = disturb_norms(build(cls, transformers.ResNetConfig(**fields), random), random)
    inputs = pixels(random, 2, 3, *size)
    result = model(**inputs, output_hidden_states=True)
    save(name, model, inputs, outputs_of(result, ["last_hidden_state", "pooler_output", "logits"] if cls == "ResNetModel" else ["logits"]), change_config=change)


resnet("resnet-basic-odd", size=(37, 53), layer_type="basic", hidden_act="gelu", change=old_config)
resnet("resnet-bottleneck-first", size=(33, 47), downsample_in_bottleneck=True, downsample_in_first_stage=True, hidden_sizes=[20, 36, 44], depths=[2, 1, 2], hidden_act="silu")
resnet("resnet-classifier", cls="ResNetForImageClassification", num_labels=7, layer_type="basic")
resnet("resnet-equal-widths", embedding_size=12, hidden_sizes=[12, 12], depths=[2, 2], layer_type="basic", hidden_act="tanh", size=(20, 64))
resnet("resnet-tiny-picture", size=(5, 3), layer_type="bottleneck", hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
resnet("resnet-wide", size=(64, 64), embedding_size=64, hidden_sizes=[128, 256], depths=[2, 2])


# --- ALIGN ---


def align(name, size=(64, 64), cls="AlignModel", mask="right", change=None, **vision):
    if skip(name):
        return
    random = stream(name)
    fields = dict(image_size=64, width_coefficient=0.5, depth_coefficient=0.5, kernel_sizes=[3, 5, 3], in_channels=[32, 16, 24], out_channels=[16, 24, 48])
    fields.update(strides=[1, 2, 2], num_block_repeats=[1, 3, 2], expand_ratios=[1, 4, 6], hidden_dim=64)
    fields.update(vision)
    text = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=16)
    vision_config = transformers.models.align.AlignVisionConfig(**fields)
    config = vision_config
    if cls == "AlignModel":
        projection = transformers.models.align.modeling_align.round_filters(vision_config, fields["out_channels"][-1])
        config = transformers.AlignConfig(text_config=text, vision_config=fields, projection_dim=projection)
    model = disturb_norms(build(cls, config, random), random)
    inputs = pixels(random, 2, 3, *size)
    if cls == "AlignVisionModel":
        return save(name, model, inputs, outputs_of(model(**inputs), ["last_hidden_state", "pooler_output"]), change_config=change)
    ids = torch.randint(3, 60, (3, 9), generator=random)
    attention = torch.ones(3, 9, dtype=torch.int64)
    attention[1, 6:] = 0
    attention[2, 3 if mask == "holes" else 4 :: 2] = 0
    inputs.update(input_ids=ids, attention_mask=attention, token_type_ids=torch.randint(0, 2, (3, 9), generator=random))
    result = model(**inputs)
    expected = outputs_of(result, ["image_embeds", "text_embeds", "logits_per_image", "logits_per_text"])
    expected["vision_last_hidden_state"] = result.vision_model_output.last_hidden_state
    expected["text_last_hidden_state"] = result.text_model_output.last_hidden_state
    save(name, model, inputs, expected, change_config=change)


align("align-odd", size=(57, 43), mask="holes")
align("align-square-padding", size=(40, 65), depthwise_padding=[1, 2, 4], pooling_type="max", hidden_act="gelu", change=old_config)
align("align-vision", cls="AlignVisionModel", size=(33, 31), hidden_act="relu", squeeze_expansion_ratio=0.1, depth_divisor=4, width_coefficient=0.3, batch_norm_eps=0.01)
align("align-even-kernels", size=(30, 44), kernel_sizes=[4, 2, 6], strides=[1, 2, 1])


# --- wav2vec 2.0 ---


def wav2vec2(name, rows=3, length=900, cls="Wav2Vec2Model", mask=None, change=None, old_names=False, **config):
    if skip(name):
        return
    random = stream(name)
    fields = dict(vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=[16, 24, 20], conv_stride=[5, 3, 2])
    fields.update(conv_kernel=[10, 4, 3], num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4)
    fields.update(config)
    model = build(cls, transformers.Wav2Vec2Config(**fields), random)
    inputs = {"input_values": torch.randn(rows, length, generator=random)}
    base = model if cls == "Wav2Vec2Model" else model.wav2vec2
    masks = None
    if mask:
        attention = torch.ones(rows, length, dtype=torch.int64)
        for row in range(rows):
            less = row * (length // (rows + 1))
            if mask == "right" and less:
                attention[row, length - less :] = 0
            if mask == "left" and less:
                attention[row, :less] = 0
            if mask == "holes":
                attention[row, row :: 2 + row] = 0
        inputs["attention_mask"] = attention
    result = model(**inputs, output_hidden_states=True)
    expected = outputs_of(result, ["last_hidden_state", "extract_features", "logits", "embeddings"])
    if mask:
        # The mask of the frames is an output of the reference only; it is kept among the expected as integers.
        frames = base._get_feature_vector_attention_mask(base._get_feat_extract_output_lengths(length), inputs["attention_mask"], add_adapter=False)
        expected["mask_of_frames"] = frames.to(torch.int64)
        masks = {k: "mask_of_frames" for k, v in expected.items() if v.dim() == 3}
        masks.update(extract_features="all")

    def rename(tensors):
        return {k.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v"): v for k, v in tensors.items()}

    save(name, model, inputs, expected, change_config=change, change_tensors=rename if old_names else None, masks=masks)


wav2vec2("wav2vec2-group-mask", mask="right", change=old_config, old_names=True)
wav2vec2("wav2vec2-group-plain", rows=2, length=533, hidden_act="relu", feat_extract_activation="silu", conv_bias=True)
wav2vec2("wav2vec2-layer-holes", mask="holes", feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, num_conv_pos_embeddings=7, num_conv_pos_embedding_groups=2)
wav2vec2("wav2vec2-layer-left", cls="Wav2Vec2ForCTC", mask="left", feat_extract_norm="layer", do_stable_layer_norm=True, num_conv_pos_embeddings=16)
wav2vec2("wav2vec2-stable-group", rows=2, do_stable_layer_norm=True, num_conv_pos_embedding_groups=1, conv_dim=[8], conv_stride=[7], conv_kernel=[9])
wav2vec2("wav2vec2-classes", cls="Wav2Vec2ForSequenceClassification", mask="right", num_labels=5, classifier_proj_size=24)
wav2vec2("wav2vec2-weighted", cls="Wav2Vec2ForSequenceClassification", mask="right", num_labels=3, classifier_proj_size=8, use_weighted_layer_sum=True, feat_extract_norm="layer", hidden_size=16, num_attention_heads=2, intermediate_size=16, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, conv_dim=[8, 8], conv_stride=[7, 3], conv_kernel=[9, 4])
wav2vec2("wav2vec2-adapted", rows=2, length=300, cls="Wav2Vec2ForCTC", mask="right", feat_extract_norm="layer", do_stable_layer_norm=True, adapter_attn_dim=6, hidden_size=16, num_attention_heads=2, intermediate_size=16, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, conv_dim=[8, 8], conv_stride=[7, 3], conv_kernel=[9, 4])
TINY = dict(hidden_size=12, num_attention_heads=2, intermediate_size=16, num_hidden_layers=1, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, conv_dim=[8, 8], conv_stride=[7, 3], conv_kernel=[9, 4])
wav2vec2("wav2vec2-voices", rows=2, length=500, cls="Wav2Vec2ForXVector", tdnn_dim=[10, 9, 8], tdnn_kernel=[3, 2, 1], tdnn_dilation=[1, 3, 1], xvector_output_dim=6, num_labels=4, use_weighted_layer_sum=True, **TINY)
wav2vec2("wav2vec2-voices-default", rows=2, length=700, cls="Wav2Vec2ForXVector", feat_extract_norm="layer", do_stable_layer_norm=True, **TINY)
wav2vec2("wav2vec2-reduced", rows=2, length=450, cls="Wav2Vec2ForCTC", add_adapter=True, output_hidden_size=10, num_adapter_layers=2, vocab_size=11, feat_extract_norm="layer", **TINY)
wav2vec2("wav2vec2-reduced-same-width", rows=2, length=450, add_adapter=True, adapter_stride=3, adapter_kernel_size=4, do_stable_layer_norm=True, **TINY)
wav2vec2("wav2vec2-frame-classes", rows=2, length=300, cls="Wav2Vec2ForAudioFrameClassification", mask="right", num_labels=3, use_weighted_layer_sum=True, **TINY)
wav2vec2("wav2vec2-short", rows=1, length=95, feat_extract_norm="layer", num_conv_pos_embeddings=128, num_conv_pos_embedding_groups=16)


# --- CLIP with OpenAI's ModifiedResNet, written from the paper and the checkpoints' names ---


class Bottleneck(torch.nn.Module):
    def __init__(self, inputs, inner, stride):
        super().__init__()
        nn = torch.nn
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, inner * 4, 1, bias=False), nn.BatchNorm2d(inner * 4)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample = None
        if stride > 1 or inputs != inner * 4:
            self.downsample = nn.ModuleDict({"0": nn.Conv2d(inputs, inner * 4, 1, bias=False), "1": nn.BatchNorm2d(inner * 4)})

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.pool(y)))
        if self.downsample is not None:
            x = self.downsample["1"](self.downsample["0"](self.pool(x)))
        return torch.relu(x + y)


class AttentionPool(torch.nn.Module):
    def __init__(self, pixels, width, heads, outputs):
        super().__init__()
        nn = torch.nn
        self.positional_embedding = nn.Parameter(torch.zeros(pixels + 1, width))
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = (nn.Linear(width, o) for o in (width, width, width, outputs))
        self.heads = heads

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], 1) + self.positional_embedding
        heads = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        y = torch.nn.functional.scaled_dot_product_attention(heads(self.q_proj(x[:, :1])), heads(self.k_proj(x)), heads(self.v_proj(x)))
        return self.c_proj(y.transpose(1, 2).flatten(2))[:, 0]


class ModifiedResNet(torch.nn.Module):
    def __init__(self, layers, width, heads, resolution, outputs):
        super().__init__()
        nn = torch.nn
        half = width // 2
        self.conv1, self.bn1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv2, self.bn2 = nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half)
        self.conv3, self.bn3 = nn.Conv2d(half, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        inputs = width
        for stage, depth in enumerate(layers):
            blocks = []
            for i in range(depth):
                blocks.append(Bottleneck(inputs, width * 2**stage, 2 if stage > 0 and i == 0 else 1))
                inputs = width * 2**stage * 4
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool((resolution // 32) ** 2, width * 32, heads, outputs)

    def forward(self, x):
        for i in (1, 2, 3):
            x = torch.relu(getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(x)))
        x = torch.nn.functional.avg_pool2d(x, 2)
        for i in (1, 2, 3, 4):
            x = getattr(self, f"layer{i}")(x)
        return self.attnpool(x)


def clip_resnet(name, resolution, layers, width, heads, embed_dim=24, text_width=64, config=True):
    """The text tower is transformers' CLIP, its tensors under OpenAI's names."""
    if skip(name):
        return
    random = stream(name)
    text = build("CLIPTextModelWithProjection", transformers.CLIPTextConfig(vocab_size=50, hidden_size=text_width, intermediate_size=4 * text_width, num_hidden_layers=2,
                 num_attention_heads=1, max_position_embeddings=10, projection_dim=embed_dim, hidden_act="quick_gelu", eos_token_id=2), random)
    visual = disturb_norms(ModifiedResNet(layers, width, heads, resolution, embed_dim), random).eval()
    for parameter in visual.parameters():
        noise = torch.randn(parameter.shape, generator=random)
        parameter.copy_(1.3 * noise / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.7 + 0.2 * noise)
    tensors = {f"visual.{k}": v for k, v in visual.state_dict().items()}
    source = text.state_dict()
    tensors["token_embedding.weight"] = source["text_model.embeddings.token_embedding.weight"]
    tensors["positional_embedding"] = source["text_model.embeddings.position_embedding.weight"]
    tensors["ln_final.weight"] = source["text_model.final_layer_norm.weight"]
    tensors["ln_final.bias"] = source["text_model.final_layer_norm.bias"]
    tensors["text_projection"] = source["text_projection.weight"].T
    tensors["logit_scale"] = torch.tensor(1.3)
    for i in range(2):
        here, there = f"text_model.encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            tensors[f"{there}attn.in_proj_{kind}"] = torch.cat([source[f"{here}self_attn.{x}_proj.{kind}"] for x in "qkv"])
            for a, b in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
                tensors[f"{there}{a}.{kind}"] = source[f"{here}{b}.{kind}"]
    inputs = {**pixels(random, 2, 3, resolution, resolution), "input_ids": torch.randint(1, 49, (3, 10), generator=random)}
    for row in range(3):
        inputs["input_ids"][row, 4 + 2 * row :] = 0
        inputs["input_ids"][row, 3 + 2 * row] = 49
    images, texts = visual(inputs["pixel_values"]), text(input_ids=inputs["input_ids"]).text_embeds
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)
    logits = tensors["logit_scale"].exp() * unit(images) @ unit(texts).T
    expected = {"image_embeds": unit(images), "text_embeds": unit(texts), "image_embeds_unnormalized": images, "text_embeds_unnormalized": texts}
    expected.update(logits_per_image=logits, logits_per_text=logits.T)
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    for file, content in (("model", tensors), ("inputs", inputs), ("expected", expected)):
        save_file({k: v.detach().clone().contiguous() for k, v in content.items()}, os.path.join(folder, f"{file}.safetensors"))
    fields = dict(embed_dim=embed_dim, image_resolution=resolution, vision_layers=layers, vision_width=width, vision_heads=heads, transformer_heads=1) if config else {}
    if config:
        json.dump(fields, open(os.path.join(folder, "config.json"), "w"), indent=2)


clip_resnet("clip-rn-shapes-alone", resolution=64, layers=[1, 1, 2, 1], width=4, heads=2, config=False)
clip_resnet("clip-rn-odd", resolution=110, layers=[2, 1, 1, 1], width=6, heads=3)
clip_resnet("clip-rn-narrow", resolution=70, layers=[1, 2, 1, 1], width=2, heads=4, text_width=32)
