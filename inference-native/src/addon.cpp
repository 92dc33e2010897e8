// The binding for Node. Promises in front of a `Runtime`: what its threads have done comes back over a thread-safe function, and is answered on
// the thread of JavaScript. src/engine/native.ts uses it, and has the types.
#include <napi.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>

#include "bindings.h"
#include "runtime.h"

namespace whetstone {
namespace {

// Made by a thread of the runtime: answers one promise.
struct Completion {
  double id;
  std::string error;
  std::shared_ptr<Model> model;  // of a load
  std::unique_ptr<RunResult> run;
};

Provider providerOf(const Napi::Value& value) {
  const std::string name = value.As<Napi::String>();
  return name == "tensorrt" ? Provider::tensorRt : name == "cuda" ? Provider::cuda : Provider::cpu;
}

class Binding;
void answer(Napi::Env env, Napi::Function, Binding* binding, Completion* completion);
using ThreadSafe = Napi::TypedThreadSafeFunction<Binding, Completion, answer>;

// The way from the threads to JavaScript, until that has gone. A thread of the library may outlive it.
class Channel {
 public:
  void open(ThreadSafe function) { function_ = function; }

  void send(std::unique_ptr<Completion> completion) {
    const std::lock_guard lock(mutex_);
    if (open_ && function_.NonBlockingCall(completion.get()) == napi_ok) completion.release();
  }

  void close() {
    const std::lock_guard lock(mutex_);
    if (open_) function_.Release();
    open_ = false;
  }

  ThreadSafe& function() { return function_; }

 private:
  std::mutex mutex_;
  bool open_ = true;
  ThreadSafe function_;
};

class Binding final : public Napi::ObjectWrap<Binding> {
 public:
  static void define(Napi::Env env, Napi::Object exports) {
    exports.Set("Runtime", DefineClass(env, "Runtime",
                                       {InstanceMethod<&Binding::load>("load"), InstanceMethod<&Binding::run>("run"),
                                        InstanceMethod<&Binding::series>("series"), InstanceMethod<&Binding::cancel>("cancel"),
                                        InstanceMethod<&Binding::unload>("unload"), InstanceMethod<&Binding::close>("close")}));
  }

  // (threads, nice, recordsFile)
  explicit Binding(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Binding>(info), channel_(std::make_shared<Channel>()) {
    const unsigned threads = info[0].As<Napi::Number>();
    const int nice = info[1].As<Napi::Number>();
    try {
      runtime_ = std::make_unique<Runtime>(threads, nice, info[2].As<Napi::String>());
    } catch (const std::exception& error) {
      throw Napi::Error::New(info.Env(), error.what());
    }
    channel_->open(ThreadSafe::New(info.Env(), "whetstone", 0, 1, this));
    // Only what is under way keeps the process.
    channel_->function().Unref(info.Env());
    // Behind the thread-safe function's own hook, so that it runs before that.
    napi_add_env_cleanup_hook(info.Env(), endOf, this);
  }

  void Finalize(Napi::Env env) override {
    napi_remove_env_cleanup_hook(env, endOf, this);
    end();
  }

  void complete(Napi::Env env, Completion& completion) {
    const auto found = pending_.find(completion.id);
    if (found == pending_.end()) return;
    Pending pending = std::move(found->second);
    pending_.erase(found);
    if (pending_.empty()) {
      channel_->function().Unref(env);
      Unref();
    }
    if (!completion.error.empty()) {
      pending.deferred.Reject(Napi::Error::New(env, completion.error).Value());
    } else if (completion.run) {
      pending.deferred.Resolve(resultOf(env, *completion.run, pending.isSeries));
    } else if (completion.model) {
      pending.deferred.Resolve(modelOf(env, completion.model));
    } else {
      pending.deferred.Resolve(env.Undefined());
    }
  }

 private:
  // A promise that is not answered yet. The references keep the memory of the inputs, and that which series share.
  struct Pending {
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference feeds;
    Napi::ObjectReference taken;
    bool isSeries = false;
    std::weak_ptr<Job> job;
  };
  using Handle = Napi::External<std::shared_ptr<Model>>;

  // (id, engine, library, key, file, intraOpThreads, runs, optimized, provider)
  Napi::Value load(const Napi::CallbackInfo& info) {
    const double id = info[0].As<Napi::Number>();
    const std::string engine = info[1].As<Napi::String>();
    const std::string library = info[2].As<Napi::String>();
    const LoadOptions options{info[5].As<Napi::Number>().Int32Value(), info[6].As<Napi::Number>().Int32Value(), info[7].As<Napi::Boolean>(),
                              providerOf(info[8])};
    return promise(info.Env(), id, [&] {
      const auto done = [channel = channel_, id](std::shared_ptr<Model> model, std::string error) {
        channel->send(std::unique_ptr<Completion>(new Completion{id, std::move(error), std::move(model), nullptr}));
      };
      const auto open = [engine, library] { return engine == "openvino" ? openOpenVino(library) : openOnnxRuntime(library); };
      runtime_->load(open, info[3].As<Napi::String>(), info[4].As<Napi::String>(), options, done);
    });
  }

  // (id, model, feeds, outputs, deadlineMs, aside, keepsMemory). No deadline is Infinity.
  Napi::Value run(const Napi::CallbackInfo& info) { return start(info, {}, false); }

  // (…, firstFeed, runsMax, untilNs, taken, total): `taken` is null where it shares its runs with no other.
  Napi::Value series(const Napi::CallbackInfo& info) {
    Series series;
    series.firstFeed = static_cast<std::size_t>(info[7].As<Napi::Number>().Int64Value());
    series.runsMax = static_cast<std::size_t>(info[8].As<Napi::Number>().Int64Value());
    bool lossless = true;
    series.untilNs = info[9].As<Napi::BigInt>().Int64Value(&lossless);
    if (!info[10].IsNull()) series.share = Share{info[10].As<Napi::BigInt64Array>().Data(), info[11].As<Napi::Number>().Int64Value()};
    return start(info, series, true);
  }

  Napi::Value start(const Napi::CallbackInfo& info, const Series& series, bool isSeries) {
    const double id = info[0].As<Napi::Number>();
    const auto feeds = info[2].As<Napi::Array>();
    const auto outputs = info[3].As<Napi::Array>();
    const double deadlineMs = info[4].As<Napi::Number>();
    RunRequest request;
    request.series = series;
    request.aside = info[5].As<Napi::Boolean>();
    request.keepsMemory = info[6].As<Napi::Boolean>();
    // A year is far enough, and does not overflow.
    if (deadlineMs < 365.0 * 86'400'000.0) {
      request.deadline = Clock::now() + std::chrono::microseconds(static_cast<std::int64_t>(deadlineMs * 1000.0));
    }
    for (std::uint32_t n = 0; n < feeds.Length(); n += 1) request.feeds.push_back(feedOf(feeds.Get(n).As<Napi::Array>()));
    for (std::uint32_t n = 0; n < outputs.Length(); n += 1) request.outputs.push_back(outputs.Get(n).As<Napi::String>());
    const std::shared_ptr<Model>& model = *info[1].As<Handle>().Data();
    return promise(info.Env(), id, [&] {
      if (!model) throw std::runtime_error("The model is closed.");
      Pending& pending = pending_.at(id);
      pending.feeds = Napi::Persistent(feeds.As<Napi::Object>());
      pending.isSeries = isSeries;
      if (series.share) pending.taken = Napi::Persistent(info[10].As<Napi::Object>());
      pending.job = runtime_->run(model, std::move(request), [channel = channel_, id](RunResult result) {
        std::string error = result.stop == Stop::none ? result.error : "";
        auto run = error.empty() ? std::make_unique<RunResult>(std::move(result)) : nullptr;
        channel->send(std::unique_ptr<Completion>(new Completion{id, std::move(error), nullptr, std::move(run)}));
      });
    });
  }

  // [names, types, shapes, arrays], which belong together.
  static std::vector<Input> feedOf(const Napi::Array& feed) {
    const auto names = feed.Get(0U).As<Napi::Array>();
    const auto types = feed.Get(1U).As<Napi::Array>();
    const auto shapes = feed.Get(2U).As<Napi::Array>();
    const auto arrays = feed.Get(3U).As<Napi::Array>();
    std::vector<Input> inputs;
    for (std::uint32_t n = 0; n < names.Length(); n += 1) {
      Input input{names.Get(n).As<Napi::String>(), types.Get(n).As<Napi::Number>(), {}, nullptr, 0};
      const auto shape = shapes.Get(n).As<Napi::Array>();
      for (std::uint32_t axis = 0; axis < shape.Length(); axis += 1) {
        input.shape.push_back(shape.Get(axis).As<Napi::Number>().Int64Value());
      }
      const auto array = arrays.Get(n).As<Napi::TypedArray>();
      input.data = static_cast<char*>(array.ArrayBuffer().Data()) + array.ByteOffset();
      input.bytes = array.ByteLength();
      inputs.push_back(std::move(input));
    }
    return inputs;
  }

  // (id)
  void cancel(const Napi::CallbackInfo& info) {
    const auto found = pending_.find(info[0].As<Napi::Number>());
    const std::shared_ptr<Job> job = found == pending_.end() ? nullptr : found->second.job.lock();
    if (job) job->stop(Stop::cancelled);
  }

  // (id, model)
  Napi::Value unload(const Napi::CallbackInfo& info) {
    const double id = info[0].As<Napi::Number>();
    std::shared_ptr<Model> model = std::move(*info[1].As<Handle>().Data());
    return promise(info.Env(), id, [&] {
      if (!model) throw std::runtime_error("The model is closed already.");
      runtime_->unload(std::move(model), [channel = channel_, id] {
        channel->send(std::unique_ptr<Completion>(new Completion{id, "", nullptr, nullptr}));
      });
    });
  }

  void close(const Napi::CallbackInfo&) { end(); }

  template <class Start>
  Napi::Value promise(Napi::Env env, double id, Start start) {
    if (ended_) throw Napi::Error::New(env, "The runtime is closed.");
    const auto deferred = Napi::Promise::Deferred::New(env);
    if (pending_.empty()) {
      channel_->function().Ref(env);
      Ref();
    }
    pending_.emplace(id, Pending{deferred, {}, {}, false, {}});
    try {
      start();
    } catch (const std::exception& error) {
      Completion failed{id, error.what(), nullptr, nullptr};
      complete(env, failed);
    }
    return deferred.Promise();
  }

  static Napi::Value modelOf(Napi::Env env, std::shared_ptr<Model> model) {
    const Signature& signature = model->session->describe();
    const auto result = Napi::Object::New(env);
    result.Set("inputs", portsOf(env, signature.inputs));
    result.Set("outputs", portsOf(env, signature.outputs));
    result.Set("model", Handle::New(env, new std::shared_ptr<Model>(std::move(model)),
                                    [](Napi::Env, std::shared_ptr<Model>* held) { delete held; }));
    return result;
  }

  static Napi::Value portsOf(Napi::Env env, const std::vector<Port>& ports) {
    const auto result = Napi::Array::New(env, ports.size());
    for (std::uint32_t n = 0; n < ports.size(); n += 1) {
      const auto shape = Napi::Array::New(env, ports[n].shape.size());
      for (std::uint32_t axis = 0; axis < ports[n].shape.size(); axis += 1) {
        const auto& [size, symbol] = ports[n].shape[axis];
        if (size < 0) shape.Set(axis, symbol);
        else shape.Set(axis, static_cast<double>(size));
      }
      const auto port = Napi::Object::New(env);
      port.Set("name", ports[n].name);
      port.Set("type", ports[n].isTensor ? Napi::Number::New(env, ports[n].type) : env.Null());
      port.Set("shape", shape);
      result.Set(n, port);
    }
    return result;
  }

  // Takes the outputs over, or the times of a series: their memory goes to JavaScript as it is.
  static Napi::Value resultOf(Napi::Env env, RunResult& run, bool isSeries) {
    const auto result = Napi::Object::New(env);
    result.Set("startedNs", run.times.empty() ? 0.0 : static_cast<double>(run.times.front().startedNs));
    result.Set("endedNs", run.times.empty() ? 0.0 : static_cast<double>(run.times.back().endedNs));
    if (run.stop != Stop::none) {
      result.Set("stopped", run.stop == Stop::deadline ? "DEADLINE" : "CANCELLED");
      return result;
    }
    if (isSeries) {
      const std::size_t bytes = run.times.size() * sizeof(Times);
      const auto times = std::make_shared<std::vector<Times>>(std::move(run.times));
      result.Set("times", bufferOf(env, std::shared_ptr<void>(times, times->data()), bytes));
      return result;
    }
    const auto outputs = Napi::Array::New(env, run.outputs.size());
    for (std::uint32_t n = 0; n < run.outputs.size(); n += 1) {
      Output& output = run.outputs[n];
      const auto shape = Napi::Array::New(env, output.shape.size());
      for (std::uint32_t axis = 0; axis < output.shape.size(); axis += 1) shape.Set(axis, static_cast<double>(output.shape[axis]));
      const auto one = Napi::Object::New(env);
      one.Set("type", output.type);
      one.Set("shape", shape);
      one.Set("data", bufferOf(env, std::move(output.data), output.bytes));
      outputs.Set(n, one);
    }
    result.Set("outputs", outputs);
    return result;
  }

  static Napi::Value bufferOf(Napi::Env env, std::shared_ptr<void> data, std::size_t bytes) {
    if (bytes == 0) return Napi::ArrayBuffer::New(env, 0);
    using Owner = std::shared_ptr<void>;
    auto* owner = new Owner(std::move(data));
    return Napi::ArrayBuffer::New(env, owner->get(), bytes, [](Napi::Env, void*, Owner* held) { delete held; }, owner);
  }

  static void endOf(void* self) { static_cast<Binding*>(self)->end(); }

  void end() {
    if (ended_) return;
    ended_ = true;
    runtime_.reset();
    channel_->close();
    pending_.clear();
  }

  std::shared_ptr<Channel> channel_;
  std::unique_ptr<Runtime> runtime_;
  std::unordered_map<double, Pending> pending_;
  bool ended_ = false;
};

void answer(Napi::Env env, Napi::Function, Binding* binding, Completion* completion) {
  const std::unique_ptr<Completion> owned(completion);
  if (env != nullptr) binding->complete(env, *owned);
}

// (library, provider)
Napi::Value providerProblemOf(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), providerProblem(info[0].As<Napi::String>(), providerOf(info[1])));
}

}  // namespace
}  // namespace whetstone

static Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  whetstone::Binding::define(env, exports);
  whetstone::defineGpus(env, exports);
  whetstone::defineVision(env, exports);
  exports.Set("loadThreadsMax", Napi::Number::New(env, whetstone::Runtime::loadThreadsMax));
  exports.Set("providerProblem", Napi::Function::New(env, whetstone::providerProblemOf));
  return exports;
}

NODE_API_MODULE(whetstone, initialize)
