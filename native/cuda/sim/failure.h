// Why something failed: the runtime's error, and what the simulator has to say about it.
#pragma once

#include <string>

#include "cuda/sim/cudart.h"

namespace chiasma::sim {

struct Failure {
  cudaError_t error = cudaSuccess;
  std::string report;
  explicit operator bool() const { return error != cudaSuccess; }
};

// Makes it the calling thread's last error.
cudaError_t failed(Failure failure);
cudaError_t failed(cudaError_t error, std::string report = {});

}  // namespace chiasma::sim
