// The part of OpenVINO's C interface that is used here. The library exports each function by its name, and the Python package that ships
// it has no header. Whatever may fail gives a status: 0 is success.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace whetstone::ov {

struct CompiledModel;
struct Core;
struct InferRequest;
struct Model;
struct Port;
struct Tensor;

struct Version {
  const char* buildNumber;
  const char* description;
};

struct Shape {
  std::int64_t rank;
  std::int64_t* sizes;
};

// Its two limits are equal where the size is known.
struct Dimension {
  std::int64_t min;
  std::int64_t max;
};

struct PartialShape {
  Dimension rank;
  Dimension* dimensions;
};

using Status = int;
constexpr Status parameterRefused = -14;
using Type = int;

// Numbers of element types: they are those of OpenVINO 2026, and were others before.
constexpr Type float32 = 4;
constexpr Type uint64 = 19;

// Every function, found in a loaded library: each has the name that it has there, without the `ov_`. The constructor is given
// `void* find(const char* name)`, which throws where there is none.
struct Api {
  template <class Find>
  explicit Api(Find find) {
    const auto set = [&find](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(find(name));
    };
    set(get_openvino_version, "ov_get_openvino_version");
    set(version_free, "ov_version_free");
    set(get_last_err_msg, "ov_get_last_err_msg");
    set(free, "ov_free");
    set(core_create, "ov_core_create");
    set(core_read_model, "ov_core_read_model");
    set(core_compile_model, "ov_core_compile_model");
    set(model_reshape_by_port_indexes, "ov_model_reshape_by_port_indexes");
    set(model_is_dynamic, "ov_model_is_dynamic");
    set(model_free, "ov_model_free");
    set(compiled_model_inputs_size, "ov_compiled_model_inputs_size");
    set(compiled_model_outputs_size, "ov_compiled_model_outputs_size");
    set(compiled_model_input_by_index, "ov_compiled_model_input_by_index");
    set(compiled_model_output_by_index, "ov_compiled_model_output_by_index");
    set(compiled_model_create_infer_request, "ov_compiled_model_create_infer_request");
    set(compiled_model_free, "ov_compiled_model_free");
    set(port_get_element_type, "ov_port_get_element_type");
    set(port_get_partial_shape, "ov_port_get_partial_shape");
    set(output_const_port_free, "ov_output_const_port_free");
    set(partial_shape_free, "ov_partial_shape_free");
    set(shape_free, "ov_shape_free");
    set(tensor_create, "ov_tensor_create");
    set(tensor_create_from_host_ptr, "ov_tensor_create_from_host_ptr");
    set(tensor_get_shape, "ov_tensor_get_shape");
    set(tensor_get_byte_size, "ov_tensor_get_byte_size");
    set(tensor_data, "ov_tensor_data");
    set(tensor_free, "ov_tensor_free");
    set(infer_request_set_input_tensor_by_index, "ov_infer_request_set_input_tensor_by_index");
    set(infer_request_get_output_tensor_by_index, "ov_infer_request_get_output_tensor_by_index");
    set(infer_request_start_async, "ov_infer_request_start_async");
    set(infer_request_wait, "ov_infer_request_wait");
    set(infer_request_cancel, "ov_infer_request_cancel");
    set(infer_request_free, "ov_infer_request_free");
  }

  Status (*get_openvino_version)(Version*);
  void (*version_free)(Version*);
  const char* (*get_last_err_msg)();
  void (*free)(const char*);
  Status (*core_create)(Core**);
  Status (*core_read_model)(const Core*, const char* file, const char* weights, Model**);
  // `strings`: how many follow, names of properties and their values by turns.
  Status (*core_compile_model)(const Core*, const Model*, const char* device, std::size_t strings, CompiledModel**, ...);
  Status (*model_reshape_by_port_indexes)(const Model*, const std::size_t* inputs, const PartialShape*, std::size_t count);
  bool (*model_is_dynamic)(const Model*);
  void (*model_free)(Model*);
  Status (*compiled_model_inputs_size)(const CompiledModel*, std::size_t*);
  Status (*compiled_model_outputs_size)(const CompiledModel*, std::size_t*);
  Status (*compiled_model_input_by_index)(const CompiledModel*, std::size_t, Port**);
  Status (*compiled_model_output_by_index)(const CompiledModel*, std::size_t, Port**);
  Status (*compiled_model_create_infer_request)(const CompiledModel*, InferRequest**);
  void (*compiled_model_free)(CompiledModel*);
  Status (*port_get_element_type)(const Port*, Type*);
  Status (*port_get_partial_shape)(const Port*, PartialShape*);
  void (*output_const_port_free)(Port*);
  void (*partial_shape_free)(PartialShape*);
  Status (*shape_free)(Shape*);
  Status (*tensor_create)(Type, Shape, Tensor**);
  Status (*tensor_create_from_host_ptr)(Type, Shape, void*, Tensor**);
  Status (*tensor_get_shape)(const Tensor*, Shape*);
  Status (*tensor_get_byte_size)(const Tensor*, std::size_t*);
  Status (*tensor_data)(const Tensor*, void**);
  void (*tensor_free)(Tensor*);
  Status (*infer_request_set_input_tensor_by_index)(InferRequest*, std::size_t, const Tensor*);
  Status (*infer_request_get_output_tensor_by_index)(const InferRequest*, std::size_t, Tensor**);
  Status (*infer_request_start_async)(InferRequest*);
  Status (*infer_request_wait)(InferRequest*);
  Status (*infer_request_cancel)(InferRequest*);
  void (*infer_request_free)(InferRequest*);
};

}  // namespace whetstone::ov
