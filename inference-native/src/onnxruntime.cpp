// ONNX Runtime, bound at run time to the library that onnxruntime-node ships.
#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <utility>

#include "engine.h"
#include "ort_api.h"
#include "ort_providers.h"

namespace whetstone {
namespace {

struct AtEnd {
  std::function<void()> work;
  ~AtEnd() { work(); }
};

struct Type {
  ElementType element;
  std::vector<std::int64_t> sizes;
  std::vector<const char*> symbols;
};

Type readType(const Api& api, const ort::TensorTypeAndShapeInfo* info) {
  Type type{};
  std::size_t dimensions = 0;
  api.call(ort::GetTensorElementType, info, &type.element);
  api.call(ort::GetDimensionsCount, info, &dimensions);
  type.sizes.resize(dimensions);
  type.symbols.resize(dimensions);
  api.call(ort::GetDimensions, info, type.sizes.data(), dimensions);
  api.call(ort::GetSymbolicDimensions, info, type.symbols.data(), dimensions);
  return type;
}

std::size_t bytesOf(ElementType type) {
  switch (type) {
    case 2: case 3: case 9:  // UINT8, INT8, BOOL
      return 1;
    case 4: case 5: case 10: case 16:  // UINT16, INT16, FLOAT16, BFLOAT16
      return 2;
    case 1: case 6: case 12:  // FLOAT, INT32, UINT32
      return 4;
    case 7: case 11: case 13:  // INT64, DOUBLE, UINT64
      return 8;
    default:
      throw std::runtime_error("An output has an element type that is not read: number " + std::to_string(type) + " of onnx.proto.");
  }
}

class OnnxRun final : public Run {
 public:
  OnnxRun(const Api& api, ort::Session* session, const ort::MemoryInfo* memory, const Signature& signature, bool keepsMemory)
      : api_(api), session_(session), memory_(memory), signature_(signature), keepsMemory_(keepsMemory), options_(makeOptions()) {}

  std::vector<Output> compute(const std::vector<Input>& inputs, const std::vector<std::string>& outputs, Times& times) override {
    requireInputs(signature_, inputs);
    std::vector<Owned<ort::Value>> owned;
    std::vector<const ort::Value*> values;
    std::vector<const char*> inputNames;
    for (const Input& input : inputs) {
      // Of an empty tensor the caller may have no memory.
      static char nothing;
      ort::Value* value = nullptr;
      api_.call(ort::CreateTensorWithDataAsOrtValue, memory_, input.data == nullptr ? &nothing : input.data, input.bytes, input.shape.data(),
                input.shape.size(), input.type, &value);
      owned.push_back(api_.own(value, ort::ReleaseValue));
      values.push_back(value);
      inputNames.push_back(input.name.c_str());
    }
    std::vector<const char*> outputNames;
    for (const std::string& name : outputs) outputNames.push_back(name.c_str());
    std::vector<ort::Value*> results(outputs.size(), nullptr);
    const auto run = [&](const ort::RunOptions* options) {
      return api_[ort::RunSession](session_, options, inputNames.data(), values.data(), values.size(), outputNames.data(), outputNames.size(),
                                   results.data());
    };
    const Owned<ort::RunOptions> shrinking = keepsMemory_ ? Owned<ort::RunOptions>(nullptr, nullptr) : shrinkingOptions();
    // Also where the run fails, and after all else: the library frees what nothing uses.
    const AtEnd shrink{[&] {
      if (keepsMemory_) return;
      results.assign(results.size(), nullptr);
      ort::Status* const ended = run(shrinking.get());
      if (ended != nullptr) api_[ort::ReleaseStatus](ended);
      for (ort::Value* value : results) api_[ort::ReleaseValue](value);
    }};
    times.startedNs = nowNs();
    ort::Status* status = run(options_.get());
    times.endedNs = nowNs();
    api_.check(status);
    std::vector<std::shared_ptr<void>> made;
    for (ort::Value* value : results) made.emplace_back(value, [release = api_[ort::ReleaseValue]](void* one) { release(static_cast<ort::Value*>(one)); });
    std::vector<Output> read;
    for (const std::shared_ptr<void>& value : made) read.push_back(outputOf(value, inputs, read));
    return read;
  }

  void cancel() override { api_.call(ort::RunOptionsSetTerminate, options_.get()); }

 private:
  Owned<ort::RunOptions> makeOptions() const {
    ort::RunOptions* options = nullptr;
    api_.call(ort::CreateRunOptions, &options);
    return api_.own(options, ort::ReleaseRunOptions);
  }

  // Of a run that ends before its first kernel, and frees the memory of the session that nothing uses. The library does that at the end of runs
  // only, and what a run has answered lies in that memory until it was copied.
  Owned<ort::RunOptions> shrinkingOptions() const {
    Owned<ort::RunOptions> options = makeOptions();
    api_.call(ort::RunOptionsSetTerminate, options.get());
    api_.call(ort::AddRunConfigEntry, options.get(), "memory.enable_memory_arena_shrinkage", "cpu:0");
    return options;
  }

  Output outputOf(const std::shared_ptr<void>& owner, const std::vector<Input>& inputs, const std::vector<Output>& others) const {
    ort::Value* value = static_cast<ort::Value*>(owner.get());
    ort::TensorTypeAndShapeInfo* made = nullptr;
    api_.call(ort::GetTensorTypeAndShape, value, &made);
    const auto info = api_.own(made, ort::ReleaseTensorTypeAndShapeInfo);
    Type type = readType(api_, info.get());
    void* data = nullptr;
    api_.call(ort::GetTensorMutableData, value, &data);
    std::size_t bytes = bytesOf(type.element);
    for (std::int64_t size : type.sizes) bytes *= static_cast<std::size_t>(size);
    // A graph may name an input or another output as its output. The library then gives that memory once more.
    const auto at = [data](const void* first, std::size_t size) {
      return data >= first && data < static_cast<const char*>(first) + size;
    };
    const bool shared = std::any_of(inputs.begin(), inputs.end(), [&](const Input& input) { return at(input.data, input.bytes); }) ||
                        std::any_of(others.begin(), others.end(), [&](const Output& other) { return at(other.data.get(), other.bytes); });
    if (shared || !keepsMemory_) {
      std::shared_ptr<void> copy(new char[bytes], [](void* memory) { delete[] static_cast<char*>(memory); });
      std::memcpy(copy.get(), data, bytes);
      return {type.element, std::move(type.sizes), std::move(copy), bytes};
    }
    return {type.element, std::move(type.sizes), std::shared_ptr<void>(owner, data), bytes};
  }

  const Api& api_;
  ort::Session* session_;
  const ort::MemoryInfo* memory_;
  const Signature& signature_;
  const bool keepsMemory_;
  Owned<ort::RunOptions> options_;
};

// What lives as long as the process: the library cannot be unloaded while threads of it may still run.
struct Library {
  Api api;
  std::string version;
  ort::Env* env;
  ort::Allocator* allocator;
  ort::MemoryInfo* memory;
};

class OnnxSession final : public Session {
 public:
  OnnxSession(const Library& library, const std::string& file, const LoadOptions& options) : library_(library), session_(nullptr, nullptr) {
    const Api& api = library.api;
    ort::SessionOptions* made = nullptr;
    api.call(ort::CreateSessionOptions, &made);
    const auto settings = api.own(made, ort::ReleaseSessionOptions);
    api.call(ort::SetSessionLogSeverityLevel, made, ort::loggingLevelFatal);
    api.call(ort::SetSessionGraphOptimizationLevel, made, options.optimized ? ort::optimizationsAll : ort::optimizationsNone);
    api.call(ort::SetIntraOpNumThreads, made, options.intraOpThreads);
    api.call(ort::SetInterOpNumThreads, made, 1);
    appendProviders(api, made, options.provider);
    ort::Session* session = nullptr;
    api.call(ort::CreateSession, library.env, file.c_str(), made, &session);
    session_ = api.own(session, ort::ReleaseSession);
    std::size_t inputs = 0;
    std::size_t outputs = 0;
    api.call(ort::SessionGetInputCount, session, &inputs);
    api.call(ort::SessionGetOutputCount, session, &outputs);
    for (std::size_t n = 0; n < inputs; n += 1) {
      signature_.inputs.push_back(portOf(n, ort::SessionGetInputName, ort::SessionGetInputTypeInfo));
    }
    for (std::size_t n = 0; n < outputs; n += 1) {
      signature_.outputs.push_back(portOf(n, ort::SessionGetOutputName, ort::SessionGetOutputTypeInfo));
    }
  }

  const Signature& describe() const override { return signature_; }
  std::unique_ptr<Run> begin(bool keepsMemory) override {
    return std::make_unique<OnnxRun>(library_.api, session_.get(), library_.memory, signature_, keepsMemory);
  }

 private:
  using GetName = ort::Fallible<const ort::Session*, std::size_t, ort::Allocator*, char**>;
  using GetTypeInfo = ort::Fallible<const ort::Session*, std::size_t, ort::TypeInfo**>;

  Port portOf(std::size_t n, GetName getName, GetTypeInfo getTypeInfo) const {
    const Api& api = library_.api;
    Port port{};
    char* name = nullptr;
    api.call(getName, session_.get(), n, library_.allocator, &name);
    port.name = name;
    api.call(ort::AllocatorFree, library_.allocator, name);
    ort::TypeInfo* made = nullptr;
    api.call(getTypeInfo, session_.get(), n, &made);
    const auto info = api.own(made, ort::ReleaseTypeInfo);
    const ort::TensorTypeAndShapeInfo* tensor = nullptr;
    api.call(ort::CastTypeInfoToTensorInfo, info.get(), &tensor);
    port.isTensor = tensor != nullptr;
    if (!port.isTensor) return port;
    const Type type = readType(api, tensor);
    port.type = type.element;
    for (std::size_t axis = 0; axis < type.sizes.size(); axis += 1) port.shape.push_back({type.sizes[axis], type.symbols[axis]});
    return port;
  }

  const Library& library_;
  Owned<ort::Session> session_;
  Signature signature_;
};

class OnnxRuntime final : public Engine {
 public:
  explicit OnnxRuntime(const Library& library) : library_(library) {}
  std::string version() const override { return library_.version; }
  std::unique_ptr<Session> load(const std::string& file, const LoadOptions& options) override {
    return std::make_unique<OnnxSession>(library_, file, options);
  }

 private:
  const Library& library_;
};

const Library* openLibrary(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(std::string("ONNX Runtime cannot be loaded: ") + dlerror());
  const auto getBase = reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
  if (getBase == nullptr) throw std::runtime_error("The library is not ONNX Runtime: it has no OrtGetApiBase.");
  const ort::ApiBase* base = getBase();
  const std::string version = base->getVersionString();
  const ort::Table table = base->getApi(ort::apiVersion);
  if (table == nullptr) {
    throw std::runtime_error("ONNX Runtime " + version + " is too old: it does not serve version " + std::to_string(ort::apiVersion) +
                             " of its interface.");
  }
  const Api api(table);
  auto library = std::make_unique<Library>(Library{api, version, nullptr, nullptr, nullptr});
  // Errors are given to the caller: the library would also write a line for each to standard error.
  api.call(ort::CreateEnv, ort::loggingLevelFatal, "whetstone", &library->env);
  api.call(ort::DisableTelemetryEvents, library->env);
  api.call(ort::GetAllocatorWithDefaultOptions, &library->allocator);
  api.call(ort::CreateCpuMemoryInfo, ort::allocatorTypeDevice, ort::memoryTypeDefault, &library->memory);
  return library.release();
}

const Library& libraryOf(const std::string& path) {
  static const Library* library = openLibrary(path);
  return *library;
}

}  // namespace

std::shared_ptr<Engine> openOnnxRuntime(const std::string& path) { return std::make_shared<OnnxRuntime>(libraryOf(path)); }

std::string providerProblem(const std::string& path, Provider provider) {
  try {
    const Api& api = libraryOf(path).api;
    ort::SessionOptions* made = nullptr;
    api.call(ort::CreateSessionOptions, &made);
    const auto options = api.own(made, ort::ReleaseSessionOptions);
    appendProviders(api, made, provider);
    return "";
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace whetstone
