"""Makes sentence-transformers folders with random weights, and what sentence-transformers makes of some texts.

Run with Python 3.11, torch 2.15.0, transformers 5.23.0, sentence-transformers 6.2.0, tokenizers 0.23.3, Pillow 13.0.0:
    python make_sentence_fixtures.py FOLDER TOKENIZERS [NAME...]
TOKENIZERS holds tokenizer-bert and tokenizer-clip, each with tokenizer.json and tokenizer_config.json. The vocabularies are cut to the words that
the texts need. Each folder has expected.json beside the checkpoint: a list of { texts, prompt?, promptName?, rows }, the embeddings as encode gives them.
"""

import json
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file
import transformers
from sentence_transformers import SentenceTransformer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize, Pooling, Transformer

out, tokenizers, wanted = sys.argv[1], sys.argv[2], sys.argv[3:]
torch.set_num_threads(1)
torch.set_grad_enabled(False)

TEXTS = [
    "A cat sits on the mat.",
    "",
    "Two dogs run through deep snow, and a third one waits at the door of the house for them to come back.",
    "Zürich, 東京 & São Paulo!",
    "MiXeD CaSe Text",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty",
]
PROMPT = "Represent this: "
letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!&:?'"


def cut_tokenizer(kind, folder):
    """tokenizer-bert's or tokenizer-clip's, with the words that are needed and all letters."""
    whole = json.load(open(os.path.join(tokenizers, kind, "tokenizer.json")))
    settings = json.load(open(os.path.join(tokenizers, kind, "tokenizer_config.json")))
    full = transformers.PreTrainedTokenizerFast(tokenizer_file=os.path.join(tokenizers, kind, "tokenizer.json"))
    vocab = whole["model"]["vocab"]
    used = set(t for text in TEXTS + [PROMPT, "query: ", "Mixed Case"] for t in full.tokenize(text))
    used |= {t["content"] for t in whole["added_tokens"]}
    if kind == "tokenizer-bert":
        used |= {l for l in letters} | {"##" + l for l in letters if "##" + l in vocab}
    else:
        used |= {l for l in vocab if len(l.replace("</w>", "")) == 1}
    order = [t for t, _ in sorted(vocab.items(), key=lambda item: item[1]) if t in used]
    new = {t: i for i, t in enumerate(order)}
    whole["model"]["vocab"] = new
    if "merges" in whole["model"]:
        pairs = [m if isinstance(m, list) else m.split(" ") for m in whole["model"]["merges"]]
        whole["model"]["merges"] = [p for p in pairs if all(t in new for t in (p[0], p[1], "".join(p)))]
    for token in whole["added_tokens"]:
        token["id"] = new[token["content"]]
    post = whole["post_processor"]
    if post["type"] == "TemplateProcessing":
        for special in post["special_tokens"].values():
            special["ids"] = [new[t] for t in special["tokens"]]
    else:
        for end in ("sep", "cls"):
            post[end] = [post[end][0], new[post[end][0]]]
    whole["truncation"] = whole["padding"] = None
    os.makedirs(folder, exist_ok=True)
    json.dump(whole, open(os.path.join(folder, "tokenizer.json"), "w"), ensure_ascii=False)
    settings = {k: v for k, v in settings.items() if k in ("tokenizer_class", "model_max_length", "pad_token", "cls_token", "sep_token", "unk_token", "mask_token", "bos_token", "eos_token")}
    json.dump(settings, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    return new


def qwen_tokenizer(folder):
    """Of Qwen's kind: bytes, words by its expression, the end token put behind each text by the post-processor."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    made.train_from_iterator(TEXTS + [PROMPT], trainer)
    end = made.token_to_id("<|endoftext|>")
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)])])
    os.makedirs(folder, exist_ok=True)
    made.save(os.path.join(folder, "tokenizer.json"))
    settings = dict(tokenizer_class="PreTrainedTokenizerFast", model_max_length=64, pad_token="<|endoftext|>", eos_token="<|endoftext|>", padding_side="left")
    json.dump(settings, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    return made.get_vocab_size()


def disturb(module, seed):
    random = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=random)
        if p.dim() == 0:
            p.fill_(2.7)
        elif p.dim() == 1:
            p.copy_(1 + 0.2 * noise if "norm" in name.lower() and name.endswith("weight") else 0.1 * noise)
        elif "embedding" in name:
            p.copy_(0.7 * noise)
        else:
            p.copy_(1.3 * noise / p[0].numel() ** 0.5)
    return module.eval()


def encoder(folder, seed, kind="bert", **settings):
    shutil.rmtree(folder, ignore_errors=True)
    if kind == "qwen3":
        fields = dict(vocab_size=qwen_tokenizer(folder), max_position_embeddings=64, num_key_value_heads=1, head_dim=16)
        model = transformers.Qwen3Model(transformers.Qwen3Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=36, **fields))
        disturb(model, seed).to(torch.bfloat16).save_pretrained(folder)
        return Transformer(folder, model_kwargs={"dtype": "float32"}, **settings)
    vocab = cut_tokenizer("tokenizer-clip" if kind == "clip" else "tokenizer-bert", folder)
    if kind == "clip":
        text = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, vocab_size=len(vocab), max_position_embeddings=77)
        text.update(bos_token_id=vocab["<|startoftext|>"], eos_token_id=vocab["<|endoftext|>"], pad_token_id=vocab["<|endoftext|>"])
        vision = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8)
        model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=20))
        processor = dict(image_processor_type="CLIPImageProcessor", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_resize=True, do_center_crop=True,
                         do_rescale=True, rescale_factor=1 / 255, do_normalize=True, do_convert_rgb=True, resample=3,
                         image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
        json.dump(processor, open(os.path.join(folder, "preprocessor_config.json"), "w"))
    else:
        common = dict(vocab_size=len(vocab), max_position_embeddings=48, pad_token_id=vocab["[PAD]"])
        if kind == "bert":
            model = transformers.BertModel(transformers.BertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=36, **common))
        elif kind == "modernbert":
            common.update(local_attention=4, cls_token_id=vocab["[CLS]"], sep_token_id=vocab["[SEP]"], bos_token_id=None, eos_token_id=None)
            model = transformers.ModernBertModel(transformers.ModernBertConfig(hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=36, **common))
        elif kind == "mpnet":
            model = transformers.MPNetModel(transformers.MPNetConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=36, **common))
        else:
            model = transformers.DistilBertModel(transformers.DistilBertConfig(dim=24, n_layers=2, n_heads=2, hidden_dim=36, **common))
    disturb(model, seed).save_pretrained(folder)
    return Transformer(folder, **settings)


def finish(name, model, calls=({},), change=None):
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    model.save(folder, create_model_card=False)
    if change:
        change(folder)
        model = SentenceTransformer(folder, device="cpu")
    rows = []
    for call in calls:
        spelled = {"prompt_name" if k == "promptName" else k: v for k, v in call.items()}
        embeddings = model.encode(TEXTS, convert_to_numpy=True, batch_size=3, **spelled)
        rows.append({**call, "texts": TEXTS, "rows": [[float(x) for x in row] for row in embeddings]})
    json.dump(rows, open(os.path.join(folder, "expected.json"), "w"), ensure_ascii=False)
    for extra in ("README.md",):
        if os.path.exists(os.path.join(folder, extra)):
            os.remove(os.path.join(folder, extra))


def make(name, pooling, more=(), calls=({},), prompts=None, default=None, change=None, seed=1, kind="bert", pool=None, **settings):
    if wanted and name not in wanted:
        return
    work = os.path.join(out, ".encoder")
    first = encoder(work, seed, kind, **settings)
    modules = [first]
    if pooling is not None:
        modules.append(Pooling(24, pooling_mode=pooling, **(pool or {})))
    for i, module in enumerate(more):
        modules.append(disturb(module, seed + 10 + i))
    extra = {"prompts": prompts, "default_prompt_name": default} if prompts else {}
    finish(name, SentenceTransformer(modules=modules, device="cpu", **extra), calls, change)
    shutil.rmtree(work, ignore_errors=True)


def legacy_flags(*flags):
    def change(folder):
        file = os.path.join(folder, "1_Pooling", "config.json")
        config = {"word_embedding_dimension": 24, **{f: False for f in ("pooling_mode_cls_token", "pooling_mode_mean_tokens", "pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens")}}
        config.update({f: True for f in flags})
        json.dump(config, open(file, "w"))

    return change


def with_settings(**fields):
    def change(folder):
        file = os.path.join(folder, "sentence_bert_config.json")
        config = json.load(open(file))
        config.update(fields)
        json.dump(config, open(file, "w"))

    return change


def older_layout(kind):
    """The encoder in a folder of its own, the classes' older names."""

    def change(folder):
        modules = json.load(open(os.path.join(folder, "modules.json")))
        inner = f"0_{kind}"
        os.makedirs(os.path.join(folder, inner))
        for file in os.listdir(folder):
            if os.path.isfile(os.path.join(folder, file)) and file not in ("modules.json", "config_sentence_transformers.json"):
                shutil.move(os.path.join(folder, file), os.path.join(folder, inner, file))
        modules[0]["path"] = inner
        for module in modules:
            module["type"] = "sentence_transformers.models." + module["type"].split(".")[-1]
        modules[0]["type"] = f"sentence_transformers.models.{kind}"
        if kind == "CLIPModel":
            os.remove(os.path.join(folder, inner, "sentence_bert_config.json"))
        json.dump(modules, open(os.path.join(folder, "modules.json"), "w"))

    return change


def bf16_shards(folder):
    file = os.path.join(folder, "model.safetensors")
    tensors = {k: v.to(torch.bfloat16) for k, v in load_file(file).items()}  # exact: they were rounded before
    os.remove(file)
    names = sorted(tensors)
    shards = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for shard, part in shards.items():
        save_file({k: tensors[k] for k in part}, os.path.join(folder, shard), metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {k: shard for shard, part in shards.items() for k in part}}
    json.dump(index, open(os.path.join(folder, "model.safetensors.index.json"), "w"))


for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"):
    make(f"pool-{mode}", mode)
make("pool-two", ("mean", "max"))
make("pool-three", ("lasttoken", "weightedmean", "cls"), [Normalize()])
make("pool-flags", "mean", change=legacy_flags("pooling_mode_mean_tokens", "pooling_mode_cls_token", "pooling_mode_max_tokens"))
make("pool-no-flag", "mean", change=legacy_flags())
make("dense", "mean", [Dense(24, 10), Normalize()])
make("dense-relu-no-bias", "cls", [Dense(24, 30, bias=False, activation_function=torch.nn.ReLU()), Dense(30, 7, activation_function=torch.nn.Identity())])
make("dense-gelu", "mean", [Dense(24, 12, activation_function=torch.nn.GELU()), Dense(12, 12, activation_function=torch.nn.SiLU())])
make("dense-sigmoid", "mean", [Dense(24, 12, activation_function=torch.nn.Sigmoid())])
make("dense-residual", "mean", [Dense(24, 24, use_residual=True), Dense(24, 8, use_residual=True)])
make("layer-norm", "mean", [LayerNorm(24), Dropout(0.3), Normalize()])
make("dense-after-two", ("cls", "mean"), [Dense(48, 9)])
prompts = {"query": "query: ", "doc": PROMPT}
calls = ({}, {"prompt": PROMPT}, {"promptName": "query"})
make("prompts", "mean", [Normalize()], calls=calls, prompts=prompts)
make("prompts-default", "mean", calls=calls, prompts=prompts, default="doc")
for mode in ("mean", "max", "cls", "lasttoken", "weightedmean", ("mean", "weightedmean", "mean_sqrt_len_tokens")):
    name = mode if isinstance(mode, str) else "several"
    make(f"prompts-left-out-{name}", mode, calls=calls, prompts=prompts, pool={"include_prompt": False})
make("max-seq-length", "mean", change=with_settings(max_seq_length=9))
make("max-seq-length-more", "mean", change=lambda folder: (with_settings(max_seq_length=16)(folder), None))
make("lower-case", "mean", change=with_settings(do_lower_case=True))
make("older-layout", "mean", [Normalize()], change=older_layout("Transformer"))
make("mpnet", "mean", [Normalize()], kind="mpnet")
make("distilbert-dense", "mean", [Dense(24, 16, activation_function=torch.nn.Identity())], kind="distilbert")
make("clip", None, kind="clip")
make("clip-normalized", None, [Normalize()], kind="clip")
make("clip-dense", None, [Dense(20, 6)], kind="clip")
make("clip-older", None, kind="clip", change=older_layout("CLIPModel"))
make("modernbert", "cls", [Normalize()], kind="modernbert", calls=calls, prompts=prompts)
make("modernbert-mean", "mean", kind="modernbert")
instruct = {"query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:", "document": ""}
make("qwen3-embedding", "lasttoken", [Normalize()], kind="qwen3", calls=({}, {"promptName": "query"}, {"promptName": "document"}, {"prompt": PROMPT}), prompts=instruct, change=bf16_shards)
