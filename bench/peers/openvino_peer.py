"""OpenVINO as a contender: f32, bf16, or int8 by a model that prepare.py quantised; one stream, or two with as many requests under way."""
import json
import numpy as np
import openvino as ov
from serve import batches_of, part_of, serve


def compile_model(job):
    precision = {'f32': ov.Type.f32, 'bf16': ov.Type.bf16, 'int8': ov.Type.bf16 if job.get('restBf16') else ov.Type.f32}[job['dtype']]
    config = {'INFERENCE_PRECISION_HINT': precision, 'NUM_STREAMS': job.get('streams', 1), 'INFERENCE_NUM_THREADS': job['threads']}
    return ov.Core().compile_model(job['ir'], 'CPU', config)


def image(job):
    compiled = compile_model(job)
    pixels = np.fromfile(job['file'], np.float32)[:job['batch'] * 3 * 224 * 224].reshape(job['batch'], 3, 224, 224)
    streams = job.get('streams', 1)
    queue = ov.AsyncInferQueue(compiled, streams)

    def run(turn):
        for _ in range(2 * streams):
            queue.start_async({0: pixels}, share_inputs=True)
        queue.wait_all()
        return 2 * streams * job['batch']

    return run, lambda: compiled({0: pixels})[0]


def captions(job):
    compiled = compile_model(job)
    texts = json.load(open(job['file']))

    def padded(some):
        ids = np.full((len(some), max(map(len, some))), 49407, np.int64)  # the model takes the first end token
        for row, caption in enumerate(some):
            ids[row, :len(caption)] = caption
        return ids

    batches = [padded(some) for some in batches_of(texts, 32)]
    queue = ov.AsyncInferQueue(compiled, job.get('streams', 1))

    def run(turn):
        for ids in batches:
            queue.start_async({0: ids}, share_inputs=True)
        queue.wait_all()
        return len(texts)

    return run, lambda: compiled({0: batches[0]})[0]


def sentences(job):
    from tokenizers import Tokenizer
    compiled = compile_model(job)
    tokenizer = Tokenizer.from_file(job['model'] + '/tokenizer.json')
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    lines = [json.loads(line) for line in open(job['file'])]
    texts = list(dict.fromkeys(text for line in lines for text in (line['a'], line['b'])))
    queue = ov.AsyncInferQueue(compiled, job.get('streams', 1))

    def embed(some):
        order = sorted(range(len(some)), key=lambda i: len(some[i]))
        results = np.empty((len(some), 384), np.float32)

        def place(request, given):
            rows, mask = given
            hidden = request.get_output_tensor(0).data
            sums = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            results[rows] = sums / np.linalg.norm(sums, axis=1, keepdims=True)

        queue.set_callback(place)
        for rows in batches_of(order, 32):
            encoded = tokenizer.encode_batch([some[i] for i in rows])
            ids = np.array([e.ids for e in encoded], np.int64)
            mask = np.array([e.attention_mask for e in encoded], np.int64)
            queue.start_async({'input_ids': ids, 'attention_mask': mask, 'token_type_ids': np.zeros_like(ids)}, (rows, mask))
        queue.wait_all()
        return results

    return lambda turn: len(embed(part_of(texts, job['parts'], turn))), lambda: embed(texts[:64])


def load(job):
    return (ov.__version__.split('-')[0], *{'image': image, 'captions': captions, 'sentences': sentences}[job['task']](job))


serve(load)
