// What the kernels need of the machine, in one dialect for CUDA (NVRTC), HIP and the host-emulated driver.
//
// The files of this folder are one translation unit, put together in this order: base, format, product, integer (one
// module for each format of weights), and base, element, attention (one module for everything else).

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#if defined(ISOTHERM_HOST)
// The emulator's header defines everything below before it includes this file.
#elif defined(__HIPCC_RTC__) || defined(__HIP__)
#define DEVICE static __device__ __forceinline__
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads)
#define SHARED(type, name, count) __shared__ type name[count]
#define SYNC() __syncthreads()
// A wavefront of 64 works as two independent halves: shuffles stay inside 32 lanes.
template <typename V> DEVICE V shuffle_xor(V value, int distance) { return __shfl_xor(value, distance, 32); }
DEVICE float half_to_float(u16 bits) { return __half2float(__ushort_as_half(bits)); }
DEVICE u32 pick_bytes(u32 a, u32 b, u32 which) { return __builtin_amdgcn_perm(b, a, which); }
DEVICE int dot4(int a, int b, int sum) {
    for (int i = 0; i < 32; i += 8) sum += (int)(signed char)(a >> i) * (int)(signed char)(b >> i);
    return sum;
}
#else
#define DEVICE static __device__ __forceinline__ __attribute__((unused))
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)
#define SHARED(type, name, count) __shared__ type name[count]
#define SYNC() __syncthreads()
template <typename V> DEVICE V shuffle_xor(V value, int distance) { return __shfl_xor_sync(0xffffffffu, value, distance); }
DEVICE float half_to_float(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
DEVICE u32 pick_bytes(u32 a, u32 b, u32 which) { return __byte_perm(a, b, which); }
DEVICE int dot4(int a, int b, int sum) { return __dp4a(a, b, sum); }
#if __CUDA_ARCH__ >= 800
#define HAS_TENSOR 1
// Adds to `sums` the products of a tile of 16 rows by 16 columns with one of 16 columns by 8, both of signed bytes. A
// lane holds columns 4 * (lane % 4) .. + 4 of rows lane / 4 and lane / 4 + 8 of the first, the same columns of row
// lane / 4 of the second, and sums of rows lane / 4 (two) and lane / 4 + 8 (two) with rows 2 * (lane % 4) and the
// next.
DEVICE void tensor_dot(int (&sums)[4], u32 a0, u32 a1, u32 b) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a0), "r"(a1), "r"(b));
}
#endif
#endif

#define INFINITE __uint_as_float(0x7f800000u)
#define WARP 32
// Threads of the kernels that compute sums over a row: the order of such a sum depends on this number, so it is one
// for all.
#define THREADS 256
#define WARPS (THREADS / WARP)
// Positions in one block of the key-value cache.
#define CACHE_BLOCK 16
// Positions that one block of threads attends to at most: the unit in which long sequences are split.
#define SEGMENT 256
// Query heads that share one reading of keys and values.
#define QUERIES 4
// Largest head.
#define HEAD_SIZE_MAX 256

// The order of additions is that of a butterfly, so that every lane holds the same bits.
DEVICE float warp_sum(float value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) value = __fadd_rn(value, shuffle_xor(value, distance));
    return value;
}

DEVICE float warp_max(float value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) value = fmaxf(value, shuffle_xor(value, distance));
    return value;
}

DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }

// Four numbers from `at` on, of which those from `end` on do not exist and read as zero. `wide` says that `from + at`
// lies at a multiple of sixteen bytes.
DEVICE float4 load_quad(const float* from, u32 at, u32 end, bool wide) {
    if (wide && at + 4 <= end) return *(const float4*)(from + at);
    float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (at < end) quad.x = from[at];
    if (at + 1 < end) quad.y = from[at + 1];
    if (at + 2 < end) quad.z = from[at + 2];
    if (at + 3 < end) quad.w = from[at + 3];
    return quad;
}

// Whether rows of `width` numbers that begin at `from` can be read in quads.
DEVICE bool is_wide(const float* from, u32 width) { return (((u64)from) & 15) == 0 && (width & 3) == 0; }

// What a row is multiplied with by its RMS norm, before the weights. All threads of the block take part and get the
// same bits; `partial` is shared memory of WARPS numbers.
DEVICE float norm_scale(const float* row, u32 width, float epsilon, float* partial) {
    float squares = 0.0f;
    for (u32 i = threadIdx.x; i < width; i += THREADS) squares = fmaf(row[i], row[i], squares);
    squares = warp_sum(squares);
    SYNC();
    if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = squares;
    SYNC();
    float total = 0.0f;
    for (int warp = 0; warp < WARPS; warp++) total = __fadd_rn(total, partial[warp]);
    return 1.0f / sqrtf(__fadd_rn(total / (float)width, epsilon));
}
