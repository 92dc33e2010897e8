#include "engine.h"

#include <algorithm>
#include <stdexcept>

namespace whetstone {

void requireInputs(const Signature& signature, const std::vector<Input>& inputs) {
  for (const Port& port : signature.inputs) {
    const auto named = [&port](const Input& input) { return input.name == port.name; };
    if (std::none_of(inputs.begin(), inputs.end(), named)) throw std::runtime_error("Input " + port.name + " is missing.");
  }
}

}  // namespace whetstone
