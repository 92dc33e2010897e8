#include <stdexcept>

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

}  // namespace

void defineVision(Napi::Env env, Napi::Object exports) {
  exports.Set("fillTensor", Napi::Function::New(env, fillTensorOf));
}

}  // namespace whetstone
