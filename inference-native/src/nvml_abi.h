// The part of NVIDIA's management library (NVML) that nvml.cpp uses. The driver brings the library and no header. Every function but
// `nvmlErrorString` gives a status: 0 is success.
#pragma once

#include <cstdint>

namespace whetstone::nvml {

struct Gpu;

struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};

// Shares of the time, in percent.
struct Utilization {
  unsigned gpu;
  unsigned memory;
};

using Status = int;
constexpr int temperatureOfGpu = 0;
// Most bytes of a name or UUID, with the zero behind it.
constexpr unsigned textMax = 96;

struct Api {
  const char* (*errorString)(Status);
  Status (*init)();
  Status (*shutdown)();
  Status (*deviceGetCount)(unsigned*);
  Status (*deviceGetHandleByIndex)(unsigned, Gpu**);
  Status (*deviceGetName)(Gpu*, char*, unsigned);
  Status (*deviceGetUUID)(Gpu*, char*, unsigned);
  // Null where the driver is too old for them.
  Status (*deviceGetMemoryInfo)(Gpu*, Memory*);
  Status (*deviceGetUtilizationRates)(Gpu*, Utilization*);
  Status (*deviceGetTemperature)(Gpu*, int sensor, unsigned*);
  Status (*deviceGetPowerUsage)(Gpu*, unsigned* milliwatts);
  Status (*deviceGetCurrentClocksThrottleReasons)(Gpu*, unsigned long long* bits);
};

}  // namespace whetstone::nvml
