// What OpenVINO must not be given: it reads and writes outside of its tensors, ends the process, or computes with fewer bits, and says nothing.
#pragma once

#include <string_view>

namespace whetstone {

// Throws std::exception with a sentence for the user where an ONNX model is such a one.
void requireSafeForOpenVino(std::string_view model);

// Whether it has operators that OpenVINO lets read behind a row which is shorter than their weights, where the length is known at run time only.
bool readsByWeights(std::string_view model);

}  // namespace whetstone
