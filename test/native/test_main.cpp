// Runs the registered tests.
#include <chrono>
#include <cstdio>
#include <string_view>

#include "test.h"

int main(int count, char** arguments) {
  using namespace chiasma::test;
  int passed = 0, failed = 0, skipped = 0;
  for (const Case& test : cases()) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted = wanted || std::string_view(test.name).find(arguments[i]) != std::string_view::npos;
    if (!wanted) continue;
    const auto started = std::chrono::steady_clock::now();
    try {
      test.body();
      ++passed;
      std::printf("ok - %s (%.1f s)\n", test.name, std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
    } catch (const Skipped& skip) {
      ++skipped;
      std::printf("ok - %s # SKIP %s\n", test.name, skip.reason.c_str());
    } catch (const std::exception& error) {
      ++failed;
      std::printf("not ok - %s\n  %s\n", test.name, error.what());
    }
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 && passed + skipped > 0 ? 0 : 1;
}
