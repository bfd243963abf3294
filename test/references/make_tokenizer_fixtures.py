"""Makes test/fixtures/tokenizers: small tokenizers of every kind, and the ids that Hugging Face's Rust library gives for strings of every kind.

Run with Python 3.11, tokenizers 0.23.3, sentencepiece 0.2.3, protobuf 7.36.2:  python make_tokenizer_fixtures.py ../fixtures/tokenizers STRINGS.json... [--seed N] [--count N]
STRINGS.json hold { rows: [{ text }] }, such as the parity folders' tokenizer-bert and tokenizer-clip; the tokenizers are trained on them, and random
strings are made of their words. Each folder gets expected.json: plain [text, ids] with special tokens; cut { maxLength, side, rows }; pairs
{ maxLength, side, rows of [first, second, ids, types] }.
"""

import argparse
import io
import json
import os
import random
import tempfile
import unicodedata

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

arguments = argparse.ArgumentParser()
arguments.add_argument("out")
arguments.add_argument("strings", nargs="+")
arguments.add_argument("--seed", type=int, default=1)
arguments.add_argument("--count", type=int, default=60)
arguments.add_argument("--rules", help="SentencePiece's rules for the sentencepiece folder, say nmt_nfkc; default some of our own, since those take 300 kB")
arguments = arguments.parse_args()
draw = random.Random(arguments.seed)

base = [row["text"] for file in arguments.strings for row in json.load(open(file))["rows"]]
words = sorted(set(word for text in base for word in text.split()))
corpus = base * 3 + words
blocks = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x500), (0x590, 0x700), (0x900, 0xA00), (0xE00, 0xE80), (0x1100, 0x1200), (0x1E00, 0x2070), (0x20A0, 0x20D0)]
blocks += [(0x2100, 0x2200), (0x2460, 0x2600), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xF900, 0xFA00), (0xFB00, 0xFB10), (0xFE00, 0xFF00), (0xFF00, 0xFFF0)]
blocks += [(0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x20100), (0x1D400, 0x1D500), (0, 0x20), (0x7F, 0xA0), (0xE000, 0xE010), (0xE0100, 0xE0110), (0x1F1E6, 0x1F1FF)]
specials = "[CLS] [SEP] [MASK] [PAD] [UNK] <|startoftext|> <|endoftext|> <s> </s> <mask> <pad> <unk> [cls] <|ENDOFTEXT|>".split() + ["[ SEP ]"]
phrases = ["don't", "it's I'll they've we're I'd I'm", "'s 's'S", "3.14 1,000 1e-5 ½ ²", "a@b.co http://x.y/z?q=1#f", "İSTANBUL ΣΊΣΥΦΟΣ ǅ ß ẞ ﬁ", "👩‍👩‍👧‍👦 🇩🇪 ❤️ 1️⃣"]
phrases += ["한국어 日本語 ภาษาไทย", "C++ #1 $5 %x ^ & * (a) [b] {c} <d>", "don\u2019t \u201cq\u201d \u2026 \u2014"]
blanks = [" ", "\n", "\u3000", "\u200b", "\u00a0", "\u2028", "\r", "\ufeff", "\x85", "\u180e", "\x1c"]


def character():
    return chr(draw.randrange(*draw.choice(blocks)))


def text():
    kind = draw.randrange(10)
    if kind == 0:
        return "".join(character() for _ in range(draw.randrange(1, 30)))
    if kind == 1:
        return " ".join(draw.choice(words) for _ in range(draw.randrange(1, 25)))
    if kind == 2:
        return "".join(draw.choice([draw.choice(words), character(), " ", "  ", "\t", "\n", draw.choice(specials)]) for _ in range(draw.randrange(1, 20)))
    if kind == 3:
        return draw.choice(words) * draw.randrange(1, 40)
    if kind == 4:
        return draw.choice(specials).join(draw.choice(words) for _ in range(draw.randrange(1, 5)))
    if kind == 5:
        block = draw.choice(blocks)
        return "".join(chr(draw.randrange(*block)) for _ in range(draw.randrange(1, 40)))
    if kind == 6:
        return draw.choice(blanks) * draw.randrange(1, 5) + draw.choice(words) + draw.choice([" ", "\x0b", "\x85", "\u2003", ""])
    if kind == 7:
        return unicodedata.normalize(draw.choice(["NFD", "NFKD", "NFC", "NFKC"]), "".join(character() for _ in range(12)) + draw.choice(words))
    if kind == 8:
        return draw.choice(phrases) + draw.choice(["", " ", character()])
    return draw.choice(base)


strings = ["", " ", "\n", "a", "\x00", "\ufffd", "[SEP]", " [SEP] ", "a" * 101, "a" * 100, "é" * 100, "e\u0301" * 60, "中" * 50, "\t\n<|startoftext|><|ENDOFTEXT|>", "embroidery.[CLS]!!!???...,,,;;;:::[CLS]—"]
strings += [text() for _ in range(arguments.count)]


def byte_level(prefix):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False))
    end, start = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(end, start, trim_offsets=True, add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    description = json.loads(tokenizer.to_str())
    for token in description["added_tokens"]:
        token["lstrip"] = token["content"] == "<mask>"
    return Tokenizer.from_str(json.dumps(description)), "RobertaTokenizer", "<pad>"


def word_piece(lowercase, strip_accents, chinese=True, sentence_ends=False):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    if sentence_ends:
        tokenizer.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    else:
        pair = "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS]:0 $A:0 [SEP]:0", pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer, "MPNetTokenizer" if sentence_ends else "BertTokenizer", "[PAD]"


def charsmap(name):
    """SentencePiece's rules of this name, or some of their kind: compositions, compatibility characters, blanks, controls that go away."""
    with tempfile.TemporaryDirectory() as folder:
        rules, lines = os.path.join(folder, "rules.tsv"), os.path.join(folder, "corpus.txt")
        keys = [chr(c) for c in [*range(0xFB00, 0xFB07), *range(0xFF01, 0xFFEF), *range(0x2460, 0x2480), *range(0x3300, 0x3310), *range(0xA0, 0x180), *range(0x1100, 0x1113)]]
        keys += [unicodedata.normalize("NFD", chr(c)) for c in [*range(0xC0, 0x180), *range(0xAC00, 0xAC80), *range(0x1EA0, 0x1EF0)]]
        mapping = {key: unicodedata.normalize("NFKC", key) for key in keys}
        mapping |= {c: " " for c in "\t\n\r\u00a0\u2003\u2028\u3000\u200b\u200d\ufeff\u2581"} | {c: "" for c in "\x01\x02\x0e\x1f\x7f"}
        codes = lambda text: " ".join(f"{ord(c):X}" for c in text)
        open(rules, "w").writelines(f"{codes(key)}\t{codes(value)}\n" for key, value in mapping.items() if key != value)
        open(lines, "w").write("\n".join(words))
        model = io.BytesIO()
        chosen = {"normalization_rule_name": name} if name else {"normalization_rule_tsv": rules}
        sentencepiece.SentencePieceTrainer.train(input=lines, model_writer=model, vocab_size=400, hard_vocab_limit=False, minloglevel=3, **chosen)
        return sentencepiece_model_pb2.ModelProto.FromString(model.getvalue()).normalizer_spec.precompiled_charsmap


def unigram(scheme, normalizer=normalizers.NFKC()):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizer, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(corpus, trainers.UnigramTrainer(vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False))
    pair = "<s> $A </s> </s> $B </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair=pair, special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, "XLMRobertaTokenizer", "<pad>"


made = {
    "byte-level": byte_level(True),
    "word-piece-cased": word_piece(False, None),
    "word-piece-accents": word_piece(True, False, sentence_ends=True),
    "unigram": unigram("first"),
    "sentencepiece": unigram("first", normalizers.Precompiled(charsmap(arguments.rules))),
}
for name, (tokenizer, kind, pad) in made.items():
    folder = os.path.join(arguments.out, name)
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"), pretty=False)
    json.dump({"tokenizer_class": kind, "model_max_length": 64, "pad_token": pad}, open(os.path.join(folder, "tokenizer_config.json"), "w"))
    # From the file, since reading rounds the scores.
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    expected = {"plain": [[text, tokenizer.encode(text).ids] for text in strings], "cut": [], "pairs": []}
    for length in (2, 7, 16, None):
        for side in ("right", "left") if length else ("right",):
            tokenizer.enable_truncation(length, direction=side) if length else tokenizer.no_truncation()
            settings = {"maxLength": length, "side": side}
            if length:
                expected["cut"].append({**settings, "rows": [[text, tokenizer.encode(text).ids] for text in strings[::9]]})
            if length != 2:
                encoded = [(a, b, tokenizer.encode(a, b)) for a, b in zip(strings[::13], strings[1::13])]
                expected["pairs"].append({**settings, "rows": [[a, b, e.ids, e.type_ids] for a, b, e in encoded]})
    json.dump(expected, open(os.path.join(folder, "expected.json"), "w"), ensure_ascii=True)
