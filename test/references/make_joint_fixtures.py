"""Makes checkpoints with random weights of the kinds that look at text and picture together, and what transformers makes of random inputs.

Run with Python 3.11, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0, numpy 2.4.6:
    python make_joint_fixtures.py FOLDER            all of them, for test/models/parity.ts with CHIASMA_PARITY=FOLDER
    python make_joint_fixtures.py FOLDER NAME...    those alone (test/fixtures/parity has a few)
"""

import torch
import transformers

from fixture_kit import build, outputs_of, save, skip, stream

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
