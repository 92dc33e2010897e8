#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "nvml.h"

namespace whetstone {
namespace {

template <class T>
Napi::Value numberOf(Napi::Env env, const std::optional<T>& value) {
  return value ? Napi::Number::New(env, static_cast<double>(*value)) : env.Null();
}

// (library). It may take as long as the driver does.
Napi::Value readGpus(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  try {
    const Nvml nvml(info[0].As<Napi::String>());
    const std::vector<Gpu> gpus = nvml.gpus();
    const auto result = Napi::Array::New(env, gpus.size());
    for (std::uint32_t n = 0; n < gpus.size(); n += 1) {
      const GpuState state = nvml.state(gpus[n]);
      const auto gpu = Napi::Object::New(env);
      gpu.Set("index", gpus[n].index);
      gpu.Set("uuid", gpus[n].uuid);
      gpu.Set("name", gpus[n].name);
      gpu.Set("memoryTotalBytes", numberOf(env, state.memoryTotalBytes));
      gpu.Set("memoryUsedBytes", numberOf(env, state.memoryUsedBytes));
      gpu.Set("utilizationPercent", numberOf(env, state.utilizationPercent));
      gpu.Set("temperatureCelsius", numberOf(env, state.temperatureCelsius));
      gpu.Set("powerMilliwatts", numberOf(env, state.powerMilliwatts));
      gpu.Set("throttleReasons", numberOf(env, state.throttleReasons));
      result.Set(n, gpu);
    }
    return result;
  } catch (const std::exception& error) {
    throw Napi::Error::New(env, error.what());
  }
}

class SamplerBinding final : public Napi::ObjectWrap<SamplerBinding> {
 public:
  static void define(Napi::Env env, Napi::Object exports) {
    exports.Set("GpuSampler", DefineClass(env, "GpuSampler",
                                          {InstanceMethod<&SamplerBinding::start>("start"), InstanceMethod<&SamplerBinding::stop>("stop"),
                                           InstanceMethod<&SamplerBinding::use>("use")}));
  }

  // (library, uuid, intervalMs)
  explicit SamplerBinding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<SamplerBinding>(info) {
    try {
      const std::chrono::milliseconds interval(info[2].As<Napi::Number>().Int64Value());
      sampler_ = std::make_unique<GpuSampler>(std::make_unique<Nvml>(info[0].As<Napi::String>()), info[1].As<Napi::String>(), interval);
    } catch (const std::exception& error) {
      throw Napi::Error::New(info.Env(), error.what());
    }
  }

 private:
  void start(const Napi::CallbackInfo&) { sampler_->start(); }
  void stop(const Napi::CallbackInfo&) { sampler_->stop(); }

  Napi::Value use(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    const GpuUse use = sampler_->use();
    const auto result = Napi::Object::New(env);
    result.Set("utilizationPercent", numberOf(env, use.utilizationPercent));
    result.Set("powerWatts", numberOf(env, use.powerWatts));
    result.Set("memoryBytesMax", numberOf(env, use.memoryUsedBytesMax));
    result.Set("temperatureCelsiusMax", numberOf(env, use.temperatureCelsiusMax));
    result.Set("throttleReasons", numberOf(env, use.throttleReasons));
    return result;
  }

  std::unique_ptr<GpuSampler> sampler_;
};

}  // namespace

void defineGpus(Napi::Env env, Napi::Object exports) {
  SamplerBinding::define(env, exports);
  exports.Set("readGpus", Napi::Function::New(env, readGpus));
}

}  // namespace whetstone
