// What the kernels' HIP dialect needs, for a plain clang without AMD's headers: enough to compile the source to AMD's
// instructions and look at the result. Test-only; hipRTC brings its own.
#define __HIP__ 1
#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...) __attribute__((amdgpu_flat_work_group_size(1, 256)))
struct __attribute__((aligned(16))) float4 { float x, y, z, w; };
struct __attribute__((aligned(16))) uint4 { unsigned x, y, z, w; };
struct __attribute__((aligned(8))) uint2 { unsigned x, y; };
struct Index3 { unsigned x, y, z; };
#define threadIdx (Index3{__builtin_amdgcn_workitem_id_x(), __builtin_amdgcn_workitem_id_y(), __builtin_amdgcn_workitem_id_z()})
#define blockIdx (Index3{__builtin_amdgcn_workgroup_id_x(), __builtin_amdgcn_workgroup_id_y(), __builtin_amdgcn_workgroup_id_z()})
extern __device__ Index3 gridDim;
static __device__ float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }
static __device__ uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return uint4{x, y, z, w}; }
static __device__ float __fmul_rn(float a, float b) { return a * b; }
static __device__ float __fadd_rn(float a, float b) { return a + b; }
static __device__ float __uint_as_float(unsigned v) { return __builtin_bit_cast(float, v); }
static __device__ float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static __device__ float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
static __device__ float fminf(float a, float b) { return __builtin_fminf(a, b); }
static __device__ float fabsf(float a) { return __builtin_fabsf(a); }
static __device__ float sqrtf(float a) { return __builtin_sqrtf(a); }
static __device__ float rintf(float a) { return __builtin_rintf(a); }
static __device__ float expf(float a) { return __builtin_exp2f(a * 1.4426950408889634f); }
static __device__ float __half2float(_Float16 v) { return (float)v; }
static __device__ _Float16 __ushort_as_half(unsigned short v) { return __builtin_bit_cast(_Float16, v); }
static __device__ void __syncthreads() { __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"); __builtin_amdgcn_s_barrier(); }
static __device__ void __threadfence() { __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent"); }
static __device__ int __shfl_bits(int v, int d) { int lane = __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0)); return __builtin_amdgcn_ds_bpermute((lane ^ d) << 2, v); }
template <typename V> static __device__ V __shfl_xor(V v, int d, int) { return __builtin_bit_cast(V, __shfl_bits(__builtin_bit_cast(int, v), d)); }
template <typename V> static __device__ V __ldcg(const V* p) { return *p; }
template <typename V> static __device__ V min(V a, V b) { return a < b ? a : b; }
static __device__ unsigned atomicAdd(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
