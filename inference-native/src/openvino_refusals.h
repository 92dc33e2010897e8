// What OpenVINO must not be given: it reads and writes outside of its tensors, ends the process, or computes with fewer bits, and says nothing.
#pragma once

#include <string_view>

namespace whetstone {

// Throws std::exception with a sentence for the user where an ONNX model is such a one.
void requireSafeForOpenVino(std::string_view model);

}  // namespace whetstone
