// The CUDA runtime API: the real one, or the simulator's under the same names.
#pragma once

#ifdef CHIASMA_SIM
#include "cuda/sim/cudart.h"
#else
#include <cuda_runtime.h>
#endif
