// Operands and attributes of the ops with many of them.
#include "core/op_specs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "core/checked.h"

namespace chiasma::core {

LinearSpec::LinearSpec(const KernelSpec& spec) {
  const Operands operands(spec, {"x", "weight*", "bias?", "residual?"});
  operands.floats(x);
  operands.weight(weight);
  columns = operands.input(weight).shape[0];
  inner = operands.input(weight).shape[1];
  rows = operands.input(x).rows();
  if (operands.input(x).rank < 1 || operands.input(x).columns() != inner) operands.refuse_shape(x, "[..., " + std::to_string(inner) + "]");
  operands.row(bias, columns);
  const TensorView& added = operands.input(residual);
  operands.floats(residual);
  if (added.present() && (added.rank < 1 || added.columns() != columns || added.rows() != rows)) {
    operands.refuse_shape(residual, std::to_string(rows) + " rows of " + std::to_string(columns));
  }
  operands.result_rows(rows, columns);
  activation = parse_choice(spec, "activation", {"none", "gelu", "quick_gelu", "gelu_tanh", "relu", "silu", "tanh"});
  spec.attributes.expect_only({"activation", "dtype"});
}

MatmulSpec::MatmulSpec(const KernelSpec& spec) {
  const Operands operands(spec, {"a", "b"});
  operands.floats(a);
  operands.floats(b);
  operands.rank(b, 2, "[N, K]");
  columns = operands.input(b).shape[0];
  inner = operands.input(b).shape[1];
  if (operands.input(a).rank != 2 || operands.input(a).shape[1] != inner) operands.refuse_shape(a, "[M, " + std::to_string(inner) + "]");
  product = operands.input(a).dtype == operands.input(b).dtype ? operands.input(a).dtype : DType::float32;
  operands.result_rows(operands.input(a).rows(), columns);
  scale = static_cast<float>(spec.attributes.number("scale"));
  spec.attributes.expect_only({"scale", "dtype"});
}

AttentionSpec::AttentionSpec(const KernelSpec& spec) {
  const Operands operands(spec, {"q", "k", "v", "cuSeqlensQ?", "cuSeqlensK?", "relativeBias?"});
  const Attributes& attributes = spec.attributes;
  attributes.expect_only({"heads", "kvHeads", "window", "scale", "causal", "queryLength", "keyLength", "dtype"});
  heads = attributes.integer("heads");
  kv_heads = attributes.integer("kvHeads", heads);
  window = attributes.integer("window", -1);
  scale = static_cast<float>(attributes.number("scale"));
  causal = attributes.boolean("causal", false);
  if (heads < 1) operands.refuse(ErrorCode::argument, "heads is " + std::to_string(heads) + "; expected at least 1");
  if (kv_heads < 1 || heads % kv_heads != 0) {
    operands.refuse(ErrorCode::argument, "kvHeads is " + std::to_string(kv_heads) + "; expected a divisor of heads, " + std::to_string(heads));
  }
  if (window < -1) operands.refuse(ErrorCode::argument, "window is " + std::to_string(window) + "; expected at least 0, or -1 for none");
  if (!std::isfinite(scale)) operands.refuse(ErrorCode::argument, "scale is not finite in float32");
  for (const size_t i : {q, k, v}) {
    operands.floats(i);
    operands.rank(i, 2, "[rows, heads · head size]");
  }
  const int64_t columns = operands.input(q).shape[1];
  if (columns < 1 || columns % heads != 0) operands.refuse_shape(q, "a multiple of " + std::to_string(heads) + " columns, a share for each head");
  head_size = columns / heads;
  const std::vector<int64_t> keys = {operands.input(k).shape[0], kv_heads * head_size};
  for (const size_t i : {k, v}) {
    if (operands.input(i).shape[0] != keys[0] || operands.input(i).shape[1] != keys[1]) operands.refuse_shape(i, text_of(keys));
  }
  operands.result({operands.input(q).shape[0], columns});
  query_length = check_sequences(operands, spec, lengths_q, q, "queryLength");
  key_length = check_sequences(operands, spec, lengths_k, k, "keyLength");
  operands.dtype(bias, {DType::float32});
  const TensorView& table = operands.input(bias);
  if (table.present() && (table.rank != 2 || table.shape[0] % 2 != 1 || table.shape[1] != heads)) {
    operands.refuse_shape(bias, "[2L − 1, " + std::to_string(heads) + "]");
  }
  if (query_length > 0 && key_length > 0) {
    const int64_t sequences = operands.input(q).shape[0] / query_length;
    if (sequences != keys[0] / key_length) {
      operands.refuse(ErrorCode::shape, "q has " + std::to_string(sequences) + " sequences, but k has " + std::to_string(keys[0] / key_length));
    }
  }
  const int64_t longest = std::max(query_length, key_length);
  if (table.present() && longest > (table.shape[0] + 1) / 2) {
    operands.refuse(ErrorCode::argument, "sequences have " + std::to_string(longest) + " rows, but relativeBias serves " +
                                             std::to_string((table.shape[0] + 1) / 2) + " at most");
  }
}

RotarySpec::RotarySpec(const KernelSpec& spec) {
  const Operands operands(spec, {"x", "table", "positions?"});
  operands.floats(x);
  operands.rank(x, 2, "[T, heads · head size]");
  operands.dtype(table, {DType::float32});
  operands.rank(table, 2, "[L, R]");
  operands.dtype(positions, {DType::int32});
  operands.rank(positions, 1, "[T]");
  spec.attributes.expect_only({"heads", "length", "dtype"});
  heads = spec.attributes.integer("heads");
  if (heads < 1) operands.refuse(ErrorCode::argument, "heads is " + std::to_string(heads) + "; expected at least 1");
  const int64_t rows = operands.input(x).shape[0], columns = operands.input(x).shape[1];
  if (columns < 1 || columns % heads != 0) operands.refuse_shape(x, "a multiple of " + std::to_string(heads) + " columns, a share for each head");
  head_size = columns / heads;
  rotated = operands.input(table).shape[1];
  if (rotated % 2 != 0 || rotated > head_size) operands.refuse_shape(table, "an even number of columns, at most " + std::to_string(head_size));
  length = spec.attributes.integer("length", 0);
  if (operands.input(positions).present()) {
    if (operands.input(positions).shape[0] != rows) operands.refuse_shape(positions, text_of({rows}));
    if (length != 0) operands.refuse(ErrorCode::argument, "positions and length are both given; expected one of them");
  } else {
    if (length < 1) operands.refuse(ErrorCode::argument, "length is " + std::to_string(length) + " and positions is absent; expected one of them");
    if (rows % length != 0) operands.refuse_shape(x, "a multiple of " + std::to_string(length) + " rows");
    if (operands.input(table).shape[0] > length) operands.refuse_shape(table, "at most " + std::to_string(length) + " rows");
  }
  operands.result_like(x);
}

PatchEmbedSpec::PatchEmbedSpec(const KernelSpec& spec) {
  const Operands operands(spec, {"pixels", "weight*", "bias?", "classToken?", "positionEmbedding?"});
  const TensorView& view = operands.input(pixels);
  operands.dtype(pixels, {DType::uint8, DType::float32});
  bytes = view.dtype == DType::uint8;
  if (view.rank != 4 || view.shape[bytes ? 3 : 1] != pixel_channels || !view.contiguous()) {
    operands.refuse_shape(pixels, bytes ? "[B, Y, X, 3], contiguous" : "[B, 3, Y, X], contiguous");
  }
  height = view.shape[bytes ? 1 : 2];
  width = view.shape[bytes ? 2 : 3];
  patch = spec.attributes.integer("patch");
  if (patch < 1 || patch > 1 << 12) operands.refuse(ErrorCode::argument, "patch is " + std::to_string(patch) + "; expected 1 to 4096");
  operands.floats(weight);
  features = operands.input(weight).shape[0];
  depth = pixel_channels * patch * patch;
  if (operands.input(weight).shape[1] != depth) operands.refuse_shape(weight, "[C, " + std::to_string(depth) + "]");
  down = height / patch;
  across = width / patch;
  operands.row(bias, features);
  operands.row(class_token, features);
  has_class_token = operands.input(class_token).present();
  const TensorView& positions = operands.input(position);
  operands.dtype(position, {DType::float32});
  if (positions.present() && (positions.rank != 2 || positions.shape[0] != tokens() || positions.shape[1] != features)) {
    operands.refuse_shape(position, "[" + std::to_string(tokens()) + ", " + std::to_string(features) + "]");
  }
  operands.result_rows(view.shape[0] * tokens(), features);
  rescale = spec.attributes.number("rescale");
  const std::vector<double> means = spec.attributes.numbers("mean"), deviations = spec.attributes.numbers("std");
  if (means.size() != pixel_channels || deviations.size() != pixel_channels) {
    operands.refuse(ErrorCode::argument, "mean and std have " + std::to_string(means.size()) + " and " + std::to_string(deviations.size()) +
                                             " numbers; expected 3 each");
  }
  for (size_t c = 0; c < pixel_channels; ++c) {
    mean[c] = static_cast<float>(means[c]);
    std[c] = static_cast<float>(deviations[c]);
  }
  spec.attributes.expect_only({"patch", "rescale", "mean", "std", "dtype"});
}

PrefixSpec::PrefixSpec(const KernelSpec& spec) : alone(spec.op == "repeatRows"), op_(spec.op) {
  const Operands operands = alone ? Operands(spec, {"table", "like", "cuSeqlens?"}) : Operands(spec, {"prefix", "x"});
  for (const size_t i : {table, x}) {
    operands.floats(i);
    operands.rank(i, 2, i == table ? "[L, C]" : "[T, C]");
  }
  const auto& of_table = operands.input(table).shape;
  const auto& of_x = operands.input(x).shape;
  head = of_table[0];
  if (alone) {
    length = check_sequences(operands, spec, lengths, x);
  } else {
    tail = length = spec.attributes.integer("length");
    if (length < 1 || of_x[0] % length != 0) operands.refuse(ErrorCode::argument, "length is " + std::to_string(length) + "; expected a divisor of " + std::to_string(of_x[0]));
    if (of_table[1] != of_x[1]) operands.refuse_shape(table, "[P, " + std::to_string(of_x[1]) + "]");
  }
  const int64_t sequences = count(operands.input(x), alone ? operands.input(lengths) : TensorView());
  each = !alone && spec.attributes.boolean("each", false);
  if (each) {
    if (sequences > 0 && head % sequences != 0) operands.refuse_shape(table, "as many rows for each of " + std::to_string(sequences) + " sequences");
    head /= std::max<int64_t>(sequences, 1);
  }
  operands.result({sequences * (head + tail), of_table[1]});
  if (alone) spec.attributes.expect_only({"length", "dtype"});
  if (!alone) spec.attributes.expect_only({"length", "each", "dtype"});
}

void PrefixSpec::check_run(const KernelArguments& arguments) const {
  const int64_t sequences = count(arguments.inputs[x], alone ? arguments.inputs[lengths] : TensorView());
  core::check_run(arguments.outputs[0].rows() == sequences * (head + tail), op_, "the sequences and the output have different counts");
  core::check_run(arguments.inputs[table].rows() == (each ? sequences : 1) * head, op_, "the prefix and the sequences have different counts");
}

WindowSpec::WindowSpec(const Operands& operands, const KernelSpec& spec, size_t x) {
  operands.floats(x);
  operands.rank(x, 2, "[S · height · width, C]");
  const TensorView& view = operands.input(x);
  constexpr int64_t most = 1 << 24;
  const auto side = [&](const char* name, double value, int64_t least) {
    if (!(value >= static_cast<double>(least)) || value > static_cast<double>(most) || value != std::floor(value)) {
      operands.refuse(ErrorCode::argument, std::string(name) + " is " + std::to_string(value) + "; expected an integer from " + std::to_string(least) + " to " + std::to_string(most));
    }
    return static_cast<int64_t>(value);
  };
  const auto sides = [&](const char* name, size_t count, int64_t least) {
    const std::vector<double> values = spec.attributes.numbers(name);
    if (values.size() != count) operands.refuse(ErrorCode::argument, std::string(name) + " has " + std::to_string(values.size()) + " numbers; expected " + std::to_string(count));
    std::vector<int64_t> whole;
    for (const double value : values) whole.push_back(side(name, value, least));
    return whole;
  };
  height = side("height", spec.attributes.number("height"), 1);
  width = side("width", spec.attributes.number("width"), 1);
  channels = view.shape[1];
  const std::vector<int64_t> kernel = sides("kernel", 2, 1), stride = sides("stride", 2, 1), padding = sides("padding", 4, 0);
  kernel_y = kernel[0];
  kernel_x = kernel[1];
  stride_y = stride[0];
  stride_x = stride[1];
  top = padding[0];
  left = padding[1];
  if (std::max(top, padding[2]) >= kernel_y || std::max(left, padding[3]) >= kernel_x) operands.refuse(ErrorCode::argument, "padding is not less than the kernel");
  if (height + top + padding[2] < kernel_y || width + left + padding[3] < kernel_x) operands.refuse(ErrorCode::shape, "pictures are smaller than the kernel");
  down = (height + top + padding[2] - kernel_y) / stride_y + 1;
  across = (width + left + padding[3] - kernel_x) / stride_x + 1;
  if (view.shape[0] % (height * width) != 0) operands.refuse_shape(x, "a multiple of " + std::to_string(height * width) + " rows");
}

WindowSpec::Window WindowSpec::window(int64_t row) const noexcept {
  const int64_t picture = row / windows(), within = row % windows();
  const int64_t y = within / across * stride_y - top, x = within % across * stride_x - left;  // of its first pixel, in the picture
  return {(picture * height + y) * width + x, std::max<int64_t>(-y, 0), std::min(kernel_y, height - y), std::max<int64_t>(-x, 0), std::min(kernel_x, width - x)};
}

namespace {

int parse_activation(const KernelSpec& spec) {
  return parse_choice(spec, "activation", {"none", "gelu", "quick_gelu", "gelu_tanh", "relu", "silu", "tanh"});
}

}  // namespace

ConvolutionSpec::ConvolutionSpec(const KernelSpec& spec) : windows(Operands(spec, {"x", "weight*", "bias?", "residual?"}), spec, x) {
  const Operands operands(spec, {"x", "weight*", "bias?", "residual?"});
  operands.floats(weight);
  features = operands.input(weight).shape[0];
  depth = operands.input(weight).shape[1];
  const std::optional<int64_t> expected = checked_size(windows.area(), windows.channels);
  if (depth != expected) operands.refuse_shape(weight, "[N, " + (expected ? std::to_string(*expected) : "more than fits") + "]");
  operands.row(bias, features);
  const int64_t rows = windows.rows_of(operands.input(x).rows());
  const TensorView& added = operands.input(residual);
  operands.floats(residual);
  if (added.present() && (added.rank != 2 || added.columns() != features || added.rows() != rows)) {
    operands.refuse_shape(residual, "[" + std::to_string(rows) + ", " + std::to_string(features) + "]");
  }
  operands.result({rows, features});
  activation = parse_activation(spec);
  spec.attributes.expect_only({"height", "width", "kernel", "stride", "padding", "activation", "dtype"});
}

DepthwiseSpec::DepthwiseSpec(const KernelSpec& spec) : windows(Operands(spec, {"x", "weight", "bias?"}), spec, x) {
  const Operands operands(spec, {"x", "weight", "bias?"});
  operands.dtype(weight, {DType::float32});
  const TensorView& taps = operands.input(weight);
  if (taps.rank != 2 || taps.shape[0] != windows.area() || taps.shape[1] != windows.channels) {
    operands.refuse_shape(weight, text_of({windows.area(), windows.channels}));
  }
  operands.row(bias, windows.channels);
  operands.result({windows.rows_of(operands.input(x).rows()), windows.channels});
  activation = parse_activation(spec);
  spec.attributes.expect_only({"height", "width", "kernel", "stride", "padding", "activation", "dtype"});
}

PoolWindowsSpec::PoolWindowsSpec(const KernelSpec& spec) : windows(Operands(spec, {"x"}), spec, 0) {
  const Operands operands(spec, {"x"});
  operands.result({windows.rows_of(operands.input(0).rows()), windows.channels});
  max = parse_choice(spec, "mode", {"mean", "max"}) == 1;
  spec.attributes.expect_only({"height", "width", "kernel", "stride", "padding", "mode", "dtype"});
}

ScaleSequencesSpec::ScaleSequencesSpec(const KernelSpec& spec) {
  const Operands operands(spec, {"x", "scale", "shift?"});
  operands.floats(x);
  operands.rank(x, 2, "[S · length, C]");
  const TensorView& rows = operands.input(x);
  length = spec.attributes.integer("length");
  if (length < 1 || rows.shape[0] % length != 0) operands.refuse(ErrorCode::argument, "length is " + std::to_string(length) + "; expected a divisor of " + std::to_string(rows.shape[0]));
  for (const size_t i : {scale, shift}) {
    const TensorView& view = operands.input(i);
    operands.dtype(i, {DType::float32});
    if (view.present() && (view.rank != 2 || view.shape[0] != rows.shape[0] / length || view.shape[1] != rows.shape[1])) {
      operands.refuse_shape(i, text_of({rows.shape[0] / length, rows.shape[1]}));
    }
  }
  operands.result_like(x);
  spec.attributes.expect_only({"length", "dtype"});
}

TopKSpec::TopKSpec(const KernelSpec& spec) {
  const Operands operands(spec, {"queries", "corpus", "inverseNorms?"}, 2);
  const TensorView& rows = operands.input(corpus);
  operands.floats(queries);
  operands.dtype(corpus, {DType::float32, DType::bfloat16, DType::int8});
  operands.rank(queries, 2, "[M, D]");
  operands.rank(corpus, 2, "[N, D]");
  columns = rows.shape[1];
  if (columns < 1 || operands.input(queries).shape[1] != columns) operands.refuse_shape(queries, "[M, " + std::to_string(columns) + "]");
  if (rows.shape[0] > std::numeric_limits<int32_t>::max()) operands.refuse_shape(corpus, "no more rows than int32 counts");
  operands.row(norms, rows.shape[0]);
  spec.attributes.expect_only({"k"});
  k = spec.attributes.integer("k");
  if (k < 1) operands.refuse(ErrorCode::argument, "k is " + std::to_string(k) + "; expected at least 1");
  for (const auto& [i, name, dtype] : {std::tuple(scores, "scores", DType::float32), std::tuple(indices, "indices", DType::int32)}) {
    const TensorView& view = operands.output(i);
    if (view.dtype != dtype) operands.refuse(ErrorCode::dtype, std::string(name) + " is " + name_of(view.dtype) + "; expected " + name_of(dtype));
    const std::vector<int64_t> shape = {operands.input(queries).shape[0], k};
    if (view.rank != 2 || view.shape[0] != shape[0] || view.shape[1] != k) {
      operands.refuse(ErrorCode::shape, std::string(name) + " is " + shape_text(view) + "; expected " + text_of(shape));
    }
  }
}

}  // namespace chiasma::core
