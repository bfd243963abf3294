#include "cuda/sim/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

namespace chiasma::sim {

#if defined(__x86_64__)

// Keeps what the System V calling convention says a function keeps; the rest is the caller's to save.
extern "C" void chiasma_sim_switch(void** from, void* to);
asm(R"(
.text
.p2align 4
.hidden chiasma_sim_switch
.globl chiasma_sim_switch
.type chiasma_sim_switch, @function
chiasma_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size chiasma_sim_switch, .-chiasma_sim_switch
)");

void switch_context(Context& from, Context& to) { chiasma_sim_switch(&from.stack_pointer, to.stack_pointer); }

void prepare_context(Context& context, void* stack, size_t bytes, void (*entry)()) {
  // Six registers, the address that `ret` goes to, and one word that keeps the alignment a function expects when it is called.
  auto* top = reinterpret_cast<uintptr_t*>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t{15});
  *--top = 0;
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int i = 0; i < 6; ++i) *--top = 0;
  context.stack_pointer = top;
}

#else

void switch_context(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }

void prepare_context(Context& context, void* stack, size_t bytes, void (*entry)()) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = stack;
  context.registers.uc_stack.ss_size = bytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
}

#endif

Stacks::Stacks(int count, size_t bytes) : bytes_(bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  stride_ = bytes_ + page;
  total_ = stride_ * static_cast<size_t>(count);
  void* const memory = mmap(nullptr, total_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  base_ = static_cast<char*>(memory);
  for (int i = 0; i < count; ++i) mprotect(base_ + static_cast<size_t>(i) * stride_, page, PROT_NONE);
}

Stacks::~Stacks() { munmap(base_, total_); }

}  // namespace chiasma::sim
