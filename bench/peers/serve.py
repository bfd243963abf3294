"""The Python side of serve.mjs: the same requests and answers."""
import json, os, resource, sys, time

answers = os.fdopen(os.dup(1), 'w')  # libraries that print must not come between
os.dup2(2, 1)


def say(answer):
    answers.write(json.dumps(answer) + '\n')
    answers.flush()


def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def part_of(items, parts, turn):
    return items[turn % parts::parts] if parts > 1 else items


def batches_of(items, size):
    return [items[i:i + size] for i in range(0, len(items), size)]


def serve(load):
    """load(job) gives (version, run, outputs): run(round) -> items, outputs() -> float32 array [n, d]."""
    try:
        version, run, outputs = load(json.loads(sys.argv[1]))
        say({'ready': True, 'version': version})
        for line in sys.stdin:
            request = json.loads(line)
            if request['do'] == 'outputs':
                rows = outputs()
                rows.astype('float32').tofile(request['file'])
                say({'rows': rows.shape[0], 'columns': rows.shape[1]})
            else:
                began, used, items = time.perf_counter(), cpu(), 0
                for _ in range(request['repeats']):
                    items += run(request['round'])
                say({'seconds': time.perf_counter() - began, 'items': items, 'cpu': cpu() - used})
    except Exception:
        import traceback
        say({'error': traceback.format_exc()})
        sys.exit(1)
