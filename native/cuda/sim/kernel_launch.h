// A kernel launch, as a stream does it.
#pragma once

#include "cuda/sim/block.h"
#include "cuda/sim/failure.h"

namespace chiasma::sim {

// Of a kernel on a device, as cudaFuncSetAttribute sets it.
void set_dynamic_shared_limit(int device, const void* kernel, size_t bytes);
// Why its device does not take it; success if it does.
Failure check_launch(const Launch& launch);
Failure run_launch(const Launch& launch);

}  // namespace chiasma::sim
