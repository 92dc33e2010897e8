// What an engine is: it loads a model file as a session. A session holds the weights once, and any number of threads may run it at the same
// time. One file for each library implements this; nothing here knows Node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace whetstone {

// The number of an element type in onnx.proto (TensorProto.DataType).
using ElementType = int;

struct Dimension {
  std::int64_t size;   // -1 where it is symbolic
  std::string symbol;  // may be empty: a symbolic dimension without a name
};

// An input or output as the model declares it.
struct Port {
  std::string name;
  bool isTensor;
  ElementType type;
  std::vector<Dimension> shape;
};

struct Signature {
  std::vector<Port> inputs;
  std::vector<Port> outputs;
};

// The memory is the caller's. It must not change until the run has ended.
struct Input {
  std::string name;
  ElementType type;
  std::vector<std::int64_t> shape;
  void* data;
  std::size_t bytes;
};

// `data` owns the memory, which is no other output's and no input's.
struct Output {
  ElementType type;
  std::vector<std::int64_t> shape;
  std::shared_ptr<void> data;
  std::size_t bytes;
};

// Of the steady clock, in nanoseconds, read right before and after the library's own call; zero where it was not made.
struct Times {
  std::int64_t startedNs = 0;
  std::int64_t endedNs = 0;
};

// Of that clock.
std::int64_t nowNs();

// What computes a session: once, or several times one after the other, until it has failed.
class Run {
 public:
  virtual ~Run() = default;
  // Gives the named outputs in their order. Throws std::exception with what the library says.
  virtual std::vector<Output> compute(const std::vector<Input>& inputs, const std::vector<std::string>& outputs, Times& times) = 0;
  // Ends `compute` with an exception at the next kernel, and every later call of it at once. May be called by any thread at any time in the life
  // of the run.
  virtual void cancel() = 0;
};

// Its destruction unloads the model. It must outlive its runs.
class Session {
 public:
  virtual ~Session() = default;
  virtual const Signature& describe() const = 0;
  // `keepsMemory`: what the run takes is kept for the next one, which is faster for it. Otherwise the run frees it at
  // its end, with an engine that can.
  virtual std::unique_ptr<Run> begin(bool keepsMemory = true) = 0;
};

// What ONNX Runtime computes on. The processor computes what a GPU cannot.
enum class Provider { cpu, cuda, tensorRt };

struct LoadOptions {
  int intraOpThreads;  // of one run
  int runs;            // so many compute at the same time; an engine whose runs bring their own threads has no use for it
  bool optimized;      // otherwise the graph is computed as it is in the file, by an engine that can
  Provider provider = Provider::cpu;  // of ONNX Runtime; other engines have no use for it
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string version() const = 0;
  // Throws std::exception with what the library says of the file.
  virtual std::unique_ptr<Session> load(const std::string& file, const LoadOptions& options) = 0;
};

// Throws std::exception where an input of the model is missing: a library may compute with whatever is in its memory then.
void requireInputs(const Signature& signature, const std::vector<Input>& inputs);

// The library of this file. Throws std::exception where it cannot be used.
std::shared_ptr<Engine> openOnnxRuntime(const std::string& library);
std::shared_ptr<Engine> openOpenVino(const std::string& library);

// Why ONNX Runtime's library cannot use a provider; empty where it can. It loads the provider, and with it the libraries of CUDA.
std::string providerProblem(const std::string& library, Provider provider);

}  // namespace whetstone
