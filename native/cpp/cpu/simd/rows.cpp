// The table of row functions of one instruction set.
#include "cpu/simd/rows.h"

namespace chiasma::cpu::CHIASMA_ISA {

const RowFunctions row_functions = {
    .layer_norm = layer_norm_rows,
    .rms_norm = rms_norm_rows,
    .l2_normalize = l2_normalize_rows,
    .softmax = softmax_rows,
    .unary = unary_rows,
    .binary = binary_rows,
    .convert = convert_rows,
    .rotate = rotate_row,
    .pool = pool_rows,
    .depthwise = depthwise_row,
    .pool_window = pool_window_row,
    .scale = scale_rows,
};

}  // namespace chiasma::cpu::CHIASMA_ISA
