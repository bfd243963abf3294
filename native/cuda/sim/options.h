// How the simulator runs kernels. Read from the environment once (CHIASMA_SIM_SEED, CHIASMA_SIM_RACES=0, CHIASMA_SIM_WORKERS), and set by tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace chiasma::sim {

struct Options {
  uint64_t seed = 1;        // of the order in which warps and lanes run
  bool check_races = true;  // of shared memory, between barriers
  int workers = 1;          // cores that run blocks of one kernel
  size_t memory_bytes = size_t{8} << 30;  // of the device
};

Options options();
void set_options(const Options& options);

// What the simulator said about the last failure on this thread; empty if nothing failed since the last call of this.
std::string take_report();

}  // namespace chiasma::sim
