// cosineTopK: the k best rows of a corpus for each query, without the matrix of scores.
//
// search_scan.cu goes through the corpus in slices and leaves for each query and slice a list of its best. Here the slices' lists are merged, what is kept
// is scored again in float64, sorted by that, and written. The lists hold some more entries than asked for, since the order by both kinds of sums differs where
// scores are within 1e-6 of each other. k beyond the longest list takes several passes over the corpus: each keeps the best of what is behind the last entry
// of the pass before.
//
// A score depends on query and row alone, and what is kept on the scores: neither the number of queries nor how the corpus is cut shows in the result.
#include "cuda/search.cuh"

namespace chiasma::cuda {

namespace {

// --- Workspace ---

constexpr int few_blocks = 1024, many_blocks = 512;  // that keep any GPU busy
constexpr int64_t least_slice = 1024;                // rows
constexpr int longest_list = 512;
constexpr int spare = 16;  // entries of a list beyond k

int64_t slices_of(const TopK& a, int query_tile, int blocks) {
  const int64_t most = ceil_div(a.rows, least_slice), wanted = ceil_div(blocks, ceil_div(a.query_count, query_tile));
  return most < 1 ? 1 : wanted < most ? wanted : most;
}

SearchWork work_of(const TopK& a) {
  SearchWork work{};
  work.padded_queries = round_up(a.query_count, many_queries);
  work.depth = round_up(a.columns, 64);
  work.list = warp_size;
  while (work.list < a.k + spare && work.list < longest_list) work.list *= 2;
  work.passes = static_cast<int>(ceil_div(a.k + spare, work.list));
  work.kept = work.list;
  while (work.kept < static_cast<int64_t>(work.passes) * work.list) work.kept *= 2;
  const bool few = a.query_count <= few_queries;
  work.query_tile = few ? few_queries : many_queries;
  work.query_tiles = static_cast<int>(ceil_div(a.query_count, work.query_tile));
  work.slices = slices_of(a, work.query_tile, few ? few_blocks : many_blocks);
  // Enough for fewer queries and rows as well: ceil(blocks / tiles) · tiles is below blocks + tiles.
  const int64_t most_slices = ceil_div(a.rows, least_slice) > 0 ? ceil_div(a.rows, least_slice) : 1;
  const int64_t few_lists = few_queries * (most_slices < few_blocks ? most_slices : few_blocks);
  const int64_t many_tiles = few ? 0 : work.query_tiles;
  const int64_t many_lists = many_queries * (many_tiles * most_slices < many_blocks + many_tiles ? many_tiles * most_slices : many_blocks + many_tiles);

  // A number, as there is no memory yet where only the bytes are asked for.
  const auto memory = reinterpret_cast<uintptr_t>(a.workspace);
  const auto take = [&](int64_t bytes) {
    const uintptr_t part = memory + static_cast<uintptr_t>(work.bytes);
    work.bytes += round_up(bytes, 256);
    return part;
  };
  work.directions = reinterpret_cast<float*>(take(a.query_count * a.columns * 4));
  work.scales = reinterpret_cast<float*>(take(a.query_count * 4));
  work.parts = reinterpret_cast<bf16*>(take(max_parts * work.padded_queries * work.depth * 2));
  work.lists = reinterpret_cast<Entry*>(take((few_lists > many_lists ? few_lists : many_lists) * work.list * 8));
  work.entries = reinterpret_cast<Entry*>(take(a.query_count * work.kept * 8));
  return work;
}

// --- From lists to results ---

constexpr int merge_warps = 8, merge_threads = merge_warps * warp_size;

// A block for each query: the best of its slices.
__global__ void __launch_bounds__(merge_threads) merge_kernel(TopK a, SearchWork work, int pass) {
  SMEM_DYN(shared, Entry);  // [merge_warps, list]
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const int64_t query = blockIdx.x;
  Entry* const own = shared + warp * work.list;
  for (int i = lane; i < work.list; i += warp_size) own[i] = no_entry;
  __syncwarp();
  const auto add = [&](const Entry* from) {
    for (int begin = 0; begin < work.list; begin += warp_size) {
      const Entry mine = from[begin + lane];
      if (__shfl_sync(full_warp, mine, 0) <= own[work.list - 1]) break;  // the best of what follows
      __syncwarp();
      merge_lanes(own, work.list, mine, lane);
    }
  };
  for (int64_t slice = warp; slice < work.slices; slice += merge_warps) add(work.lists + (query * work.slices + slice) * work.list);
  __syncthreads();
  if (warp > 0) return;
  for (int other = 1; other < merge_warps; ++other) add(shared + other * work.list);
  for (int i = lane; i < work.list; i += warp_size) work.entries[query * work.kept + static_cast<int64_t>(pass) * work.list + i] = own[i];
}

constexpr int64_t shared_entries = 1024;  // up to which a query's entries are sorted in shared memory

// A block for each query: its entries scored again, sorted and written.
template <class T>
__global__ void __launch_bounds__(merge_threads) finish_kernel(TopK a, SearchWork work) {
  SMEM_DYN(shared, Entry);
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const int64_t query = blockIdx.x;
  const int kept = static_cast<int>(work.kept);
  Entry* const found = work.entries + query * work.kept;
  Entry* const sorted = work.kept <= shared_entries ? shared : found;
  for (int i = warp; i < kept; i += merge_warps) {
    Entry entry = i < work.passes * work.list ? found[i] : no_entry;
    if (entry != no_entry) {
      const int32_t row = row_of(entry);
      entry = entry_of(warp_score<T>(a, work, query, row, lane), row);
    }
    __syncwarp();
    if (lane == 0) sorted[i] = entry;
  }
  for (int size = 2; size <= kept; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int pair = static_cast<int>(threadIdx.x); pair < kept / 2; pair += merge_threads) exchange(sorted, pair, stride, (pair * 2 & size) == 0);
    }
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < a.k; i += merge_threads) {
    const Entry entry = sorted[i];
    a.scores[query * a.scores_stride + i] = entry == no_entry ? -INFINITY : score_of(entry);
    a.indices[query * a.indices_stride + i] = entry == no_entry ? -1 : row_of(entry);
  }
}

// --- Launchers ---

template <class T>
cudaError_t launch_finish(const TopK& a, const SearchWork& work, cudaStream_t stream) {
  const size_t bytes = work.kept <= shared_entries ? static_cast<size_t>(work.kept) * sizeof(Entry) : 0;
  return LAUNCH((finish_kernel<T>), grid_of(a.query_count), merge_threads, bytes, stream, a, work);
}

}  // namespace

int64_t top_k_bytes(const TopK& a) { return work_of(a).bytes; }

cudaError_t launch_top_k(const TopK& a, cudaStream_t stream) {
  if (a.query_count == 0 || a.k == 0) return cudaSuccess;
  if (a.columns < 1 || a.k > 0x40000000 || a.rows > 0x7fffffff) return cudaErrorInvalidValue;
  const SearchWork work = work_of(a);
  cudaError_t error = launch_prepare_queries(a, work, stream);
  for (int pass = 0; pass < work.passes && error == cudaSuccess; ++pass) {
    error = launch_scan(a, work, pass, stream);
    if (error != cudaSuccess) break;
    error = LAUNCH(merge_kernel, grid_of(a.query_count), merge_threads, static_cast<size_t>(merge_warps * work.list) * sizeof(Entry), stream, a, work,
                   pass);
  }
  if (error != cudaSuccess) return error;
  switch (a.corpus.type) {
    case DType::float32:
      return launch_finish<float>(a, work, stream);
    case DType::bfloat16:
      return launch_finish<bf16>(a, work, stream);
    case DType::int8:
      return launch_finish<int8_t>(a, work, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace chiasma::cuda
