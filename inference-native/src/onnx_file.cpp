#include "onnx_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <stdexcept>
#include <string_view>

namespace whetstone {
namespace {

// The fields of onnx.proto that are read.
constexpr std::uint64_t modelGraph = 7;
constexpr std::uint64_t graphInitializer = 5;
constexpr std::uint64_t graphInput = 11;
constexpr std::uint64_t graphOutput = 12;
constexpr std::uint64_t tensorName = 8;
constexpr std::uint64_t valueName = 1;
constexpr std::uint64_t valueType = 2;
constexpr std::uint64_t typeTensor = 1;
constexpr std::uint64_t tensorShape = 2;
constexpr std::uint64_t shapeDimension = 1;
constexpr std::uint64_t dimensionSymbol = 2;

[[noreturn]] void refuse() { throw std::runtime_error("The file is not a model in protobuf."); }

std::uint64_t readVarint(std::string_view& rest) {
  std::uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (rest.empty()) refuse();
    const auto byte = static_cast<unsigned char>(rest.front());
    rest.remove_prefix(1);
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80U) return value;
  }
  refuse();
}

std::string_view take(std::string_view& rest, std::uint64_t bytes) {
  if (bytes > rest.size()) refuse();
  const std::string_view taken = rest.substr(0, bytes);
  rest.remove_prefix(bytes);
  return taken;
}

// Calls `use` with each field of a message that has a length: texts and messages.
template <class Use>
void eachField(std::string_view message, Use use) {
  while (!message.empty()) {
    const std::uint64_t tag = readVarint(message);
    switch (tag & 7U) {
      case 0: readVarint(message); break;
      case 1: take(message, 8); break;
      case 2: use(tag >> 3U, take(message, readVarint(message))); break;
      case 5: take(message, 4); break;
      default: refuse();
    }
  }
}

// Calls `use` with each occurrence of one field.
template <class Use>
void eachOf(std::string_view message, std::uint64_t field, Use use) {
  eachField(message, [&](std::uint64_t found, std::string_view value) {
    if (found == field) use(value);
  });
}

DeclaredPort readPort(std::string_view value) {
  DeclaredPort port;
  eachOf(value, valueName, [&port](std::string_view name) { port.name = name; });
  eachOf(value, valueType, [&port](std::string_view type) {
    eachOf(type, typeTensor, [&port](std::string_view tensor) {
      eachOf(tensor, tensorShape, [&port](std::string_view shape) {
        eachOf(shape, shapeDimension, [&port](std::string_view dimension) {
          std::string& symbol = port.symbols.emplace_back();
          eachOf(dimension, dimensionSymbol, [&symbol](std::string_view text) { symbol = text; });
        });
      });
    });
  });
  return port;
}

}  // namespace

DeclaredPorts readDeclaredPorts(const std::string& file) {
  const int opened = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat about {};
  if (opened < 0 || fstat(opened, &about) != 0) throw std::runtime_error("The file cannot be opened: " + file);
  const auto bytes = static_cast<std::size_t>(about.st_size);
  void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, opened, 0);
  close(opened);
  if (mapped == MAP_FAILED) throw std::runtime_error("The file cannot be mapped: " + file);
  const auto unmap = [bytes](void* memory) { munmap(memory, bytes); };
  const std::unique_ptr<void, decltype(unmap)> owned(mapped, unmap);

  DeclaredPorts ports;
  std::set<std::string_view> initialized;
  eachOf({static_cast<const char*>(mapped), bytes}, modelGraph, [&](std::string_view graph) {
    eachField(graph, [&](std::uint64_t field, std::string_view value) {
      if (field == graphInitializer) eachOf(value, tensorName, [&](std::string_view name) { initialized.insert(name); });
      if (field == graphInput) ports.inputs.push_back(readPort(value));
      if (field == graphOutput) ports.outputs.push_back(readPort(value));
    });
  });
  const auto hasValue = [&initialized](const DeclaredPort& port) { return initialized.count(port.name) > 0; };
  ports.inputs.erase(std::remove_if(ports.inputs.begin(), ports.inputs.end(), hasValue), ports.inputs.end());
  return ports;
}

}  // namespace whetstone
