// What the addon has for JavaScript beside the runtime (addon.cpp).
#pragma once

#include <napi.h>

namespace whetstone {

// `readGpus` and `GpuSampler`: what src/system/nvml.ts and src/benchmark/gpuMeter.ts read of the GPUs.
void defineGpus(Napi::Env env, Napi::Object exports);
// `fillTensor` as src/vision/tensor.ts has it; `bestOf` and `suppress` as src/vision/detections.ts does.
void defineVision(Napi::Env env, Napi::Object exports);

}  // namespace whetstone
