// Strided tensors are read in pieces of storage: dimensions are taken from the largest stride down until what is left lies densely enough
// to be read in one go, and its elements are then put in place. A transposed matrix costs one read for each piece of a row of its storage.
#include "core/tensor_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/checked.h"
#include "core/error.h"

namespace chiasma::core {

namespace {

constexpr int64_t piece_bytes = int64_t{1} << 20;

int64_t span_of(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  std::optional<int64_t> span = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 0) return 0;
    if (span) span = checked_size(shape[i] - 1, strides[i], *span);
  }
  if (!span) throw Error(ErrorCode::argument, "strides " + text_of(strides) + " of shape " + text_of(shape) + " reach too far");
  return *span;
}

template <size_t size>
void copy_strided(const char* source, int64_t from, char* target, int64_t to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(target + i * to * static_cast<int64_t>(size), source + i * from * static_cast<int64_t>(size), size);
}

}  // namespace

TensorReader::TensorReader(DType dtype, std::vector<int64_t> shape, std::vector<int64_t> strides, StorageReader read)
    : dtype_(dtype), element_(size_of(dtype)), shape_(std::move(shape)), strides_(std::move(strides)), read_(std::move(read)) {
  const auto size = checked_elements(shape_);
  if (!size) throw Error(ErrorCode::shape, text_of(shape_) + " is no possible shape");
  size_ = *size;
  if (strides_.empty()) {
    span_ = size_;
    return;
  }
  if (strides_.size() != shape_.size()) {
    throw Error(ErrorCode::argument, "strides " + text_of(strides_) + " do not fit the shape " + text_of(shape_));
  }
  for (const int64_t stride : strides_) {
    if (stride < 0) throw Error(ErrorCode::argument, "stride " + std::to_string(stride) + " is negative");
  }
  span_ = span_of(shape_, strides_);
  int64_t row_major = 1;
  bool plain = true;
  for (size_t i = shape_.size(); i-- > 0;) {
    plain = plain && (shape_[i] <= 1 || strides_[i] == row_major);
    row_major *= shape_[i];
  }
  if (plain) strides_.clear();
}

void TensorReader::read(int64_t begin, int64_t count, void* target) {
  if (begin < 0 || count < 0 || begin > size_ || count > size_ - begin) throw Error(ErrorCode::internal, "a tensor is read past its end");
  if (count == 0) return;
  if (strides_.empty()) {
    read_(begin * static_cast<int64_t>(element_), target, static_cast<size_t>(count) * element_);
  } else {
    read_strided(begin, count, static_cast<char*>(target));
  }
}

// Splits the range into blocks that are whole along every dimension but one.
void TensorReader::read_strided(int64_t begin, int64_t count, char* target) {
  const size_t rank = shape_.size();
  std::vector<int64_t> inner(rank + 1, 1);  // elements of one index of each dimension, row-major
  for (size_t i = rank; i-- > 0;) inner[i] = inner[i + 1] * shape_[i];
  while (count > 0) {
    // The outermost dimension at which the range begins with a whole index and has one.
    size_t d = 0;
    while (begin % inner[d + 1] != 0 || count < inner[d + 1]) ++d;
    const int64_t index = begin / inner[d + 1] % shape_[d];
    const int64_t indices = std::min(count / inner[d + 1], shape_[d] - index);
    int64_t offset = 0;
    for (size_t i = 0; i < rank; ++i) offset += begin / inner[i + 1] % shape_[i] * (i <= d ? strides_[i] : 0);
    std::vector<Dim> dims = {{indices, strides_[d], inner[d + 1]}};
    for (size_t i = d + 1; i < rank; ++i) dims.push_back({shape_[i], strides_[i], inner[i + 1]});
    std::erase_if(dims, [](const Dim& dim) { return dim.size == 1; });
    std::stable_sort(dims.begin(), dims.end(), [](const Dim& a, const Dim& b) { return a.stride > b.stride; });
    gather(dims.data(), dims.size(), offset, target);
    const int64_t done = indices * inner[d + 1];
    begin += done;
    count -= done;
    target += static_cast<size_t>(done) * element_;
  }
}

// dims: by stride, largest first.
void TensorReader::gather(const Dim* dims, size_t rank, int64_t offset, char* target) {
  const auto size = static_cast<int64_t>(element_);
  int64_t elements = 1, span = 1;
  for (size_t i = 0; i < rank; ++i) {
    elements *= dims[i].size;
    span += (dims[i].size - 1) * dims[i].stride;
  }
  if (span * size <= piece_bytes && (span <= 8 * elements || span * size <= 4096)) {
    piece_.resize(static_cast<size_t>(span * size));
    read_(offset * size, piece_.data(), piece_.size());
    scatter(dims, rank, piece_.data(), target);
    return;
  }
  // Too wide or too sparse: halve the outermost dimension while that helps, else go through it.
  Dim outer = dims[0];
  const int64_t dense = std::max<int64_t>(1, (piece_bytes / size - (span - (outer.size - 1) * outer.stride)) / std::max<int64_t>(outer.stride, 1));
  const bool in_pieces = span <= 8 * elements && dense > 1;
  const int64_t step = in_pieces ? std::min(dense, outer.size) : 1;
  std::vector<Dim> rest(dims, dims + rank);
  for (int64_t i = 0; i < outer.size; i += step) {
    const int64_t n = std::min(step, outer.size - i);
    rest[0].size = n;
    const bool single = n == 1;
    gather(rest.data() + (single ? 1 : 0), rank - (single ? 1 : 0), offset + i * outer.stride, target + static_cast<size_t>(i * outer.target) * element_);
  }
}

void TensorReader::scatter(const Dim* dims, size_t rank, const char* source, char* target) const {
  if (rank == 0) {
    std::memcpy(target, source, element_);
  } else if (rank == 1) {
    scatter_row(dims[0], source, target);
  } else {
    const auto from = static_cast<size_t>(dims[0].stride) * element_;
    const auto to = static_cast<size_t>(dims[0].target) * element_;
    for (int64_t i = 0; i < dims[0].size; ++i) {
      scatter(dims + 1, rank - 1, source + static_cast<size_t>(i) * from, target + static_cast<size_t>(i) * to);
    }
  }
}

void TensorReader::scatter_row(const Dim& dim, const char* source, char* target) const {
  switch (element_) {
    case 1:
      return copy_strided<1>(source, dim.stride, target, dim.target, dim.size);
    case 2:
      return copy_strided<2>(source, dim.stride, target, dim.target, dim.size);
    case 4:
      return copy_strided<4>(source, dim.stride, target, dim.target, dim.size);
    default:
      return copy_strided<8>(source, dim.stride, target, dim.target, dim.size);
  }
}

}  // namespace chiasma::core
