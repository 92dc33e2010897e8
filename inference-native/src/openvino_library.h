// OpenVINO's library in this process, and its element types beside those of ONNX.
#pragma once

#include <memory>
#include <string>

#include "engine.h"
#include "openvino_abi.h"

namespace whetstone::ov {

struct TypeRow {
  Type number;
  ElementType onnx;
  std::size_t bytes;
  const char* name;
};
// Both throw std::exception where there is none.
const TypeRow& typeRow(Type number);
const TypeRow& typeRowOf(ElementType onnx);

template <class T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

// What lives as long as the process: the library cannot be unloaded while threads of it may still run.
struct Library {
  Api api;
  std::string version;
  Core* core;

  // Throws what the library says.
  void check(Status status) const;
};

// Throws std::exception where the file is not OpenVINO, or another version than is needed.
std::unique_ptr<const Library> openLibrary(const std::string& path);

}  // namespace whetstone::ov
