// Tests of the C++ sources by themselves, for the sanitizers: `native_test ONNXRUNTIME FOLDER [OPENVINO]`. The folder has models of
// test/support/inference_models.py. Ends with 1 at the first check that fails.
#include <atomic>
#include <cstdio>
#include <cstring>
#include <future>
#include <string>

#include "check.h"
#include "engine.h"
#include "runtime.h"

using namespace whetstone;

namespace {

constexpr ElementType float32 = 1;
constexpr ElementType int64 = 7;
constexpr std::int64_t endless = std::int64_t{1} << 60;

std::shared_ptr<Engine> engine;
std::string folder;

std::string fileOf(const std::string& name) { return folder + "/" + name + ".onnx"; }

Input floats(const std::string& name, std::vector<std::int64_t> shape, std::vector<float>& values) {
  return {name, float32, std::move(shape), values.data(), values.size() * sizeof(float)};
}

std::vector<float> valuesOf(const Output& output) {
  std::vector<float> values(output.bytes / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), output.data.get(), output.bytes);
  return values;
}

std::shared_ptr<Model> load(Runtime& runtime, const std::string& name) {
  std::promise<std::shared_ptr<Model>> loaded;
  runtime.load([] { return engine; }, name, fileOf(name), {1, 1, true}, [&loaded](std::shared_ptr<Model> model, std::string error) {
    CHECK(error.empty());
    loaded.set_value(std::move(model));
  });
  return loaded.get_future().get();
}

// A run under way: of `spin`, so many rounds.
struct Spin {
  std::int64_t rounds;
  std::promise<RunResult> promise;
  std::shared_ptr<Job> job;

  Spin(Runtime& runtime, const std::shared_ptr<Model>& model, std::int64_t count, std::optional<Clock::time_point> deadline = {})
      : rounds(count) {
    RunRequest request{{{{"rounds", int64, {1}, &rounds, sizeof rounds}}}, {"y"}, deadline};
    job = runtime.run(model, std::move(request), [this](RunResult result) { promise.set_value(std::move(result)); });
  }
  RunResult end() { return promise.get_future().get(); }
};

// With the other tests it calls every function of ort_abi.h, and of openvino_abi.h: a wrong position in the table crashes or fails here.
void describesRunsAndRefuses() {
  CHECK(!engine->version().empty());
  const auto session = engine->load(fileOf("identity"), {2, 1, true});
  const Signature& signature = session->describe();
  CHECK(signature.inputs.size() == 1 && signature.outputs.size() == 1);
  const Port& input = signature.inputs[0];
  CHECK(input.name == "x" && input.isTensor && input.type == float32);
  CHECK(input.shape.size() == 2 && input.shape[0].size == -1 && input.shape[0].symbol == "n" && input.shape[1].size == 4);

  std::vector<float> values{1, 2, 3, 4};
  Times times;
  const auto outputs = session->begin()->compute({floats("x", {1, 4}, values)}, {"y"}, times);
  CHECK(outputs.size() == 1 && outputs[0].type == float32 && outputs[0].shape == std::vector<std::int64_t>({1, 4}));
  CHECK(valuesOf(outputs[0]) == values);
  CHECK(times.startedNs > 0 && times.endedNs >= times.startedNs);

  std::vector<float> none;
  CHECK(session->begin()->compute({floats("x", {0, 4}, none)}, {"y"}, times)[0].bytes == 0);
  CHECK(errorOf([&] { session->begin()->compute({}, {"y"}, times); }) == "Input x is missing.");
  CHECK(!errorOf([&] { session->begin()->compute({floats("z", {1, 4}, values)}, {"y"}, times); }).empty());
  CHECK(!errorOf([&] { session->begin()->compute({floats("x", {9, 4}, values)}, {"y"}, times); }).empty());
  CHECK(!errorOf([&] { session->begin()->compute({floats("x", {1, 4}, values)}, {"no"}, times); }).empty());
  CHECK(!errorOf([] { engine->load(fileOf("there is none"), {1, 1, true}); }).empty());

  const auto run = session->begin();
  run->cancel();
  const std::string stopped = errorOf([&] { run->compute({floats("x", {1, 4}, values)}, {"y"}, times); });
  CHECK(contains(stopped, "terminate") || contains(stopped, "cancel"));
  CHECK(!errorOf([&] { run->compute({floats("x", {1, 4}, values)}, {"y"}, times); }).empty());
  CHECK(!engine->load(fileOf("text"), {1, 1, false})->describe().inputs.empty());
}

// The caller may free its inputs while it still has the outputs.
void outputsHaveMemoryOfTheirOwn() {
  const auto session = engine->load(fileOf("echo"), {1, 1, true});
  Times times;
  std::vector<Output> outputs;
  {
    std::vector<float> values{1, 2, 3, 4};
    outputs = session->begin()->compute({floats("x", {1, 4}, values)}, {"x", "y", "y"}, times);
    std::fill(values.begin(), values.end(), 0.0F);
  }
  for (const Output& output : outputs) CHECK(valuesOf(output) == std::vector<float>({1, 2, 3, 4}));
  CHECK(outputs[1].data != outputs[2].data);
}

// A run that keeps no memory answers and fails like any other.
void aRunFreesItsMemory() {
  const auto session = engine->load(fileOf("echo"), {1, 1, true});
  Times times;
  std::vector<float> values{1, 2, 3, 4};
  for (int n = 0; n < 3; n += 1) {
    const auto outputs = session->begin(false)->compute({floats("x", {1, 4}, values)}, {"x", "y", "y"}, times);
    CHECK(outputs.size() == 3);
    for (const Output& output : outputs) CHECK(valuesOf(output) == values);
    CHECK(!errorOf([&] { session->begin(false)->compute({floats("x", {1, 4}, values)}, {"no"}, times); }).empty());
  }
  const auto run = session->begin(false);
  run->cancel();
  CHECK(!errorOf([&] { run->compute({floats("x", {1, 4}, values)}, {"y"}, times); }).empty());
}

void twentyThreadsShareASession() {
  Runtime runtime(20, 0, "");
  const auto model = load(runtime, "plus-1");
  constexpr int runs = 2000;
  std::vector<std::vector<float>> inputs;
  for (int n = 0; n < runs; n += 1) inputs.push_back(std::vector<float>(4, static_cast<float>(n)));
  std::atomic<int> right{0};
  std::atomic<int> ended{0};
  std::promise<void> all;
  for (int n = 0; n < runs; n += 1) {
    RunRequest request{{{floats("x", {1, 4}, inputs[n])}}, {"y"}, Clock::now() + std::chrono::minutes(1), n % 10 == 0};
    runtime.run(model, std::move(request), [&, n](RunResult result) {
      if (result.error.empty() && valuesOf(result.outputs[0]) == std::vector<float>(4, static_cast<float>(n + 1))) right += 1;
      if (++ended == runs) all.set_value();
    });
  }
  all.get_future().get();
  CHECK(right == runs);
}

void aRunIsStoppedAtItsDeadline() {
  Runtime runtime(1, 0, "");
  const auto model = load(runtime, "spin");
  Spin late(runtime, model, endless, Clock::now() + std::chrono::milliseconds(50));
  const RunResult stopped = late.end();
  CHECK(stopped.stop == Stop::deadline && contains(stopped.error, "terminate"));
  CHECK(Spin(runtime, model, 3).end().error.empty());

  // One that waits behind another is answered in time, too.
  Spin first(runtime, model, endless);
  Spin waiting(runtime, model, 3, Clock::now() + std::chrono::milliseconds(20));
  CHECK(waiting.end().stop == Stop::deadline);
  first.job->stop(Stop::cancelled);
  CHECK(first.end().stop == Stop::cancelled);
  CHECK(Spin(runtime, model, 3).end().error.empty());
}

// The answer of two feeds of `plus-1`: of ones, and of twos. `shape` is that of the second.
std::future<RunResult> startSeries(Runtime& runtime, const std::shared_ptr<Model>& model, Series series, std::vector<std::int64_t> shape = {1, 4}) {
  static std::vector<float> ones(4, 1);
  static std::vector<float> twos(4, 2);
  RunRequest request{{{floats("x", {1, 4}, ones)}, {floats("x", std::move(shape), twos)}}, {"y"}, {}};
  request.series = series;
  const auto ended = std::make_shared<std::promise<RunResult>>();
  runtime.run(model, std::move(request), [ended](RunResult result) { ended->set_value(std::move(result)); });
  return ended->get_future();
}

void aSeriesComputesOneRunAfterTheOther() {
  Runtime runtime(2, 0, "");
  const auto model = load(runtime, "plus-1");
  const std::int64_t beganNs = nowNs();
  const RunResult five = startSeries(runtime, model, {1, 5}).get();
  CHECK(five.error.empty() && five.times.size() == 5);
  std::int64_t before = beganNs;
  for (const Times& times : five.times) {
    CHECK(times.startedNs >= before && times.endedNs >= times.startedNs);
    before = times.endedNs;
  }
  CHECK(before <= nowNs());
  // The fifth run has the second feed again.
  CHECK(valuesOf(five.outputs.at(0)) == std::vector<float>(4, 3));

  CHECK(startSeries(runtime, model, {0, 0}).get().times.empty());
  CHECK(startSeries(runtime, model, {0, 100, nowNs()}).get().times.size() == 1);
  const std::int64_t untilNs = nowNs() + 20'000'000;
  const RunResult timed = startSeries(runtime, model, {0, 1'000'000, untilNs}).get();
  CHECK(timed.times.back().endedNs >= untilNs && timed.times.at(timed.times.size() - 2).endedNs < untilNs);

  const RunResult failed = startSeries(runtime, model, {0, 100}, {4}).get();
  CHECK(!failed.error.empty() && failed.stop == Stop::none);
  CHECK(startSeries(runtime, model, {0, 2}).get().error.empty());
  CHECK(contains(errorOf([&] { runtime.run(model, {{}, {"y"}, {}}, [](RunResult) {}); }), "There is no feed"));
}

void twoSeriesShareTheirRuns() {
  Runtime runtime(2, 0, "");
  const auto model = load(runtime, "plus-1");
  std::int64_t taken = 0;
  Series series{0, 3000, endless, Share{&taken, 2000}};
  auto first = startSeries(runtime, model, series);
  auto second = startSeries(runtime, model, series);
  CHECK(first.get().times.size() + second.get().times.size() == 2000);
  // Each asked once more than there was.
  CHECK(taken == 2002);
  // A limit of its own comes first: what it takes it computes.
  taken = 0;
  series.runsMax = 3;
  CHECK(startSeries(runtime, model, series).get().times.size() == 3 && taken == 3);
}

void aSeriesIsStoppedAtItsDeadline() {
  Runtime runtime(1, 0, "");
  const auto model = load(runtime, "spin");
  std::int64_t rounds[] = {3, endless};
  RunRequest request{{}, {"y"}, Clock::now() + std::chrono::milliseconds(200)};
  for (std::int64_t& count : rounds) request.feeds.push_back({{"rounds", int64, {1}, &count, sizeof count}});
  request.series.runsMax = 9;
  std::promise<RunResult> ended;
  runtime.run(model, std::move(request), [&ended](RunResult result) { ended.set_value(std::move(result)); });
  const RunResult stopped = ended.get_future().get();
  CHECK(stopped.stop == Stop::deadline && stopped.times.size() <= 2);
  CHECK(Spin(runtime, model, 3).end().error.empty());
}

// In no loop of the model: there OpenVINO does not look whether it is to stop.
void aRunIsStoppedBetweenItsKernels() {
  Runtime runtime(1, 0, "");
  const auto model = load(runtime, "matmuls");
  std::vector<float> values(std::size_t{4096} * 512);
  std::promise<RunResult> ended;
  RunRequest request{{{floats("x", {4096, 512}, values)}}, {"y"}, Clock::now() + std::chrono::milliseconds(50)};
  runtime.run(model, std::move(request), [&ended](RunResult result) { ended.set_value(std::move(result)); });
  CHECK(ended.get_future().get().stop == Stop::deadline);
}

void aModelIsUnloadedBehindItsRuns() {
  Runtime runtime(2, 0, "");
  auto model = load(runtime, "spin");
  Spin run(runtime, model, endless);
  std::promise<void> unloaded;
  std::atomic<bool> gone{false};
  runtime.unload(std::move(model), [&] {
    gone = true;
    unloaded.set_value();
  });
  // What loads and unloads goes on beside the run.
  CHECK(load(runtime, "identity") != nullptr);
  CHECK(!gone);
  run.job->stop(Stop::cancelled);
  CHECK(run.end().stop == Stop::cancelled);
  unloaded.get_future().get();
}

// Reads the file as who finds the process dead would.
std::string recordOf(const std::string& file, std::size_t thread) {
  char record[128] = {};
  std::FILE* opened = std::fopen(file.c_str(), "rb");
  CHECK(opened != nullptr && std::fseek(opened, static_cast<long>(thread * sizeof record), SEEK_SET) == 0);
  CHECK(std::fread(record, 1, sizeof record, opened) == sizeof record);
  std::fclose(opened);
  return record;
}

void aFileTellsWhatIsComputed() {
  const std::string file = folder + "/records";
  std::FILE* made = std::fopen(file.c_str(), "wb");
  const std::string zeros(std::size_t{2} * 128, '\0');
  CHECK(made != nullptr && std::fwrite(zeros.data(), 1, zeros.size(), made) == zeros.size());
  std::fclose(made);
  CHECK(contains(errorOf([] { Runtime runtime(1, 0, folder + "/no records"); }), "cannot be opened"));
  Runtime runtime(1, 0, file);
  const auto model = load(runtime, "spin");
  CHECK(recordOf(file, 0).empty() && recordOf(file, 1).empty());
  Spin run(runtime, model, endless);
  while (recordOf(file, 0) != "spin") std::this_thread::yield();
  run.job->stop(Stop::cancelled);
  CHECK(run.end().stop == Stop::cancelled);
  CHECK(recordOf(file, 0).empty());
}

void aFileThatIsRefusedSaysWhy() {
  Runtime runtime(1, 0, "");
  std::promise<std::string> said;
  runtime.load([] { return engine; }, "none", fileOf("there is none"), {1, 1, true}, [&said](std::shared_ptr<Model> model, std::string error) {
    CHECK(model == nullptr);
    said.set_value(std::move(error));
  });
  CHECK(contains(said.get_future().get(), "there is none"));
}

void theEndStopsEveryRun() {
  std::vector<std::unique_ptr<Spin>> runs;
  {
    Runtime runtime(2, 1, "");
    const auto model = load(runtime, "spin");
    for (int n = 0; n < 6; n += 1) runs.push_back(std::make_unique<Spin>(runtime, model, endless));
  }
  for (const auto& run : runs) CHECK(run->end().stop == Stop::cancelled);
}

// On a machine with a GPU and the providers' libraries it runs instead.
void aProviderThatIsNotThereRefusesTheModel(const std::string& library) {
  for (const Provider provider : {Provider::cuda, Provider::tensorRt}) {
    const std::string problem = providerProblem(library, provider);
    if (!problem.empty()) CHECK(errorOf([&] { engine->load(fileOf("identity"), {1, 1, true, provider}); }) == problem);
  }
  CHECK(!engine->load(fileOf("identity"), {1, 1, true})->describe().inputs.empty());
}

// What every engine does.
void anEngineDoesItsPart() {
  describesRunsAndRefuses();
  outputsHaveMemoryOfTheirOwn();
  aRunFreesItsMemory();
  twentyThreadsShareASession();
  aSeriesComputesOneRunAfterTheOther();
  twoSeriesShareTheirRuns();
  aRunIsStoppedBetweenItsKernels();
  aFileThatIsRefusedSaysWhy();
}

}  // namespace

int main(int count, char** arguments) {
  CHECK(count == 3 || count == 4);
  CHECK(contains(errorOf([] { openOnnxRuntime("/there/is/none.so"); }), "cannot be loaded"));
  CHECK(contains(errorOf([] { openOpenVino("/there/is/none.so"); }), "cannot be loaded"));
  CHECK(contains(errorOf([&] { openOpenVino(arguments[1]); }), "is not OpenVINO"));
  testVision();
  testNvml();
  testProviders(arguments[1]);
  engine = openOnnxRuntime(arguments[1]);
  folder = arguments[2];
  testOnnxFile(fileOf("spin"));
  anEngineDoesItsPart();
  aRunIsStoppedAtItsDeadline();
  aSeriesIsStoppedAtItsDeadline();
  aModelIsUnloadedBehindItsRuns();
  aFileTellsWhatIsComputed();
  aProviderThatIsNotThereRefusesTheModel(arguments[1]);
  theEndStopsEveryRun();
  if (count == 4) {
    engine = openOpenVino(arguments[3]);
    anEngineDoesItsPart();
  }
  std::puts("All checks hold.");
}
