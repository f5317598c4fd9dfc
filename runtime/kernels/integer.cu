// Products with numbers rounded to eight bits: another arithmetic, which plans name. Blocks of 32 numbers were rounded
// together by `round_numbers`; sums of products inside a run of 16 are exact integers.

#if !IS_FLOAT

// The stored bytes of Q8_0 are signed and have no zero point; the others are below 64, so they are the same either
// way.
#if FORMAT_ID == 8
#define BYTE_ZERO 0
#else
#define BYTE_ZERO ZERO
#endif

// The products of one run: `dot` of stored bytes and rounded numbers, `total` of the rounded numbers alone.
DEVICE float run_value(const Unit& unit, u32 run, int dot, int total, float step, float sum) {
#if HAS_MINIMUM
    float value = fmaf(unit.scale[run], (float)dot, __fmul_rn(unit.minimum[run], (float)total));
#else
    float value = __fmul_rn(unit.scale[run], (float)(dot - BYTE_ZERO * total));
#endif
    return fmaf(step, value, sum);
}

// Sums of two rows of a matrix with T rows of rounded numbers, in the order in which the other products add.
template <int T>
DEVICE void multiply_rounded(const u8* const* weights, const u32* row_of, u32 rows, const int* rounded, const float* steps,
                             const int* totals, u32 token, u32 tokens, u32 columns, float (&sums)[2][T]) {
    SHARED(int, slab, T * SLAB_QUADS);
    SHARED(float, slab_steps, T * 2 * WARP);
    SHARED(int, slab_totals, T * 2 * WARP);
    const u32 lane = threadIdx.x % WARP, units = columns / 32;
    for (int t = 0; t < T; t++) sums[0][t] = sums[1][t] = 0.0f;
    Unit held[2], next[2];
    if (lane < units) {
        held[0] = load_unit(weights[0], rows, columns, row_of[0], lane);
        held[1] = load_unit(weights[1], rows, columns, row_of[1], lane);
    }
    for (u32 first = 0; first < units; first += SLAB_UNITS) {
        const u32 unit = first + lane;
        SYNC();
        for (u32 i = threadIdx.x; i < T * SLAB / 4; i += THREADS) {
            const u32 t = i / (SLAB / 4), column = i % (SLAB / 4) * 4;
            const u64 row = min(token + t, tokens - 1);
            if (first * 32 + column >= columns) continue;
            u32 in, quad;
            place_of(column, in, quad);
            slab[t * SLAB_QUADS + quad * QUAD_STRIDE + in] = rounded[(row * columns + first * 32 + column) / 4];
        }
        for (u32 i = threadIdx.x; i < T * 2 * WARP; i += THREADS) {
            const u32 t = i / (2 * WARP), in = i % WARP, run = i / WARP % 2;
            const u64 row = min(token + t, tokens - 1);
            if (first + in >= units) continue;
            const u32 column = column_of(first + in, run);
            slab_steps[i] = steps[row * units + column / 32];
            slab_totals[i] = totals[row * units * 2 + column / 16];
        }
        SYNC();
        if (unit + SLAB_UNITS < units) {
            next[0] = load_unit(weights[0], rows, columns, row_of[0], unit + SLAB_UNITS);
            next[1] = load_unit(weights[1], rows, columns, row_of[1], unit + SLAB_UNITS);
        }
        if (unit < units) {
#pragma unroll
            for (u32 run = 0; run < 2; run++) {
                u32 bytes[2][4];
#pragma unroll
                for (u32 in = 0; in < 4; in++) {
                    bytes[0][in] = bytes_of(held[0], run * 4 + in);
                    bytes[1][in] = bytes_of(held[1], run * 4 + in);
                }
#pragma unroll
                for (int t = 0; t < T; t++) {
                    int dot[2] = {0, 0};
#pragma unroll
                    for (u32 in = 0; in < 4; in++) {
                        const int numbers = slab[t * SLAB_QUADS + (run * 4 + in) * QUAD_STRIDE + lane];
                        dot[0] = dot4((int)bytes[0][in], numbers, dot[0]);
                        dot[1] = dot4((int)bytes[1][in], numbers, dot[1]);
                    }
                    const u32 at = (t * 2 + run) * WARP + lane;
                    for (int r = 0; r < 2; r++) {
                        sums[r][t] = run_value(held[r], run, dot[r], slab_totals[at], slab_steps[at], sums[r][t]);
                    }
                }
            }
        }
        held[0] = next[0], held[1] = next[1];
    }
    for (int r = 0; r < 2; r++) {
        for (int t = 0; t < T; t++) sums[r][t] = warp_sum(sums[r][t]);
    }
}

template <int T>
DEVICE void rounded_product(const u8* w0, const u8* w1, const u8* w2, u32 rows0, u32 rows1, u32 rows2, float* out0,
                            float* out1, float* out2, const int* rounded, const float* steps, const int* totals,
                            u32 tokens, u32 columns, u32 add) {
    Chosen matrix = choose(WARPS * 2, w0, w1, w2, rows0, rows1, rows2, out0, out1, out2);
    const u32 token = blockIdx.y * T, row = (matrix.group * WARPS + threadIdx.x / WARP) * 2;
    const u8* weights[2] = {matrix.weights, matrix.weights};
    const u32 row_of[2] = {min(row, matrix.rows - 1), min(row + 1, matrix.rows - 1)};
    float sums[2][T];
    multiply_rounded<T>(weights, row_of, matrix.rows, rounded, steps, totals, token, tokens, columns, sums);
    for (int r = 0; r < 2; r++) {
        for (int t = 0; t < T; t++) {
            if (threadIdx.x % WARP == r * T + t && row + r < matrix.rows && token + t < tokens) {
                float* to = matrix.out + (u64)(token + t) * matrix.rows + row + r;
                *to = add ? __fadd_rn(*to, sums[r][t]) : sums[r][t];
            }
        }
    }
}

#define ROUNDED_ARGUMENTS                                                                                                \
    const u8 *w0, const u8 *w1, const u8 *w2, u32 rows0, u32 rows1, u32 rows2, float *out0, float *out1, float *out2,    \
        const int *rounded, const float *steps, const int *totals, u32 tokens, u32 columns, u32 add
#define ROUNDED_VALUES w0, w1, w2, rows0, rows1, rows2, out0, out1, out2, rounded, steps, totals, tokens, columns, add

KERNEL(THREADS, 3) NAME(rounded_1)(ROUNDED_ARGUMENTS) { rounded_product<1>(ROUNDED_VALUES); }
KERNEL(THREADS, 2) NAME(rounded_4)(ROUNDED_ARGUMENTS) { rounded_product<4>(ROUNDED_VALUES); }

#if HAS_TENSOR

// Tiles of 16 rows of the matrix a warp by 32 rows of numbers, multiplied by tensor cores. Adds in the order of
// columns, so its sums differ from those of the kernels above in their last bits: the caller pins which one it uses.
#define TENSOR_TILES 4
#define TENSOR_TOKENS (8 * TENSOR_TILES)
// Units of one slab; the stride of a row in words keeps eight rows in different banks.
#define TENSOR_UNITS 8
#define TENSOR_STRIDE (TENSOR_UNITS * 8 + 4)

KERNEL(THREADS, 2) NAME(rounded_tensor)(ROUNDED_ARGUMENTS) {
    SHARED(int, slab, TENSOR_TOKENS * TENSOR_STRIDE);
    Chosen matrix = choose(WARPS * 16, w0, w1, w2, rows0, rows1, rows2, out0, out1, out2);
    const u32 lane = threadIdx.x % WARP, token = blockIdx.y * TENSOR_TOKENS, units = columns / 32;
    const u32 row = (matrix.group * WARPS + threadIdx.x / WARP) * 16 + lane / 4;
    const u32 upper_row = min(row, matrix.rows - 1), lower_row = min(row + 8, matrix.rows - 1);
    float sums[TENSOR_TILES][4];
    for (int tile = 0; tile < TENSOR_TILES; tile++) {
        for (int i = 0; i < 4; i++) sums[tile][i] = 0.0f;
    }
    for (u32 first = 0; first < units; first += TENSOR_UNITS) {
        SYNC();
        for (u32 i = threadIdx.x; i < TENSOR_TOKENS * TENSOR_UNITS * 8; i += THREADS) {
            const u32 t = i / (TENSOR_UNITS * 8), word = i % (TENSOR_UNITS * 8);
            const u64 from = (u64)min(token + t, tokens - 1) * columns + first * 32 + word * 4;
            slab[t * TENSOR_STRIDE + word] = first * 32 + word * 4 < columns ? rounded[from / 4] : 0;
        }
        SYNC();
        for (u32 unit = first; unit < min(first + TENSOR_UNITS, units); unit++) {
            const Unit upper = load_unit(matrix.weights, matrix.rows, columns, upper_row, unit);
            const Unit lower = load_unit(matrix.weights, matrix.rows, columns, lower_row, unit);
#pragma unroll
            for (u32 run = 0; run < 2; run++) {
                const u32 a0 = bytes_of(upper, run * 4 + lane % 4), a1 = bytes_of(lower, run * 4 + lane % 4);
                const u32 column = column_of(unit, run);
#pragma unroll
                for (int tile = 0; tile < TENSOR_TILES; tile++) {
                    const u32 word = (tile * 8 + lane / 4) * TENSOR_STRIDE + (column - first * 32) / 4 + lane % 4;
                    int dots[4] = {0, 0, 0, 0};
                    tensor_dot(dots, a0, a1, (u32)slab[word]);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        const u64 t = min(token + tile * 8 + lane % 4 * 2 + i, tokens - 1);
                        const float step = steps[t * units + column / 32];
                        const int total = totals[t * units * 2 + column / 16];
                        sums[tile][i] = run_value(upper, run, dots[i], total, step, sums[tile][i]);
                        sums[tile][2 + i] = run_value(lower, run, dots[2 + i], total, step, sums[tile][2 + i]);
                    }
                }
            }
        }
    }
    for (int tile = 0; tile < TENSOR_TILES; tile++) {
        for (int i = 0; i < 4; i++) {
            const u32 r = row + i / 2 * 8, t = token + tile * 8 + lane % 4 * 2 + i % 2;
            if (r < matrix.rows && t < tokens) {
                float* to = matrix.out + (u64)t * matrix.rows + r;
                *to = add ? __fadd_rn(*to, sums[tile][i]) : sums[tile][i];
            }
        }
    }
}

#endif
#endif
