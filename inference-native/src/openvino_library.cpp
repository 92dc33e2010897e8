#include "openvino_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>

namespace whetstone::ov {
namespace {

constexpr TypeRow typeRows[] = {
    {1, 9, 1, "bool"},   {2, 16, 2, "bfloat16"}, {3, 10, 2, "float16"}, {4, 1, 4, "float32"},  {5, 11, 8, "float64"},
    {7, 3, 1, "int8"},   {8, 5, 2, "int16"},     {9, 6, 4, "int32"},    {10, 7, 8, "int64"},   {16, 2, 1, "uint8"},
    {17, 4, 2, "uint16"}, {18, 12, 4, "uint32"}, {19, 13, 8, "uint64"}, {23, 8, 0, "string"},
};

// Each message is led by the lines of its C++ sources that it came through.
std::string withoutPlaces(const std::string& message) {
  std::string kept;
  for (std::size_t from = 0; from < message.size();) {
    const std::size_t end = std::min(message.find('\n', from), message.size());
    const std::string line = message.substr(from, end - from);
    if (!line.empty() && line.rfind("Exception from ", 0) != 0) kept += (kept.empty() ? "" : " ") + line;
    from = end + 1;
  }
  return kept.empty() ? message : kept;
}

std::size_t bytesOfOne(const Api& api, Type type) {
  std::int64_t size = 1;
  Tensor* made = nullptr;
  std::size_t bytes = 0;
  if (api.tensor_create(type, {1, &size}, &made) != 0) return 0;
  api.tensor_get_byte_size(made, &bytes);
  api.tensor_free(made);
  return bytes;
}

}  // namespace

const TypeRow& typeRow(Type number) {
  for (const TypeRow& row : typeRows) {
    if (row.number == number) return row;
  }
  throw std::runtime_error("An input or output has an element type that is not read: number " + std::to_string(number) + " of OpenVINO.");
}

const TypeRow& typeRowOf(ElementType onnx) {
  for (const TypeRow& row : typeRows) {
    if (row.onnx == onnx) return row;
  }
  throw std::runtime_error("OpenVINO does not compute with the element type of number " + std::to_string(onnx) + " of onnx.proto.");
}

// It keeps one message for all threads: a run that fails at the same time may have put its own there.
void Library::check(Status status) const {
  if (status == 0) return;
  // Of a parameter that it refuses it says nothing: what it said last is about something else.
  const char* said = status == parameterRefused ? nullptr : api.get_last_err_msg();
  std::string message = said == nullptr ? "OpenVINO failed with the status " + std::to_string(status) + "." : said;
  if (said != nullptr) api.free(said);
  throw std::runtime_error(withoutPlaces(message));
}

std::unique_ptr<const Library> openLibrary(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw std::runtime_error(std::string("OpenVINO cannot be loaded: ") + dlerror());
  const Api api([handle](const char* name) {
    void* function = dlsym(handle, name);
    if (function == nullptr) throw std::runtime_error(std::string("The library is not OpenVINO: it has no ") + name + ".");
    return function;
  });
  auto library = std::make_unique<Library>(Library{api, "", nullptr});
  Version version{};
  library->check(api.get_openvino_version(&version));
  library->version = version.buildNumber;
  api.version_free(&version);
  if (bytesOfOne(api, float32) != 4 || bytesOfOne(api, uint64) != 8) {
    throw std::runtime_error("OpenVINO " + library->version + " numbers element types otherwise than OpenVINO 2026, which is needed.");
  }
  library->check(api.core_create(&library->core));
  return library;
}

}  // namespace whetstone::ov
