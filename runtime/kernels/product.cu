// Products of rows of numbers with matrices, in single precision.
//
// Every kernel here adds in one order: lane `l` of a warp takes units l, l + 32, l + 64 ... of a row and adds their
// products in the order of columns inside a run; a butterfly adds the lanes. So a row's result has the same bits
// whether it is multiplied alone, with three others or in a batch of hundreds, and whichever of these kernels does it.
//
// A block is eight warps, or four. A warp holds R rows of the matrix against T rows of numbers; the numbers lie in
// shared memory, a slab of 1024 columns at a time, in the order in which lanes read them.

#define SLAB_UNITS WARP
#define SLAB (SLAB_UNITS * 32)
// One more than the 32 lanes: quads of one unit fall into different banks when they are written.
#define QUAD_STRIDE (SLAB_UNITS + 1)
#define SLAB_QUADS (8 * QUAD_STRIDE)

// Threads of the kernel for tiles: three blocks of it fit where registers for larger ones would not.
#define TILE_THREADS 128

// Puts a slab of one row into shared memory, through the norm where there is one.
template <int N>
DEVICE void stage(float4* to, const float* row, const float* norm, float scale, u32 first, u32 columns, bool wide) {
    for (u32 i = threadIdx.x; i < SLAB / 4; i += N) {
        u32 unit, quad, column = first + i * 4;
        float4 x = load_quad(row, column, columns, wide);
        if (norm) {
            float4 w = load_quad(norm, column, columns, (((u64)norm) & 15) == 0);
            x.x = __fmul_rn(__fmul_rn(x.x, scale), w.x);
            x.y = __fmul_rn(__fmul_rn(x.y, scale), w.y);
            x.z = __fmul_rn(__fmul_rn(x.z, scale), w.z);
            x.w = __fmul_rn(__fmul_rn(x.w, scale), w.w);
        }
        place_of(i * 4, unit, quad);
        to[quad * QUAD_STRIDE + unit] = x;
    }
}

DEVICE float add_products(float sum, const float4& w, const float4& x) {
    return fmaf(w.w, x.w, fmaf(w.z, x.z, fmaf(w.y, x.y, fmaf(w.x, x.x, sum))));
}

// Sums of R rows of a matrix with T rows of numbers, complete in every lane. `row_of[r]` are rows that exist.
template <int R, int T, int N>
DEVICE void multiply(const u8* const* weights, const u32* row_of, const u32* rows_of, const float* x, const float* norm,
                     float epsilon, u32 token, u32 tokens, u32 columns, float (&sums)[R][T]) {
    SHARED(float4, slab, T * SLAB_QUADS);
    SHARED(float, partial, WARPS);
    const u32 lane = threadIdx.x % WARP;
    const bool wide = is_wide(x, columns);
    const u32 units = (columns + 31) / 32;
    float scale[T];
    for (int t = 0; t < T; t++) {
        const float* row = x + (u64)min(token + t, tokens - 1) * columns;
        scale[t] = norm ? norm_scale(row, columns, epsilon, partial) : 1.0f;
        for (int r = 0; r < R; r++) sums[r][t] = 0.0f;
    }
    for (u32 first = 0; first < units; first += SLAB_UNITS) {
        const u32 unit = first + lane;
        Unit held[R];
        // Asked for before the barrier, so that the memory works while the numbers are put into place.
        if (unit < units) {
#pragma unroll
            for (int r = 0; r < R; r++) held[r] = load_unit(weights[r], rows_of[r], columns, row_of[r], unit);
        }
        SYNC();
#pragma unroll
        for (int t = 0; t < T; t++) {
            const float* row = x + (u64)min(token + t, tokens - 1) * columns;
            stage<N>(slab + t * SLAB_QUADS, row, norm, scale[t], first * 32, columns, wide);
        }
        SYNC();
        if (unit < units) {
#pragma unroll
            for (int run = 0; run < 2; run++) {
#pragma unroll
                for (int in = 0; in < 4; in++) {
                    const int quad = run * 4 + in;
                    float4 w[R];
#pragma unroll
                    for (int r = 0; r < R; r++) w[r] = weights_of(held[r], quad);
#pragma unroll
                    for (int t = 0; t < T; t++) {
                        const float4 numbers = slab[t * SLAB_QUADS + quad * QUAD_STRIDE + lane];
#pragma unroll
                        for (int r = 0; r < R; r++) sums[r][t] = add_products(sums[r][t], w[r], numbers);
                    }
                }
            }
        }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
        for (int t = 0; t < T; t++) sums[r][t] = warp_sum(sums[r][t]);
    }
}

// One of up to three matrices, chosen by the block's number.
struct Chosen {
    const u8* weights;
    float* out;
    u32 rows, group;
};

DEVICE Chosen choose(u32 rows_of_block, const u8* w0, const u8* w1, const u8* w2, u32 rows0, u32 rows1, u32 rows2,
                     float* out0, float* out1, float* out2) {
    u32 group = blockIdx.x;
    u32 groups0 = (rows0 + rows_of_block - 1) / rows_of_block, groups1 = (rows1 + rows_of_block - 1) / rows_of_block;
    Chosen out;
    if (group < groups0) {
        out.weights = w0, out.out = out0, out.rows = rows0, out.group = group;
    } else if (group < groups0 + groups1) {
        out.weights = w1, out.out = out1, out.rows = rows1, out.group = group - groups0;
    } else {
        out.weights = w2, out.out = out2, out.rows = rows2, out.group = group - groups0 - groups1;
    }
    return out;
}

template <int R, int T, int N>
DEVICE void product(const u8* w0, const u8* w1, const u8* w2, u32 rows0, u32 rows1, u32 rows2, float* out0, float* out1,
                    float* out2, const float* x, const float* norm, float epsilon, u32 tokens, u32 columns, u32 add) {
    Chosen matrix = choose(N / WARP * R, w0, w1, w2, rows0, rows1, rows2, out0, out1, out2);
    const u32 token = blockIdx.y * T;
    const u32 row = (matrix.group * (N / WARP) + threadIdx.x / WARP) * R;
    const u8* weights[R];
    u32 row_of[R], rows_of[R];
    float sums[R][T];
    for (int r = 0; r < R; r++) {
        weights[r] = matrix.weights;
        rows_of[r] = matrix.rows;
        row_of[r] = min(row + r, matrix.rows - 1);
    }
    multiply<R, T, N>(weights, row_of, rows_of, x, norm, epsilon, token, tokens, columns, sums);
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (threadIdx.x % WARP == (r * T + t) % WARP && row + r < matrix.rows && token + t < tokens) {
                float* to = matrix.out + (u64)(token + t) * matrix.rows + row + r;
                *to = add ? __fadd_rn(*to, sums[r][t]) : sums[r][t];
            }
        }
    }
}

// One row of numbers. The row is put into shared memory once, or some thousand columns at a time where it is longer, and then
// every warp streams through its rows of the matrix without waiting for the others: what it multiplies next is on its
// way while it multiplies. A block takes groups of rows in turn, as many blocks as the card holds at once.

// Slabs of the row of numbers that are in shared memory at once: as many as let three blocks share a multiprocessor; two
// where it has 64 KiB.
#if __CUDA_ARCH__ == 800 || (__CUDA_ARCH__ >= 900 && __CUDA_ARCH__ < 1200)
#define ROW_SLABS 8
#else
#define ROW_SLABS 6
#endif
// Units on their way for each row of the matrix, the one being multiplied included.
#define IS_HALF (FORMAT_ID == 1 || FORMAT_ID == 30)
#define DEPTH 2

// Which rows of which matrices a warp multiplies: R rows of one matrix, or one row of each of two.
struct Three {
    const u8 *w0, *w1, *w2;
    u32 rows0, rows1, rows2;
    float *out0, *out1, *out2;
};

struct Taken {
    const u8* weights[2];
    float* out;
    u32 row, rows;
};

// Group `group` of a warp's R rows; a block's warps take consecutive groups of one matrix.
template <int R>
DEVICE Taken take(const Three& of, u32 group) {
    const u32 each = WARPS * R, groups0 = (of.rows0 + each - 1) / each, groups1 = (of.rows1 + each - 1) / each;
    Taken out;
    u32 block = group;
    if (block < groups0) {
        out.weights[0] = of.w0, out.out = of.out0, out.rows = of.rows0;
    } else if ((block -= groups0) < groups1) {
        out.weights[0] = of.w1, out.out = of.out1, out.rows = of.rows1;
    } else {
        block -= groups1;
        out.weights[0] = of.w2, out.out = of.out2, out.rows = of.rows2;
    }
    out.weights[1] = out.weights[0];
    out.row = (block * WARPS + threadIdx.x / WARP) * R;
    return out;
}

// A row of a gate and the same row of its up matrix.
DEVICE Taken take_both(const Three& of, u32 group) {
    Taken out = {{of.w0, of.w1}, of.out0, group * WARPS + threadIdx.x / WARP, of.rows0};
    return out;
}

// `BOTH`: two rows, one of each of two matrices; otherwise R rows of one.
template <int R, bool BOTH>
DEVICE void stream(const Three& of, u32 groups, const float* x, const float* norm, float epsilon, u32 columns, u32 add) {
    SHARED(float4, slab, ROW_SLABS * SLAB_QUADS);
    SHARED(float, partial, WARPS);
    const u32 lane = threadIdx.x % WARP, units = (columns + 31) / 32;
    const bool wide = is_wide(x, columns);
    Ready held[DEPTH][R];
    // Where the next units come from.
    u32 group_ahead = blockIdx.x, unit_ahead = lane;
    Taken ahead = BOTH ? take_both(of, group_ahead) : take<R>(of, group_ahead);
#define ASK(to)                                                                                                          \
    do {                                                                                                                 \
        if (group_ahead < groups && unit_ahead < units) {                                                                \
            _Pragma("unroll") for (int r = 0; r < R; r++) {                                                              \
                const u32 row = min(BOTH ? ahead.row : ahead.row + r, ahead.rows - 1);                                   \
                to[r] = load_ready(ahead.weights[BOTH ? r : 0], ahead.rows, columns, row, unit_ahead);                   \
            }                                                                                                            \
        }                                                                                                                \
        unit_ahead += WARP;                                                                                              \
        if (unit_ahead - lane >= units) {                                                                                \
            unit_ahead = lane, group_ahead += gridDim.x;                                                                 \
            if (group_ahead < groups) ahead = BOTH ? take_both(of, group_ahead) : take<R>(of, group_ahead);              \
        }                                                                                                                \
    } while (0)
#pragma unroll
    for (int depth = 0; depth + 1 < DEPTH; depth++) ASK(held[depth]);
    const float scale = norm ? norm_scale(x, columns, epsilon, partial) : 1.0f;
    bool is_staged = false;
    for (u32 group = blockIdx.x; group < groups; group += gridDim.x) {
        float sums[R];
#pragma unroll
        for (int r = 0; r < R; r++) sums[r] = 0.0f;
        for (u32 chunk = 0; chunk < units; chunk += ROW_SLABS * SLAB_UNITS) {
            const u32 end = min(chunk + ROW_SLABS * SLAB_UNITS, units);
            if (!is_staged || units > ROW_SLABS * SLAB_UNITS) {
                SYNC();
                for (u32 first = chunk; first < end; first += SLAB_UNITS) {
                    float4* to = slab + (first - chunk) / SLAB_UNITS * SLAB_QUADS;
                    stage<THREADS>(to, x, norm, scale, first * 32, columns, wide);
                }
                SYNC();
                is_staged = true;
            }
            for (u32 first = chunk; first < end; first += SLAB_UNITS) {
                ASK(held[DEPTH - 1]);
                const float4* from = slab + (first - chunk) / SLAB_UNITS * SLAB_QUADS + lane;
                if (first + lane < units) {
#pragma unroll
                    for (int quad = 0; quad < 8; quad++) {
                        const float4 numbers = from[quad * QUAD_STRIDE];
#pragma unroll
                        for (int r = 0; r < R; r++) {
                            sums[r] = add_products(sums[r], ready_weights_of(held[0][r], quad), numbers);
                        }
                    }
                }
#pragma unroll
                for (int depth = 0; depth + 1 < DEPTH; depth++) {
#pragma unroll
                    for (int r = 0; r < R; r++) held[depth][r] = held[depth + 1][r];
                }
            }
        }
#undef ASK
        const Taken here = BOTH ? take_both(of, group) : take<R>(of, group);
#pragma unroll
        for (int r = 0; r < R; r++) sums[r] = warp_sum(sums[r]);
        if (BOTH) {
            if (lane == 0 && here.row < here.rows) here.out[here.row] = __fmul_rn(silu(sums[0]), sums[R - 1]);
            continue;
        }
#pragma unroll
        for (int r = 0; r < R; r++) {
            if (lane == r && here.row + r < here.rows) {
                float* to = here.out + here.row + r;
                *to = add ? __fadd_rn(*to, sums[r]) : sums[r];
            }
        }
    }
}

#define PRODUCT_ARGUMENTS                                                                                                \
    const u8 *w0, const u8 *w1, const u8 *w2, u32 rows0, u32 rows1, u32 rows2, float *out0, float *out1, float *out2,    \
        const float *x, const float *norm, float epsilon, u32 tokens, u32 columns, u32 add
#define PRODUCT_VALUES w0, w1, w2, rows0, rows1, rows2, out0, out1, out2, x, norm, epsilon, tokens, columns, add

// Blocks that shall fit on a multiprocessor at once, where that leaves registers enough for nothing to be spilled.
#define ROW_BLOCKS (IS_HALF ? 2 : 3)
#define TILE_BLOCKS (IS_HALF || FORMAT_ID == 14 || (FORMAT_ID == 13 && __CUDA_ARCH__ >= 1000) ? 2 : 3)

// One row of numbers: two rows of the matrix in a warp, or one where there are too few for all multiprocessors. `groups`
// is how many groups of rows there are; blocks take them in turn.
#define ROW_ARGUMENTS                                                                                                    \
    const u8 *w0, const u8 *w1, const u8 *w2, u32 rows0, u32 rows1, u32 rows2, float *out0, float *out1, float *out2,    \
        const float *x, const float *norm, float epsilon, u32 groups, u32 columns, u32 add

KERNEL(THREADS, ROW_BLOCKS) NAME(product_1)(ROW_ARGUMENTS) {
    const Three of = {w0, w1, w2, rows0, rows1, rows2, out0, out1, out2};
    stream<2, false>(of, groups, x, norm, epsilon, columns, add);
}

KERNEL(THREADS, ROW_BLOCKS) NAME(product_1_few)(ROW_ARGUMENTS) {
    const Three of = {w0, w1, w2, rows0, rows1, rows2, out0, out1, out2};
    stream<1, false>(of, groups, x, norm, epsilon, columns, add);
}

// Two to four rows of numbers.
KERNEL(THREADS, 2) NAME(product_4)(PRODUCT_ARGUMENTS) { product<2, 4, THREADS>(PRODUCT_VALUES); }
// Tiles of eight rows of numbers by 16 rows of the matrix. A norm goes before it: scales of eight rows cost registers
// here. Three blocks where registers allow: Q6_K and the half floats hold more than fits.
KERNEL(TILE_THREADS, TILE_BLOCKS)
NAME(product_8)(const u8* w0, const u8* w1, const u8* w2, u32 rows0, u32 rows1, u32 rows2, float* out0, float* out1,
                float* out2, const float* x, u32 tokens, u32 columns, u32 add) {
    product<4, 8, TILE_THREADS>(w0, w1, w2, rows0, rows1, rows2, out0, out1, out2, x, nullptr, 0.0f, tokens, columns, add);
}

// The gated half of a feed-forward layer for one row of numbers: a warp multiplies one row of each matrix.
KERNEL(THREADS, ROW_BLOCKS)
NAME(gated_1)(const u8* gate, const u8* up, u32 rows, float* out, const float* x, const float* norm, float epsilon,
              u32 groups, u32 columns) {
    const Three of = {gate, up, nullptr, rows, rows, 0, out, nullptr, nullptr};
    stream<2, true>(of, groups, x, norm, epsilon, columns, 0);
}

// Rows of the matrix itself, bit for bit as the format defines them. An index past the matrix reads its last row.
KERNEL(THREADS, 2)
NAME(lookup)(const u8* weights, u32 rows, u32 columns, const u32* indices, float* out) {
    const u32 row = min(indices[blockIdx.x], rows - 1);
    float* to = out + (u64)blockIdx.x * columns;
    for (u32 i = threadIdx.x; i < (columns + 31) / 32 * 8; i += THREADS) {
        const u32 unit = i / 8, quad = i % 8, column = column_of(unit, quad / 4) + quad % 4 * 4;
        const float4 w = exact_weights_of(load_unit(weights, rows, columns, row, unit), quad);
        if (column < columns) to[column] = w.x;
        if (column + 1 < columns) to[column + 1] = w.y;
        if (column + 2 < columns) to[column + 2] = w.z;
        if (column + 3 < columns) to[column + 3] = w.w;
    }
}
