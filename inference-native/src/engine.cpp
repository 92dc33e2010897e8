#include "engine.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

namespace whetstone {

std::int64_t nowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void requireInputs(const Signature& signature, const std::vector<Input>& inputs) {
  for (const Port& port : signature.inputs) {
    const auto named = [&port](const Input& input) { return input.name == port.name; };
    if (std::none_of(inputs.begin(), inputs.end(), named)) throw std::runtime_error("Input " + port.name + " is missing.");
  }
}

}  // namespace whetstone
