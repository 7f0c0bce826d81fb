#include "core/parallel.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

namespace ptr_fast {
namespace {

struct Job {
  Job(int64_t items, const std::function<void(int64_t)>& function) : num_items(items), body(&function) {}

  const int64_t num_items;
  const std::function<void(int64_t)>* const body;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::condition_variable idle;
  int64_t num_done = 0;  // under mutex
  std::exception_ptr error;

  // Takes items until none is left. A body is called only for an item taken here, and the caller of parallel_for
  // leaves only when every item is done: so `body` outlives every use.
  void work() {
    int64_t done = 0;
    std::exception_ptr mine;
    for (int64_t item; (item = next.fetch_add(1)) < num_items; ++done) {
      if (failed.load(std::memory_order_relaxed)) continue;
      try {
        (*body)(item);
      } catch (...) {
        mine = std::current_exception();
        failed = true;
      }
    }
    if (done == 0) return;
    const std::lock_guard lock(mutex);
    num_done += done;
    if (mine && !error) error = mine;
    if (num_done == num_items) idle.notify_all();
  }
};

class Pool {
 public:
  void run(int64_t num_items, int num_threads, const std::function<void(int64_t)>& body) {
    const auto job = std::make_shared<Job>(num_items, body);
    const int helpers = int(std::min<int64_t>(num_threads, num_items)) - 1;
    {
      const std::lock_guard lock(mutex_);
      for (; num_workers_ < helpers; ++num_workers_) std::thread(&Pool::serve, this).detach();
      for (int i = 0; i < helpers; ++i) queue_.push_back(job);
    }
    wake_.notify_all();
    job->work();
    {
      const std::lock_guard lock(mutex_);
      std::erase(queue_, job);
    }
    std::unique_lock lock(job->mutex);
    job->idle.wait(lock, [&] { return job->num_done == job->num_items; });
    if (job->error) std::rethrow_exception(job->error);
  }

  int size() {
    const std::lock_guard lock(mutex_);
    return num_workers_;
  }

 private:
  void serve() {
    for (;;) {
      std::shared_ptr<Job> job;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return !queue_.empty(); });
        job = std::move(queue_.front());
        queue_.pop_front();
      }
      job->work();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> queue_;
  int num_workers_ = 0;
};

// Never destroyed: its threads wait until the process ends. After a fork the child has none of them, so it gets a pool
// of its own.
Pool& pool() {
  static std::mutex mutex;
  static Pool* current = nullptr;
  static pid_t owner = 0;
  const std::lock_guard lock(mutex);
  if (owner != getpid()) {
    current = new Pool;
    owner = getpid();
  }
  return *current;
}

}  // namespace

void parallel_for(int64_t num_items, int num_threads, const std::function<void(int64_t)>& body) {
  if (num_items <= 0) return;
  if (num_threads <= 1 || num_items == 1) {
    for (int64_t item = 0; item < num_items; ++item) body(item);
    return;
  }
  pool().run(num_items, num_threads, body);
}

int pool_size() { return pool().size(); }

}  // namespace ptr_fast
