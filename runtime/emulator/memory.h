// Memory of the emulated devices.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace emulated {

// One device's memory: a range of addresses of its own, so that an address tells its device. Every allocation ends at
// a page that cannot be touched; freed pages cannot be touched again.
class Memory {
  public:
    explicit Memory(unsigned device, std::size_t bytes);
    // The address of fresh memory, filled with a pattern that is neither zero nor a number; 0 when there is not so
    // much left.
    uintptr_t allocate(std::size_t bytes);
    // Whether `address` began an allocation. Sets `overrun` when something was written past its end.
    bool release(uintptr_t address, bool& overrun);
    // Whether all these bytes lie in one live allocation.
    bool holds(uintptr_t address, std::size_t bytes) const;
    // Whether the address is of this device, alive or not.
    bool owns(uintptr_t address) const { return address >= base_ && address < base_ + range; }
    std::size_t total() const { return total_; }
    std::size_t available() const;

  private:
    static constexpr std::size_t range = std::size_t{1} << 40;
    struct Allocation { std::size_t bytes, room; uintptr_t pages; };
    uintptr_t base_, next_;
    std::size_t total_, used_ = 0;
    std::map<uintptr_t, Allocation> allocations_;
    mutable std::mutex lock_;
};

}  // namespace emulated
