#include "cuda/sim/shadow.h"

#include <algorithm>

namespace chiasma::sim {

namespace {

const char code_base = 0;

int32_t code_offset(const void* code) { return static_cast<int32_t>(reinterpret_cast<intptr_t>(code) - reinterpret_cast<intptr_t>(&code_base)); }
const void* code_at(int32_t offset) { return &code_base + offset; }

}  // namespace

void Shadow::reset(int threads, size_t bytes) {
  threads_ = threads;
  interval_ = 1;
  clocks_active_ = false;
  cells_.assign((bytes + 1) / 2, Cell{});
}

void Shadow::start_interval() {
  ++interval_;
  clocks_active_ = false;
}

void Shadow::activate_clocks() {
  if (clocks_active_) return;
  clocks_active_ = true;
  clocks_.assign(static_cast<size_t>(threads_) * threads_, 0);
  for (int t = 0; t < threads_; ++t) clocks_[static_cast<size_t>(t * threads_ + t)] = 1;
}

void Shadow::release(int thread, Clock& clock) {
  activate_clocks();
  uint32_t* const own = clocks_.data() + static_cast<size_t>(thread) * threads_;
  clock.resize(static_cast<size_t>(threads_), 0);
  for (int t = 0; t < threads_; ++t) clock[t] = std::max(clock[t], own[t]);
  ++own[thread];
}

void Shadow::acquire(int thread, const Clock& clock) {
  activate_clocks();
  uint32_t* const own = clocks_.data() + static_cast<size_t>(thread) * threads_;
  for (size_t t = 0; t < clock.size(); ++t) {
    if (static_cast<int>(t) != thread) own[t] = std::max(own[t], clock[t]);
  }
}

Conflict Shadow::access(const Access& access, size_t offset, size_t bytes) {
  Conflict conflict;
  const int32_t code = code_offset(access.code);
  const size_t end = std::min(offset + bytes, cells_.size() * 2);
  const auto clash = [&](const Slot& slot) {
    conflict.found = true;
    conflict.earlier = {slot.thread, slot.kind, code_at(slot.code)};
  };
  for (size_t at = offset; at < end;) {
    Cell& cell = cells_[at / 2];
    const uint8_t mask = at % 2 ? 2 : at + 1 < end ? 3 : 1;
    at += mask == 3 ? 2 : 1;
    if (cell.interval != interval_) {
      cell.interval = interval_;
      cell.writer.thread = cell.readers[0].thread = cell.readers[1].thread = -1;
    }
    if (cell.copier >= 0 && !(access.kind == AccessKind::copy_end && cell.copier == access.thread)) {
      conflict.found = conflict.in_flight = true;
      conflict.earlier = {cell.copier, AccessKind::copy_start, code_at(cell.copy_code)};
      return conflict;
    }
    const Slot mine{own_clock(access.thread), code, static_cast<int16_t>(access.thread), mask, access.kind};
    const bool both_atomic = access.kind == AccessKind::atomic && cell.writer.kind == AccessKind::atomic;
    if ((cell.writer.bytes & mask) && !both_atomic && !ordered(cell.writer, access.thread)) {
      clash(cell.writer);
      return conflict;
    }
    if (access.kind == AccessKind::read) {
      for (Slot& reader : cell.readers) {
        if (!ordered(reader, access.thread)) continue;
        const uint8_t before = reader.thread == access.thread ? reader.bytes : 0;
        reader = mine;
        reader.bytes |= before;
        break;
      }
      continue;
    }
    for (const Slot& reader : cell.readers) {
      if ((reader.bytes & mask) && !ordered(reader, access.thread)) {
        clash(reader);
        return conflict;
      }
    }
    cell.writer = mine;
    cell.copier = access.kind == AccessKind::copy_start ? static_cast<int16_t>(access.thread) : int16_t{-1};
    if (access.kind == AccessKind::copy_start) cell.copy_code = code;
  }
  return conflict;
}

}  // namespace chiasma::sim
