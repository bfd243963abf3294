// The matrix multiply of gemm.h: how a block is cut, and the loops over its tiles.
#include "cpu/simd/gemm.h"

#include "cpu/simd/gemm_finish.h"
#include "cpu/simd/gemm_pack.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

template <bool dot>
Tile tile_of(GemmType weight_type, int64_t rows, int64_t vectors) {
  if (weight_type == GemmType::float32) return find_tile<Float32Step>(rows, vectors);
#if defined(CHIASMA_ISA_amx)
  if (weight_type == GemmType::int8) return rows > amx_side ? multiply_amx<true, true> : multiply_amx<true, false>;
  return rows > amx_side ? multiply_amx<false, true> : multiply_amx<false, false>;
#endif
  if (weight_type == GemmType::int8) return find_tile<ByteStep>(rows, vectors);
#if defined(CHIASMA_ISA_avx512_bf16)
  if (dot) return find_tile<DotStep>(rows, vectors);
#endif
  return find_tile<WidenedStep>(rows, vectors);
}

// Tiles that finish, for types that have products of their own and no tiles of AMX.
template <bool dot>
FinishingTiles finishing_tiles_of([[maybe_unused]] const GemmBlock& block, [[maybe_unused]] int64_t rows) {
#if defined(CHIASMA_VEC_512)
  const Finisher finisher = finisher_of(block);
  const Ending ending = ending_of(block);
  if (block.weight_type == GemmType::float32) return find_finishing<Float32Step, false>(rows, finisher, ending);
#if defined(CHIASMA_HAS_BYTE_DOT) && !defined(CHIASMA_ISA_amx)
  if (block.weight_type == GemmType::int8) return find_finishing<ByteDotStep, true>(rows, finisher, ending);
#endif
#if defined(CHIASMA_ISA_avx512_bf16)
  if (dot && block.weight_type == GemmType::bfloat16) return find_finishing<DotStep, false>(rows, finisher, ending);
#endif
#endif
  return {};
}

// A panel of W is taken in pieces of so many bytes, but for tiles of AMX, which fetch what they need in time, and the sums of their tiles wait in
// scratch for the next piece. A tile reads its panel fast enough from the second-level cache, and its ends cost more than that. What is widened
// stays in the first.
#if defined(CHIASMA_VEC_256)
constexpr int64_t piece_bytes = 48 << 10, widened_piece_bytes = piece_bytes;
#else
constexpr int64_t piece_bytes = 144 << 10, widened_piece_bytes = 36 << 10;
#endif
constexpr int64_t wide_size = widened_piece_bytes / sizeof(float) * 4;  // a piece of bytes, widened
// Tiles of fewer groups finish themselves, if they can; of still fewer no gelu in halves fits beside the products.
constexpr int64_t short_groups = 32, least_groups = 12;
// From so many row panels on a piece of pairs or bytes is widened once for all of them.
constexpr int64_t widen_from = 8;

// How a block is cut: its rows into panels, the depth into pieces, the pieces into as many `blocks` as let x's part of one stay in the second-level
// cache, W's panels into runs for which a block is finished before the next one begins.
struct Cuts {
  int64_t groups, row_panels, pieces, blocks, run;
};

// Whether there are products of this type; else they are those of floats, or of pairs of int16.
template <bool dot>
constexpr bool has_arithmetic(GemmType type) {
  return type == GemmType::int8 ? has_byte_dot : dot || type == GemmType::float32;
}

template <bool dot>
Cuts cuts_of(int64_t rows, int64_t k, GemmType type, int64_t block_bytes) {
  const Geometry geometry = geometry_of(type);
  Cuts cuts;
  cuts.groups = groups_of<dot>(k, type);
  cuts.row_panels = (rows + geometry.rows - 1) / geometry.rows;
  cuts.pieces = cuts.blocks = cuts.run = 1;
  if (cuts.row_panels <= 1 || cuts.groups == 0) return cuts;  // a single row panel reads W as it lies
  int64_t panel_bytes = panel_depth(k, type) * geometry.columns * 4;
  if (bytes_per_word == 2 && type == GemmType::int8) panel_bytes *= 2;  // as pairs
#if defined(CHIASMA_ISA_amx)
  if (type != GemmType::float32) panel_bytes = 0;
#endif
  const int64_t most = has_arithmetic<dot>(type) ? piece_bytes : widened_piece_bytes;
  cuts.pieces = panel_bytes > 0 ? smaller((panel_bytes + most - 1) / most, cuts.groups) : 1;
  cuts.blocks = smaller((rows * cuts.groups * geometry.group * 4 + block_bytes - 1) / block_bytes, panel_bytes > 0 ? cuts.pieces : cuts.groups);
  cuts.pieces = round_up(cuts.pieces, cuts.blocks);
  if (cuts.blocks > 1) {
    const int64_t run = block_bytes / (cuts.row_panels * geometry.rows * geometry.columns * 4);
    cuts.run = run > 1 ? run : 1;
  }
  return cuts;
}

template <bool dot>
size_t scratch_bytes(int64_t rows, int64_t k, GemmType type, int64_t block_bytes) {
  const Geometry geometry = geometry_of(type);
  const Cuts cuts = cuts_of<dot>(rows, k, type, block_bytes);
  // A run's sums take block_bytes at most, or what one panel of C needs; fewer rows never need more.
  const int64_t panel_sums = cuts.row_panels * geometry.rows * geometry.columns;
  const int64_t run_sums = cuts.blocks > 1 ? block_bytes / static_cast<int64_t>(sizeof(float)) : 0;
  return static_cast<size_t>(wide_size + (panel_sums > run_sums ? panel_sums : run_sums)) * sizeof(float);
}

template <bool dot>
void multiply(const GemmBlock& block) {
  const Geometry geometry = geometry_of(block.weight_type);
  const Cuts cuts = cuts_of<dot>(block.rows, block.k, block.weight_type, block.block_bytes);
  const int64_t depth = panel_depth(block.k, block.weight_type);
  const int64_t words = cuts.groups > 0 ? depth / cuts.groups : 0;  // of W's panel in a group, for each column
  const bool bytes = block.weight_type == GemmType::int8;
  const bool widen = !has_arithmetic<dot>(block.weight_type) && cuts.row_panels >= widen_from;
  const Finish finish = bytes ? finish_of<true>(block) : finish_of<false>(block);
  ByteScales scales{};
  if (bytes) {
    scales.columns = static_cast<const float*>(block.weight) + round_up(block.n, geometry.columns) * depth;
    scales.column_sums = reinterpret_cast<const int32_t*>(scales.columns + round_up(block.n, geometry.columns));
  }
  float* const wide = static_cast<float*>(block.scratch);
  const int64_t group_lines = words * geometry.columns / line_floats;  // of a panel of W
  const auto piece_begin = [&](int64_t piece) { return piece * cuts.groups / cuts.pieces; };
  const auto w_at = [&](int64_t p, int64_t piece) {
    return static_cast<const float*>(block.weight) + p * depth * geometry.columns + piece_begin(piece) * words * geometry.columns;
  };

  // Panels of two sizes at most, first the greater: a change of tile is a branch that the processor does not foresee.
  const int64_t panel_rows = cuts.row_panels > 0 ? block.rows / cuts.row_panels : 0, more = block.rows - cuts.row_panels * panel_rows;
  const auto even_begin = [&](int64_t i) { return i * panel_rows + smaller(i, more); };
#if defined(CHIASMA_ISA_amx)
  // Tiles are the cheaper the fewer rows they have.
  const bool amx = block.weight_type != GemmType::float32;
  const auto row_begin = [&](int64_t i) { return amx ? smaller(i * amx_rows, block.rows) : even_begin(i); };
  int64_t configured = 0;  // rows
#else
  const auto& row_begin = even_begin;
  constexpr bool amx = false;
#endif
  Unfinished unfinished{&block, finish, scales, nullptr, 0, 0, 0, 0};
  // Where sums wait for no other piece, one tile's place is enough: it is read by the time that the next tile's sums come.
  const int64_t sums_step = cuts.pieces > 1 ? geometry.rows * geometry.columns : 0;

  const char* upcoming = static_cast<const char*>(block.upcoming);
  const char* const upcoming_end = upcoming + block.upcoming_bytes;
  const int64_t all_groups = (block.panel_end - block.panel_begin) * cuts.row_panels * cuts.groups;
  const int64_t upcoming_lines = all_groups > 0 ? round_up(block.upcoming_bytes, all_groups * 64) / (all_groups * 64) : 0;  // in a group

  // The tiles for so many rows and vectors, found anew only where these change.
  struct {
    int64_t rows, vectors;
    Tile tile;
    FinishingTiles finishing;  // one of them at most
  } choice{};
  const auto choose = [&](int64_t rows, int64_t vectors) {
    const Tile tile = !widen  ? tile_of<dot>(block.weight_type, rows, vectors)
                      : bytes ? find_tile<WideByteStep>(rows, vectors)
                              : find_tile<Float32Step>(rows, vectors);
    FinishingTiles finishing{};
    if (vectors == tile_vectors && !widen && !block.hits && cuts.groups > 0) finishing = finishing_tiles_of<dot>(block, rows);
    if (cuts.groups < (finishing.whole ? short_groups : least_groups)) {
      finishing.beside = nullptr;
    } else {
      finishing.whole = nullptr;
    }
    choice = {rows, vectors, tile, finishing};
  };

  // The tiles of one piece.
  const auto multiply_piece = [&](int64_t p, int64_t piece, float* sums, const float* next) {
    const bool last = piece + 1 == cuts.pieces;
    const int64_t column = p * geometry.columns, columns = smaller(geometry.columns, block.n - column);
    const int64_t vectors = (columns + Vec::lanes - 1) / Vec::lanes;
    TileWork work;
    work.w = w_at(p, piece);
    work.groups = piece_begin(piece + 1) - piece_begin(piece);
    work.fresh = piece == 0;
    work.x_pitch = block.x_pitch / static_cast<int64_t>(sizeof(float));
    const int64_t lines = (group_lines + cuts.row_panels - 1) / cuts.row_panels;
    if (widen) {
      bytes ? widen_panel<ByteStep>(work.w, work.groups, wide) : widen_panel<WidenedStep>(work.w, work.groups, wide);
      work.w = wide;
    }
    for (int64_t i = 0; i < cuts.row_panels; ++i, sums += sums_step) {
      const int64_t row = row_begin(i), rows = row_begin(i + 1) - row;
      const char* const x = static_cast<const char*>(block.x) + row * block.x_pitch;
      work.x = reinterpret_cast<const float*>(x) + piece_begin(piece) * geometry.group;
      work.sums = sums;
      const bool fetch = next && i * lines < group_lines;
      work.ahead = fetch ? next + i * work.groups * lines * line_floats : work.x;
      work.ahead_lines = fetch ? lines : 0;
      if (upcoming < upcoming_end) {
        work.ahead = reinterpret_cast<const float*>(upcoming);
        work.ahead_lines = upcoming_lines;
        upcoming += work.groups * upcoming_lines * line_floats * 4;
      }
#if defined(CHIASMA_ISA_amx)
      const bool again = i + 1 < cuts.row_panels;
      work.next_x = again ? work.x + rows * work.x_pitch : static_cast<const float*>(block.x) + piece_begin(piece) * geometry.group;
      work.next_w = again ? work.w : w_at(p + 1, piece);
      if (amx && rows != configured) amx_configure(configured = rows);
#endif
      if (rows != choice.rows || vectors != choice.vectors) choose(rows, vectors);
      scales.rows = x + cuts.groups * geometry.group * 4;
      Tile tile = choice.tile;
      if (unfinished.rows > 0 && !(amx && cuts.groups > 0)) {
        if (choice.finishing.beside && unfinished.columns == tile_columns) {
          tile = choice.finishing.beside;
        } else {
          unfinished.run(0, unfinished.rows);
          unfinished.rows = 0;
        }
      }
      const bool whole = last && choice.finishing.whole && columns == tile_columns;
      if (whole) {
        unfinished.scales = scales, unfinished.row = row, unfinished.rows = rows, unfinished.column = column;
        tile = choice.finishing.whole;
      }
      work.aside = {Unfinished::run_aside, &unfinished, unfinished.rows};
      tile(work);
      unfinished.rows = 0;
      if (!last || whole) continue;
      unfinished.scales = scales, unfinished.sums = sums, unfinished.row = row, unfinished.rows = rows;
      unfinished.column = column, unfinished.columns = columns;
    }
  };

  for (int64_t run = block.panel_begin; run < block.panel_end; run += cuts.run) {
    const int64_t run_end = smaller(run + cuts.run, block.panel_end);
    for (int64_t b = 0; b < cuts.blocks; ++b) {
      const int64_t begin = b * cuts.pieces / cuts.blocks, end = (b + 1) * cuts.pieces / cuts.blocks;
      for (int64_t p = run; p < run_end; ++p) {
        float* const sums = wide + wide_size + (p - run) * cuts.row_panels * geometry.rows * geometry.columns;
        for (int64_t piece = begin; piece < end; ++piece) {
          // What comes after it: the panel's next piece, the block's in the next panel, the next block's, the next run's.
          const float* next = w_at(p, piece + 1);
          if (cuts.row_panels == 1) {
            next = w_at(p, 0) + stream_ahead;
          } else if (piece + 1 == end) {
            next = p + 1 < run_end ? w_at(p + 1, begin) : b + 1 < cuts.blocks ? w_at(run, end) : run_end < block.panel_end ? w_at(run_end, 0) : nullptr;
          }
          multiply_piece(p, piece, sums, next);
        }
      }
    }
  }
  if (unfinished.rows > 0) unfinished.run(0, unfinished.rows);
#if defined(CHIASMA_ISA_amx)
  if (configured > 0) _tile_release();
#endif
}

template <bool dot>
constexpr GemmFunctions functions(const GemmFunctions* widened) {
  return {panel_columns, row_unit, dot, widened, weight_bytes, pack_weight, row_bytes<dot>, as_is<dot>, pack_rows<dot>, scratch_bytes<dot>, multiply<dot>};
}

#if defined(CHIASMA_ISA_avx512_bf16)
constexpr GemmFunctions widened_functions = functions<false>(nullptr);
constexpr const GemmFunctions* widened = &widened_functions;
#else
constexpr const GemmFunctions* widened = nullptr;
#endif

}  // namespace

const GemmFunctions gemm_functions = functions<has_dot>(widened);

}  // namespace chiasma::cpu::CHIASMA_ISA
