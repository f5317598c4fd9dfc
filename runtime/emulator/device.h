// What a kernel finds around it when it is compiled for the host: the built-ins of the device language, each done by
// the fibre that stands for the thread. Included before the kernels' own sources, which are not changed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.h"

#define ISOTHERM_HOST 1
#define HAS_TENSOR 1
#define DEVICE static inline __attribute__((unused, always_inline))
// Kernels carry their names without C linkage: several formats live in one library, each in a namespace of its own.
#define KERNEL(threads, blocks) static void
#define __restrict__
// One block is alive at a time, so static storage is what shared memory is. It is filled with a pattern when the first
// thread of a block comes by: what was not written is not a plausible number.
#define SHARED(type, name, count)   \
    static type name[count];        \
    emulated::poison_shared(name, sizeof(name))
#define SYNC() emulated::sync_block()

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };

#define threadIdx (emulated::current->thread)
#define blockIdx (emulated::block_index)
#define gridDim (emulated::grid_size)

static inline __attribute__((unused)) float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline __attribute__((unused)) uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline __attribute__((unused)) float __fmul_rn(float a, float b) { return a * b; }
static inline __attribute__((unused)) float __fadd_rn(float a, float b) { return a + b; }
static inline __attribute__((unused)) float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
template <typename V> static inline V __ldcg(const V* from) { return *from; }
static inline __attribute__((unused)) void __threadfence() {}
static inline __attribute__((unused)) unsigned atomicAdd(unsigned* at, unsigned value) {
    unsigned before = *at;
    *at += value;
    return before;
}
template <typename V> static inline V min(V a, V b) { return a < b ? a : b; }

template <typename V> static inline V shuffle_xor(V value, int distance) {
    static_assert(sizeof(V) == 4, "a shuffle moves 32 bits");
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = emulated::shuffle(0xffffffffu, bits, emulated::current->lane ^ distance);
    std::memcpy(&value, &bits, 4);
    return value;
}

// Kernels under test may name lanes themselves.
template <typename V> static inline V __shfl_xor_sync(unsigned mask, V value, int distance) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = emulated::shuffle(mask, bits, emulated::current->lane ^ distance);
    std::memcpy(&value, &bits, 4);
    return value;
}

static inline __attribute__((unused)) float half_to_float(unsigned short bits) {
    unsigned sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    if (rest >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    // The exponent's bias is corrected by a product, which also makes numbers without an exponent right.
    float value = __uint_as_float(rest << 13) * __uint_as_float(0x77800000u);
    unsigned out;
    std::memcpy(&out, &value, 4);
    return __uint_as_float(out | sign);
}

static inline __attribute__((unused)) unsigned pick_bytes(unsigned a, unsigned b, unsigned which) {
    uint64_t both = (uint64_t)b << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; i++) out |= (unsigned)(both >> ((which >> (4 * i) & 7) * 8) & 255) << (8 * i);
    return out;
}

static inline __attribute__((unused)) int dot4(int a, int b, int sum) {
    for (int i = 0; i < 32; i += 8) sum += (int)(signed char)(a >> i) * (int)(signed char)(b >> i);
    return sum;
}

static inline __attribute__((unused)) void tensor_dot(int (&sums)[4], unsigned a0, unsigned a1, unsigned b) {
    emulated::tensor_dot(sums, a0, a1, b);
}

namespace emulated {

// How the driver reads one argument of a kernel: `p` pointer, `w` 32 bits, `d` 64 bits.
template <typename A> constexpr char kind_of() {
    static_assert(std::is_pointer<A>::value || sizeof(A) == 4 || sizeof(A) == 8, "an argument of another size");
    return std::is_pointer<A>::value ? 'p' : sizeof(A) == 4 ? 'w' : 'd';
}

template <typename A> inline A argument(void* const* at) { return *static_cast<A*>(*at); }

template <typename... A> struct Thunk {
    static constexpr char kinds[] = {kind_of<A>()..., '\0'};
    template <void (*F)(A...), std::size_t... I> static void call_at(void* const* arguments, std::index_sequence<I...>) {
        F(argument<A>(arguments + I)...);
    }
    template <void (*F)(A...)> static void call(void* const* arguments) {
        call_at<F>(arguments, std::index_sequence_for<A...>{});
    }
};

template <auto F> struct Entry;
template <typename... A, void (*F)(A...)> struct Entry<F> {
    static Kernel make(const char* name) { return {name, Thunk<A...>::kinds, &Thunk<A...>::template call<F>}; }
};

}  // namespace emulated
