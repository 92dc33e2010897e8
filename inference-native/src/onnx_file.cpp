#include "onnx_file.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include "protobuf.h"

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

DeclaredPorts readDeclaredPorts(std::string_view model) {
  DeclaredPorts ports;
  std::set<std::string_view> initialized;
  eachOf(model, modelGraph, [&](std::string_view graph) {
    eachField(graph, [&](const Field& field) {
      if (field.id == graphInitializer) eachOf(field.bytes, tensorName, [&](std::string_view name) { initialized.insert(name); });
      if (field.id == graphInput) ports.inputs.push_back(readPort(field.bytes));
      if (field.id == graphOutput) ports.outputs.push_back(readPort(field.bytes));
    });
  });
  const auto hasValue = [&initialized](const DeclaredPort& port) { return initialized.count(port.name) > 0; };
  ports.inputs.erase(std::remove_if(ports.inputs.begin(), ports.inputs.end(), hasValue), ports.inputs.end());
  return ports;
}

}  // namespace whetstone
