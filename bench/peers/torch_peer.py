"""PyTorch as a contender: the image tower compiled with its weights frozen; matrix product and topk as a search; sentence-transformers."""
import json
import numpy as np
import torch
from serve import part_of, serve

types = {'f32': torch.float32, 'bf16': torch.bfloat16}


def image(job):
    from transformers import CLIPVisionModelWithProjection
    import torch._inductor.config as inductor
    inductor.freezing = True
    model = CLIPVisionModelWithProjection.from_pretrained(job['model'], dtype=types[job['dtype']]).eval()
    pixels = torch.from_numpy(np.fromfile(job['file'], np.float32)[:job['batch'] * 3 * 224 * 224].reshape(job['batch'], 3, 224, 224)).to(types[job['dtype']])
    embed = torch.compile(lambda x: model(pixel_values=x).image_embeds)
    for _ in range(2):
        embed(pixels)

    def run(turn):
        embed(pixels)
        return job['batch']

    return run, lambda: embed(pixels).float().numpy()


def search(job):
    def stored(file, count=None):
        rows = torch.from_numpy(np.fromfile(file, np.float32).reshape(-1, job['dimensions'])[:count])
        if job['dtype'] != 'int8':
            return rows.to(types[job['dtype']]), None
        scale = rows.abs().amax(1, keepdim=True) / 127
        return (rows / scale).round().to(torch.int8), scale

    corpus, scales = stored(job['corpus'])
    queries, _ = stored(job['queries'], job['count'])
    corpus = corpus.t().contiguous() if job['dtype'] == 'int8' else corpus.t()
    # _int_mm takes no single row
    rows = max(job['count'], 17) if job['dtype'] == 'int8' else job['count']
    queries = torch.nn.functional.pad(queries, (0, 0, 0, rows - job['count']))

    def find():
        scores = torch._int_mm(queries, corpus) * scales.t() if job['dtype'] == 'int8' else queries @ corpus
        return torch.topk(scores[:job['count']], 10).indices

    return lambda turn: len(find()), lambda: find().float().numpy()


def sentences(job):
    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(job['model'], device='cpu', model_kwargs={'dtype': types[job['dtype']]})
    lines = [json.loads(line) for line in open(job['file'])]
    texts = list(dict.fromkeys(text for line in lines for text in (line['a'], line['b'])))
    embed = lambda some: model.encode(some, batch_size=32, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
    return lambda turn: len(embed(part_of(texts, job['parts'], turn))), lambda: embed(texts[:64])


def load(job):
    torch.set_num_threads(job['threads'])
    torch.set_grad_enabled(False)
    version = torch.__version__
    if job['task'] == 'sentences':
        import sentence_transformers
        version = sentence_transformers.__version__
    return (version, *{'image': image, 'search': search, 'sentences': sentences}[job['task']](job))


serve(load)
