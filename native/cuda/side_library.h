// Opens the CUDA library or the simulator at run time: the addon is linked with neither.
#pragma once

#include <string>

#include "cuda/library.h"

namespace chiasma::cuda {

// Where the libraries of this build are: beside the addon, and the simulator in build/sim of its source tree.
std::string cuda_library_path();
std::string simulator_path();

bool is_file(const std::string& path);

// Opens a library once for the process; it stays. Throws Error(device) saying why it cannot be used.
const Library& load_library(const std::string& path);

}  // namespace chiasma::cuda
