#include "runtime.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#ifdef __linux__
#include <sys/resource.h>
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <utility>

namespace whetstone {

// --------------------------------------------------------------------------------------------------------------------------------- records

Records::Records(const std::string& file) {
  if (file.empty()) return;
  const int opened = open(file.c_str(), O_RDWR | O_CLOEXEC);
  struct stat about {};
  if (opened < 0 || fstat(opened, &about) != 0) throw std::runtime_error("The file of records cannot be opened: " + file);
  bytes_ = static_cast<std::size_t>(about.st_size);
  void* mapped = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
  close(opened);
  if (mapped == MAP_FAILED) throw std::runtime_error("The file of records cannot be mapped: " + file);
  memory_ = static_cast<char*>(mapped);
}

Records::~Records() {
  if (memory_ != nullptr) munmap(memory_, bytes_);
}

void Records::begin(unsigned thread, const std::string& key) {
  const std::size_t from = thread * recordBytes;
  if (memory_ == nullptr || from + recordBytes > bytes_) return;
  const std::size_t length = std::min(key.size(), recordBytes - 1);
  std::memset(memory_ + from + length, 0, recordBytes - length);
  std::memcpy(memory_ + from, key.data(), length);
}

void Records::end(unsigned thread) {
  const std::size_t from = thread * recordBytes;
  if (memory_ != nullptr && from + recordBytes <= bytes_) memory_[from] = 0;
}

// ------------------------------------------------------------------------------------------------------------------------------------ lane

struct Lane::State {
  std::mutex mutex;
  std::condition_variable work;
  std::condition_variable gone;
  std::deque<Lane::Task> tasks;
  unsigned threads = 0;
  unsigned idle = 0;
  bool closed = false;
};

namespace {

// On Linux a priority is a thread's own, and the threads of a session inherit that of the thread that loads it.
void giveWay([[maybe_unused]] int nice) {
#ifdef __linux__
  const auto thread = static_cast<id_t>(syscall(SYS_gettid));
  if (nice > 0) setpriority(PRIO_PROCESS, thread, std::min(19, getpriority(PRIO_PROCESS, thread) + nice));
#endif
}

}  // namespace

Lane::Lane(unsigned threadsMax, int nice, unsigned firstThread)
    : threadsMax_(threadsMax), nice_(nice), firstThread_(firstThread), state_(std::make_shared<State>()) {}

void Lane::add(Task task) {
  const std::lock_guard lock(state_->mutex);
  if (state_->closed) return;
  // Before the task is in the queue: a thread that cannot be started is an error of this call, unless there is another one.
  if (state_->idle <= state_->tasks.size() && state_->threads < threadsMax_) {
    try {
      std::thread([state = state_, nice = nice_, number = firstThread_ + state_->threads] {
        giveWay(nice);
        std::unique_lock lock(state->mutex);
        while (!state->closed) {
          if (state->tasks.empty()) {
            state->idle += 1;
            state->work.wait(lock);
            state->idle -= 1;
            continue;
          }
          Task next = std::move(state->tasks.front());
          state->tasks.pop_front();
          lock.unlock();
          next(number);
          next = nullptr;
          lock.lock();
        }
        state->threads -= 1;
        state->gone.notify_all();
      }).detach();
      state_->threads += 1;
    } catch (const std::exception&) {
      if (state_->threads == 0) throw;
    }
  }
  state_->tasks.push_back(std::move(task));
  state_->work.notify_one();
}

void Lane::close(Clock::time_point until) {
  std::deque<Task> dropped;
  std::unique_lock lock(state_->mutex);
  state_->closed = true;
  dropped.swap(state_->tasks);
  state_->work.notify_all();
  state_->gone.wait_until(lock, until, [this] { return state_->threads == 0; });
}

// ----------------------------------------------------------------------------------------------------------------------------------- model

namespace {

// glibc keeps what is freed in front of something that is not: most of the weights of a closed model, and what a library reads a file into.
void giveMemoryBack() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace

Model::~Model() {
  session.reset();
  giveMemoryBack();
  if (unloaded) unloaded();
}

// ------------------------------------------------------------------------------------------------------------------------------------- job

Job::Job(std::shared_ptr<Model> model, RunRequest request, Done done, std::shared_ptr<Deadlines> deadlines)
    : model_(std::move(model)), request_(std::move(request)), done_(std::move(done)), deadlines_(std::move(deadlines)) {}

void Job::compute(unsigned thread, Records& records) {
  // It waited too long behind others.
  if (request_.deadline && *request_.deadline <= Clock::now()) stop(Stop::deadline);
  RunResult result;
  try {
    {
      const std::lock_guard lock(mutex_);
      if (state_ != waiting) return;
      state_ = computing;
      run_ = model_->session->begin(request_.keepsMemory);
    }
    records.begin(thread, model_->key);
    computeSeries(result);
  } catch (const std::exception& error) {
    result.error = error.what();
    if (result.error.empty()) result.error = "The engine does not say what is wrong.";
    if (!result.times.empty() && result.times.back().endedNs == 0) result.times.pop_back();
  }
  records.end(thread);
  {
    const std::lock_guard lock(mutex_);
    state_ = ended;
    run_.reset();
  }
  finish(std::move(result));
}

void Job::computeSeries(RunResult& result) {
  const Series& series = request_.series;
  // Memory that grows would take time between two runs.
  result.times.reserve(series.runsMax);
  for (std::size_t n = 0; n < series.runsMax && (!series.share || series.share->take()); n += 1) {
    // First, so that the library may use their memory again.
    result.outputs.clear();
    Times& times = result.times.emplace_back();
    result.outputs = run_->compute(request_.feeds[(series.firstFeed + n) % request_.feeds.size()], request_.outputs, times);
    if (times.endedNs >= series.untilNs) return;
  }
}

void Job::stop(Stop why) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ == ended || stop_ != Stop::none) return;
    stop_ = why;
    if (state_ == computing) {
      if (run_) run_->cancel();
      return;
    }
    state_ = ended;
  }
  RunResult result;
  result.error = "It did not begin.";
  finish(std::move(result));
}

// Only for who has moved the state to `ended`.
void Job::finish(RunResult result) {
  // A run that ended well in spite of its stop has its outputs.
  if (!result.error.empty()) result.stop = stop_;
  deadlines_->remove(*this);
  done_(std::move(result));
  // Last: this may unload the model.
  model_.reset();
}

// ------------------------------------------------------------------------------------------------------------------------------- deadlines

Deadlines::~Deadlines() { close(); }

void Deadlines::add(const std::shared_ptr<Job>& job) {
  const Clock::time_point at = job->request_.deadline.value_or(Clock::time_point::max());
  const std::lock_guard lock(mutex_);
  job->place_ = jobs_.emplace(at, job);
  if (!job->request_.deadline || closed_) return;
  if (!thread_) thread_.emplace([this] { watch(); });
  if (job->place_ == jobs_.begin()) changed_.notify_one();
}

void Deadlines::remove(Job& job) {
  std::shared_ptr<Job> removed;
  const std::lock_guard lock(mutex_);
  if (job.place_ == jobs_.end()) return;
  removed = job.place_->second;
  jobs_.erase(job.place_);
  job.place_ = jobs_.end();
}

void Deadlines::watch() {
  std::unique_lock lock(mutex_);
  while (!closed_) {
    const auto first = jobs_.begin();
    if (first == jobs_.end() || first->first == Clock::time_point::max()) {
      changed_.wait(lock);
    } else if (const Clock::time_point next = first->first; next > Clock::now()) {
      // A copy: the entry may be gone before this thread wakes.
      changed_.wait_until(lock, next);
    } else {
      // It may compute on for a while: from now on it has no deadline.
      const std::shared_ptr<Job> due = first->second;
      jobs_.erase(first);
      due->place_ = jobs_.emplace(Clock::time_point::max(), due);
      lock.unlock();
      due->stop(Stop::deadline);
      lock.lock();
    }
  }
}

void Deadlines::stopAll() {
  std::vector<std::shared_ptr<Job>> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [at, job] : jobs_) all.push_back(job);
  }
  for (const auto& job : all) job->stop(Stop::cancelled);
}

void Deadlines::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    changed_.notify_one();
  }
  if (thread_ && thread_->joinable()) thread_->join();
}

// --------------------------------------------------------------------------------------------------------------------------------- runtime

Runtime::Runtime(unsigned threadsMax, int nice, const std::string& recordsFile)
    : deadlines_(std::make_shared<Deadlines>()),
      records_(std::make_shared<Records>(recordsFile)),
      runs_(threadsMax, nice, 0),
      loads_(loadThreadsMax, nice, threadsMax) {}

void Runtime::load(OpenEngine open, std::string key, std::string file, LoadOptions options, Loaded done) {
  loads_.add([open = std::move(open), records = records_, key = std::move(key), file = std::move(file), options,
              done = std::move(done)](unsigned thread) {
    auto model = std::make_shared<Model>();
    model->key = key;
    std::string refused;
    records->begin(thread, key);
    try {
      model->session = open()->load(file, options);
    } catch (const std::exception& error) {
      refused = error.what();
      model = nullptr;
    }
    giveMemoryBack();
    records->end(thread);
    done(std::move(model), std::move(refused));
  });
}

std::shared_ptr<Job> Runtime::run(std::shared_ptr<Model> model, RunRequest request, Job::Done done) {
  if (request.feeds.empty()) throw std::invalid_argument("There is no feed: a run needs one, which is empty where the model takes no inputs.");
  Lane& lane = request.aside ? loads_ : runs_;
  auto job = std::make_shared<Job>(std::move(model), std::move(request), std::move(done), deadlines_);
  deadlines_->add(job);
  try {
    lane.add([job, records = records_](unsigned thread) { job->compute(thread, *records); });
  } catch (...) {
    deadlines_->remove(*job);
    throw;
  }
  return job;
}

void Runtime::unload(std::shared_ptr<Model> model, std::function<void()> done) {
  model->unloaded = std::move(done);
  // Not on the calling thread: it takes milliseconds.
  loads_.add([held = std::move(model)](unsigned) mutable { held.reset(); });
}

void Runtime::close() {
  const Clock::time_point until = Clock::now() + std::chrono::seconds(5);
  deadlines_->stopAll();
  runs_.close(until);
  loads_.close(until);
  deadlines_->close();
}

}  // namespace whetstone
