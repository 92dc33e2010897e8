// A library that looks like NVML, with two GPUs. FAKE_NVML_STATUS is what `nvmlInit_v2` gives, FAKE_NVML_LOST the status of GPU 0,
// FAKE_NVML_COUNT how many GPUs there are. FAKE_NVML_WITHOUT: 1 lacks functions that old drivers lack, 2 is no NVML.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifndef FAKE_NVML_WITHOUT
#define FAKE_NVML_WITHOUT 0
#endif
#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

constexpr int notSupported = 3;

int settingOf(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::atoi(value);
}

int numbers[] = {0, 1};
int numberOf(const void* gpu) { return *static_cast<const int*>(gpu); }

}  // namespace

EXPORTED const char* nvmlErrorString(int status) { return status == 9 ? "Driver Not Loaded" : status == 15 ? "GPU is lost" : "Unknown Error"; }

#if FAKE_NVML_WITHOUT < 2
EXPORTED int nvmlInit_v2() { return settingOf("FAKE_NVML_STATUS", 0); }
#endif

EXPORTED int nvmlShutdown() { return 0; }

EXPORTED int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(settingOf("FAKE_NVML_COUNT", 2));
  return 0;
}

EXPORTED int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** gpu) {
  *gpu = &numbers[index];
  return index == 0 ? settingOf("FAKE_NVML_LOST", 0) : 0;
}

EXPORTED int nvmlDeviceGetName(void* gpu, char* name, unsigned length) {
  std::snprintf(name, length, "Fake %d", numberOf(gpu));
  return 0;
}

EXPORTED int nvmlDeviceGetUUID(void* gpu, char* uuid, unsigned length) {
  std::snprintf(uuid, length, "GPU-fake-%d", numberOf(gpu));
  return 0;
}

// GPU 1 does not report it, nor its temperature.
EXPORTED int nvmlDeviceGetUtilizationRates(void* gpu, unsigned* shares) {
  if (numberOf(gpu) == 1) return notSupported;
  shares[0] = 37;
  shares[1] = 12;
  return 0;
}

EXPORTED int nvmlDeviceGetMemoryInfo(void*, unsigned long long* memory) {
  memory[0] = 8000000000;
  memory[1] = 7000000000;
  memory[2] = 1000000000;
  return 0;
}

EXPORTED int nvmlDeviceGetTemperature(void* gpu, int sensor, unsigned* celsius) {
  if (numberOf(gpu) == 1 || sensor != 0) return notSupported;
  *celsius = 61;
  return 0;
}

#if FAKE_NVML_WITHOUT < 1
EXPORTED int nvmlDeviceGetPowerUsage(void*, unsigned* milliwatts) {
  *milliwatts = 93520;
  return 0;
}

// An idle GPU, a cap of its power, and a bit that nobody knows.
EXPORTED int nvmlDeviceGetCurrentClocksThrottleReasons(void*, unsigned long long* bits) {
  *bits = 0x1 | 0x4 | 0x4000;
  return 0;
}
#endif
