// How the simulator runs kernels. Read from the environment once (each field's variable stands beside it), and set by tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace chiasma::sim {

struct Options {
  uint64_t seed = 1;                      // CHIASMA_SIM_SEED: of the order in which warps and lanes run, and of how late a stream's work is done
  bool check_races = true;                // CHIASMA_SIM_RACES=0|1: of shared memory, between barriers
  int workers = 1;                        // CHIASMA_SIM_WORKERS: threads that run blocks of one kernel; if not given, as many as there are cores
  int devices = 1;                        // CHIASMA_SIM_DEVICES: how many GPUs there seem to be
  size_t memory_bytes = size_t{8} << 30;  // CHIASMA_SIM_MEMORY: of each
  size_t shared_bytes = 99 << 10;         // CHIASMA_SIM_SHARED: for a block; at most 227 KiB
  uint64_t failing_launch = 0;            // CHIASMA_SIM_FAIL: the kernel of this number, from 1 on, ends in an illegal address; 0: none
};

Options options();
void set_options(const Options& options);

// What the simulator said about the last failure on this thread; empty if nothing failed since the last call of this.
std::string take_report();

}  // namespace chiasma::sim
