// Norms, rotations, the cache's writes, and what works number by number.

// RMS norm, one row a block. Adds in the order in which products add that take the norm with them.
KERNEL(THREADS, 4)
norm_rows(const float* input, const float* weight, float epsilon, u32 width, float* out) {
    SHARED(float, partial, WARPS);
    const float* row = input + (u64)blockIdx.x * width;
    float* to = out + (u64)blockIdx.x * width;
    const float scale = norm_scale(row, width, epsilon, partial);
    // The result may replace the input: every thread has read the whole of its part of the row by now, but not of
    // others'.
    for (u32 i = threadIdx.x; i < width; i += THREADS) to[i] = __fmul_rn(__fmul_rn(row[i], scale), weight[i]);
}

// Rounds rows to eight bits for integer products, through a norm where there is one: a block a row, a thread four
// numbers, eight threads a block of 32 numbers, whose scale is its largest magnitude over 127. A block too small for a
// normal scale counts as zero. `totals` are sums of 16 rounded numbers.
KERNEL(THREADS, 4)
round_numbers(const float* input, const float* weight, float epsilon, u32 width, int* rounded, float* steps, int* totals) {
    SHARED(float, partial, WARPS);
    const float* row = input + (u64)blockIdx.x * width;
    const bool wide = is_wide(input, width), wide_weight = (((u64)weight) & 15) == 0;
    const float scale = weight ? norm_scale(row, width, epsilon, partial) : 1.0f;
    // All threads of a warp go round as often, because they exchange numbers.
    for (u32 base = 0; base < width; base += THREADS * 4) {
        const u32 column = base + threadIdx.x * 4;
        float4 x = load_quad(row, column, width, wide);
        if (weight) {
            const float4 w = load_quad(weight, column, width, wide_weight);
            x.x = __fmul_rn(__fmul_rn(x.x, scale), w.x);
            x.y = __fmul_rn(__fmul_rn(x.y, scale), w.y);
            x.z = __fmul_rn(__fmul_rn(x.z, scale), w.z);
            x.w = __fmul_rn(__fmul_rn(x.w, scale), w.w);
        }
        float largest = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
        for (int distance = 4; distance > 0; distance /= 2) largest = fmaxf(largest, shuffle_xor(largest, distance));
        float step = largest / 127.0f, inverse = 1.0f / step;
        if (!(step >= 1.17549435e-38f)) step = inverse = 0.0f;
        const float q[4] = {x.x, x.y, x.z, x.w};
        int packed = 0, total = 0;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int number = (int)fminf(fmaxf(rintf(__fmul_rn(q[i], inverse)), -127.0f), 127.0f);
            packed |= (number & 255) << (8 * i);
            total += number;
        }
        for (int distance = 2; distance > 0; distance /= 2) total += shuffle_xor(total, distance);
        if (column < width) {
            rounded[((u64)blockIdx.x * width + column) / 4] = packed;
            if (threadIdx.x % 4 == 0) totals[(u64)blockIdx.x * (width / 16) + column / 16] = total;
            if (threadIdx.x % 8 == 0) steps[(u64)blockIdx.x * (width / 32) + column / 32] = step;
        }
    }
}

// How many positions a row sees, and where the blocks of its sequence begin. A row that stands nowhere sees none.
DEVICE void place(const u32* places, u32 row, u32& seen, u32& blocks) {
    seen = places[row * 2];
    blocks = places[row * 2 + 1];
}

// The block of the cache that holds a position, or a number past the cache.
DEVICE u32 block_of(const u32* blocks, u32 blocks_count, u32 begin, u32 position, u32 cache_blocks) {
    u32 at = begin + position / CACHE_BLOCK;
    if (at < begin || at >= blocks_count) return cache_blocks;
    return blocks[at];
}

// Turns pair `pair` of a head. Adjacent pairs are 2i and 2i + 1, split ones i and i + half.
DEVICE void turn(const float* head, float* to, const float* table, u32 position, u32 pair, u32 dimensions, u32 split) {
    const u32 half = dimensions / 2;
    const u32 a = split ? pair : 2 * pair, b = split ? pair + half : 2 * pair + 1;
    const float cosine = table[((u64)position * half + pair) * 2], sine = table[((u64)position * half + pair) * 2 + 1];
    const float old_a = head[a], old_b = head[b];
    to[a] = __fadd_rn(__fmul_rn(old_a, cosine), -__fmul_rn(old_b, sine));
    to[b] = __fadd_rn(__fmul_rn(old_a, sine), __fmul_rn(old_b, cosine));
}

// Rotates heads in place: a block a row, a thread a pair. A position past the table leaves its row as it is.
KERNEL(THREADS, 4)
rotate_heads(float* numbers, u32 heads, u32 size, const u32* places, const float* table, u32 positions, u32 dimensions, u32 split) {
    u32 seen, blocks;
    place(places, blockIdx.x, seen, blocks);
    if (seen == 0 || seen > positions) return;
    const u32 half = dimensions / 2;
    for (u32 i = threadIdx.x; i < heads * half; i += THREADS) {
        float* head = numbers + ((u64)blockIdx.x * heads + i / half) * size;
        turn(head, head, table, seen - 1, i % half, dimensions, split);
    }
}

// Rotates queries in place and writes rotated keys, and values, into the cache: a block a row.
KERNEL(THREADS, 4)
remember(float* query, const float* key, const float* value, u32 query_heads, u32 kv_heads, u32 size, const u32* places,
         const u32* blocks, u32 blocks_count, const float* table, u32 positions, u32 dimensions, u32 split, float* keys,
         float* values, u32 cache_blocks) {
    const u32 row = blockIdx.x, half = dimensions / 2;
    u32 seen, begin;
    place(places, row, seen, begin);
    if (seen == 0 || seen > positions) return;
    const u32 position = seen - 1;
    for (u32 i = threadIdx.x; i < query_heads * half; i += THREADS) {
        float* head = query + ((u64)row * query_heads + i / half) * size;
        turn(head, head, table, position, i % half, dimensions, split);
    }
    const u32 block = block_of(blocks, blocks_count, begin, position, cache_blocks);
    if (block >= cache_blocks) return;
    const u64 first = ((u64)block * kv_heads * CACHE_BLOCK + position % CACHE_BLOCK) * size;
    const u32 head_stride = CACHE_BLOCK * size;
    const float* key_row = key + (u64)row * kv_heads * size;
    const float* value_row = value + (u64)row * kv_heads * size;
    for (u32 i = threadIdx.x; i < kv_heads * half; i += THREADS) {
        const u32 head = i / half;
        turn(key_row + head * size, keys + first + (u64)head * head_stride, table, position, i % half, dimensions, split);
    }
    for (u32 i = threadIdx.x; i < kv_heads * size; i += THREADS) {
        const u32 head = i / size, number = i % size;
        values[first + (u64)head * head_stride + number] = value_row[i];
        if (number >= dimensions) keys[first + (u64)head * head_stride + number] = key_row[i];
    }
}

KERNEL(THREADS, 8)
gate_numbers(float* gates, const float* up, u64 count) {
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < count; i += (u64)gridDim.x * THREADS) {
        gates[i] = __fmul_rn(silu(gates[i]), up[i]);
    }
}

KERNEL(THREADS, 8)
add_numbers(float* to, const float* from, u64 count) {
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < count; i += (u64)gridDim.x * THREADS) {
        to[i] = __fadd_rn(to[i], from[i]);
    }
}

KERNEL(THREADS, 8)
copy_numbers(const float* from, float* to, u64 count) {
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < count; i += (u64)gridDim.x * THREADS) to[i] = from[i];
}

// Whether `value` at `index` comes before the best so far: larger, or equal and earlier.
DEVICE bool is_before(float value, u32 index, float best, u32 best_index) {
    return value > best || (value == best && index < best_index);
}

// Index of the largest number of a row, the first of equals: a block a row.
KERNEL(THREADS, 4)
argmax_rows(const float* input, u32 width, u32* out) {
    SHARED(float, values, WARPS);
    SHARED(u32, indices, WARPS);
    const float* row = input + (u64)blockIdx.x * width;
    float best = -INFINITE;
    u32 best_index = 0xffffffffu;
    for (u32 i = threadIdx.x; i < width; i += THREADS) {
        if (is_before(row[i], i, best, best_index)) best = row[i], best_index = i;
    }
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        float value = shuffle_xor(best, distance);
        u32 index = shuffle_xor(best_index, distance);
        if (is_before(value, index, best, best_index)) best = value, best_index = index;
    }
    if (threadIdx.x % WARP == 0) values[threadIdx.x / WARP] = best, indices[threadIdx.x / WARP] = best_index;
    SYNC();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < WARPS; warp++) {
            if (is_before(values[warp], indices[warp], best, best_index)) best = values[warp], best_index = indices[warp];
        }
        // A row of nothing but NaN has no largest number.
        out[blockIdx.x] = best_index < width ? best_index : 0;
    }
}
