"""FAISS as a contender: a flat index, or a scalar quantiser of 16-bit floats or bytes."""
import faiss
import numpy as np
from serve import serve


def load(job):
    faiss.omp_set_num_threads(job['threads'])
    columns = job['dimensions']
    kinds = {'bf16': faiss.ScalarQuantizer.QT_bf16, 'int8': faiss.ScalarQuantizer.QT_8bit}
    index = faiss.IndexFlatIP(columns) if job['dtype'] == 'f32' else faiss.IndexScalarQuantizer(columns, kinds[job['dtype']], faiss.METRIC_INNER_PRODUCT)
    corpus = np.fromfile(job['corpus'], np.float32).reshape(-1, columns)
    index.train(corpus)
    index.add(corpus)
    queries = np.fromfile(job['queries'], np.float32).reshape(-1, columns)[:job['count']]
    return faiss.__version__, lambda turn: len(index.search(queries, 10)[1]), lambda: index.search(queries, 10)[1].astype(np.float32)


serve(load)
