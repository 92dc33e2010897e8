// What NVIDIA's driver says of the GPUs, through its library (NVML), which is bound at run time. It knows neither Node nor an engine.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "nvml_abi.h"

namespace whetstone {

// What the card, or its driver, does not report is missing.
struct GpuState {
  std::optional<std::uint64_t> memoryTotalBytes;
  std::optional<std::uint64_t> memoryUsedBytes;
  std::optional<unsigned> utilizationPercent;
  std::optional<unsigned> temperatureCelsius;
  std::optional<unsigned> powerMilliwatts;
  // Why the clocks are lower than they could be: a bit for each reason.
  std::optional<std::uint64_t> throttleReasons;
};

struct Gpu {
  unsigned index;
  std::string uuid;
  std::string name;
  nvml::Gpu* handle;
};

class Nvml {
 public:
  // Throws std::exception where the library cannot be used, or finds no driver.
  explicit Nvml(const std::string& library);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  // Without those that have failed. Throws std::exception where none is left.
  std::vector<Gpu> gpus() const;
  GpuState state(const Gpu& gpu) const;

 private:
  void check(nvml::Status status) const;

  nvml::Api api_{};
};

// Over all intervals between `start` and `stop`: means of utilisation and power, the most of memory and temperature, all reasons.
struct GpuUse {
  std::optional<double> utilizationPercent;
  std::optional<double> powerWatts;
  std::optional<std::uint64_t> memoryUsedBytesMax;
  std::optional<unsigned> temperatureCelsiusMax;
  std::optional<std::uint64_t> throttleReasons;
};

// Reads the state of one GPU again and again, in a thread of its own.
class GpuSampler {
 public:
  // An empty `uuid` is the first GPU. Throws std::exception where it is not there.
  GpuSampler(std::unique_ptr<Nvml> nvml, const std::string& uuid, std::chrono::milliseconds interval);
  ~GpuSampler() { stop(); }
  void start();
  // Reads it a last time.
  void stop();
  GpuUse use() const;

 private:
  struct Mean {
    double sum = 0;
    unsigned count = 0;
    void add(double value);
    std::optional<double> value() const;
  };
  void sample();

  const std::unique_ptr<Nvml> nvml_;
  const std::chrono::milliseconds interval_;
  Gpu gpu_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::optional<std::thread> thread_;
  Mean utilization_;
  Mean milliwatts_;
  GpuUse use_;
};

}  // namespace whetstone
