// What ONNX Runtime computes a graph on.
#pragma once

#include "engine.h"
#include "ort_api.h"

namespace whetstone {

// Has sessions of these options compute on a provider. Throws std::exception with what the library says.
void appendProviders(const Api& api, ort::SessionOptions* session, Provider provider);

}  // namespace whetstone
