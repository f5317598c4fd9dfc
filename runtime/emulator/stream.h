// Streams that work on threads of their own, events, and recorded graphs.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace emulated {

// What a stream does; gives a driver's code.
using Work = std::function<int()>;

// A point in a stream.
struct Mark {
    std::mutex lock;
    std::condition_variable changed;
    bool done = false;
    std::chrono::steady_clock::time_point when;
    void set();
    void wait();
    bool is_set();
};

struct Event {
    std::mutex lock;
    std::shared_ptr<Mark> last;
};

struct Graph {
    std::vector<Work> works;
};

class Stream {
  public:
    // `failed` is told the first code other than 0; work after it is skipped, as on a device whose context is broken.
    Stream(std::atomic<int>& failed, uint64_t seed);
    ~Stream();
    void put(Work work);
    void finish();
    bool is_idle();
    // The graph that is being recorded instead of doing anything.
    std::unique_ptr<Graph> recording;

  private:
    void loop();
    std::atomic<int>& failed_;
    uint64_t jitter_;
    std::mutex lock_;
    std::condition_variable changed_;
    std::deque<Work> works_;
    bool busy_ = false, stopping_ = false;
    std::thread thread_;
};

}  // namespace emulated
