#include "nvml.h"

#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace whetstone {

Nvml::Nvml(const std::string& library) {
  // It stays loaded: the driver's threads may still run in it.
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(std::string("NVML cannot be loaded: ") + dlerror());
  const auto find = [handle](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    return function != nullptr;
  };
  const auto require = [&find](auto& function, const char* name) {
    if (!find(function, name)) throw std::runtime_error(std::string("The library is not NVML: it has no ") + name + ".");
  };
  require(api_.errorString, "nvmlErrorString");
  require(api_.init, "nvmlInit_v2");
  require(api_.shutdown, "nvmlShutdown");
  require(api_.deviceGetCount, "nvmlDeviceGetCount_v2");
  require(api_.deviceGetHandleByIndex, "nvmlDeviceGetHandleByIndex_v2");
  require(api_.deviceGetName, "nvmlDeviceGetName");
  require(api_.deviceGetUUID, "nvmlDeviceGetUUID");
  find(api_.deviceGetMemoryInfo, "nvmlDeviceGetMemoryInfo");
  find(api_.deviceGetUtilizationRates, "nvmlDeviceGetUtilizationRates");
  find(api_.deviceGetTemperature, "nvmlDeviceGetTemperature");
  find(api_.deviceGetPowerUsage, "nvmlDeviceGetPowerUsage");
  find(api_.deviceGetCurrentClocksThrottleReasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
  check(api_.init());
}

Nvml::~Nvml() { api_.shutdown(); }

void Nvml::check(nvml::Status status) const {
  if (status == 0) return;
  const char* said = api_.errorString(status);
  throw std::runtime_error(std::string("NVML failed: ") + (said == nullptr ? "status " + std::to_string(status) : said) + ".");
}

std::vector<Gpu> Nvml::gpus() const {
  unsigned count = 0;
  check(api_.deviceGetCount(&count));
  if (count == 0) throw std::runtime_error("NVML lists no GPU.");
  std::vector<Gpu> found;
  nvml::Status failed = 0;
  for (unsigned index = 0; index < count; index += 1) {
    char uuid[nvml::textMax] = {};
    char name[nvml::textMax] = {};
    nvml::Gpu* handle = nullptr;
    nvml::Status status = api_.deviceGetHandleByIndex(index, &handle);
    if (status == 0) status = api_.deviceGetUUID(handle, uuid, nvml::textMax);
    if (status == 0) status = api_.deviceGetName(handle, name, nvml::textMax);
    if (status == 0) found.push_back({index, uuid, name, handle});
    else failed = status;
  }
  if (found.empty()) check(failed);
  return found;
}

GpuState Nvml::state(const Gpu& gpu) const {
  GpuState state;
  nvml::Memory memory{};
  if (api_.deviceGetMemoryInfo != nullptr && api_.deviceGetMemoryInfo(gpu.handle, &memory) == 0) {
    state.memoryTotalBytes = memory.total;
    state.memoryUsedBytes = memory.used;
  }
  nvml::Utilization utilization{};
  if (api_.deviceGetUtilizationRates != nullptr && api_.deviceGetUtilizationRates(gpu.handle, &utilization) == 0) {
    state.utilizationPercent = utilization.gpu;
  }
  unsigned value = 0;
  if (api_.deviceGetTemperature != nullptr && api_.deviceGetTemperature(gpu.handle, nvml::temperatureOfGpu, &value) == 0) {
    state.temperatureCelsius = value;
  }
  if (api_.deviceGetPowerUsage != nullptr && api_.deviceGetPowerUsage(gpu.handle, &value) == 0) state.powerMilliwatts = value;
  unsigned long long bits = 0;
  if (api_.deviceGetCurrentClocksThrottleReasons != nullptr && api_.deviceGetCurrentClocksThrottleReasons(gpu.handle, &bits) == 0) {
    state.throttleReasons = bits;
  }
  return state;
}

void GpuSampler::Mean::add(double value) {
  sum += value;
  count += 1;
}

std::optional<double> GpuSampler::Mean::value() const { return count == 0 ? std::nullopt : std::optional(sum / count); }

GpuSampler::GpuSampler(std::unique_ptr<Nvml> nvml, const std::string& uuid, std::chrono::milliseconds interval)
    : nvml_(std::move(nvml)), interval_(interval) {
  const std::vector<Gpu> gpus = nvml_->gpus();
  const auto found = std::find_if(gpus.begin(), gpus.end(), [&uuid](const Gpu& gpu) { return uuid.empty() || gpu.uuid == uuid; });
  if (found == gpus.end()) throw std::runtime_error("NVML lists no GPU " + uuid + ".");
  gpu_ = *found;
}

void GpuSampler::start() {
  if (thread_) return;
  stopping_ = false;
  thread_.emplace([this] {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, interval_, [this] { return stopping_; })) sample();
    sample();
  });
}

void GpuSampler::stop() {
  if (!thread_) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  thread_->join();
  thread_.reset();
}

// Holds the mutex.
void GpuSampler::sample() {
  const GpuState state = nvml_->state(gpu_);
  if (state.utilizationPercent) utilization_.add(*state.utilizationPercent);
  if (state.powerMilliwatts) milliwatts_.add(*state.powerMilliwatts);
  if (state.memoryUsedBytes) use_.memoryUsedBytesMax = std::max(*state.memoryUsedBytes, use_.memoryUsedBytesMax.value_or(0));
  if (state.temperatureCelsius) use_.temperatureCelsiusMax = std::max(*state.temperatureCelsius, use_.temperatureCelsiusMax.value_or(0));
  if (state.throttleReasons) use_.throttleReasons = *state.throttleReasons | use_.throttleReasons.value_or(0);
}

GpuUse GpuSampler::use() const {
  const std::lock_guard lock(mutex_);
  GpuUse use = use_;
  use.utilizationPercent = utilization_.value();
  if (const auto milliwatts = milliwatts_.value()) use.powerWatts = *milliwatts / 1000;
  return use;
}

}  // namespace whetstone
