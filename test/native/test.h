// The native tests' harness.
//
//   TEST("matmul: odd sizes") {          registers and names a test; any number of them in any *.cpp of this folder
//     NOTE("m " + std::to_string(m));    says where a failure was, until the end of the block
//     CHECK(a == b);                     ends the test when false, with file, line and what was checked
//     CHECK_THROWS(core::ErrorCode::shape, run(a, b));   expects a core::Error of that code
//     FAIL("text");                      ends the test
//     SKIP("no AVX-512 here");           ends the test, counted apart
//   }
//
// `chiasma_native_tests [part of a name]...` runs all tests or those whose name holds one of the parts. Its last line is `N passed, N failed, N skipped`;
// it ends with 1 if any failed. CHECK may be used on any thread only if its exception gets back to the test's.
#pragma once

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"

namespace chiasma::test {

struct Case {
  const char* name;
  void (*body)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline std::vector<std::string>& notes() {
  static thread_local std::vector<std::string> all;
  return all;
}

struct Failure : std::exception {
  explicit Failure(std::string text) : text(std::move(text)) {
    for (const std::string& note : notes()) this->text += "\n    " + note;
  }
  const char* what() const noexcept override { return text.c_str(); }
  std::string text;
};

struct Skipped {
  std::string reason;
};

struct Registration {
  Registration(const char* name, void (*body)()) { cases().push_back({name, body}); }
};

class Note {
 public:
  explicit Note(std::string text) { notes().push_back(std::move(text)); }
  ~Note() { notes().pop_back(); }
  Note(const Note&) = delete;
  Note& operator=(const Note&) = delete;
};

inline void check(bool holds, const char* text, const char* file, int line) {
  if (!holds) throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + text);
}

template <typename F>
void check_throws(core::ErrorCode code, const F& f, const char* text, const char* file, int line) {
  std::string came = "nothing was thrown";
  try {
    f();
  } catch (const core::Error& error) {
    if (error.code() == code) return;
    came = std::string(core::code_name(error.code())) + ": " + error.what();
  }
  check(false, (std::string(text) + " should throw " + core::code_name(code) + "; " + came).c_str(), file, line);
}

}  // namespace chiasma::test

#define CHIASMA_JOIN2(a, b) a##b
#define CHIASMA_JOIN(a, b) CHIASMA_JOIN2(a, b)
#define CHIASMA_TEST(name, body)                                           \
  static void body();                                                      \
  static const ::chiasma::test::Registration CHIASMA_JOIN(body, _registration)(name, body); \
  static void body()
#define TEST(name) CHIASMA_TEST(name, CHIASMA_JOIN(chiasma_test_, __LINE__))
#define CHECK(...) ::chiasma::test::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define CHECK_THROWS(code, ...) ::chiasma::test::check_throws(code, [&] { __VA_ARGS__; }, #__VA_ARGS__, __FILE__, __LINE__)
#define NOTE(...) const ::chiasma::test::Note CHIASMA_JOIN(chiasma_note_, __LINE__)(__VA_ARGS__)
#define FAIL(...) throw ::chiasma::test::Failure(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " + (__VA_ARGS__))
#define SKIP(...) throw ::chiasma::test::Skipped { __VA_ARGS__ }
