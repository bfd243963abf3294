"""Makes what the peers load: the checkpoints with their ONNX files, dynamic int8 for onnxruntime, OpenVINO's models and their calibrated int8.

  prepare.py SHARED OUT      # SHARED has tools/, models/, tokenizers/ and data/; each file is made once
"""
import gzip, json, os, subprocess, sys
import numpy as np

shared, out = sys.argv[1:3]
clip, minilm = os.path.join(out, 'clip-vit-base-patch32'), os.path.join(out, 'all-minilm-l6-v2')


def tool(name, *arguments):
    subprocess.run([sys.executable, os.path.join(shared, 'tools', name), *arguments], check=True)


def clip_tokenizer():
    """CLIP's vocabulary from the list of merges it was published as: bytes, bytes that end a word, merges, the two special tokens."""
    lines = gzip.open(os.path.join(shared, 'tokenizers/clip/bpe_simple_vocab_16e6.txt.gz'), 'rt', encoding='utf-8').read().split('\n')
    merges = lines[1:49152 - 256 - 2 + 1]
    printable = [*range(ord('!'), ord('~') + 1), *range(ord('¡'), ord('¬') + 1), *range(ord('®'), ord('ÿ') + 1)]
    units = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = units + [unit + '</w>' for unit in units] + [merge.replace(' ', '') for merge in merges] + ['<|startoftext|>', '<|endoftext|>']
    with open(os.path.join(clip, 'vocab.json'), 'w') as file:
        json.dump({word: i for i, word in enumerate(words)}, file, ensure_ascii=False)
    with open(os.path.join(clip, 'merges.txt'), 'w') as file:
        file.write('\n'.join([lines[0], *merges]) + '\n')
    with open(os.path.join(clip, 'tokenizer_config.json'), 'w') as file:
        json.dump({'tokenizer_class': 'CLIPTokenizer', 'model_max_length': 77, 'bos_token': '<|startoftext|>', 'eos_token': '<|endoftext|>', 'pad_token': '<|endoftext|>', 'unk_token': '<|endoftext|>'}, file)


def onnx_int8(folder, name):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    target = os.path.join(folder, 'onnx', f'{name}_quantized.onnx')
    if not os.path.exists(target):
        quantize_dynamic(os.path.join(folder, 'onnx', f'{name}.onnx'), target, weight_type=QuantType.QUInt8, extra_options={'MatMulConstBOnly': True})


def openvino_models(folder, name, samples):
    """name.xml in f32 and name-int8.xml calibrated by NNCF on `samples`."""
    import nncf
    import openvino as ov
    source, plain, quantised = (os.path.join(folder, 'onnx', f'{name}{ending}') for ending in ('.onnx', '.xml', '-int8.xml'))
    if os.path.exists(quantised):
        return
    model = ov.Core().read_model(source)
    ov.save_model(model, plain, compress_to_fp16=False)
    calibrated = nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))
    ov.save_model(calibrated, quantised, compress_to_fp16=False)


if not os.path.exists(os.path.join(clip, 'merges.txt')):
    tool('make_clip_checkpoint.py', clip)
    clip_tokenizer()
if not os.path.exists(os.path.join(minilm, 'onnx/model_quantized.onnx')):
    tool('export_minilm_onnx.py', os.path.join(shared, 'models/all-minilm-l6-v2'), minilm)
for name in ('vision_model', 'text_model'):
    onnx_int8(clip, name)
random = np.random.default_rng(0)
openvino_models(clip, 'vision_model', [random.standard_normal((4, 3, 224, 224), np.float32) for _ in range(16)])
captions = random.integers(0, 49406, (16, 8, 24))
captions[..., 0], captions[..., -1] = 49406, 49407
openvino_models(clip, 'text_model', list(captions))
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(os.path.join(minilm, 'tokenizer.json'))
tokenizer.no_padding()
texts = [json.loads(line)['a'] for line in open(os.path.join(shared, 'data/sts/dev.jsonl'))][:128]
encoded = [np.array([tokenizer.encode(text).ids], np.int64) for text in texts]
openvino_models(minilm, 'model', [{'input_ids': ids, 'attention_mask': np.ones_like(ids), 'token_type_ids': np.zeros_like(ids)} for ids in encoded])
