#include "openvino_refusals.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "protobuf.h"

namespace whetstone {
namespace {

// The fields of onnx.proto that are read.
namespace model {
constexpr std::uint64_t graph = 7, function = 25;
}
namespace graph {
constexpr std::uint64_t node = 1, initializer = 5, input = 11, output = 12, value = 13, sparseInitializer = 15;
}
namespace function {
constexpr std::uint64_t node = 7, attribute = 11;
}
namespace node {
constexpr std::uint64_t input = 1, output = 2, name = 3, type = 4, attribute = 5;
}
namespace attribute {
constexpr std::uint64_t name = 1, number = 3, tensor = 5, graph = 6, numbers = 8, tensors = 10, graphs = 11, ofFunction = 21, sparseTensor = 22;
}
namespace tensor {
constexpr std::uint64_t type = 2, int32s = 5, int64s = 7, name = 8, raw = 9;
}
namespace sparseTensor {
constexpr std::uint64_t values = 1;
}
namespace value {
constexpr std::uint64_t name = 1, type = 2;
}
namespace valueType {
constexpr std::uint64_t tensor = 1;
}
namespace tensorType {
constexpr std::uint64_t element = 1;
}

// Of TensorProto.DataType.
constexpr std::uint64_t int32 = 6, int64 = 7, float64 = 11, uint64 = 13;

// Each was tried with OpenVINO 2026.4. `input` has to be a constant; `any`: no input makes the operator safe.
struct Rule {
  std::string_view type;
  std::size_t input;
  const char* what;
};
constexpr std::size_t any = SIZE_MAX;
constexpr Rule rules[] = {
    // They read and write outside of the tensor.
    {"GatherND", any, "its indices"},
    {"ScatterElements", any, "its indices"},
    {"Scatter", any, "its indices"},
    {"Col2Im", any, "its sizes"},
    {"Split", 1, "sizes that are computed"},
    {"SplitToSequence", 1, "sizes that are computed"},
    {"Pad", 1, "pads that are computed"},
    {"Pad", 3, "axes that are computed"},
    {"Slice", 4, "steps that are computed or too large"},
    // 0 ends the process.
    {"Range", 2, "a delta that is computed"},
    // These could not be tried.
    {"DFT", 1, "a length that is computed"},
    {"TensorScatter", any, "its indices"},
    {"GroupQueryAttention", any, "its lengths"},
};

// What a name of a graph stands for. The graphs in it see it, too.
struct Value {
  bool constant = false;
  std::vector<std::string_view> tensors;  // of a constant,
  std::vector<std::uint64_t> numbers;     // or these
};
struct Scope {
  const Scope* outer;
  std::map<std::string_view, Value> values;

  Value find(std::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->outer) {
      const auto found = scope->values.find(name);
      if (found != scope->values.end()) return found->second;
    }
    return {};
  }
};

// Of a field that may be packed.
void appendNumbers(std::vector<std::uint64_t>& numbers, const Field& field) {
  if (field.bytes.empty()) numbers.push_back(field.number);
  for (std::string_view rest = field.bytes; !rest.empty();) numbers.push_back(readVarint(rest));
}

template <class Number>
void appendRaw(std::vector<std::uint64_t>& numbers, std::string_view raw) {
  for (; raw.size() >= sizeof(Number); raw.remove_prefix(sizeof(Number))) {
    Number number = 0;
    std::memcpy(&number, raw.data(), sizeof number);
    numbers.push_back(static_cast<std::uint64_t>(static_cast<std::int64_t>(number)));
  }
}

// Whether it is a constant without the least number of 32 bits: a step of that size leaves the tensor, too.
bool isModest(Value value) {
  for (const std::string_view bytes : value.tensors) {
    std::uint64_t type = 0;
    std::string_view raw;
    eachField(bytes, [&](const Field& field) {
      if (field.id == tensor::type) type = field.number;
      if (field.id == tensor::int32s || field.id == tensor::int64s) appendNumbers(value.numbers, field);
      if (field.id == tensor::raw) raw = field.bytes;
    });
    if (type == int32) appendRaw<std::int32_t>(value.numbers, raw);
    if (type == int64) appendRaw<std::int64_t>(value.numbers, raw);
  }
  const auto isLeast = [](std::uint64_t number) { return static_cast<std::int64_t>(number) <= INT32_MIN; };
  return value.constant && std::none_of(value.numbers.begin(), value.numbers.end(), isLeast);
}

// In one another, as protobuf itself has it.
constexpr int graphsMax = 100;

// `where` may be of any length.
[[noreturn]] void refuse(const std::string& why, std::string_view where) {
  throw std::runtime_error(why + ": " + std::string(where.substr(0, 100)) + ". Run the model with ONNX Runtime.");
}

void requireType(std::uint64_t type, std::string_view where) {
  if (type == float64) refuse("OpenVINO computes FP64 in 32 bits", where);
  if (type == uint64) refuse("OpenVINO computes UINT64 in 32 bits", where);
}

void requireTensor(std::string_view bytes, std::string_view where) {
  eachField(bytes, [where](const Field& field) {
    if (field.id == tensor::type) requireType(field.number, where);
  });
}

void requireSparseTensor(std::string_view bytes, std::string_view where) {
  eachOf(bytes, sparseTensor::values, [where](std::string_view values) { requireTensor(values, where); });
}

void requireValue(std::string_view bytes) {
  const std::string_view name = textOf(bytes, value::name);
  eachOf(bytes, value::type, [name](std::string_view type) {
    eachOf(type, valueType::tensor, [name](std::string_view tensor) {
      eachField(tensor, [name](const Field& field) {
        if (field.id == tensorType::element) requireType(field.number, name);
      });
    });
  });
}

void requireGraph(std::string_view bytes, const Scope* outer, int depth);

void requireAttribute(std::string_view bytes, std::string_view where, const Scope& scope, int depth) {
  const std::string_view name = textOf(bytes, attribute::name);
  const bool isType = name == "to" || name == "dtype" || name == "output_dtype" || name == "output_datatype";
  eachField(bytes, [&](const Field& field) {
    if (field.id == attribute::number && isType) requireType(field.number, where);
    if (field.id == attribute::ofFunction && isType) refuse("OpenVINO computes FP64 in 32 bits, and a type is not known", where);
    if (field.id == attribute::tensor || field.id == attribute::tensors) requireTensor(field.bytes, where);
    if (field.id == attribute::sparseTensor) requireSparseTensor(field.bytes, where);
    if (field.id == attribute::graph || field.id == attribute::graphs) requireGraph(field.bytes, &scope, depth + 1);
  });
}

Value constantOf(std::string_view node) {
  Value made{true, {}, {}};
  eachOf(node, node::attribute, [&made](std::string_view attribute) {
    eachField(attribute, [&made](const Field& field) {
      if (field.id == attribute::tensor) made.tensors.push_back(field.bytes);
      if (field.id == attribute::number || field.id == attribute::numbers) appendNumbers(made.numbers, field);
    });
  });
  return made;
}

void requireNode(std::string_view bytes, Scope& scope, int depth) {
  std::vector<std::string_view> inputs;
  std::vector<std::string_view> outputs;
  eachOf(bytes, node::input, [&inputs](std::string_view name) { inputs.push_back(name); });
  eachOf(bytes, node::output, [&outputs](std::string_view name) { outputs.push_back(name); });
  const std::string_view type = textOf(bytes, node::type);
  std::string_view where = textOf(bytes, node::name);
  if (where.empty()) where = outputs.empty() ? type : outputs[0];
  for (const Rule& rule : rules) {
    const auto isSafe = [&] {
      return rule.input != any && (rule.input >= inputs.size() || inputs[rule.input].empty() || isModest(scope.find(inputs[rule.input])));
    };
    if (type == rule.type && !isSafe()) refuse("OpenVINO does not check " + std::string(rule.what) + " in a " + std::string(type), where);
  }
  eachOf(bytes, node::attribute, [&](std::string_view attribute) { requireAttribute(attribute, where, scope, depth); });
  for (const std::string_view name : outputs) scope.values[name] = type == "Constant" ? constantOf(bytes) : Value{};
}

void requireGraph(std::string_view bytes, const Scope* outer, int depth) {
  if (depth > graphsMax) throw std::runtime_error("The model has more than " + std::to_string(graphsMax) + " graphs in one another.");
  Scope scope{outer, {}};
  eachField(bytes, [&scope, depth](const Field& field) {
    if (field.id == graph::input || field.id == graph::output || field.id == graph::value) requireValue(field.bytes);
    // Of the whole model, one that is an initializer, too, is a constant.
    if (field.id == graph::input && depth > 0) scope.values[textOf(field.bytes, value::name)] = {};
    if (field.id == graph::sparseInitializer) requireSparseTensor(field.bytes, "a sparse initializer");
    if (field.id != graph::initializer) return;
    const std::string_view name = textOf(field.bytes, tensor::name);
    requireTensor(field.bytes, name);
    scope.values.emplace(name, Value{true, {field.bytes}, {}});
  });
  eachOf(bytes, graph::node, [&](std::string_view node) { requireNode(node, scope, depth); });
}

void requireFunction(std::string_view bytes) {
  Scope scope{nullptr, {}};
  eachOf(bytes, function::attribute, [&](std::string_view attribute) { requireAttribute(attribute, "a function", scope, 0); });
  eachOf(bytes, function::node, [&](std::string_view node) { requireNode(node, scope, 0); });
}

constexpr std::string_view byWeights[] = {"MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention"};

bool nodeReadsByWeights(std::string_view bytes);

// `id`: the field of the nodes in a graph or a function.
bool anyReadsByWeights(std::string_view bytes, std::uint64_t id) {
  bool found = false;
  eachOf(bytes, id, [&found](std::string_view node) { found = found || nodeReadsByWeights(node); });
  return found;
}

bool nodeReadsByWeights(std::string_view bytes) {
  const std::string_view type = textOf(bytes, node::type);
  bool found = std::find(std::begin(byWeights), std::end(byWeights), type) != std::end(byWeights);
  eachOf(bytes, node::attribute, [&found](std::string_view attribute) {
    eachField(attribute, [&found](const Field& field) {
      if (field.id == attribute::graph || field.id == attribute::graphs) found = found || anyReadsByWeights(field.bytes, graph::node);
    });
  });
  return found;
}

}  // namespace

// Called behind `requireSafeForOpenVino`, which bounds how deep graphs are in one another.
bool readsByWeights(std::string_view bytes) {
  bool found = false;
  eachField(bytes, [&found](const Field& field) {
    if (field.id == model::graph) found = found || anyReadsByWeights(field.bytes, graph::node);
    if (field.id == model::function) found = found || anyReadsByWeights(field.bytes, function::node);
  });
  return found;
}

void requireSafeForOpenVino(std::string_view bytes) {
  eachField(bytes, [](const Field& field) {
    if (field.id == model::graph) requireGraph(field.bytes, nullptr, 0);
    if (field.id == model::function) requireFunction(field.bytes);
  });
}

}  // namespace whetstone
