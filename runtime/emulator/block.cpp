// The scheduler of one block. A switch is a dozen instructions of the processor's own: no system call, no signal mask.
#include "block.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

namespace emulated {

Fibre* current;
Index block_index, grid_size;

namespace {

constexpr unsigned threads_max = 1024;
constexpr std::size_t stack_bytes = 64 << 10;

Fibre fibres[threads_max];
unsigned order[threads_max];
unsigned count, alive, waiting;
char* stacks;
void* scheduler_stack;
const Kernel* running;
void* const* running_arguments;
// Arrays of shared memory that this block has seen.
void* poisoned[64];
unsigned poisoned_count;

std::mutex launches;
sigjmp_buf escape;
volatile sig_atomic_t inside;
Fault fault;
Module* modules;

}  // namespace

// Saves the registers that a call keeps, changes the stack, restores them.
extern "C" void isotherm_switch(void** save, void* load);
#if defined(__x86_64__)
asm(R"(
.text
.globl isotherm_switch
.type isotherm_switch, @function
isotherm_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size isotherm_switch, .-isotherm_switch
)");
constexpr unsigned saved_words = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.globl isotherm_switch
.type isotherm_switch, %function
isotherm_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size isotherm_switch, .-isotherm_switch
)");
#else
#error "fibres are written for x86-64 and AArch64"
#endif

namespace {

void to_scheduler() { isotherm_switch(&current->stack_pointer, scheduler_stack); }

[[noreturn]] void fail(Fault why) {
    fault = why;
    siglongjmp(escape, 1);
}

void body() {
    running->call(running_arguments);
    current->state = Fibre::done;
    alive--;
    to_scheduler();
    __builtin_trap();
}

// Lets a fibre begin at `body` on its own stack.
void prepare(unsigned index) {
    char* top = stacks + (index + 1) * stack_bytes;
    void** words = reinterpret_cast<void**>(top);
#if defined(__x86_64__)
    // At its first instruction a function finds its stack eight bytes past a multiple of sixteen.
    words -= 2;
    words[0] = reinterpret_cast<void*>(&body);
    words -= saved_words;
    std::memset(words, 0, saved_words * sizeof(void*));
#else
    words -= 20;
    std::memset(words, 0, 20 * sizeof(void*));
    words[11] = reinterpret_cast<void*>(&body);
#endif
    fibres[index].stack_pointer = words;
}

// A generator small enough to be seen through: splitmix64.
struct Random {
    uint64_t state;
    uint64_t next() {
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    unsigned below(unsigned limit) { return static_cast<unsigned>(next() % limit); }
};

template <typename V> void shuffle_order(V* values, unsigned length, Random& random) {
    for (unsigned i = length; i > 1; i--) std::swap(values[i - 1], values[random.below(i)]);
}

// Warps in some order, and inside a warp lanes in some order, so that a warp's exchanges stay close together.
void make_order(uint64_t seed, Random& random) {
    const unsigned warps = (count + 31) / 32;
    unsigned warp_order[threads_max / 32];
    for (unsigned w = 0; w < warps; w++) warp_order[w] = w;
    if (seed) shuffle_order(warp_order, warps, random);
    unsigned at = 0;
    for (unsigned w = 0; w < warps; w++) {
        const unsigned first = warp_order[w] * 32, lanes = count - first < 32 ? count - first : 32;
        for (unsigned l = 0; l < lanes; l++) order[at + l] = first + l;
        if (seed) shuffle_order(order + at, lanes, random);
        at += lanes;
    }
}

// The lanes of a mask, when all of them have come: hands results over and lets them go on.
void release_warp(const Fibre& last, void (*hand_over)(Fibre* warp, uint32_t mask)) {
    Fibre* warp = fibres + last.warp * 32;
    for (uint32_t rest = last.mask; rest; rest &= rest - 1) {
        const unsigned lane = __builtin_ctz(rest);
        const Fibre& other = warp[lane];
        if (last.warp * 32 + lane >= count) fail(Fault::warp);
        if (other.state == Fibre::done || (other.state == Fibre::in_warp && other.mask != last.mask)) fail(Fault::warp);
        if (other.state != Fibre::in_warp) return;
    }
    hand_over(warp, last.mask);
    for (uint32_t rest = last.mask; rest; rest &= rest - 1) warp[__builtin_ctz(rest)].state = Fibre::ready;
}

void on_signal(int number, siginfo_t* info, void* context);
struct sigaction before[4];
const int signals[4] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};

void on_signal(int number, siginfo_t* info, void* context) {
    if (inside) {
        fault = number == SIGILL ? Fault::misaligned_address : Fault::illegal_address;
        siglongjmp(escape, 1);
    }
    for (int i = 0; i < 4; i++) {
        if (signals[i] != number) continue;
        // Not ours: whoever was here before us is asked, and failing that the program ends as it would have.
        sigaction(number, &before[i], nullptr);
        if (before[i].sa_flags & SA_SIGINFO) before[i].sa_sigaction(number, info, context);
    }
}

void catch_signals() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        for (int i = 0; i < 4; i++) sigaction(signals[i], &action, &before[i]);
        void* memory = mmap(nullptr, threads_max * stack_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) std::abort();
        stacks = static_cast<char*>(memory);
    });
    // Each thread needs a stack for signals: a fibre's own may be what overflowed.
    thread_local static char* own = nullptr;
    if (!own) {
        constexpr std::size_t bytes = 64 << 10;
        own = static_cast<char*>(std::malloc(bytes));
        stack_t stack = {};
        stack.ss_sp = own;
        stack.ss_size = bytes;
        sigaltstack(&stack, nullptr);
    }
}

void run_block() {
    poisoned_count = 0;
    alive = count;
    waiting = 0;
    for (unsigned i = 0; i < count; i++) {
        fibres[i].state = Fibre::ready;
        prepare(i);
    }
    while (alive) {
        bool moved = false;
        for (unsigned i = 0; i < count; i++) {
            Fibre& fibre = fibres[order[i]];
            if (fibre.state != Fibre::ready) continue;
            moved = true;
            current = &fibre;
            isotherm_switch(&scheduler_stack, fibre.stack_pointer);
        }
        if (alive && waiting == alive) {
            for (unsigned i = 0; i < count; i++) {
                if (fibres[i].state == Fibre::at_barrier) fibres[i].state = Fibre::ready;
            }
            waiting = 0;
        } else if (!moved && alive) {
            // Some wait at a barrier, others for lanes that will never come.
            fail(Fault::barrier);
        }
    }
}

}  // namespace

void sync_block() {
    current->state = Fibre::at_barrier;
    waiting++;
    to_scheduler();
}

uint32_t shuffle(uint32_t mask, uint32_t value, unsigned source) {
    Fibre& me = *current;
    // A lane that is not in its own mask, or reads one that is not, gets an undefined value on a device.
    if (!(mask >> me.lane & 1) || !(mask >> (source & 31) & 1)) fail(Fault::warp);
    me.mask = mask;
    me.value = value;
    me.source = source & 31;
    me.state = Fibre::in_warp;
    release_warp(me, [](Fibre* warp, uint32_t lanes) {
        for (uint32_t rest = lanes; rest; rest &= rest - 1) {
            Fibre& fibre = warp[__builtin_ctz(rest)];
            fibre.result = warp[fibre.source].value;
        }
    });
    if (me.state != Fibre::ready) to_scheduler();
    return me.result;
}

void tensor_dot(int (&sums)[4], uint32_t a0, uint32_t a1, uint32_t b) {
    Fibre& me = *current;
    me.mask = 0xffffffffu;
    me.sums = sums;
    me.tile[0] = a0;
    me.tile[1] = a1;
    me.tile[2] = b;
    me.state = Fibre::in_warp;
    release_warp(me, [](Fibre* warp, uint32_t) {
        signed char a[16][16], columns[16][8];
        for (unsigned lane = 0; lane < 32; lane++) {
            for (unsigned i = 0; i < 4; i++) {
                a[lane / 4][lane % 4 * 4 + i] = static_cast<signed char>(warp[lane].tile[0] >> (8 * i));
                a[lane / 4 + 8][lane % 4 * 4 + i] = static_cast<signed char>(warp[lane].tile[1] >> (8 * i));
                columns[lane % 4 * 4 + i][lane / 4] = static_cast<signed char>(warp[lane].tile[2] >> (8 * i));
            }
        }
        for (unsigned lane = 0; lane < 32; lane++) {
            for (unsigned i = 0; i < 4; i++) {
                const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
                int sum = warp[lane].sums[i];
                for (unsigned k = 0; k < 16; k++) sum += a[row][k] * columns[k][column];
                warp[lane].sums[i] = sum;
            }
        }
    });
    if (me.state != Fibre::ready) to_scheduler();
}

void poison_shared(void* at, std::size_t bytes) {
    for (unsigned i = poisoned_count; i > 0; i--) {
        if (poisoned[i - 1] == at) return;
    }
    if (poisoned_count == 64) std::abort();
    poisoned[poisoned_count++] = at;
    // Not a number, and a huge index.
    std::memset(at, 0xff, bytes);
}

Module::Module(const Kernel* kernels, std::size_t count) : kernels(kernels), count(count), next(modules) { modules = this; }

const Kernel* find_kernel(const char* name) {
    for (Module* module = modules; module; module = module->next) {
        for (std::size_t i = 0; i < module->count; i++) {
            if (!std::strcmp(module->kernels[i].name, name)) return &module->kernels[i];
        }
    }
    return nullptr;
}

const char* name_of(Fault why) {
    switch (why) {
        case Fault::none: return "none";
        case Fault::illegal_address: return "a memory access outside every allocation";
        case Fault::misaligned_address: return "a misaligned access, or one past an array of shared memory";
        case Fault::barrier: return "threads of a block wait at a barrier, or for lanes, that others never reach";
        case Fault::warp: return "lanes exchange values with a mask that not all of them hold to";
        case Fault::illegal_instruction: return "an illegal instruction";
    }
    return "?";
}

Fault run(const Kernel& kernel, Index grid, Index block, void* const* arguments, uint64_t seed) {
    std::lock_guard<std::mutex> turn(launches);
    catch_signals();
    count = block.x * block.y * block.z;
    if (count == 0 || count > threads_max) return Fault::illegal_instruction;
    for (unsigned i = 0; i < count; i++) {
        fibres[i].thread = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        fibres[i].lane = i % 32;
        fibres[i].warp = i / 32;
    }
    Random random{seed};
    make_order(seed, random);
    const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    // Every block once, in an order that is neither rising nor needs a table: a step that shares no factor with the
    // number.
    uint64_t step = 1, at = 0;
    if (seed && blocks > 2) {
        auto common = [](uint64_t a, uint64_t b) {
            while (b) std::swap(a %= b, b);
            return a;
        };
        step = random.next() % blocks;
        while (common(step, blocks) != 1) step++;
        at = random.next() % blocks;
    }
    grid_size = grid;
    running = &kernel;
    running_arguments = arguments;
    fault = Fault::none;
    inside = 1;
    if (sigsetjmp(escape, 1) == 0) {
        for (uint64_t done = 0; done < blocks; done++, at = (at + step) % blocks) {
            block_index = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                           static_cast<unsigned>(at / (static_cast<uint64_t>(grid.x) * grid.y))};
            run_block();
        }
    }
    inside = 0;
    return fault;
}

}  // namespace emulated
