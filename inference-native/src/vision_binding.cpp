#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "bindings.h"
#include "vision.h"

namespace whetstone {
namespace {

// (pixels, width, {part, target}, {width, height, padColor, channels, layout}, tables, tensor)
void fillTensorOf(const Napi::CallbackInfo& info) {
  const auto sizeOf = [](const Napi::Object& object, const char* name) -> std::size_t {
    return object.Get(name).As<Napi::Number>().Uint32Value();
  };
  const auto rectangleOf = [&](const char* name) -> Rectangle {
    const auto object = info[2].As<Napi::Object>().Get(name).As<Napi::Object>();
    return {sizeOf(object, "left"), sizeOf(object, "top"), sizeOf(object, "width"), sizeOf(object, "height")};
  };
  const auto elementsOf = [&](std::size_t n) -> Elements {
    const auto array = info[n].As<Napi::TypedArray>();
    return {static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset(), array.ElementLength(), array.ElementSize()};
  };
  const auto spec = info[3].As<Napi::Object>();
  const auto says = [&spec](const char* name, const char* value) { return spec.Get(name).As<Napi::String>().Utf8Value() == value; };
  const auto padColor = spec.Get("padColor").As<Napi::Array>();
  const auto padOf = [&padColor](std::uint32_t c) { return static_cast<std::uint8_t>(padColor.Get(c).As<Napi::Number>().Uint32Value()); };
  const Elements pixels = elementsOf(0);
  try {
    fillTensor({static_cast<const std::uint8_t*>(pixels.data), pixels.count, info[1].As<Napi::Number>().Uint32Value()},
               {rectangleOf("part"), rectangleOf("target"), sizeOf(spec, "width"), sizeOf(spec, "height"), {padOf(0), padOf(1), padOf(2)},
                says("channels", "GREY") ? Channels::grey : says("channels", "BGR") ? Channels::bgr : Channels::rgb, says("layout", "NHWC")},
               elementsOf(4), elementsOf(5));
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

template <class T>
Span<T> spanOf(const Napi::CallbackInfo& info, std::size_t n, napi_typedarray_type type) {
  const auto array = info[n].As<Napi::TypedArray>();
  if (array.TypedArrayType() != type) throw Napi::Error::New(info.Env(), "An array has elements of another type.");
  return {reinterpret_cast<const T*>(static_cast<const char*>(array.ArrayBuffer().Data()) + array.ByteOffset()), array.ElementLength()};
}

Napi::Value arrayOf(Napi::Env env, const std::vector<std::uint32_t>& values) {
  auto array = Napi::Uint32Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

// (scores, threshold, max)
Napi::Value bestOfScores(const Napi::CallbackInfo& info) {
  const auto scores = spanOf<float>(info, 0, napi_float32_array);
  return arrayOf(info.Env(), bestOf(scores, info[1].As<Napi::Number>(), info[2].As<Napi::Number>().Uint32Value()));
}

// (boxes, candidates, classCount, iouMax, boxesMax)
Napi::Value suppressOf(const Napi::CallbackInfo& info) {
  const auto boxes = spanOf<float>(info, 0, napi_float32_array);
  const auto candidates = spanOf<std::uint32_t>(info, 1, napi_uint32_array);
  const auto sizeAt = [&info](std::size_t n) -> std::size_t { return info[n].As<Napi::Number>().Uint32Value(); };
  try {
    return arrayOf(info.Env(), suppress(boxes, candidates, sizeAt(2), info[3].As<Napi::Number>(), sizeAt(4)));
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

}  // namespace

void defineVision(Napi::Env env, Napi::Object exports) {
  exports.Set("fillTensor", Napi::Function::New(env, fillTensorOf));
  exports.Set("bestOf", Napi::Function::New(env, bestOfScores));
  exports.Set("suppress", Napi::Function::New(env, suppressOf));
}

}  // namespace whetstone
