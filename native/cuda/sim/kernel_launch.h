// A kernel launch, as a stream does it.
#pragma once

#include "cuda/sim/block.h"
#include "cuda/sim/failure.h"

namespace chiasma::sim {

// Why no device takes it; success if one does.
Failure check_launch(const Launch& launch);
Failure run_launch(const Launch& launch);

}  // namespace chiasma::sim
