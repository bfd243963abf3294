// Where a piece of code is, for reports.
#pragma once

#include <string>

namespace chiasma::sim {

// 'row_kernel at norm.cu:40' for a return address: with debug information and binutils' addr2line; else the function's name and offset, if it has one.
// Wrappers (ptx.cuh, simt.h) that were inlined are left out in favour of the line that uses them.
std::string code_place(const void* return_address);

// Whether the address lies in the image of a loaded program or library: constants, tables.
bool is_program_constant(const void* address);

}  // namespace chiasma::sim
