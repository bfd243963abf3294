// JavaScript values -> core structures. Every reader names what it reads in its errors: Error(argument).
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/plan.h"
#include "core/weight_loader.h"

namespace chiasma::bridge {

std::string read_string(const Napi::Value& value, const std::string& what);
// An integer that a JavaScript number holds exactly.
int64_t read_integer(const Napi::Value& value, const std::string& what);
std::vector<int64_t> read_integers(const Napi::Value& value, const std::string& what);
Napi::Array read_array(const Napi::Value& value, const std::string& what);
Napi::Object read_object(const Napi::Value& value, const std::string& what);

// The bytes of a typed array or DataView, valid until JavaScript runs again.
struct Bytes {
  void* data = nullptr;
  size_t size = 0;
};
Bytes read_bytes(const Napi::Value& value, const std::string& what);

core::Plan read_plan(const Napi::Value& value);
// Copies the data of sources in memory.
std::vector<core::WeightRequest> read_weights(const Napi::Value& value);

}  // namespace chiasma::bridge
