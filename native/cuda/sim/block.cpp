#include "cuda/sim/block.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "cuda/sim/code_place.h"

namespace chiasma::sim {

namespace {

// A fiber never moves to another system thread, so both are constant between two switches.
thread_local Thread* running_thread = nullptr;
thread_local BlockRunner* running_block = nullptr;
thread_local bool kernel_runs = false;

std::string hex_mask(uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

std::string index_text(Index index) { return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")"; }

const char* verb_of(AccessKind kind) {
  switch (kind) {
    case AccessKind::read: return "reads";
    case AccessKind::write: return "writes";
    case AccessKind::atomic: return "changes";
    case AccessKind::copy_start: return "starts an asynchronous copy to";
    case AccessKind::copy_end: return "ends an asynchronous copy to";
  }
  return "";
}

const char* past_of(AccessKind kind) {
  switch (kind) {
    case AccessKind::read: return "read";
    case AccessKind::write: return "wrote";
    case AccessKind::atomic: return "changed";
    default: return "copied to";
  }
}

constexpr uint32_t bit(int lane) { return uint32_t{1} << lane; }

}  // namespace

Thread* BlockRunner::current() { return running_thread; }
BlockRunner& BlockRunner::of_current() { return *running_block; }
bool BlockRunner::in_kernel() { return kernel_runs; }
BlockRunner::Entry::Entry() { kernel_runs = false; }
BlockRunner::Entry::~Entry() { kernel_runs = true; }
std::string BlockRunner::at(const void* code) { return " (" + code_place(code) + ")"; }

BlockRunner::BlockRunner(const Options& options)
    : options_(options), stacks_(max_threads, stack_bytes), threads_(max_threads), shared_memory_(most_shared_bytes + 4 * shared_margin) {
  const auto address = reinterpret_cast<uintptr_t>(shared_memory_.data()) + shared_margin;
  shared_begin_ = reinterpret_cast<char*>((address + shared_margin - 1) / shared_margin * shared_margin);
}

uint32_t BlockRunner::random(uint32_t below) {
  random_state_ ^= random_state_ << 13;
  random_state_ ^= random_state_ >> 7;
  random_state_ ^= random_state_ << 17;
  return static_cast<uint32_t>((random_state_ >> 32) * below >> 32);
}

bool BlockRunner::run(const Launch& launch, Index block, uint64_t block_number, const Allocations& allocations, Failure& failure) {
  launch_ = &launch;
  allocations_ = &allocations;
  last_found_ = {};
  failure_ = &failure;
  block_index = block;
  block_size = {launch.block.x, launch.block.y, launch.block.z};
  grid_size = {launch.grid.x, launch.grid.y, launch.grid.z};
  random_state_ = (options_.seed + 1) * 0x9e3779b97f4a7c15u ^ (block_number + 1) * 0xbf58476d1ce4e5b9u;
  if (random_state_ == 0) random_state_ = 1;
  for (int i = 0; i < 4; ++i) random(1);

  thread_count_ = live_ = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  variables_.clear();
  shared_end_ = launch.shared_bytes;
  std::memset(shared_begin(), 0xff, launch.shared_bytes);
  if (options_.check_races) shadow_.reset(thread_count_, launch.shared_bytes);
  for (Barrier& barrier : barriers_) barrier = {};
  ready_.fill(0);
  meeting_.fill(0);
  exited_.fill(0);
  ready_warps_ = 0;
  for (int t = 0; t < thread_count_; ++t) {
    Thread& thread = threads_[static_cast<size_t>(t)];
    thread.number = t;
    thread.lane = t % warp_lanes;
    thread.warp = t / warp_lanes;
    const auto number = static_cast<unsigned>(t);
    thread.index = {number % block_size.x, number / block_size.x % block_size.y, number / (block_size.x * block_size.y)};
    thread.copies.clear();
    thread.group_ends.clear();
    thread.stack_begin = stacks_.stack(t);
    thread.stack_end = thread.stack_begin + stacks_.bytes();
    prepare_context(thread.context, stacks_.stack(t), stacks_.bytes(), thread_main);
    make_ready(thread);
  }
  last_warp_ = static_cast<int>(random(static_cast<uint32_t>((thread_count_ + warp_lanes - 1) / warp_lanes)));

  running_block = this;
  running_thread = next_thread();
  switch_context(main_, running_thread->context);
  kernel_runs = false;
  running_thread = nullptr;
  running_block = nullptr;
  return failure.error == cudaSuccess;
}

void BlockRunner::thread_main() {
  kernel_runs = true;
  (*running_block->launch_->call)();
  kernel_runs = false;
  running_block->exit_thread();
}

void BlockRunner::make_ready(Thread& thread) {
  thread.state = Thread::State::ready;
  ready_[static_cast<size_t>(thread.warp)] |= bit(thread.lane);
  ready_warps_ |= bit(thread.warp);
}

// Mostly another lane of the same warp, from a random place on; now and then another warp.
Thread* BlockRunner::next_thread() {
  if (ready_warps_ == 0) return nullptr;
  if (!(ready_warps_ & bit(last_warp_)) || random(16) == 0) {
    uint32_t skip = random(static_cast<uint32_t>(std::popcount(ready_warps_)));
    uint32_t warps = ready_warps_;
    while (skip-- > 0) warps &= warps - 1;
    last_warp_ = std::countr_zero(warps);
  }
  uint32_t& lanes = ready_[static_cast<size_t>(last_warp_)];
  const int turn = static_cast<int>(random(warp_lanes));
  const int lane = (std::countr_zero(std::rotr(lanes, turn)) + turn) % warp_lanes;
  lanes &= ~bit(lane);
  if (lanes == 0) ready_warps_ &= ~bit(last_warp_);
  return &threads_[static_cast<size_t>(last_warp_ * warp_lanes + lane)];
}

void BlockRunner::go_on() {
  Thread* const from = running_thread;
  Thread* const to = next_thread();
  if (!to) {
    if (live_ > 0) fail(cudaErrorLaunchFailure, deadlock());
    switch_context(from->context, main_);
    return;
  }
  if (to == from) return;
  running_thread = to;
  switch_context(from->context, to->context);
  kernel_runs = false;  // the other may have come from its kernel
}

void BlockRunner::wait(const char* name, const void* code) {
  Thread& self = *running_thread;
  self.state = Thread::State::waiting;
  self.waits_for = name;
  self.waits_at = code;
  go_on();
}

void BlockRunner::fail(cudaError_t error, const std::string& what) {
  failure_->error = error;
  failure_->report = "[cuda-sim] kernel " + launch_->name + ", block " + index_text(block_index) + ": " + what;
  Context abandoned;
  switch_context(abandoned, main_);
  __builtin_unreachable();
}

// --- Warp meetings ---

void BlockRunner::check_exited(const char* name, uint32_t mask, const void* code) {
  const Thread& self = *running_thread;
  const int first = self.warp * warp_lanes;
  uint32_t missing = exited_[static_cast<size_t>(self.warp)];
  if (first + warp_lanes > thread_count_) missing |= ~uint32_t{0} << (thread_count_ - first);
  if (!(mask & missing)) return;
  fail(cudaErrorLaunchFailure, "thread " + std::to_string(self.number) + " is at " + name + at(code) + " with mask " + hex_mask(mask) +
                                   ", but lanes " + hex_mask(mask & missing) + " of its warp have ended or do not exist");
}

void BlockRunner::warp_meet(const char* name, uint32_t mask, void* operands, WarpBody body, const void* code) {
  Thread& self = *running_thread;
  const auto warp = static_cast<size_t>(self.warp);
  if (!(mask & bit(self.lane))) {
    fail(cudaErrorLaunchFailure, "thread " + std::to_string(self.number) + " (lane " + std::to_string(self.lane) + ") calls " + name + at(code) + " with mask " +
                                     hex_mask(mask) + ", which leaves it out");
  }
  check_exited(name, mask, code);
  Thread* const lanes = threads_.data() + self.warp * warp_lanes;
  for (uint32_t others = meeting_[warp]; others; others &= others - 1) {
    const Thread& other = lanes[std::countr_zero(others)];
    if (!(mask & bit(other.lane)) || !(other.mask & bit(self.lane))) continue;  // one of the two may go on first
    if (other.mask == mask && other.body == body) continue;
    fail(cudaErrorLaunchFailure, "threads " + std::to_string(self.number) + " and " + std::to_string(other.number) + " of a warp disagree: the one is at " + name +
                                     at(code) + " with mask " + hex_mask(mask) + ", the other at " + other.waits_for + at(other.waits_at) + " with mask " +
                                     hex_mask(other.mask));
  }
  self.mask = mask;
  self.body = body;
  self.operands = operands;
  meeting_[warp] |= bit(self.lane);
  if ((meeting_[warp] & mask) != mask) {
    wait(name, code);
    return;
  }
  void* all[warp_lanes] = {};
  for (uint32_t left = mask; left; left &= left - 1) {
    const int lane = std::countr_zero(left);
    all[lane] = lanes[lane].operands;
  }
  self.waits_at = code;
  body(all, mask);
  meeting_[warp] &= ~mask;
  for (uint32_t left = mask & ~bit(self.lane); left; left &= left - 1) make_ready(lanes[std::countr_zero(left)]);
  // As likely as not, another lane goes first.
  if (random(2) == 0) {
    make_ready(self);
    go_on();
  }
}

void BlockRunner::warp_ordered(uint32_t mask) {
  if (!options_.check_races) return;
  const int first = running_thread->warp * warp_lanes;
  Shadow::Clock clock;
  for (uint32_t left = mask; left; left &= left - 1) shadow_.release(first + std::countr_zero(left), clock);
  for (uint32_t left = mask; left; left &= left - 1) shadow_.acquire(first + std::countr_zero(left), clock);
}

// --- Barriers ---

void BlockRunner::meet_barrier(const char* name, int id, int threads, bool wait_for_it, const void* code) {
  Thread& self = *running_thread;
  const bool whole = threads == 0;
  if (whole) threads = thread_count_;
  if (id < 0 || id > 15 || (!whole && threads % warp_lanes != 0) || threads > thread_count_) {
    fail(cudaErrorLaunchFailure, "thread " + std::to_string(self.number) + " is at " + name + at(code) + " with id " + std::to_string(id) + " and " +
                                     std::to_string(threads) + " threads, of " + std::to_string(thread_count_) + " in the block");
  }
  Barrier& barrier = barriers_[static_cast<size_t>(id)];
  if (barrier.expected != 0 && barrier.expected != threads) {
    fail(cudaErrorLaunchFailure, "thread " + std::to_string(self.number) + " expects " + std::to_string(threads) + " threads at barrier " + std::to_string(id) +
                                     at(code) + ", but those already there expect " + std::to_string(barrier.expected));
  }
  barrier.expected = threads;
  barrier.arrived.push_back(&self);
  self.barrier = id;
  self.mask = 0;
  const bool everybody = threads == thread_count_;
  if (whole && live_ < thread_count_) {
    self.state = Thread::State::waiting;
    self.waits_for = name;
    self.waits_at = code;
    fail(cudaErrorLaunchFailure, "a barrier that not all threads reach: " + deadlock());
  }
  if (options_.check_races && !everybody) shadow_.release(self.number, barrier.clock);
  if (static_cast<int>(barrier.arrived.size()) < threads) {
    if (!wait_for_it) return;
    barrier.waiting.push_back(&self);
    wait(name, code);
    return;
  }
  Barrier done = std::move(barrier);
  barrier = {};
  if (options_.check_races) {
    const size_t waiting = done.waiting.size() + (wait_for_it ? 1 : 0);
    if (everybody && waiting == static_cast<size_t>(thread_count_)) {
      shadow_.start_interval();
    } else {
      if (everybody) {
        for (const Thread* thread : done.arrived) shadow_.release(thread->number, done.clock);
      }
      for (const Thread* thread : done.waiting) shadow_.acquire(thread->number, done.clock);
      if (wait_for_it) shadow_.acquire(self.number, done.clock);
    }
  }
  for (Thread* thread : done.waiting) make_ready(*thread);
  if (!wait_for_it) return;
  make_ready(self);
  go_on();
}

void BlockRunner::exit_thread() {
  Thread& self = *running_thread;
  self.state = Thread::State::exited;
  --live_;
  exited_[static_cast<size_t>(self.warp)] |= bit(self.lane);
  const int first = self.warp * warp_lanes;
  for (uint32_t others = meeting_[static_cast<size_t>(self.warp)]; others; others &= others - 1) {
    const Thread& other = threads_[static_cast<size_t>(first + std::countr_zero(others))];
    if (other.mask & bit(self.lane)) {
      fail(cudaErrorLaunchFailure, "thread " + std::to_string(self.number) + " has ended, but thread " + std::to_string(other.number) + " of its warp waits for it at " +
                                       other.waits_for + at(other.waits_at) + " with mask " + hex_mask(other.mask));
    }
  }
  if (barriers_[0].expected == thread_count_) fail(cudaErrorLaunchFailure, "a barrier that not all threads reach: " + deadlock());
  go_on();
  __builtin_unreachable();
}

std::string BlockRunner::thread_list(const std::vector<int>& numbers) const {
  std::string text;
  for (size_t i = 0; i < numbers.size();) {
    size_t j = i;
    while (j + 1 < numbers.size() && numbers[j + 1] == numbers[j] + 1) ++j;
    if (!text.empty()) text += ", ";
    text += std::to_string(numbers[i]);
    if (j > i) text.append("-").append(std::to_string(numbers[j]));
    i = j + 1;
  }
  return (numbers.size() == 1 ? "thread " : "threads ") + text;
}

// Who waits where.
std::string BlockRunner::deadlock() const {
  struct Group {
    std::string what;
    const void* code;
    std::vector<int> numbers;
  };
  std::vector<Group> groups;
  for (int t = 0; t < thread_count_; ++t) {
    const Thread& thread = threads_[static_cast<size_t>(t)];
    Group group{"have ended", nullptr, {}};
    if (thread.state == Thread::State::ready) group.what = "go on";
    if (thread.state == Thread::State::waiting) {
      group.what = std::string("wait at ") + thread.waits_for;
      if (thread.mask) group.what += " with mask " + hex_mask(thread.mask);
      if (!thread.mask && thread.barrier > 0) group.what += " of id " + std::to_string(thread.barrier);
      group.code = thread.waits_at;
    }
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.what == group.what && g.code == group.code; });
    if (same == groups.end()) {
      group.numbers = {t};
      groups.push_back(std::move(group));
    } else {
      same->numbers.push_back(t);
    }
  }
  std::string text = "deadlock";
  for (const Group& group : groups) text += "; " + thread_list(group.numbers) + " " + group.what + (group.code ? at(group.code) : "");
  return text;
}

// --- Memory ---

void* BlockRunner::shared_variable(const void* key, const char* name, size_t bytes, size_t alignment, const void* code) {
  size_t statics = 0;
  for (const SharedVariable& variable : variables_) {
    if (variable.key == key) return shared_begin() + variable.offset;
    statics += variable.bytes;
  }
  // A gap before and after each, so that running over one is seen.
  const size_t offset = (shared_end_ + 64 + alignment - 1) / alignment * alignment;
  if (statics + bytes > max_static_shared_bytes || launch_->shared_bytes + statics + bytes > options_.shared_bytes) {
    fail(cudaErrorInvalidValue, "too much shared memory: '" + std::string(name) + "' of " + std::to_string(bytes) + " bytes" + at(code) + " comes to " +
                                    std::to_string(launch_->shared_bytes) + " dynamic and " + std::to_string(statics) + " static bytes");
  }
  variables_.push_back({key, name, offset, bytes});
  shared_end_ = offset + bytes;
  if (shared_end_ > shared_memory_.size() - 3 * shared_margin) fail(cudaErrorInvalidValue, "too many shared variables");
  std::memset(shared_begin() + offset, 0xff, bytes);
  if (options_.check_races) shadow_.grow(shared_end_);
  return shared_begin() + offset;
}

uint32_t BlockRunner::shared_offset(const void* pointer, const void* code) {
  const auto offset = static_cast<const char*>(pointer) - shared_begin();
  if (offset < 0 || offset > static_cast<ptrdiff_t>(shared_end_)) fail(cudaErrorIllegalAddress, "a pointer that is not to shared memory" + at(code));
  return static_cast<uint32_t>(offset);
}

std::string BlockRunner::place_in_shared(size_t offset) const {
  if (offset < launch_->shared_bytes) return "dynamic shared memory + " + std::to_string(offset);
  for (const SharedVariable& variable : variables_) {
    if (offset >= variable.offset && offset < variable.offset + variable.bytes) {
      return "shared '" + std::string(variable.name) + "' + " + std::to_string(offset - variable.offset);
    }
  }
  std::string text = "no shared variable, " + std::to_string(offset) + " bytes from the start of " + std::to_string(launch_->shared_bytes) + " dynamic bytes";
  for (const SharedVariable& variable : variables_) {
    if (offset >= variable.offset + variable.bytes && offset < variable.offset + variable.bytes + 64) {
      text = std::to_string(offset - variable.offset - variable.bytes) + " bytes past the end of shared '" + variable.name + "'";
    }
  }
  return text;
}

void BlockRunner::check_shared(const char* pointer, size_t bytes, AccessKind kind, const void* code) {
  const Thread& self = *running_thread;
  const auto offset = static_cast<size_t>(pointer - shared_begin());
  bool inside = offset + bytes <= launch_->shared_bytes;
  for (size_t i = 0; !inside && i < variables_.size(); ++i) {
    inside = offset >= variables_[i].offset && offset + bytes <= variables_[i].offset + variables_[i].bytes;
  }
  if (!inside) {
    fail(cudaErrorIllegalAddress, "out of bounds: thread " + std::to_string(self.number) + " " + verb_of(kind) + " " + std::to_string(bytes) + " bytes of " +
                                      place_in_shared(offset) + at(code));
  }
  if (!options_.check_races) return;
  const Conflict conflict = shadow_.access({self.number, kind, code}, offset, bytes);
  if (!conflict.found) return;
  const std::string mine = "thread " + std::to_string(self.number) + " " + verb_of(kind) + " " + place_in_shared(offset) + at(code);
  const std::string other = "thread " + std::to_string(conflict.earlier.thread);
  if (conflict.in_flight) {
    fail(cudaErrorLaunchFailure, "asynchronous copy not landed: " + mine + ", which " + other + " copies to" + at(conflict.earlier.code) +
                                     " without having waited for it");
  }
  fail(cudaErrorLaunchFailure, "race: " + mine + " and " + other + " " + past_of(conflict.earlier.kind) + " it" + at(conflict.earlier.code) +
                                   ", with no barrier between");
}

void BlockRunner::check_global(const void* address, size_t bytes, const char* verb, const void* code) {
  const char* const pointer = static_cast<const char*>(address);
  if (pointer >= last_found_.begin && pointer + bytes <= last_found_.end()) return;
  std::string where = "memory of the host";
  if (DeviceMemory::instance().holds(address)) {
    where = explain(*allocations_, launch_->device, address, bytes);
    if (where.empty()) {
      last_found_ = *find(*allocations_, address);
      return;
    }
  }
  if (reinterpret_cast<uintptr_t>(address) < 65536) where = "a null pointer";
  fail(cudaErrorIllegalAddress, "out of bounds: thread " + std::to_string(running_thread->number) + " " + verb + " " + std::to_string(bytes) + " bytes at " + where +
                                    at(code));
}

void BlockRunner::memory_access(const void* address, size_t bytes, AccessKind kind, const void* code) {
  const char* const pointer = static_cast<const char*>(address);
  const Thread& self = *running_thread;
  if (pointer >= self.stack_begin && pointer < self.stack_end) return;
  if (pointer >= shared_begin() - shared_margin && pointer < shared_begin() + most_shared_bytes + shared_margin) {
    check_shared(pointer, bytes, kind, code);
    return;
  }
  if (!DeviceMemory::instance().holds(address)) {
    const char* const call = reinterpret_cast<const char*>(launch_->call.get());
    if (kind == AccessKind::read && pointer >= call && pointer + bytes <= call + launch_->call->bytes()) return;
    if (kind == AccessKind::read && is_program_constant(address)) return;
  }
  check_global(address, bytes, verb_of(kind), code);
}

void BlockRunner::start_copy(uint32_t shared, const void* global, int bytes, int source_bytes, const void* code) {
  Thread& self = *running_thread;
  const auto number = std::to_string(self.number);
  if (source_bytes < 0 || source_bytes > bytes) {
    fail(cudaErrorIllegalAddress, "thread " + number + " copies " + std::to_string(source_bytes) + " of " + std::to_string(bytes) + " bytes" + at(code));
  }
  if (shared % static_cast<unsigned>(bytes) != 0 || reinterpret_cast<uintptr_t>(global) % static_cast<unsigned>(bytes) != 0) {
    fail(cudaErrorIllegalAddress, "misaligned: thread " + number + " copies " + std::to_string(bytes) + " bytes asynchronously between addresses that are no multiples of it" +
                                      at(code));
  }
  if (source_bytes > 0) check_global(global, static_cast<size_t>(source_bytes), "copies", code);
  char* const to = shared_pointer(shared);
  check_shared(to, static_cast<size_t>(bytes), AccessKind::copy_start, code);
  std::memset(to, 0xff, static_cast<size_t>(bytes));
  self.copies.push_back({shared, static_cast<const char*>(global), bytes, source_bytes, code});
}

// Lands what has to be there, and nothing sooner.
void BlockRunner::wait_copies(int pending, const void*) {
  Thread& self = *running_thread;
  if (self.group_ends.size() <= static_cast<size_t>(pending)) return;
  const size_t groups = self.group_ends.size() - static_cast<size_t>(pending);
  const size_t count = self.group_ends[groups - 1];
  for (size_t i = 0; i < count; ++i) {
    const AsyncCopy copy = self.copies[i];
    char* const to = shared_pointer(copy.shared);
    check_shared(to, static_cast<size_t>(copy.bytes), AccessKind::copy_end, copy.code);
    if (copy.source_bytes > 0) std::memcpy(to, copy.global, static_cast<size_t>(copy.source_bytes));
    std::memset(to + copy.source_bytes, 0, static_cast<size_t>(copy.bytes - copy.source_bytes));
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<ptrdiff_t>(count));
  self.group_ends.erase(self.group_ends.begin(), self.group_ends.begin() + static_cast<ptrdiff_t>(groups));
  for (size_t& end : self.group_ends) end -= count;
}

}  // namespace chiasma::sim
