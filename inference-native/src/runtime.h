// Runs sessions of engines on threads of its own: a queue of runs, another for what loads and warms up, and the deadlines of all of them.
// It knows neither Node nor a library.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine.h"

namespace whetstone {

using Clock = std::chrono::steady_clock;

// What each thread loads or computes, in a file that outlives the process: whoever finds the process dead reads which models it was at. A record is a
// model's key, padded with zeros; it is written into mapped memory, which takes no call of the system.
class Records {
 public:
  // Without a file nothing is recorded. Throws std::exception where it cannot be mapped.
  explicit Records(const std::string& file);
  ~Records();
  void begin(unsigned thread, const std::string& key);
  void end(unsigned thread);

 private:
  static constexpr std::size_t recordBytes = 128;
  char* memory_ = nullptr;
  std::size_t bytes_ = 0;
};

// Threads that take tasks from one queue. They are started when they are needed. A task gets the number of its thread.
class Lane {
 public:
  using Task = std::function<void(unsigned thread)>;
  // `nice`: by how much less than the process its threads may have of the processor (Linux). They are numbered from `firstThread`.
  Lane(unsigned threadsMax, int nice, unsigned firstThread);
  ~Lane() { close(Clock::now()); }
  void add(Task task);
  // Drops what waits, and waits until then for what runs. Threads that are still at work then are left to themselves.
  void close(Clock::time_point until);

 private:
  struct State;
  const unsigned threadsMax_;
  const int nice_;
  const unsigned firstThread_;
  const std::shared_ptr<State> state_;
};

// A loaded model. It is unloaded when the last run that holds it has ended.
struct Model {
  std::string key;
  std::unique_ptr<Session> session;
  std::function<void()> unloaded;
  ~Model();
};

enum class Stop { none, cancelled, deadline };

// Runs that several series share, in memory that their threads share.
struct Share {
  std::int64_t* taken;
  std::int64_t total;
  // Whether there was one more to take.
  bool take() const { return __atomic_fetch_add(taken, 1, __ATOMIC_SEQ_CST) < total; }
};

// Runs one after the other on one thread, with nothing between them: by default a single one. It ends at the first limit.
struct Series {
  std::size_t firstFeed = 0;  // of the first run; the other feeds follow in turn
  std::size_t runsMax = 1;    // bounds the memory: 16 bytes each
  std::int64_t untilNs = std::numeric_limits<std::int64_t>::max();  // of `nowNs`: it ends with the run that computes then
  std::optional<Share> share = {};
};

struct RunResult {
  std::vector<Output> outputs;  // of the last run
  std::string error;            // empty where every run succeeded
  Stop stop = Stop::none;
  std::vector<Times> times;  // of each run that the library began
};

struct RunRequest {
  std::vector<std::vector<Input>> feeds;  // the inputs of a run each
  std::vector<std::string> outputs;
  std::optional<Clock::time_point> deadline;
  bool aside = false;  // on the threads that load, so that it does not keep a run waiting
  bool keepsMemory = true;
  Series series = {};
};

class Deadlines;

// A series of runs from its request to its end. `done` is called once, by any thread.
class Job {
 public:
  using Done = std::function<void(RunResult)>;
  Job(std::shared_ptr<Model> model, RunRequest request, Done done, std::shared_ptr<Deadlines> deadlines);
  void compute(unsigned thread, Records& records);
  // A run that waits ends at once; one that computes ends at its next kernel.
  void stop(Stop why);

 private:
  friend class Deadlines;
  void computeSeries(RunResult& result);
  void finish(RunResult result);

  std::shared_ptr<Model> model_;
  const RunRequest request_;
  const Done done_;
  const std::shared_ptr<Deadlines> deadlines_;
  std::mutex mutex_;
  enum { waiting, computing, ended } state_ = waiting;
  Stop stop_ = Stop::none;
  std::unique_ptr<Run> run_;
  std::multimap<Clock::time_point, std::shared_ptr<Job>>::iterator place_;
};

// All jobs that have not ended, by deadline. Its thread stops those whose deadline is over.
class Deadlines {
 public:
  ~Deadlines();
  void add(const std::shared_ptr<Job>& job);
  void remove(Job& job);
  void stopAll();
  void close();

 private:
  void watch();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<Clock::time_point, std::shared_ptr<Job>> jobs_;
  bool closed_ = false;
  std::optional<std::thread> thread_;
};

class Runtime {
 public:
  using Loaded = std::function<void(std::shared_ptr<Model> model, std::string error)>;
  // Called on a thread that loads: the engine's library takes a while.
  using OpenEngine = std::function<std::shared_ptr<Engine>()>;
  // Two, so that a model whose load takes minutes does not keep all others waiting.
  static constexpr unsigned loadThreadsMax = 2;

  // `recordsFile` has records for `threadsMax` threads and for those that load; it may be empty.
  Runtime(unsigned threadsMax, int nice, const std::string& recordsFile);
  ~Runtime() { close(); }
  // `key`: what is recorded of the model.
  void load(OpenEngine open, std::string key, std::string file, LoadOptions options, Loaded done);
  // Throws std::invalid_argument where there is no feed.
  std::shared_ptr<Job> run(std::shared_ptr<Model> model, RunRequest request, Job::Done done);
  // `done` is called when its memory is free: after the runs that hold it.
  void unload(std::shared_ptr<Model> model, std::function<void()> done);
  // Stops every run. Waits for five seconds at most: the library may be in a kernel that does not end.
  void close();

 private:
  const std::shared_ptr<Deadlines> deadlines_;
  const std::shared_ptr<Records> records_;
  Lane runs_;
  Lane loads_;
};

}  // namespace whetstone
