// OpenVINO on the processor, bound at run time. It reads ONNX files as they are. A run computes on OpenVINO's own threads, at most
// `LoadOptions::runs` at a time.
#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>

#include "engine.h"
#include "onnx_file.h"
#include "openvino_library.h"
#include "openvino_refusals.h"
#include "protobuf.h"

namespace whetstone {
namespace {

// `kind`: input or output.
std::size_t indexOf(const std::vector<Port>& ports, const std::string& name, const std::string& kind) {
  const auto found = std::find_if(ports.begin(), ports.end(), [&name](const Port& port) { return port.name == name; });
  if (found == ports.end()) throw std::runtime_error("The model has no " + kind + " " + name + ".");
  return static_cast<std::size_t>(found - ports.begin());
}

// What the library computes a run with. The first run of one takes longer, so that they are used again.
class Requests {
 public:
  Requests(const ov::Library& library, const ov::CompiledModel* model) : library_(library), model_(model) {}

  ov::Owned<ov::InferRequest> take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        ov::Owned<ov::InferRequest> taken = std::move(free_.back());
        free_.pop_back();
        return taken;
      }
    }
    ov::InferRequest* made = nullptr;
    library_.check(library_.api.compiled_model_create_infer_request(model_, &made));
    return {made, library_.api.infer_request_free};
  }

  void giveBack(ov::Owned<ov::InferRequest> request) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(request));
  }

 private:
  const ov::Library& library_;
  const ov::CompiledModel* model_;
  std::mutex mutex_;
  std::vector<ov::Owned<ov::InferRequest>> free_;
};

using Shapes = std::vector<std::vector<std::int64_t>>;

// The shapes of inputs that a model can be computed with. While it computes, the library does not check all: it multiplies a matrix with memory
// behind a shorter input. And after the errors that it has, it may refuse the right shapes too.
class CheckedShapes {
 public:
  // `readsByWeights`: sizes within the graph must follow from those of the inputs alone.
  CheckedShapes(const ov::Library& library, ov::Owned<ov::Model> model, bool readsByWeights)
      : library_(library), model_(std::move(model)), readsByWeights_(readsByWeights) {}

  // Throws what the library says where it finds that shapes do not fit into the graph.
  void require(const Shapes& shapes) {
    const std::lock_guard lock(mutex_);
    if (known_.count(shapes) > 0) return;
    std::vector<std::vector<ov::Dimension>> dimensions;
    std::vector<ov::PartialShape> wanted;
    std::vector<std::size_t> indices;
    for (std::size_t index = 0; index < shapes.size(); index += 1) {
      // It does not take the shape of a scalar. What is declared as one can be nothing else.
      if (shapes[index].empty()) continue;
      std::vector<ov::Dimension>& of = dimensions.emplace_back();
      for (const std::int64_t size : shapes[index]) of.push_back({size, size});
      const auto rank = static_cast<std::int64_t>(of.size());
      wanted.push_back({{rank, rank}, of.data()});
      indices.push_back(index);
    }
    if (!indices.empty()) {
      library_.check(library_.api.model_reshape_by_port_indexes(model_.get(), indices.data(), wanted.data(), wanted.size()));
    }
    if (readsByWeights_ && library_.api.model_is_dynamic(model_.get())) {
      throw std::runtime_error(
          "A size within the model depends on values of its inputs, which OpenVINO does not check before a matrix product. Run the model with ONNX "
          "Runtime.");
    }
    if (known_.size() == knownMax) known_.clear();
    known_.insert(shapes);
  }

 private:
  static constexpr std::size_t knownMax = 1000;
  const ov::Library& library_;
  std::mutex mutex_;
  ov::Owned<ov::Model> model_;
  const bool readsByWeights_;
  std::set<Shapes> known_;
};

class OpenVinoRun final : public Run {
 public:
  OpenVinoRun(const ov::Library& library, Requests& requests, CheckedShapes& shapes, const Signature& signature)
      : library_(library), requests_(requests), shapes_(shapes), signature_(signature), request_(requests.take()) {}

  // One that failed or was stopped may not be as it was.
  ~OpenVinoRun() override {
    if (usable_ && !cancelled_) requests_.giveBack(std::move(request_));
  }

  std::vector<Output> compute(const std::vector<Input>& inputs, const std::vector<std::string>& outputs, Times& times) override {
    const ov::Api& api = library_.api;
    usable_ = false;
    requireInputs(signature_, inputs);
    // The request holds the memory of the inputs until then.
    std::vector<ov::Owned<ov::Tensor>> owned;
    Shapes shapes(signature_.inputs.size());
    for (const Input& input : inputs) {
      const std::size_t index = indexOf(signature_.inputs, input.name, "input");
      owned.push_back(tensorOf(input, signature_.inputs[index]));
      shapes[index] = input.shape;
      library_.check(api.infer_request_set_input_tensor_by_index(request_.get(), index, owned.back().get()));
    }
    shapes_.require(shapes);
    std::vector<std::size_t> indices;
    for (const std::string& name : outputs) indices.push_back(indexOf(signature_.outputs, name, "output"));
    {
      // Only a request that has started can be cancelled.
      const std::lock_guard lock(mutex_);
      if (cancelled_) throw std::runtime_error("Infer Request was canceled");
      times.startedNs = nowNs();
      library_.check(api.infer_request_start_async(request_.get()));
    }
    const ov::Status status = api.infer_request_wait(request_.get());
    times.endedNs = nowNs();
    library_.check(status);
    std::vector<Output> read;
    for (const std::size_t index : indices) read.push_back(outputOf(index));
    usable_ = true;
    return read;
  }

  void cancel() override {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    library_.api.infer_request_cancel(request_.get());
  }

 private:
  ov::Owned<ov::Tensor> tensorOf(const Input& input, const Port& port) const {
    const ov::TypeRow& type = ov::typeRowOf(input.type);
    if (input.type != port.type) {
      throw std::runtime_error("Input " + input.name + " has the element type " + type.name + ", and the model takes " +
                               ov::typeRowOf(port.type).name + ".");
    }
    std::size_t bytes = type.bytes;
    for (const std::int64_t size : input.shape) bytes *= static_cast<std::size_t>(size);
    if (bytes != input.bytes) throw std::runtime_error("Input " + input.name + " has another length than its shape.");
    requireSmall(input);
    // Of an empty tensor the caller may have no memory.
    static char nothing[8];
    std::vector<std::int64_t> sizes = input.shape;
    ov::Tensor* tensor = nullptr;
    library_.check(library_.api.tensor_create_from_host_ptr(type.number, {static_cast<std::int64_t>(sizes.size()), sizes.data()},
                                                            bytes == 0 ? nothing : input.data, &tensor));
    return {tensor, library_.api.tensor_free};
  }

  static void requireSmall(const Input& input) {
    if (input.type == 7) requireSmall<std::int64_t>(input);
    if (input.type == 12) requireSmall<std::uint32_t>(input);
  }

  // The library would compute with the lower half of each number, or with a negative one, and say nothing.
  template <class Number>
  static void requireSmall(const Input& input) {
    const auto* values = static_cast<const Number*>(input.data);
    const auto isLarge = [](std::int64_t value) {
      return value < std::numeric_limits<std::int32_t>::min() || value > std::numeric_limits<std::int32_t>::max();
    };
    const auto* end = values + input.bytes / sizeof(Number);
    const auto* large = std::find_if(values, end, isLarge);
    if (large != end) {
      throw std::runtime_error("Input " + input.name + " has the value " + std::to_string(*large) +
                               ": OpenVINO computes with signed integers of 32 bits. Run the model with ONNX Runtime.");
    }
  }

  Output outputOf(std::size_t index) const {
    const ov::Api& api = library_.api;
    ov::Tensor* made = nullptr;
    library_.check(api.infer_request_get_output_tensor_by_index(request_.get(), index, &made));
    const std::shared_ptr<ov::Tensor> tensor(made, api.tensor_free);
    Output output{signature_.outputs[index].type, {}, nullptr, 0};
    ov::Shape shape{};
    const ov::Status status = api.tensor_get_shape(made, &shape);
    // It has no shape for a scalar.
    if (status != ov::parameterRefused) {
      library_.check(status);
      output.shape.assign(shape.sizes, shape.sizes + shape.rank);
      api.shape_free(&shape);
    }
    library_.check(api.tensor_get_byte_size(made, &output.bytes));
    void* data = nullptr;
    library_.check(api.tensor_data(made, &data));
    // The request computes other runs later, and the same output may be asked for twice.
    output.data = std::shared_ptr<void>(new char[output.bytes], [](void* memory) { delete[] static_cast<char*>(memory); });
    std::memcpy(output.data.get(), data, output.bytes);
    return output;
  }

  const ov::Library& library_;
  Requests& requests_;
  CheckedShapes& shapes_;
  const Signature& signature_;
  ov::Owned<ov::InferRequest> request_;
  std::mutex mutex_;
  bool cancelled_ = false;
  bool usable_ = true;
};

class OpenVinoSession final : public Session {
 public:
  OpenVinoSession(const ov::Library& library, const std::string& file, const LoadOptions& options)
      : library_(library), model_(nullptr, library.api.compiled_model_free) {
    const ov::Api& api = library.api;
    // The library keeps no names of dimensions, and of a port with several names one of them. This comes first: whatever is no ONNX file it would
    // take for one of other frameworks.
    const MappedFile mapped(file);
    const DeclaredPorts declared = readDeclaredPorts(mapped.bytes());
    requireSafeForOpenVino(mapped.bytes());
    ov::Model* read = nullptr;
    library.check(api.core_read_model(library.core, file.c_str(), nullptr, &read));
    ov::Owned<ov::Model> owned(read, api.model_free);
    const std::string streams = std::to_string(options.runs);
    const std::string threads = std::to_string(options.runs * options.intraOpThreads);
    ov::CompiledModel* compiled = nullptr;
    // By default it would compute FP32 models in bfloat16 where the processor can, and bind its threads to processors that others use.
    library.check(api.core_compile_model(library.core, read, "CPU", 8, &compiled, "NUM_STREAMS", streams.c_str(), "INFERENCE_NUM_THREADS",
                                         threads.c_str(), "INFERENCE_PRECISION_HINT", "f32", "ENABLE_CPU_PINNING", "NO"));
    model_.reset(compiled);
    requests_ = std::make_unique<Requests>(library, compiled);
    shapes_ = std::make_unique<CheckedShapes>(library, std::move(owned), readsByWeights(mapped.bytes()));
    std::size_t inputs = 0;
    std::size_t outputs = 0;
    library.check(api.compiled_model_inputs_size(compiled, &inputs));
    library.check(api.compiled_model_outputs_size(compiled, &outputs));
    if (inputs != declared.inputs.size() || outputs != declared.outputs.size()) {
      throw std::runtime_error("OpenVINO finds other inputs and outputs in the model than the file declares.");
    }
    for (std::size_t n = 0; n < inputs; n += 1) signature_.inputs.push_back(portOf(declared.inputs[n], n, api.compiled_model_input_by_index));
    for (std::size_t n = 0; n < outputs; n += 1) {
      signature_.outputs.push_back(portOf(declared.outputs[n], n, api.compiled_model_output_by_index));
    }
  }

  const Signature& describe() const override { return signature_; }
  // It has no way to free the memory of a run.
  std::unique_ptr<Run> begin(bool /*keepsMemory*/) override { return std::make_unique<OpenVinoRun>(library_, *requests_, *shapes_, signature_); }

 private:
  using GetPort = ov::Status (*)(const ov::CompiledModel*, std::size_t, ov::Port**);

  Port portOf(const DeclaredPort& declared, std::size_t n, GetPort getPort) const {
    const ov::Api& api = library_.api;
    ov::Port* made = nullptr;
    library_.check(getPort(model_.get(), n, &made));
    const ov::Owned<ov::Port> owned(made, api.output_const_port_free);
    ov::Type type = 0;
    library_.check(api.port_get_element_type(made, &type));
    Port port{declared.name, true, ov::typeRow(type).onnx, {}};
    ov::PartialShape shape{};
    library_.check(api.port_get_partial_shape(made, &shape));
    // No dimensions where their number is not known, as ONNX Runtime has it.
    const std::int64_t rank = shape.rank.min == shape.rank.max ? shape.rank.max : 0;
    for (std::int64_t axis = 0; axis < rank; axis += 1) {
      const auto [min, max] = shape.dimensions[axis];
      const bool named = declared.symbols.size() == static_cast<std::size_t>(rank);
      if (min == max) port.shape.push_back({max, ""});
      else port.shape.push_back({-1, named ? declared.symbols[static_cast<std::size_t>(axis)] : ""});
    }
    api.partial_shape_free(&shape);
    return port;
  }

  const ov::Library& library_;
  ov::Owned<ov::CompiledModel> model_;
  std::unique_ptr<Requests> requests_;
  std::unique_ptr<CheckedShapes> shapes_;
  Signature signature_;
};

class OpenVino final : public Engine {
 public:
  explicit OpenVino(const ov::Library& library) : library_(library) {}
  std::string version() const override { return library_.version; }
  // It has no way to leave the graph as it is in the file.
  std::unique_ptr<Session> load(const std::string& file, const LoadOptions& options) override {
    return std::make_unique<OpenVinoSession>(library_, file, options);
  }

 private:
  const ov::Library& library_;
};

}  // namespace

std::shared_ptr<Engine> openOpenVino(const std::string& path) {
  static const ov::Library* library = ov::openLibrary(path).release();
  return std::make_shared<OpenVino>(*library);
}

}  // namespace whetstone
