// The functions of ONNX Runtime's providers for GPUs, each by itself: a wrong position in the table fails here, also on a machine without a GPU.
// The library that onnxruntime-node ships for Linux on x86-64 has them. It looks for the providers' own libraries at the second call.
#include "ort_providers.h"

#include <dlfcn.h>

#include <algorithm>
#include <utility>

#include "check.h"

using namespace whetstone;

namespace {

template <class Options>
struct Functions {
  ort::Fallible<Options**> create;
  ort::Fallible<Options*, const char* const*, const char* const*, std::size_t> update;
  ort::Fallible<ort::SessionOptions*, const Options*> append;
  ort::Function<void(Options*)> release;
};

template <class Work>
bool worksOrSays(Work work, const std::string& part) {
  const std::string said = errorOf(work);
  return said.empty() || contains(said, part);
}

template <class Options>
void everyFunctionIsWhereItIsLookedFor(const Api& api, ort::SessionOptions* session, const Functions<Options>& functions,
                                       const std::string& name) {
  Options* made = nullptr;
  api.call(functions.create, &made);
  CHECK(made != nullptr);
  const auto options = api.own(made, functions.release);
  const char* names[] = {"device_id"};
  const char* values[] = {"0"};
  CHECK(worksOrSays([&] { api.call(functions.update, made, names, values, 1); }, "Failed to load library"));
  CHECK(worksOrSays([&] { api.call(functions.append, session, made); }, "ExecutionProvider_" + name));
}

}  // namespace

void testProviders(const std::string& library) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  CHECK(handle != nullptr);
  const auto getBase = reinterpret_cast<const ort::ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
  const Api api(getBase()->getApi(ort::apiVersion));
  char** names = nullptr;
  int count = 0;
  api.call(ort::GetAvailableProviders, &names, &count);
  const auto has = [&](const std::string& name) { return std::find(names, names + count, name) != names + count; };
  CHECK(count > 0 && has("CPUExecutionProvider"));
  const bool gpu = has("CUDAExecutionProvider") && has("TensorrtExecutionProvider");
  api.call(ort::ReleaseAvailableProviders, names, count);

  CHECK(providerProblem(library, Provider::cpu).empty());
  for (const auto& [provider, name] : {std::pair{Provider::cuda, "CUDAExecutionProvider"}, std::pair{Provider::tensorRt, "TensorrtExecutionProvider"}}) {
    const std::string problem = providerProblem(library, provider);
    CHECK(problem.empty() || contains(problem, std::string("ONNX Runtime cannot use its ") + name + ": "));
    CHECK(problem.empty() || contains(problem, gpu ? "libonnxruntime_providers_" : "built without it"));
  }
  if (!gpu) return;
  ort::SessionOptions* session = nullptr;
  api.call(ort::CreateSessionOptions, &session);
  const auto owned = api.own(session, ort::ReleaseSessionOptions);
  everyFunctionIsWhereItIsLookedFor<ort::CudaProviderOptions>(
      api, session, {ort::CreateCudaProviderOptions, ort::UpdateCudaProviderOptions, ort::AppendCudaProvider, ort::ReleaseCudaProviderOptions},
      "Cuda");
  everyFunctionIsWhereItIsLookedFor<ort::TensorRtProviderOptions>(
      api, session,
      {ort::CreateTensorRtProviderOptions, ort::UpdateTensorRtProviderOptions, ort::AppendTensorRtProvider, ort::ReleaseTensorRtProviderOptions},
      "TensorRT");
}
