"""PyTorch beside chiasma: the same calls and models, in the same run, on the same card. One line of JSON for each figure.

    torch_bench.py kernels CASES OUT [--device cuda] [--seconds N]     calls of bench/cuda-cases.mjs, top-k, and what the card can do
    torch_bench.py models FOLDER OUT [--tiny] [--device cuda] [--seconds N]   random CLIP and ViT: checkpoints, inputs and float32 references into
                                                                         FOLDER for models.mjs, and the time of bf16 eager and torch.compile

Numbers are independent and normal. Calls go through several sets of tensors, larger than the L2 cache together, as a CUDA graph; medians of 21.
"""
import argparse, json, os, statistics, sys, time

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("what", choices=["kernels", "models"])
parser.add_argument("input")
parser.add_argument("out")
parser.add_argument("--device", default="cuda")
parser.add_argument("--seconds", type=float, default=1e9)
parser.add_argument("--tiny", action="store_true")
args = parser.parse_args()
started = time.monotonic()
cuda = args.device == "cuda"
device = torch.device(args.device)
torch.manual_seed(1)
out = open(args.out, "w")
failures = 0


def left():
    return args.seconds - (time.monotonic() - started)


def emit(**figures):
    out.write(json.dumps(figures) + "\n")
    out.flush()


def failed(what, error):
    global failures
    failures += 1
    print(f"{what}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", file=sys.stderr, flush=True)


def synchronize():
    if cuda:
        torch.cuda.synchronize()


def spread(times):
    times = sorted(times)
    part = lambda share: times[round(share * (len(times) - 1))]
    return {"microseconds": part(0.5), "low": part(0.1), "high": part(0.9)}


def measure(calls, batch_seconds=2e-3):
    """Microseconds of one call; `calls` do the same on different tensors."""
    for call in calls:
        call()
    synchronize()
    if not cuda:
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            for call in calls:
                call()
            times.append((time.perf_counter() - begin) / len(calls) * 1e6)
        return spread(times)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def once(run):
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e3

    all_of_them = lambda: [call() for call in calls] and None
    once(all_of_them)
    rounds = int(min(200, max(1, batch_seconds * 1e6 / max(once(all_of_them), 0.1))))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        all_of_them()
    synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            all_of_them()
    once(graph.replay)
    times = [once(graph.replay) / rounds / len(calls) for _ in range(21)]
    del graph
    return spread(times)


def sets_for(size):
    """Sets of tensors of `size` bytes that three L2 caches cannot hold."""
    if not cuda:
        return 2
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return min(64, max(1, -(-3 * cache // max(1, int(size))))) + 1


def normal(*shape, dtype=torch.bfloat16, scale=1.0):
    return (torch.randn(*shape, device=device) * scale).to(dtype)


types = {"f32": torch.float32, "bf16": torch.bfloat16}


# --- Calls ---

def gemm(v, size):
    rows, columns, inner = int(v["rows"]), int(v["columns"]), int(v["inner"])
    residual, period, target = v["residual"] == "1", int(v["period"]), types[v["out"]]
    n = sets_for(size)
    tensors = [(normal(rows, inner), normal(columns, inner, scale=inner**-0.5), normal(columns), normal(min(period, rows), columns, dtype=torch.float32) if residual else None) for _ in range(n)]
    activation = {"none": lambda x: x, "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x), "gelu": F.gelu}[v["activation"]]

    def whole(x, w, b, r):
        y = activation(F.linear(x, w, b))
        return y.to(target) if r is None else (y.view(-1, r.shape[0], columns) + r if rows % r.shape[0] == 0 else y + r)

    yield "cuBLAS, bias alone", [lambda t=t: F.linear(*t[:3]) for t in tensors]
    if residual or v["activation"] != "none" or target != torch.bfloat16:
        yield "eager, with all of it", [lambda t=t: whole(*t) for t in tensors]
        if cuda and left() > 60:
            compiled = torch.compile(whole, dynamic=False)
            yield "torch.compile, with all of it", [lambda t=t: compiled(*t) for t in tensors]


def attention(v, size):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    count, length, heads, head, causal = (int(v[name]) for name in ("sequences", "tokens", "heads", "headSize", "causal"))
    tensors = [[normal(count, length, heads, head).transpose(1, 2) for _ in range(3)] for _ in range(sets_for(size))]

    def with_backend(backend):
        def call(t):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(*t, is_causal=bool(causal))
        return [lambda t=t: call(t) for t in tensors]

    for name in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"):
        yield f"sdpa {name.split('_')[0].lower()}", with_backend(getattr(SDPBackend, name))


def layer_norm(v, size):
    rows, columns = int(v["rows"]), int(v["columns"])
    tensors = [(normal(rows, columns, dtype=types[v["from"]]), normal(columns, dtype=torch.float32), normal(columns, dtype=torch.float32)) for _ in range(sets_for(size))]
    norm = lambda x, w, b: F.layer_norm(x, (columns,), w, b, 1e-5).to(types[v["to"]])
    yield "eager", [lambda t=t: norm(*t) for t in tensors]
    if cuda and left() > 60:
        compiled = torch.compile(norm, dynamic=False)
        yield "torch.compile", [lambda t=t: compiled(*t) for t in tensors]


def patchify(v, size):
    pictures, side, patch, inner = (int(v[name]) for name in ("pictures", "side", "patch", "inner"))
    mean, std = normal(3, 1, 1, dtype=torch.float32), normal(3, 1, 1, dtype=torch.float32) + 5
    tensors = [torch.randint(0, 256, (pictures, side, side, 3), dtype=torch.uint8, device=device) for _ in range(sets_for(size))]

    def call(x):
        y = ((x.permute(0, 3, 1, 2).float() / 255 - mean) / std).to(torch.bfloat16)
        n = side // patch
        return y[:, :, : n * patch, : n * patch].reshape(pictures, 3, n, patch, n, patch).permute(0, 2, 4, 1, 3, 5).reshape(pictures * n * n, 3 * patch * patch)

    yield "eager", [lambda t=t: call(t) for t in tensors]
    if cuda and left() > 60:
        compiled = torch.compile(call, dynamic=False)
        yield "torch.compile", [lambda t=t: compiled(t) for t in tensors]


def row_calls(op):
    def calls(v, size):
        rows, columns = int(v["rows"]), int(v["columns"])
        n = sets_for(size)
        if op == "gather":
            tables = [(torch.randint(0, int(v["table"]), (rows,), device=device), normal(int(v["table"]), columns, dtype=torch.float32)) for _ in range(min(n, 4))]
            yield "eager", [lambda t=t: F.embedding(*t) for t in tables]
        elif op == "add":
            pairs = [(normal(rows // int(v["period"]), int(v["period"]), columns, dtype=torch.float32), normal(int(v["period"]), columns, dtype=torch.float32)) for _ in range(n)]
            yield "eager", [lambda t=t: t[0] + t[1] for t in pairs]
        elif op == "pickToken":
            streams = [normal(rows, int(v["tokens"]), columns, dtype=torch.float32) for _ in range(n)]
            yield "eager", [lambda t=t: t[:, 0].to(torch.bfloat16) for t in streams]
        else:
            streams = [normal(rows, columns, dtype=torch.float32) for _ in range(n)]
            yield "eager", [lambda t=t: F.normalize(t, dim=-1) for t in streams]
    return calls


def top_k(v, size):
    queries, rows, columns, k = (int(v[name]) for name in ("queries", "rows", "columns", "k"))
    unit = lambda count: F.normalize(normal(count, columns, dtype=torch.float32), dim=-1).to(torch.bfloat16)
    sets = [(unit(queries), unit(rows)) for _ in range(sets_for(size))]
    yield "matmul and topk", [lambda t=t: torch.topk(t[0] @ t[1].T, min(k, rows)) for t in sets]


makers = {"topK": top_k, "gemm": gemm, "attention": attention, "layerNorm": layer_norm, "patchify": patchify, **{op: row_calls(op) for op in ("gather", "add", "pickToken", "l2Normalize")}}


def ceilings():
    """What the card does at best: a large copy and a large product."""
    megabytes, side = (2048, 8192) if cuda else (8, 256)
    source, target = (torch.empty(megabytes << 20, dtype=torch.uint8, device=device).random_() for _ in range(2))
    copied = measure([lambda: target.copy_(source)])
    emit(ceiling="copy", bytes_per_second=2 * source.numel() / copied["microseconds"] * 1e6)
    del source, target
    a, b = normal(side, side), normal(side, side)
    product = measure([lambda: a @ b])
    emit(ceiling="product", flops_per_second=2 * side**3 / product["microseconds"] * 1e6)


def kernels():
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = False
    try:
        ceilings()
    except Exception as error:
        failed("ceilings", error)
    seen = {}
    for line in open(args.input):
        model, name, flops, size, call = line.rstrip("\n").split("\t")
        if left() < 10:
            failed(f"{model}, {name}", TimeoutError("no time left"))
            continue
        op, *pairs = call.split()
        if op == "attentionRing":  # the call before, by our other kernel
            continue
        try:
            if call not in seen:
                seen[call] = {}
                for variant, calls in makers[op](dict(pair.split("=") for pair in pairs), float(size)):
                    try:
                        with torch.inference_mode():
                            seen[call][variant] = measure(calls)
                    except Exception as error:
                        # A backend may refuse a shape: it is left out of the table, and that is said.
                        print(f"{model}, {name}, {variant}: {type(error).__name__}: {str(error).splitlines()[0][:200]}", file=sys.stderr, flush=True)
            for variant, figures in seen[call].items():
                emit(model=model, name=name, variant=variant, **figures)
        except Exception as error:
            failed(f"{model}, {name}", error)
        if cuda:
            torch.cuda.empty_cache()


# --- Models ---

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def configurations():
    from transformers import CLIPTextConfig, CLIPVisionConfig, ViTConfig
    if args.tiny:
        small = dict(hidden_size=64, intermediate_size=128, num_attention_heads=2, num_hidden_layers=2, hidden_act="quick_gelu", projection_dim=32)
        yield "ViT-B/32", 4, CLIPVisionConfig(**small, image_size=32, patch_size=16)
        yield "CLIP text", 4, CLIPTextConfig(**small, vocab_size=100, max_position_embeddings=12, eos_token_id=99, bos_token_id=98, pad_token_id=99)
        yield "ViT-B/16 (ViT)", 4, ViTConfig(hidden_size=64, intermediate_size=128, num_attention_heads=2, num_hidden_layers=2, image_size=32, patch_size=16)
        return
    vision = lambda width, layers, patch, projection: CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_attention_heads=width // 64, num_hidden_layers=layers, hidden_act="quick_gelu", image_size=224, patch_size=patch, projection_dim=projection)
    yield "ViT-B/32", 256, vision(768, 12, 32, 512)
    yield "CLIP text", 256, CLIPTextConfig(hidden_size=512, intermediate_size=2048, num_attention_heads=8, num_hidden_layers=12, projection_dim=512, eos_token_id=49407)
    yield "ViT-B/16 (ViT)", 256, ViTConfig()
    yield "ViT-L/14", 256, vision(1024, 24, 14, 768)


def one_model(name, batch, config):
    from transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection, ViTModel
    kind = {"clip_vision_model": CLIPVisionModelWithProjection, "clip_text_model": CLIPTextModelWithProjection, "vit": ViTModel}[config.model_type]
    model = (ViTModel(config, add_pooling_layer=False) if kind is ViTModel else kind(config)).eval().to(device)
    folder = os.path.join(args.input, name.replace("/", "-").replace(" ", "-").replace("(", "").replace(")", ""))
    os.makedirs(folder, exist_ok=True)
    model.save_pretrained(folder)
    text = config.model_type == "clip_text_model"
    if text:
        length = config.max_position_embeddings
        ids = torch.randint(0, config.eos_token_id - 1, (batch, length))
        ids[:, -1] = config.eos_token_id
        host = ids.to(torch.int32)
        run = lambda m, x: m(input_ids=x.long()).text_embeds
    else:
        side = config.image_size
        host = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
        clip = kind is not ViTModel
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in ((MEAN, STD) if clip else ([0.5] * 3, [0.5] * 3)))
        processor = {"image_processor_type": "CLIPImageProcessor" if clip else "ViTImageProcessor", "size": {"height": side, "width": side}, "crop_size": {"height": side, "width": side}}
        if clip:
            processor |= {"image_mean": MEAN, "image_std": STD}
        with open(os.path.join(folder, "preprocessor_config.json"), "w") as file:
            json.dump(processor, file)

        def run(m, x):
            y = (x.permute(0, 3, 1, 2).float() / 255 - mean) / std
            y = y.to(next(m.parameters()).dtype)
            return m(pixel_values=y).image_embeds if clip else m(pixel_values=y).last_hidden_state[:, 0]

    few = min(batch, 8)
    with torch.inference_mode():
        reference = F.normalize(run(model, host[:few].to(device)).float(), dim=-1).cpu()
    host.numpy().tofile(os.path.join(folder, "inputs.bin"))
    reference.numpy().tofile(os.path.join(folder, "reference.bin"))
    with open(os.path.join(folder, "case.json"), "w") as file:
        json.dump({"name": name, "kind": "text" if text else "image", "shape": list(host.shape), "reference": list(reference.shape)}, file)

    model = model.to(torch.bfloat16)
    on_device = host.to(device)
    pinned = host.pin_memory() if cuda else host

    def from_host(call):
        return lambda: F.normalize(call(pinned.to(device, non_blocking=True)).float(), dim=-1).cpu()

    def wall(call):
        for _ in range(2):
            call()
        synchronize()
        times = []
        for _ in range(15 if cuda else 2):
            begin = time.perf_counter()
            call()
            synchronize()
            times.append((time.perf_counter() - begin) * 1e6)
        return spread(times)

    with torch.inference_mode():
        eager = lambda x: run(model, x)
        emit(model=name, batch=batch, variant="eager, on the device", **wall(lambda: eager(on_device)))
        emit(model=name, batch=batch, variant="eager, from and to the host", **wall(from_host(eager)))
        if left() < (45 if cuda else 5):
            raise TimeoutError("no time left for torch.compile")
        compiled = torch.compile(eager, dynamic=False)
        emit(model=name, batch=batch, variant="torch.compile, on the device", **wall(lambda: compiled(on_device)))
        emit(model=name, batch=batch, variant="torch.compile, from and to the host", **wall(from_host(compiled)))
        if cuda and left() > 30:
            for label, one in (("eager", eager), ("torch.compile with CUDA graphs", torch.compile(lambda x: run(model, x), dynamic=False, mode="reduce-overhead"))):
                emit(model=name, batch=1, variant=f"{label}, from and to the host", **wall(lambda: F.normalize(one(pinned[:1].to(device)).float(), dim=-1).cpu()))


def models():
    for name, batch, config in configurations():
        if left() < 10:
            failed(name, TimeoutError("no time left"))
            continue
        try:
            one_model(name, batch, config)
        except Exception as error:
            failed(name, error)
        if cuda:
            torch.cuda.empty_cache()


emit(torch=torch.__version__, device=torch.cuda.get_device_name(0) if cuda else "cpu")
kernels() if args.what == "kernels" else models()
sys.exit(1 if failures else 0)
