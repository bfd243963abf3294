// Tensors read by ranges from files and memory, with and without strides, and weights loaded through a device.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <vector>

#include "core/file.h"
#include "core/tensor_reader.h"
#include "core/weight_loader.h"
#include "cpu/cpu_device.h"
#include "fake_device.h"
#include "test.h"

namespace {

using namespace chiasma::core;
using chiasma::test::FakeDevice;

// A file of a test's own, deleted with it.
class Scratch {
 public:
  explicit Scratch(size_t bytes) {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() / ("chiasma-test-" + std::to_string(std::random_device{}()) + "-" + std::to_string(count++));
    std::vector<char> data(bytes);
    for (size_t i = 0; i + 3 < bytes; i += 4) {
      const auto value = static_cast<float>(i / 4);
      std::memcpy(data.data() + i, &value, 4);
    }
    std::ofstream(path_, std::ios::binary).write(data.data(), static_cast<std::streamsize>(bytes));
  }
  ~Scratch() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }
  void resize(size_t bytes) const { std::filesystem::resize_file(path_, bytes); }

 private:
  std::filesystem::path path_;
};

std::shared_ptr<std::atomic<size_t>> no_usage() { return std::make_shared<std::atomic<size_t>>(0); }

FileSource source(const Scratch& file, std::vector<int64_t> shape, std::vector<int64_t> strides = {}, int64_t offset = 0, DType dtype = DType::float32) {
  return {file.path(), offset, dtype, std::move(shape), std::move(strides)};
}

std::vector<float> loaded(Weights& weights, size_t i) {
  int64_t n = 1;
  for (const int64_t dim : weights.shapes()[i].shape) n *= dim;
  std::vector<float> values(static_cast<size_t>(n));
  std::memcpy(values.data(), weights.memory(i), values.size() * 4);
  return values;
}

TEST("reader: strided tensors in any pieces") {
  std::mt19937 random(3);
  std::vector<float> storage(size_t{1} << 21);
  for (size_t i = 0; i < storage.size(); ++i) storage[i] = static_cast<float>(i);
  int64_t reads = 0, largest = 0;
  const auto read = [&](int64_t offset, void* target, size_t bytes) {
    ++reads;
    largest = std::max(largest, static_cast<int64_t>(bytes));
    CHECK(offset >= 0 && static_cast<size_t>(offset) + bytes <= storage.size() * 4);
    std::memcpy(target, reinterpret_cast<const char*>(storage.data()) + offset, bytes);
  };
  struct Layout {
    std::vector<int64_t> shape, strides;
  };
  const std::vector<Layout> layouts = {
      {{5, 7}, {1, 5}},                        // transposed
      {{1000, 1100}, {1, 1000}},               // transposed, larger than a piece
      {{3, 4, 5, 6}, {120, 1, 24, 4}},         // channels last
      {{10, 3}, {100, 1}},                     // columns of something wider
      {{10, 3}, {0, 1}},                       // one row, repeated
      {{4, 1, 6}, {6, 999, 1}},                // a stride that does not matter
      {{30, 2}, {40000, 20000}},               // sparse
      {{600, 1000}, {1000, 1}},                // row-major after all
      {{0, 3}, {3, 1}},
      {{7}, {11}},
      {{2, 700000}, {700000, 1}},
      {{300000, 2}, {1, 300000}},
  };
  for (const Layout& layout : layouts) {
    NOTE("layout " + std::to_string(&layout - layouts.data()));
    largest = 0;
    TensorReader reader(DType::float32, layout.shape, layout.strides, read);
    const int64_t size = reader.size();
    std::vector<float> expected(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) {
      int64_t rest = i, at = 0;
      for (size_t d = layout.shape.size(); d-- > 0;) {
        at += rest % layout.shape[d] * layout.strides[d];
        rest /= layout.shape[d];
      }
      expected[static_cast<size_t>(i)] = storage[static_cast<size_t>(at)];
    }
    std::vector<float> got(static_cast<size_t>(size) + 1, -1);
    for (int64_t begin = 0; begin < size;) {
      const int64_t count = std::min<int64_t>(size - begin, 1 + static_cast<int64_t>(random() % static_cast<uint32_t>(size)));
      reader.read(begin, count, got.data() + begin);
      begin += count;
      CHECK(got[static_cast<size_t>(begin)] == -1);
    }
    got.pop_back();
    CHECK(got == expected);
    const bool row_major = layout.shape.size() == 2 && layout.strides == std::vector<int64_t>{layout.shape[1], 1};
    CHECK(row_major || largest <= 1 << 20);  // row-major ones are read straight into the caller's memory
  }
  TensorReader transposed(DType::float32, {1000, 1100}, {1, 1000}, read);
  std::vector<float> block(1000 * 1100);
  reads = 0;
  transposed.read(0, 1000 * 1100, block.data());
  CHECK(reads <= 8);

  CHECK_THROWS(ErrorCode::argument, TensorReader(DType::float32, {2, 3}, {3}, read));
  CHECK_THROWS(ErrorCode::argument, TensorReader(DType::float32, {2, 3}, {-3, 1}, read));
  CHECK_THROWS(ErrorCode::argument, TensorReader(DType::float32, {2, 3}, {int64_t{1} << 60, 1}, read));
  CHECK_THROWS(ErrorCode::shape, TensorReader(DType::float32, {int64_t{1} << 40, int64_t{1} << 40}, {}, read));
}

TEST("file: ranges, and what is not there") {
  const Scratch scratch(1000);
  const File file(scratch.path());
  CHECK(file.size() == 1000);
  float value = 0;
  file.read(40, &value, 4);
  CHECK(value == 10);
  CHECK_THROWS(ErrorCode::checkpoint, file.read(998, &value, 4));
  CHECK_THROWS(ErrorCode::checkpoint, file.read(5000, &value, 4));
  CHECK_THROWS(ErrorCode::checkpoint, File(scratch.path() + "-absent"));
  CHECK_THROWS(ErrorCode::checkpoint, File(std::filesystem::temp_directory_path().string()).size());
  try {
    File(scratch.path() + "-absent");
  } catch (const Error& error) {
    CHECK(error.file() == scratch.path() + "-absent");
    CHECK(std::string(error.what()).find(error.file()) != std::string::npos);
  }
}

TEST("weights: files and memory, plain and transposed") {
  const Scratch file(4 * 1000);
  const auto device = std::make_shared<FakeDevice>();
  const auto usage = no_usage();
  HostSource host;
  host.dtype = DType::float32;
  host.data.resize(8);
  const float given[] = {5, 6};
  std::memcpy(host.data.data(), given, 8);
  std::vector<WeightRequest> requests = {{{"a", Layout::plain, DType::float32, {3, 2}}, source(file, {3, 2}, {}, 40)},
                                         {{"b", Layout::plain, DType::float32, {3, 2}}, source(file, {3, 2}, {1, 3}, 40)},
                                         {{"c", Layout::plain, DType::float32, {6}}, source(file, {3, 2}, {1, 3}, 40)},
                                         {{"d", Layout::plain, DType::float32, {2}}, host},
                                         {{"e", Layout::plain, DType::float32, {}}, source(file, {1}, {}, 8)}};
  uint64_t last = 0, total = 0;
  {
    const auto weights = load_weights(device, usage, requests, {}, [&](uint64_t done, uint64_t all) {
      CHECK(done >= last && done <= all);
      last = done;
      total = all;
    });
    CHECK(loaded(*weights, 0) == std::vector<float>({10, 11, 12, 13, 14, 15}));
    CHECK(loaded(*weights, 1) == std::vector<float>({10, 13, 11, 14, 12, 15}));
    CHECK(loaded(*weights, 2) == std::vector<float>({10, 13, 11, 14, 12, 15}));
    CHECK(loaded(*weights, 3) == std::vector<float>({5, 6}));
    CHECK(loaded(*weights, 4) == std::vector<float>({2}));
    CHECK(total == 3 * 24 + 8 + 4 && last == total);
    CHECK(weights->bytes() == total && *usage == total);
  }
  CHECK(device->allocated == 0 && *usage == 0);
}

TEST("weights: what cannot be loaded takes no memory") {
  const Scratch file(4 * 1000);
  const auto device = std::make_shared<FakeDevice>();
  const auto refused = [&](ErrorCode code, WeightShape shape, FileSource from) {
    const std::vector<WeightRequest> requests = {{{"first", Layout::plain, DType::float32, {10}}, source(file, {10})}, {std::move(shape), std::move(from)}};
    CHECK_THROWS(code, load_weights(device, no_usage(), requests, {}, nullptr));
    CHECK(device->allocated == 0);
  };
  const WeightShape ten = {"w", Layout::plain, DType::float32, {10}};
  refused(ErrorCode::checkpoint, ten, source(file, {10}, {}, 3961));
  refused(ErrorCode::checkpoint, ten, source(file, {10}, {}, -1));
  refused(ErrorCode::checkpoint, ten, source(file, {10}, {}, int64_t{1} << 60));
  refused(ErrorCode::checkpoint, ten, source(file, {10}, {200}));
  refused(ErrorCode::checkpoint, {"w", Layout::plain, DType::float32, {int64_t{1} << 38}}, source(file, {int64_t{1} << 38}));
  refused(ErrorCode::shape, ten, source(file, {11}));
  refused(ErrorCode::shape, {"w", Layout::plain, DType::float32, {int64_t{1} << 40, int64_t{1} << 40}}, source(file, {10}));
  refused(ErrorCode::shape, {"w", Layout::linear, DType::float32, {10}}, source(file, {10}));
  refused(ErrorCode::dtype, {"w", Layout::linear, DType::float16, {2, 5}}, source(file, {2, 5}));
  refused(ErrorCode::dtype, {"w", Layout::plain, DType::int32, {10}}, source(file, {10}));
  refused(ErrorCode::dtype, ten, source(file, {10}, {}, 0, DType::int32));
  refused(ErrorCode::dtype, {"w", Layout::plain, DType::int8, {10}}, source(file, {10}, {}, 0, DType::int32));
  FileSource absent = source(file, {10});
  absent.file += "-absent";
  refused(ErrorCode::checkpoint, ten, absent);
  device->limit = 50;
  refused(ErrorCode::out_of_memory, ten, source(file, {10}));
}

TEST("weights: a file that shrinks while it is read is an error, and loading can be stopped") {
  const Scratch file(4 * 1000);
  const auto device = std::make_shared<FakeDevice>();
  const std::vector<WeightRequest> requests = {{{"a", Layout::plain, DType::float32, {10}}, source(file, {10})},
                                               {{"b", Layout::plain, DType::float32, {990}}, source(file, {990}, {}, 40)}};
  Task task;
  CHECK_THROWS(ErrorCode::aborted, load_weights(device, no_usage(), requests, Stop(&task, nullptr), [&](uint64_t, uint64_t) { task.cancel(); }));
  CHECK(device->allocated == 0);
  CHECK_THROWS(ErrorCode::checkpoint, load_weights(device, no_usage(), requests, {}, [&](uint64_t, uint64_t) { file.resize(2000); }));
  CHECK(device->allocated == 0);
}

TEST("weights: stored types on the CPU") {
  const std::vector<float> values = {1, -2.5f, 3.14159f, 65504, 1e-7f, 0};
  const auto bytes_of = [](const auto& data) {
    const auto* begin = reinterpret_cast<const char*>(data.data());
    return std::vector<char>(begin, begin + data.size() * sizeof(data[0]));
  };
  const std::shared_ptr<Device> device = chiasma::cpu::open_device("", 1);
  for (const DType to : {DType::float32, DType::bfloat16, DType::float16}) {
    for (const DType from : {DType::float32, DType::bfloat16, DType::float16}) {
      std::vector<float> rounded = values;
      HostSource host;
      host.dtype = from;
      if (from == DType::float32) {
        host.data = bytes_of(values);
      } else {
        std::vector<uint16_t> bits;
        for (float& value : rounded) {
          bits.push_back(from == DType::bfloat16 ? f32_to_bf16(value) : f32_to_f16(value));
          value = from == DType::bfloat16 ? bf16_to_f32(bits.back()) : f16_to_f32(bits.back());
        }
        host.data = bytes_of(bits);
      }
      const auto weights = load_weights(device, no_usage(), {{{"w", Layout::plain, to, {2, 3}}, host}}, {}, nullptr);
      for (size_t i = 0; i < values.size(); ++i) {
        if (to == DType::float32) {
          CHECK(static_cast<const float*>(weights->memory(0))[i] == rounded[i]);
        } else {
          const uint16_t bits = static_cast<const uint16_t*>(weights->memory(0))[i];
          CHECK(bits == (to == DType::bfloat16 ? f32_to_bf16(rounded[i]) : f32_to_f16(rounded[i])));
        }
      }
    }
  }
  HostSource ids;
  ids.dtype = DType::int64;
  ids.data = bytes_of(std::vector<int64_t>{1, -2, 2147483647});
  const auto narrowed = load_weights(device, no_usage(), {{{"ids", Layout::plain, DType::int32, {3}}, ids}}, {}, nullptr);
  CHECK(static_cast<const int32_t*>(narrowed->memory(0))[1] == -2);
  ids.data = bytes_of(std::vector<int64_t>{1, -2, 2147483648});
  CHECK_THROWS(ErrorCode::checkpoint, load_weights(device, no_usage(), {{{"ids", Layout::plain, DType::int32, {3}}, ids}}, {}, nullptr));
  ids.data.pop_back();
  CHECK_THROWS(ErrorCode::argument, load_weights(device, no_usage(), {{{"ids", Layout::plain, DType::int32, {3}}, ids}}, {}, nullptr));
}

}  // namespace
