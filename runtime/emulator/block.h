// Blocks of threads on the host: one thread is one fibre, blocks run one after another.
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace emulated {

struct Index { unsigned x, y, z; };

// One thread of the block that is running.
struct Fibre {
    void* stack_pointer;
    Index thread;
    unsigned lane, warp;
    // What it waits for.
    enum State : uint8_t { ready, at_barrier, in_warp, done } state;
    // What it gave to its warp, for whom, and what it got.
    uint32_t mask, value, result;
    unsigned source;
    int* sums;
    uint32_t tile[3];
};

extern Fibre* current;
extern Index block_index, grid_size;

// Waits until every unfinished thread of the block has come here.
void sync_block();
// Gives `value` to the lanes of `mask` and takes the value of lane `source`, once all of them have come.
uint32_t shuffle(uint32_t mask, uint32_t value, unsigned source);
// The product of two tiles that the lanes of a warp hold together.
void tensor_dot(int (&sums)[4], uint32_t a0, uint32_t a1, uint32_t b);
// Fills an array of shared memory once in a block.
void poison_shared(void* at, std::size_t bytes);

// A kernel, compiled for the host.
struct Kernel {
    const char* name;
    // One letter an argument: `p` pointer, `w` 32 bits, `d` 64 bits.
    const char* kinds;
    void (*call)(void* const* arguments);
};

// The kernels of one module.
struct Module {
    const Kernel* kernels;
    std::size_t count;
    Module* next;
    Module(const Kernel* kernels, std::size_t count);
};
const Kernel* find_kernel(const char* name);

// Why a launch failed.
enum class Fault { none, illegal_address, misaligned_address, barrier, warp, illegal_instruction };
const char* name_of(Fault fault);

// Runs all blocks of a launch and returns when they are done. The order of threads, warps and blocks follows from
// `seed`; 0 is the natural one. Launches take turns.
Fault run(const Kernel& kernel, Index grid, Index block, void* const* arguments, uint64_t seed);

}  // namespace emulated
