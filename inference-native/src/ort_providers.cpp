#include "ort_providers.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace whetstone {
namespace {

// CUDA and TensorRT have functions of the same form.
template <class Options>
struct ProviderFunctions {
  const char* name;
  ort::Fallible<Options**> create;
  ort::Fallible<Options*, const char* const*, const char* const*, std::size_t> update;
  ort::Fallible<ort::SessionOptions*, const Options*> append;
  ort::Function<void(Options*)> release;
};

constexpr ProviderFunctions<ort::CudaProviderOptions> cuda{"CUDAExecutionProvider", ort::CreateCudaProviderOptions,
                                                           ort::UpdateCudaProviderOptions, ort::AppendCudaProvider,
                                                           ort::ReleaseCudaProviderOptions};
constexpr ProviderFunctions<ort::TensorRtProviderOptions> tensorRt{"TensorrtExecutionProvider", ort::CreateTensorRtProviderOptions,
                                                                   ort::UpdateTensorRtProviderOptions, ort::AppendTensorRtProvider,
                                                                   ort::ReleaseTensorRtProviderOptions};

using Settings = std::vector<std::pair<const char*, const char*>>;

// Without it the functions of a provider only say that they are not there.
void requireBuiltIn(const Api& api, const std::string& name) {
  char** names = nullptr;
  int count = 0;
  api.call(ort::GetAvailableProviders, &names, &count);
  const bool builtIn = std::find(names, names + count, name) != names + count;
  api.call(ort::ReleaseAvailableProviders, names, count);
  if (!builtIn) throw std::runtime_error("it was built without it.");
}

// The library puts the place in its sources before what is wrong, and a line end behind.
std::string shortened(const std::string& said) {
  const std::string mark = " : FAIL : ";
  const std::size_t at = said.find(mark);
  const std::string text = at == std::string::npos ? said : said.substr(at + mark.size());
  return text.substr(0, text.find_last_not_of(" \n") + 1);
}

template <class Options>
void append(const Api& api, ort::SessionOptions* session, const ProviderFunctions<Options>& provider, const Settings& settings) {
  try {
    requireBuiltIn(api, provider.name);
    Options* made = nullptr;
    api.call(provider.create, &made);
    const auto options = api.own(made, provider.release);
    std::vector<const char*> names;
    std::vector<const char*> values;
    for (const auto& [name, value] : settings) {
      names.push_back(name);
      values.push_back(value);
    }
    // The first call that loads the provider's library. Its error says what is missing, that of the next one does not.
    api.call(provider.update, made, names.data(), values.data(), names.size());
    api.call(provider.append, session, made);
  } catch (const std::exception& error) {
    throw std::runtime_error(std::string("ONNX Runtime cannot use its ") + provider.name + ": " + shortened(error.what()));
  }
}

}  // namespace

void appendProviders(const Api& api, ort::SessionOptions* session, Provider provider) {
  if (provider == Provider::cpu) return;
  // Its engines are built at each load: a cache of them would be code that whoever can write into its folder has the process run.
  if (provider == Provider::tensorRt) append(api, session, tensorRt, {{"device_id", "0"}, {"trt_fp16_enable", "1"}});
  // Behind TensorRT it computes what that cannot. Without TF32 models of FP32 are computed in FP32, as by the other engines.
  append(api, session, cuda, {{"device_id", "0"}, {"use_tf32", "0"}});
}

}  // namespace whetstone
