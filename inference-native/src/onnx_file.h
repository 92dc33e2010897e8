// What an engine that does not keep it reads from an ONNX file itself: the names of inputs and outputs, and those of their symbolic dimensions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace whetstone {

struct DeclaredPort {
  std::string name;
  std::vector<std::string> symbols;  // one for each dimension; empty where it has a size or no name
};

struct DeclaredPorts {
  std::vector<DeclaredPort> inputs;  // without those that have a value in the file
  std::vector<DeclaredPort> outputs;
};

// Throws std::exception where the file is not as protobuf has it.
DeclaredPorts readDeclaredPorts(std::string_view model);

}  // namespace whetstone
