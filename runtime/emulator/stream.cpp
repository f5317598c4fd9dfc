#include "stream.h"

namespace emulated {

void Mark::set() {
    std::lock_guard<std::mutex> hold(lock);
    when = std::chrono::steady_clock::now();
    done = true;
    changed.notify_all();
}

void Mark::wait() {
    std::unique_lock<std::mutex> hold(lock);
    changed.wait(hold, [this] { return done; });
}

bool Mark::is_set() {
    std::lock_guard<std::mutex> hold(lock);
    return done;
}

Stream::Stream(std::atomic<int>& failed, uint64_t seed)
    : failed_(failed), jitter_(seed), thread_([this] { loop(); }) {}

Stream::~Stream() {
    {
        std::lock_guard<std::mutex> hold(lock_);
        stopping_ = true;
        changed_.notify_all();
    }
    thread_.join();
}

void Stream::put(Work work) {
    std::lock_guard<std::mutex> hold(lock_);
    works_.push_back(std::move(work));
    changed_.notify_all();
}

void Stream::finish() {
    std::unique_lock<std::mutex> hold(lock_);
    changed_.wait(hold, [this] { return works_.empty() && !busy_; });
}

bool Stream::is_idle() {
    std::lock_guard<std::mutex> hold(lock_);
    return works_.empty() && !busy_;
}

void Stream::loop() {
    std::unique_lock<std::mutex> hold(lock_);
    for (;;) {
        changed_.wait(hold, [this] { return stopping_ || !works_.empty(); });
        if (works_.empty()) return;
        Work work = std::move(works_.front());
        works_.pop_front();
        busy_ = true;
        hold.unlock();
        // Some work begins late, so that whoever forgets to wait sees what was there before.
        jitter_ = jitter_ * 6364136223846793005u + 1442695040888963407u;
        if (jitter_ >> 61 == 0) std::this_thread::sleep_for(std::chrono::microseconds(jitter_ >> 40 & 127));
        const int code = work();
        int none = 0;
        if (code) failed_.compare_exchange_strong(none, code);
        hold.lock();
        busy_ = false;
        changed_.notify_all();
    }
}

}  // namespace emulated
