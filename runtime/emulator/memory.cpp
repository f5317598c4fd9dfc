#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace emulated {

namespace {

constexpr std::size_t page = 4096;
// As a float a NaN, as an index far too large.
constexpr uint32_t fresh = 0x7fa5a5a5u;
constexpr uint8_t slack = 0xa7;

std::size_t up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

}  // namespace

Memory::Memory(unsigned device, std::size_t bytes) : total_(bytes) {
    void* hint = reinterpret_cast<void*>((uintptr_t{0x20} + device) << 40);
    void* at = mmap(hint, range, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) std::abort();
    base_ = reinterpret_cast<uintptr_t>(at);
    next_ = base_ + page;
}

uintptr_t Memory::allocate(std::size_t bytes) {
    std::lock_guard<std::mutex> hold(lock_);
    // A driver hands out addresses at multiples of 256, so that many bytes may lie between the end and the guarding
    // page.
    const std::size_t room = up(bytes, 256), pages = up(room, page);
    if (bytes > total_ || room > total_ - used_ || next_ + pages + page > base_ + range) return 0;
    if (mprotect(reinterpret_cast<void*>(next_), pages, PROT_READ | PROT_WRITE)) return 0;
    const uintptr_t at = next_ + pages - room;
    auto* words = reinterpret_cast<uint32_t*>(at);
    for (std::size_t i = 0; i < bytes / 4; i++) words[i] = fresh;
    std::memset(reinterpret_cast<void*>(at + bytes / 4 * 4), 0xa5, bytes % 4);
    std::memset(reinterpret_cast<void*>(at + bytes), slack, room - bytes);
    allocations_[at] = {bytes, room, next_};
    next_ += pages + page;
    used_ += room;
    return at;
}

bool Memory::release(uintptr_t address, bool& overrun) {
    std::lock_guard<std::mutex> hold(lock_);
    const auto found = allocations_.find(address);
    if (found == allocations_.end()) return false;
    const Allocation& it = found->second;
    for (std::size_t i = it.bytes; i < it.room; i++) {
        if (reinterpret_cast<const uint8_t*>(address)[i] != slack) overrun = true;
    }
    const std::size_t pages = address + it.room - it.pages;
    madvise(reinterpret_cast<void*>(it.pages), pages, MADV_DONTNEED);
    mprotect(reinterpret_cast<void*>(it.pages), pages, PROT_NONE);
    used_ -= it.room;
    allocations_.erase(found);
    return true;
}

bool Memory::holds(uintptr_t address, std::size_t bytes) const {
    std::lock_guard<std::mutex> hold(lock_);
    auto after = allocations_.upper_bound(address);
    if (after == allocations_.begin()) return false;
    const auto& [start, it] = *--after;
    return address - start <= it.bytes && bytes <= it.bytes - (address - start);
}

std::size_t Memory::available() const {
    std::lock_guard<std::mutex> hold(lock_);
    return total_ - used_;
}

}  // namespace emulated
