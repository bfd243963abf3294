"""Makes checkpoints with random weights of the kinds that look at text and picture together, and what transformers makes of random inputs.

Run with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6:
    python make_joint_fixtures.py FOLDER            all of them, for test/models/parity.ts with CHIASMA_PARITY=FOLDER
    python make_joint_fixtures.py FOLDER NAME...    those alone (test/fixtures/parity has a few)

Over 500 lines, as it has seven kinds of models, two of which transformers lacks and are written out here.
"""

import torch
import transformers

from fixture_kit import build, disturb, outputs_of, save, save_plain, skip, stream

BOTH = ["attention_mask", "visual_attention_mask"]


def old_config(config):
    """As transformers 4 wrote it."""
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.46.0"


def mask_of(kind, rows, length, random):
    """right: less and less; left; holes; first: the first column and some others; full; random: none sure."""
    mask = torch.ones(rows, length, dtype=torch.int64)
    for row in range(rows):
        less = row * (length // (rows + 1))
        if kind == "right" and less:
            mask[row, length - less :] = 0
        if kind == "left" and less:
            mask[row, :less] = 0
        if kind == "holes":
            mask[row, 1 + row :: 3] = 0
        if kind == "first":
            mask[row, 0] = 0
            mask[row, 2 + row] = 0
        if kind == "random":
            mask[row] = torch.randint(0, 2, (length,), generator=random)
    return mask


def text_inputs(random, rows, length, vocabulary, mask, types=2, minimum=2):
    ids = torch.randint(3, vocabulary, (rows, length), generator=random)
    attention = mask_of(mask, rows, length, random)
    if mask == "random":
        attention[:, :minimum] = 1
    return {"input_ids": ids, "attention_mask": attention, "token_type_ids": torch.randint(0, types, (rows, length), generator=random)}


def visual_bert(name, cls="VisualBertModel", rows=3, length=9, regions=5, mask="right", visual_mask="right", align=False, change=None, **config):
    if skip(name):
        return
    random = stream(name)
    fields = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=16, visual_embedding_dim=12)
    fields.update(config)
    model = build(cls, transformers.VisualBertConfig(**fields), random)
    choices = 2 if cls.endswith("MultipleChoice") else 1
    inputs = text_inputs(random, rows * choices, length, fields["vocab_size"], mask)
    inputs["visual_embeds"] = torch.randn(rows * choices, regions, fields["visual_embedding_dim"], generator=random)
    inputs["visual_attention_mask"] = mask_of(visual_mask, rows * choices, regions, random)
    inputs["visual_token_type_ids"] = torch.randint(0, 2, (rows * choices, regions), generator=random)
    if align:
        inputs["image_text_alignment"] = torch.randint(-1, length, (rows * choices, regions, 3), generator=random)
    if cls.endswith("PhraseAlignment"):
        inputs["region_to_phrase_position"] = torch.randint(-1, length, (rows, 4), generator=random)
    if choices > 1:
        inputs = {k: v.view(rows, choices, *v.shape[1:]) for k, v in inputs.items()}
    result = model(**inputs, output_hidden_states=choices == 1)
    expected = outputs_of(result, ["last_hidden_state", "pooler_output", "logits", "prediction_logits", "seq_relationship_logits"])
    masks = {k: BOTH for k, v in expected.items() if v.dim() == 3}
    if "logits" in masks:
        masks["logits"] = "all"
    save(name, model, inputs, expected, change, masks=masks)


visual_bert("visual-bert-first-masked", mask="first", visual_mask="holes")
visual_bert("visual-bert-random", mask="random", visual_mask="random", rows=6, align=True)
visual_bert("visual-bert-odd", hidden_size=35, num_attention_heads=7, intermediate_size=41, visual_embedding_dim=7, type_vocab_size=3, hidden_act="relu", change=old_config)
visual_bert("visual-bert-wide", hidden_size=60, num_attention_heads=3, num_hidden_layers=1, visual_embedding_dim=130, hidden_act="gelu_new", layer_norm_eps=1e-5)
visual_bert("visual-bert-pretraining", cls="VisualBertForPreTraining", mask="holes")
visual_bert("visual-bert-vqa", cls="VisualBertForQuestionAnswering", num_labels=7, mask="right", align=True)
visual_bert("visual-bert-vqa-holes", cls="VisualBertForQuestionAnswering", num_labels=5, mask="holes", change=old_config)
visual_bert("visual-bert-vqa-first", cls="VisualBertForQuestionAnswering", num_labels=5, mask="first", visual_mask="full")
visual_bert("visual-bert-choice", cls="VisualBertForMultipleChoice", rows=3, mask="right")
visual_bert("visual-bert-reasoning", cls="VisualBertForVisualReasoning", num_labels=2, mask="left")
visual_bert("visual-bert-phrases", cls="VisualBertForRegionToPhraseAlignment", mask="right", visual_mask="full")
visual_bert("visual-bert-phrases-holes", cls="VisualBertForRegionToPhraseAlignment", mask="holes", visual_mask="full", num_attention_heads=2)


# --- words and patches ---


def in_order(weights, n, replacement=False):
    """In the place of torch.multinomial: ViLT draws the order of its patches, which has no influence on anything but their places."""
    return torch.arange(n) % len(weights)


def vilt(name, cls="ViltModel", rows=2, length=8, sizes=((32, 48), (24, 40)), canvas=(32, 48), mask="right", pixel_mask=True, change=None, **config):
    """sizes: what of the canvas is picture, by turns."""
    if skip(name):
        return
    random = stream(name)
    fields = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=16, image_size=32, patch_size=8)
    fields.update(config)
    model = build(cls, transformers.ViltConfig(**fields), random)
    pictures = fields.get("num_images", 1)
    inputs = text_inputs(random, rows, length, fields["vocab_size"], mask, fields.get("type_vocab_size", 2))
    pixels = torch.randn(rows * pictures, 3, *canvas, generator=random)
    if pixel_mask:
        masks = torch.zeros(rows * pictures, *canvas, dtype=torch.int64)
        for i in range(len(masks)):
            masks[i, : sizes[i % len(sizes)][0], : sizes[i % len(sizes)][1]] = 1
        inputs["pixel_mask"] = masks
    else:
        masks = torch.ones(rows * pictures, *canvas, dtype=torch.int64)
    inputs["pixel_values"] = pixels
    if cls == "ViltForImagesAndTextClassification":
        inputs = {k: v.view(rows, pictures, *v.shape[1:]) if k.startswith("pixel") else v for k, v in inputs.items()}
    drawn, torch.multinomial = torch.multinomial, in_order
    if pixel_mask:
        result = model(**inputs, output_hidden_states=pictures == 1)
    else:
        result = model(**inputs, pixel_mask=masks, output_hidden_states=pictures == 1)
    expected = outputs_of(result, ["last_hidden_state", "pooler_output", "logits"])
    if pictures == 1:
        counted = getattr(model, "vilt", model).embeddings(inputs["input_ids"], inputs["attention_mask"], None, pixels, masks, None, None)[1]
        expected["last_hidden_state_mask"] = counted.long()
    torch.multinomial = drawn
    several = {k: "attention_mask" if k == "logits" else "last_hidden_state_mask" for k, v in expected.items() if v.dim() == 3}
    save(name, model, inputs, expected, change, masks=several)


vilt("vilt-sizes", rows=3, sizes=((32, 48), (8, 40), (32, 8)))
vilt("vilt-first-masked", mask="first", hidden_act="gelu_new")
vilt("vilt-no-mask", pixel_mask=False, canvas=(45, 21), change=old_config)
vilt("vilt-odd", hidden_size=35, num_attention_heads=7, intermediate_size=41, patch_size=5, image_size=17, canvas=(33, 26), sizes=((33, 26), (20, 11), (5, 5)), rows=3, qkv_bias=False)
vilt("vilt-vqa", cls="ViltForQuestionAnswering", num_labels=9, mask="holes")
vilt("vilt-retrieval", cls="ViltForImageAndTextRetrieval", rows=3, change=old_config)
vilt("vilt-pictures", cls="ViltForImagesAndTextClassification", num_images=2, modality_type_vocab_size=3, num_labels=2)
vilt("vilt-words", cls="ViltForMaskedLM", mask="left")
vilt("vilt-tokens", cls="ViltForTokenClassification", num_labels=5)


# --- two streams ---


def lxmert(name, cls="LxmertModel", rows=3, length=9, regions=5, mask="right", visual_mask="holes", change=None, **config):
    if skip(name):
        return
    random = stream(name)
    fields = dict(vocab_size=60, hidden_size=32, num_attention_heads=4, intermediate_size=48, max_position_embeddings=16, visual_feat_dim=12, l_layers=1, r_layers=2, x_layers=2, num_qa_labels=7, num_object_labels=5, num_attr_labels=4)
    fields.update(config)
    model = build(cls, transformers.LxmertConfig(**fields), random)
    inputs = text_inputs(random, rows, length, fields["vocab_size"], mask)
    inputs["visual_feats"] = torch.randn(rows, regions, fields["visual_feat_dim"], generator=random)
    inputs["visual_pos"] = torch.rand(rows, regions, fields.get("visual_pos_dim", 4), generator=random)
    inputs["visual_attention_mask"] = mask_of(visual_mask, rows, regions, random)
    result = model(**inputs, output_hidden_states=True)
    expected = outputs_of(result, ["language_output", "vision_output", "pooled_output", "prediction_logits", "cross_relationship_score", "question_answering_score"])
    expected.pop("hidden_state_0", None)
    for kind in ("language", "vision"):
        for i, state in enumerate(getattr(result, kind + "_hidden_states")):
            expected[f"{kind}_hidden_state_{i + 1}"] = state
    masks = {k: "visual_attention_mask" if k.startswith("vision") else "attention_mask" for k, v in expected.items() if v.dim() == 3}
    save(name, model, inputs, expected, change, masks=masks)


lxmert("lxmert-first-masked", mask="first", hidden_act="gelu_new", change=old_config)
lxmert("lxmert-odd", hidden_size=35, num_attention_heads=5, intermediate_size=41, visual_feat_dim=7, visual_pos_dim=6, l_layers=2, r_layers=1, x_layers=1, mask="holes")
lxmert("lxmert-question", cls="LxmertForQuestionAnswering", visual_mask="full", r_layers=1, x_layers=1)
lxmert("lxmert-pretraining", cls="LxmertForPreTraining", mask="left", r_layers=1, x_layers=1)


def blip(name, rows=3, length=9, size=32, patch=8, mask="right", change=None, vision=None, text=None, **config):
    if skip(name):
        return
    random = stream(name)
    v = dict(hidden_size=40, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=size, patch_size=patch)
    t = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, max_position_embeddings=16, is_decoder=True)
    v.update(vision or {})
    t.update(text or {}, encoder_hidden_size=v["hidden_size"])
    model = build("BlipForImageTextRetrieval", transformers.BlipConfig(text_config=t, vision_config=v, image_text_hidden_size=20, **config), random)
    model.text_encoder.config._attn_implementation = model.vision_model.config._attn_implementation = "eager"
    inputs = text_inputs(random, rows, length, t["vocab_size"], mask)
    del inputs["token_type_ids"]
    inputs["pixel_values"] = torch.randn(rows, 3, size, size, generator=random)
    result = model(**inputs)
    seen = model.vision_model(inputs["pixel_values"])
    alone = model.text_encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    expected = {
        "itm_score": result.itm_score,
        "itm_prob": result.itm_score.softmax(-1),
        "question_embeds": result.question_embeds,
        "itc_similarity": model(**inputs, use_itm_head=False).itm_score,
        "vision_last_hidden_state": seen.last_hidden_state,
        "vision_pooler_output": seen.pooler_output,
        "image_feat": torch.nn.functional.normalize(model.vision_proj(seen.last_hidden_state[:, 0]), dim=-1),
        "text_feat": torch.nn.functional.normalize(model.text_proj(alone[:, 0]), dim=-1),
    }
    save(name, model, inputs, expected, change, masks={"question_embeds": "attention_mask", "vision_last_hidden_state": "all"})


blip("blip-itm-odd", size=29, patch=7, mask="holes", vision=dict(hidden_size=35, num_attention_heads=5), text=dict(hidden_size=30, num_attention_heads=3, intermediate_size=33))
blip("blip-itm-first", mask="first", text=dict(hidden_act="relu", num_hidden_layers=1), vision=dict(hidden_act="gelu_pytorch_tanh", num_hidden_layers=1), change=old_config)


def blip_tower(name, cls, size=12, patch=4, change=None, **config):
    """One of BLIP's towers as a model of its own."""
    if skip(name):
        return
    random = stream(name)
    fields = dict(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    if cls == "BlipVisionModel":
        model = build(cls, transformers.BlipVisionConfig(**{**fields, **config}, image_size=size, patch_size=patch), random)
        inputs = {"pixel_values": torch.randn(2, 3, size, size, generator=random)}
    else:
        model = build(cls, transformers.models.blip.BlipTextConfig(**{**fields, **config}, vocab_size=40, max_position_embeddings=12, encoder_hidden_size=12), random)
        inputs = {k: v for k, v in text_inputs(random, 3, 9, 40, "first").items() if k != "token_type_ids"}
    result = model(**inputs)
    save(name, model, inputs, outputs_of(result, ["last_hidden_state", "pooler_output"]), change)


blip_tower("blip-vision", "BlipVisionModel", size=14, layer_norm_eps=1e-3, num_hidden_layers=2)
blip_tower("blip-text", "BlipTextModel", hidden_act="relu", change=old_config)


# --- by the original authors: their modules, written anew on transformers' BERT ---


class Uniter(torch.nn.Module):
    """ChenRocks/UNITER's model with its parameters' names."""

    def __init__(self, config, size, answers=None, labels=None, others=False):
        super().__init__()
        from transformers.models.bert.modeling_bert import BertEncoder, BertOnlyMLMHead, BertPooler

        width = config.hidden_size
        norm = lambda n=width: torch.nn.LayerNorm(n, eps=1e-12)
        table = torch.nn.Embedding
        text = {"word_embeddings": table(config.vocab_size, width), "position_embeddings": table(config.max_position_embeddings, width), "token_type_embeddings": table(2, width), "LayerNorm": norm()}
        regions = {"img_linear": torch.nn.Linear(size, width), "img_layer_norm": norm(), "pos_layer_norm": norm(), "pos_linear": torch.nn.Linear(7, width), "mask_embedding": table(2, size), "LayerNorm": norm()}
        base = {"embeddings": torch.nn.ModuleDict(text), "img_embeddings": torch.nn.ModuleDict(regions), "encoder": BertEncoder(config), "pooler": BertPooler(config)}
        self.uniter = torch.nn.ModuleDict(base)
        hidden = lambda n, out=None, act=torch.nn.GELU: torch.nn.Sequential(torch.nn.Linear(width, n), act(), norm(n), *([torch.nn.Linear(n, out)] if out else []))
        if answers:
            self.vqa_output = hidden(2 * width, answers)
        if labels:
            self.cls = BertOnlyMLMHead(config)
            self.cls.predictions.decoder.weight = self.uniter["embeddings"]["word_embeddings"].weight
            self.cls.predictions.decoder.bias = self.cls.predictions.bias
            self.feat_regress = torch.nn.Module()
            self.feat_regress.net = hidden(width)
            self.feat_regress.bias = torch.nn.Parameter(torch.zeros(size))
            self.region_classifier = torch.nn.Module()
            self.region_classifier.net = hidden(width, labels)
        if others:  # which the authors have in a class each
            self.vcr_output = hidden(2 * width, 2, torch.nn.ReLU)
            self.nlvr2_output = torch.nn.Linear(width, 2)
            self.re_output = hidden(width, 1)
        elif not answers:
            self.itm_output = torch.nn.Linear(width, 2)

    def forward(self, input_ids, position_ids, img_feat, img_pos_feat, attn_masks, gather_index, img_masks=None):
        text, regions = self.uniter["embeddings"], self.uniter["img_embeddings"]
        words = text["word_embeddings"](input_ids) + text["position_embeddings"](position_ids) + text["token_type_embeddings"](torch.zeros_like(input_ids))
        if img_masks is not None:
            img_feat = img_feat + img_masks[..., None] * regions["mask_embedding"].weight[1]
        seen = regions["img_layer_norm"](regions["img_linear"](img_feat)) + regions["pos_layer_norm"](regions["pos_linear"](img_pos_feat))
        seen = regions["LayerNorm"](seen + text["token_type_embeddings"].weight[1])
        both = torch.cat([text["LayerNorm"](words), seen], 1)
        x = torch.gather(both, 1, gather_index[..., None].expand(-1, -1, both.shape[-1]))
        last = self.uniter["encoder"](x, attention_mask=(1.0 - attn_masks[:, None, None].float()) * -10000.0).last_hidden_state
        pooled = self.uniter["pooler"](last)
        outputs = {"last_hidden_state": last, "pooled": pooled}
        if hasattr(self, "itm_output"):
            outputs["itm_logits"] = self.itm_output(pooled)
        if hasattr(self, "vqa_output"):
            outputs["answer_scores"] = self.vqa_output(pooled)
        if hasattr(self, "vcr_output"):
            outputs.update(rank_scores=self.vcr_output(pooled)[:, 1:], answer_scores=self.nlvr2_output(pooled), region_scores=self.re_output(last))
        if hasattr(self, "cls"):
            outputs["prediction_scores"] = self.cls(last)
            outputs["prediction_feat"] = torch.nn.functional.linear(self.feat_regress.net(last), regions["img_linear"].weight.t(), self.feat_regress.bias)
            outputs["prediction_soft_label"] = self.region_classifier.net(last)
        return outputs


def uniter(name, architecture, rows=3, length=8, regions=5, size=12, first=False, masked=False, answers=None, labels=None, others=False, **config):
    if skip(name):
        return
    random = stream(name)
    fields = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=16)
    fields.update(config)
    bert = transformers.BertConfig(**fields)
    bert._attn_implementation = "eager"
    model = disturb(Uniter(bert, size, answers, labels, others), random)
    places = torch.zeros(rows, length + regions, dtype=torch.int64)
    masks = torch.zeros_like(places)
    for row in range(rows):
        kept = [*range(length - 2 * row), *range(length, length + regions - row)]
        places[row, : len(kept)] = torch.tensor(kept)
        masks[row, : len(kept)] = 1
        if first:
            masks[row, 0] = masks[row, 3] = 0
    inputs = {
        "input_ids": torch.randint(3, fields["vocab_size"], (rows, length), generator=random),
        "position_ids": torch.arange(length)[None],
        "img_feat": torch.randn(rows, regions, size, generator=random),
        "img_pos_feat": torch.rand(rows, regions, 7, generator=random),
        "attn_masks": masks,
        "gather_index": places,
    }
    if masked:
        inputs["img_masks"] = torch.randint(0, 2, (rows, regions), generator=random)
    expected = model(**inputs)
    config = {**fields, "img_dim": size, "type_vocab_size": 2, **({"model_type": "uniter", "architectures": [architecture]} if architecture else {})}
    save_plain(name, model, config, inputs, expected, {k: "attn_masks" for k, v in expected.items() if v.dim() == 3})


uniter("uniter-first-masked", "UniterForImageTextRetrieval", first=True, masked=True)
uniter("uniter-vqa", "UniterForVisualQuestionAnswering", answers=9, hidden_size=35, num_attention_heads=7, intermediate_size=41, hidden_act="relu")
uniter("uniter-pretraining", "UniterForPretraining", labels=6, masked=True, rows=4)
# With a configuration like the authors', which names no model.
uniter("uniter-other-heads", None, others=True, hidden_size=20, num_hidden_layers=1, hidden_act="relu")


class VlBert(torch.nn.Module):
    """jackroos/VL-BERT's model with its parameters' names; only examples' own rows are computed, one example after the other."""

    def __init__(self, config, options):
        super().__init__()
        from transformers.models.bert.modeling_bert import BertEncoder, BertPooler

        width, size = config.hidden_size, options["visual_size"]
        self.options = options
        self.word_embeddings = torch.nn.Embedding(config.vocab_size, width)
        self.end_embedding = torch.nn.Embedding(1, width)
        self.position_embeddings = torch.nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = torch.nn.Embedding(3, width)
        self.embedding_LayerNorm = torch.nn.LayerNorm(width, eps=1e-12)
        if options["word_embedding_frozen"]:
            self.special_word_embeddings = torch.nn.Embedding(1000, width)
        for kind in ("text", "object"):
            if size != width:
                setattr(self, f"visual_1x1_{kind}", torch.nn.Linear(size, width))
            if options["visual_ln"]:
                setattr(self, f"visual_ln_{kind}", torch.nn.LayerNorm(width, eps=1e-12))
            else:
                setattr(self, f"visual_scale_{kind}", torch.nn.Parameter(torch.tensor(0.0)))
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)

    def visual(self, x, kind):
        if self.options["visual_size"] != self.embedding_LayerNorm.weight.numel():
            x = getattr(self, f"visual_1x1_{kind}")(x)
        return getattr(self, f"visual_ln_{kind}")(x) if self.options["visual_ln"] else x * getattr(self, f"visual_scale_{kind}")

    def one(self, ids, types, visual, text_mask, objects, object_mask):
        ids, types, visual, objects = ids[text_mask == 1], types[text_mask == 1], visual[text_mask == 1], objects[object_mask == 1]
        t, o, size = len(ids), len(objects), self.options["visual_size"]
        words = self.word_embeddings(ids)
        if self.options["word_embedding_frozen"]:
            words = torch.where((ids < 1000)[:, None], self.special_word_embeddings(ids.clamp(max=999)), words)
        x = torch.cat([words + self.visual(visual, "text"), self.visual(objects[:, :size], "object") + objects[:, size:], self.end_embedding.weight])
        places = torch.tensor([*range(t), *[t] * o, t + 1]) + self.options["position_padding_idx"] + 1
        kinds = torch.cat([types, torch.full((o + 1,), 2)])
        x = self.embedding_LayerNorm(x + self.position_embeddings(places) + self.token_type_embeddings(kinds))
        return self.encoder(x[None]).last_hidden_state[0]

    def forward(self, **inputs):
        names = ("text_input_ids", "text_token_type_ids", "text_visual_embeddings", "text_mask", "object_vl_embeddings", "object_mask")
        states = [self.one(*(inputs[name][row] for name in names)) for row in range(len(inputs["text_mask"]))]
        packed = torch.zeros(len(states), max(map(len, states)), states[0].shape[1])
        mask = torch.zeros(packed.shape[:2], dtype=torch.int64)
        objects = torch.zeros(*inputs["object_mask"].shape, packed.shape[2])
        for row, state in enumerate(states):
            packed[row, : len(state)] = state
            mask[row, : len(state)] = 1
            texts = int(inputs["text_mask"][row].sum())
            objects[row, inputs["object_mask"][row] == 1] = state[texts:-1]
        return {"last_hidden_state": packed, "packed_mask": mask, "object_hidden_state": objects, "pooled_output": self.pooler(packed)}


class Transform(torch.nn.Module):
    """Dense, activation and, for words, a norm: what some of VL-BERT's heads begin with."""

    def __init__(self, width, activation, norm):
        super().__init__()
        self.dense = torch.nn.Linear(width, width)
        self.act = activation
        self.LayerNorm = torch.nn.LayerNorm(width, eps=1e-12) if norm else torch.nn.Identity()

    def forward(self, x):
        return self.LayerNorm(self.act(self.dense(x)))


class VlBertTask(torch.nn.Module):
    """VL-BERT with `final_mlp`, for a task: "question", "choice" or "reference"; kind: "1fc", "2fc", "mlm", "mvrc"."""

    def __init__(self, bert, options, task, kind, outputs, activation):
        super().__init__()
        from torch.nn import Dropout, Linear, ReLU, Sequential

        width = bert.hidden_size
        self.task = task
        encoder = VlBert(bert, options)
        self.vlbert = torch.nn.ModuleDict({"_module": encoder}) if task == "choice" else encoder
        self.object_linguistic_embeddings = torch.nn.Embedding(1, width)  # the caller's, within object_vl_embeddings
        if kind == "1fc":
            self.final_mlp = Sequential(Dropout(0.1), Linear(width, outputs))
        elif kind == "2fc":
            self.final_mlp = Sequential(Dropout(0.1), Linear(width, width + 9), ReLU(), Dropout(0.1), Linear(width + 9, outputs))
        else:
            self.final_mlp = Sequential(Transform(width, activation, kind == "mlm"), Dropout(0.1), Linear(width, outputs))
        self.eval()

    def forward(self, **inputs):
        if self.task == "choice":
            flat = {k: v.flatten(0, 1) for k, v in inputs.items()}
            pooled = self.vlbert["_module"](**flat)["pooled_output"]
            return {"pooled_output": pooled, "label_logits": self.final_mlp(pooled).view(inputs["text_mask"].shape[:2])}
        result = self.vlbert(**inputs)
        if self.task == "reference":
            scores = self.final_mlp(result["object_hidden_state"])[..., 0]
            return {"label_logits": torch.where(inputs["object_mask"] == 1, scores, -10000.0)}
        answer = inputs["text_mask"].sum(1) - 2
        state = result["last_hidden_state"][torch.arange(len(answer)), answer]
        return {"last_hidden_state": result["last_hidden_state"], "packed_mask": result["packed_mask"], "label_logits": self.final_mlp(state)}


def vl_bert(name, task=None, kind="1fc", outputs=1, rows=4, length=7, boxes=5, visual_size=12, visual_ln=True, frozen=False, padding=-1, **config):
    if skip(name):
        return
    random = stream(name)
    fields = dict(vocab_size=1100 if frozen else 60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=16)
    fields.update(config)
    bert = transformers.BertConfig(**fields)
    bert._attn_implementation = "eager"
    options = {"visual_size": visual_size, "visual_ln": visual_ln, "word_embedding_frozen": frozen, "position_padding_idx": padding}
    activation = torch.relu if bert.hidden_act == "relu" else torch.nn.functional.gelu
    model = disturb(VlBertTask(bert, options, task, kind, outputs, activation) if task else VlBert(bert, options), random)
    ids = torch.randint(3, fields["vocab_size"], (rows, length), generator=random)
    if frozen:
        ids[:, ::2] = ids[:, ::2] % 1000
        ids[:, 1::2] = 1000 + ids[:, 1::2] % 100
    masks = {"text_mask": mask_of("random", rows, length, random), "object_mask": mask_of("random", rows, boxes, random)}
    masks["text_mask"][:, 1] = 1
    if task:
        masks["text_mask"][:, 0] = 1
    if task == "reference":
        masks["object_mask"][:] = 1  # beside the score of one that does not count, -10000, others' errors would be little
    inputs = {
        "text_input_ids": ids,
        "text_token_type_ids": torch.randint(0, 2, (rows, length), generator=random),
        "text_visual_embeddings": torch.randn(rows, length, visual_size, generator=random),
        "object_vl_embeddings": torch.randn(rows, boxes, visual_size + fields["hidden_size"], generator=random),
        **masks,
    }
    if task == "choice":
        inputs = {k: v.view(rows // 2, 2, *v.shape[1:]) for k, v in inputs.items()}
    config = {**fields, **options, "model_type": "vl-bert", "architectures": ["ResNetVLBERT" if task else "VisualLinguisticBert"]}
    expected = model(**inputs)
    masks = {"last_hidden_state": "packed_mask", "object_hidden_state": "object_mask"}
    save_plain(name, model, config, inputs, expected, {k: v for k, v in masks.items() if k in expected})


vl_bert("vl-bert-scaled", visual_ln=False, hidden_act="relu")
vl_bert("vl-bert-same-size", visual_size=32, padding=1)
vl_bert("vl-bert-frozen", frozen=True, hidden_size=16, num_attention_heads=2, visual_size=16, visual_ln=False)
SMALL = dict(hidden_size=20, num_hidden_layers=1, intermediate_size=30, visual_size=6)
vl_bert("vl-bert-vqa", "question", "mlm", 9, **SMALL)
vl_bert("vl-bert-vqa-1fc", "question", "1fc", 9, **SMALL)
vl_bert("vl-bert-vqa-2fc", "question", "2fc", 9, **SMALL)
vl_bert("vl-bert-vcr", "choice", "2fc", rows=6, **SMALL)
vl_bert("vl-bert-vcr-1fc", "choice", "1fc", rows=6, **SMALL)
vl_bert("vl-bert-refcoco", "reference", "mvrc", hidden_act="relu", **SMALL)


# --- pictures of any aspect ratio ---
# None with one column and several rows: there PyTorch 2.15's antialiased interpolation on the CPU takes the table's first row for all of them.


def siglip2(name, cls="Siglip2Model", shapes=((3, 4), (2, 7), (1, 5)), patches=16, length=8, mask="right", change=None, vision=None, text=None, **config):
    if skip(name):
        return
    random = stream(name)
    v = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40, num_patches=9, patch_size=4)
    t = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, max_position_embeddings=8, projection_size=32, pad_token_id=0, bos_token_id=2, eos_token_id=1)
    v.update(vision or {})
    t.update(text or {})
    model = build(cls, transformers.Siglip2Config(text_config=t, vision_config=v, **config), random)
    for part in ("vision_model", "text_model"):
        if hasattr(model, part):
            getattr(model, part).config._attn_implementation = "eager"
    size = 3 * v["patch_size"] ** 2
    inputs = {
        "pixel_values": torch.randn(len(shapes), patches, size, generator=random),
        "pixel_attention_mask": torch.tensor([[1] * (h * w) + [0] * (patches - h * w) for h, w in shapes]),
        "spatial_shapes": torch.tensor(shapes),
    }
    if cls == "Siglip2ForImageClassification":
        expected = outputs_of(model(**inputs), ["logits"])
    else:
        seen = model.vision_model(**inputs, output_hidden_states=True)
        names = ["last_hidden_state", "pooler_output"]
        tokens = {k: value for k, value in text_inputs(random, 3, length, t["vocab_size"], mask).items() if k != "token_type_ids"}
        inputs.update(tokens)
        result = model(**inputs)
        expected = outputs_of(result, ["image_embeds", "text_embeds", "logits_per_image", "logits_per_text"])
        expected.update(outputs_of(seen, names, "vision_"))
        expected.update(outputs_of(model.text_model(**tokens), names, "text_"))
    masks = {k: "pixel_attention_mask" if k.startswith("vision") else "attention_mask" for k, value in expected.items() if value.dim() == 3}
    save(name, model, inputs, expected, change, masks=masks)


siglip2("siglip2-shapes", mask="holes", change=old_config)
siglip2("siglip2-odd", vision=dict(hidden_size=35, num_attention_heads=5, intermediate_size=33, num_patches=25, patch_size=3), text=dict(hidden_size=30, num_attention_heads=3, intermediate_size=41, projection_size=35), shapes=((1, 9), (8, 2), (4, 4)), mask="left")
siglip2("siglip2-classifier", cls="Siglip2ForImageClassification", num_labels=4)
