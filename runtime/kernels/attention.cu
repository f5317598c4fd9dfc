// Attention over the paged cache, softmax included.
//
// A block takes up to four query heads that read the same keys and values, and one segment of positions. How long the
// segments of a row are follows from how many positions it sees, so that many blocks share the work of one row while
// those that merge have little to do; they are merged in rising order by whichever block of a row finishes last, and a
// row of one segment needs no merging. So the result depends on the row alone: not on the rows beside it, nor on which
// block came last.

// Threads that share the dot product of one position.
#define TOGETHER 8
// Groups of threads that share the values of a segment, at most.
#define GROUPS_MAX 16

// Positions whose scores a thread works on at once.
#define ABREAST 2
// Values that a thread asks for before it needs them.
#define AHEAD 4

// Positions of a segment of a row that sees `seen`: at most 32 segments up to 8192 positions.
DEVICE u32 segment_of(u32 seen) { return seen <= 2048 ? SEGMENT / 4 : seen <= 4096 ? SEGMENT / 2 : SEGMENT; }

DEVICE float add_quad(float sum, const float4& a, const float4& b) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// Where the values of a segment lie.
struct Cached {
    const float* values;
    const u32* block_of_position;
    u32 cache_blocks, kv_heads, kv_head, size;
    bool wide;
};

// A quad of the value at a position of this segment; zeros where its block is not in the cache.
DEVICE float4 value_quad(const Cached& of, u32 at, u32 quad) {
    const u32 block = of.block_of_position[at / CACHE_BLOCK];
    if (block >= of.cache_blocks) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const u64 spot = ((u64)block * of.kv_heads + of.kv_head) * CACHE_BLOCK + at % CACHE_BLOCK;
    return load_quad(of.values + spot * of.size, quad * 4, of.size, of.wide);
}

KERNEL(THREADS, 2)
attend(const float* query, u32 query_heads, u32 kv_heads, u32 size, const u32* places, const u32* blocks, u32 blocks_count,
       const float* keys, const float* values, u32 cache_blocks, float scale, float* out, float* segments, float* shares,
       u32* finished) {
    SHARED(float, queries, QUERIES * HEAD_SIZE_MAX);
    SHARED(float, weights, QUERIES * SEGMENT);
    SHARED(float4, sums, THREADS * QUERIES);
    SHARED(float, largest_of, QUERIES);
    SHARED(float, sum_of, QUERIES);
    SHARED(u32, block_of_position, SEGMENT / CACHE_BLOCK);
    SHARED(u32, is_last, 1);
    SHARED(u32, reach, WARPS);

    const u32 each = query_heads / kv_heads, parts = (each + QUERIES - 1) / QUERIES;
    const u32 row = blockIdx.z, segment = blockIdx.x, kv_head = blockIdx.y / parts, part = blockIdx.y % parts;
    const u32 first_head = kv_head * each + part * QUERIES;
    const u32 count = min((u32)QUERIES, each - part * QUERIES);
    u32 seen, begin;
    place(places, row, seen, begin);
    // What the launch was sized for bounds what a row may see.
    seen = min(seen, gridDim.x * SEGMENT);
    // A sequence ends at its first block that is not in the cache.
    u32 there_are = (seen + CACHE_BLOCK - 1) / CACHE_BLOCK;
    for (u32 i = threadIdx.x; i < (seen + CACHE_BLOCK - 1) / CACHE_BLOCK; i += THREADS) {
        const u32 block = block_of(blocks, blocks_count, begin, i * CACHE_BLOCK, cache_blocks);
        if (block >= cache_blocks) there_are = min(there_are, i);
    }
    for (u32 i = threadIdx.x; i < count * size; i += THREADS) {
        queries[i / size * HEAD_SIZE_MAX + i % size] = query[((u64)row * query_heads + first_head) * size + i];
    }
    for (int far = WARP / 2; far > 0; far /= 2) there_are = min(there_are, shuffle_xor(there_are, far));
    if (threadIdx.x % WARP == 0) reach[threadIdx.x / WARP] = there_are;
    SYNC();
    for (int i = 0; i < WARPS; i++) there_are = min(there_are, reach[i]);
    seen = min(seen, there_are * CACHE_BLOCK);
    const u32 length = segment_of(seen);
    // Only a row that sees more than it was said to has more segments than there are blocks.
    seen = min(seen, gridDim.x * length);
    const u32 from = segment * length;
    if (from >= seen && segment > 0) return;
    const u32 here = seen == 0 ? 0 : min(length, seen - from);
    const u32 segments_of_row = seen == 0 ? 1 : (seen + length - 1) / length;
    const bool wide = is_wide(keys, size) && (((u64)values) & 15) == 0;

    for (u32 i = threadIdx.x; i < SEGMENT / CACHE_BLOCK; i += THREADS) {
        block_of_position[i] = i * CACHE_BLOCK < here
                                   ? block_of(blocks, blocks_count, begin, from + i * CACHE_BLOCK, cache_blocks)
                                   : cache_blocks;
    }
    SYNC();

    const u32 quads = (size + 3) / 4, in_group = threadIdx.x % TOGETHER;
    // Weighted sums of values are by a thread a quad of numbers, groups of threads taking positions in turn. The first
    // values are asked for before the scores, which they do not depend on.
    const u32 groups = min((u32)GROUPS_MAX, THREADS / quads), group = threadIdx.x / quads, quad = threadIdx.x % quads;
    const Cached cached = {values, block_of_position, cache_blocks, kv_heads, kv_head, size, wide};
    float4 ahead[AHEAD];
#pragma unroll
    for (u32 i = 0; i < AHEAD; i++) {
        const u32 at = group + i * groups;
        ahead[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (group < groups && at < here) ahead[i] = value_quad(cached, at, quad);
    }

    // Scores: eight threads a position, some positions at once.
    for (u32 first = threadIdx.x / TOGETHER; first < length; first += ABREAST * (THREADS / TOGETHER)) {
        float score[ABREAST][QUERIES];
        const float* key[ABREAST];
        bool there[ABREAST];
#pragma unroll
        for (u32 i = 0; i < ABREAST; i++) {
            const u32 at = first + i * (THREADS / TOGETHER);
            const u32 block = at < here ? block_of_position[at / CACHE_BLOCK] : cache_blocks;
            there[i] = block < cache_blocks;
            const u64 spot = ((u64)(there[i] ? block : 0) * kv_heads + kv_head) * CACHE_BLOCK + at % CACHE_BLOCK;
            key[i] = keys + spot * size;
#pragma unroll
            for (u32 q = 0; q < QUERIES; q++) score[i][q] = 0.0f;
        }
        for (u32 part = in_group; part < quads; part += 2 * TOGETHER) {
            float4 k[ABREAST][2];
#pragma unroll
            for (u32 i = 0; i < ABREAST; i++) {
#pragma unroll
                for (u32 j = 0; j < 2; j++) {
                    k[i][j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                    const u32 at = part + j * TOGETHER;
                    if (there[i] && at < quads) k[i][j] = load_quad(key[i], at * 4, size, wide);
                }
            }
#pragma unroll
            for (u32 j = 0; j < 2; j++) {
                if (part + j * TOGETHER >= quads) continue;
#pragma unroll
                for (u32 q = 0; q < QUERIES; q++) {
                    if (q < count) {
                        const u32 at = (part + j * TOGETHER) * 4;
                        const float4 number = load_quad(queries + q * HEAD_SIZE_MAX, at, size, true);
#pragma unroll
                        for (u32 i = 0; i < ABREAST; i++) score[i][q] = add_quad(score[i][q], k[i][j], number);
                    }
                }
            }
        }
#pragma unroll
        for (u32 i = 0; i < ABREAST; i++) {
            const u32 at = first + i * (THREADS / TOGETHER);
#pragma unroll
            for (u32 q = 0; q < QUERIES; q++) {
                for (int distance = TOGETHER / 2; distance > 0; distance /= 2) {
                    score[i][q] = __fadd_rn(score[i][q], shuffle_xor(score[i][q], distance));
                }
                const float scaled = there[i] ? __fmul_rn(score[i][q], scale) : -INFINITE;
                if (in_group == 0) weights[q * SEGMENT + at] = scaled;
            }
        }
    }
    SYNC();

    // Weights: one warp a query head.
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    if (warp < count) {
        float largest = -INFINITE;
        for (u32 at = lane; at < here; at += WARP) largest = fmaxf(largest, weights[warp * SEGMENT + at]);
        largest = warp_max(largest);
        float sum = 0.0f;
        for (u32 at = lane; at < here; at += WARP) {
            // Where no position could be read there is nothing to weigh.
            const float weight = largest == -INFINITE ? 0.0f : expf(weights[warp * SEGMENT + at] - largest);
            weights[warp * SEGMENT + at] = weight;
            sum = __fadd_rn(sum, weight);
        }
        sum = warp_sum(sum);
        if (lane == 0) largest_of[warp] = largest, sum_of[warp] = sum;
    }
    SYNC();

    // Weighted sums of values.
    float4 mine[QUERIES];
    for (u32 q = 0; q < QUERIES; q++) mine[q] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (group < groups) {
        for (u32 first = group; first < here; first += AHEAD * groups) {
            if (first != group) {
#pragma unroll
                for (u32 i = 0; i < AHEAD; i++) {
                    const u32 at = first + i * groups;
                    if (at < here) ahead[i] = value_quad(cached, at, quad);
                }
            }
#pragma unroll
            for (u32 i = 0; i < AHEAD; i++) {
                const u32 at = first + i * groups;
                if (at >= here || block_of_position[at / CACHE_BLOCK] >= cache_blocks) continue;
                const float4 v = ahead[i];
#pragma unroll
                for (u32 q = 0; q < QUERIES; q++) {
                    if (q < count) {
                        const float weight = weights[q * SEGMENT + at];
                        mine[q].x = fmaf(weight, v.x, mine[q].x);
                        mine[q].y = fmaf(weight, v.y, mine[q].y);
                        mine[q].z = fmaf(weight, v.z, mine[q].z);
                        mine[q].w = fmaf(weight, v.w, mine[q].w);
                    }
                }
            }
        }
        for (u32 q = 0; q < QUERIES; q++) sums[(group * QUERIES + q) * quads + quad] = mine[q];
    }
    SYNC();
    const float* numbers = (const float*)sums;
    const u64 slot = ((u64)row * gridDim.x + segment) * query_heads + first_head;
    for (u32 i = threadIdx.x; i < count * size; i += THREADS) {
        const u32 q = i / size, number = i % size;
        float total = 0.0f;
        for (u32 g = 0; g < groups; g++) {
            total = __fadd_rn(total, numbers[((u64)(g * QUERIES + q) * quads) * 4 + number]);
        }
        if (segments_of_row == 1) {
            // A row that sees nothing it could read is zero.
            out[((u64)row * query_heads + first_head) * size + i] = sum_of[q] > 0.0f ? total / sum_of[q] : 0.0f;
        } else {
            segments[(slot + q) * size + number] = total;
            if (number == 0) shares[(slot + q) * 2] = largest_of[q], shares[(slot + q) * 2 + 1] = sum_of[q];
        }
    }
    if (segments_of_row == 1) return;

    // The last block of these heads merges. What the others wrote must be visible before they are counted.
    __threadfence();
    SYNC();
    if (threadIdx.x == 0) {
        u32* counter = finished + row * gridDim.y + blockIdx.y;
        const u32 before = atomicAdd(counter, 1u);
        is_last[0] = before + 1 == segments_of_row;
        // Left as it was found, for the next launch.
        if (is_last[0]) *counter = 0;
    }
    SYNC();
    if (!is_last[0]) return;
    __threadfence();
    // The factors first, a warp a head, so that the sums below wait for nothing but their own numbers.
    float* const factors = weights;
    if (warp < count) {
        const u64 first = (u64)row * gridDim.x * query_heads + first_head + warp;
        // One reading where there are no more segments than lanes.
        const float own = lane < segments_of_row ? __ldcg(shares + (first + (u64)lane * query_heads) * 2) : -INFINITE;
        float largest = own;
        for (u32 s = lane + WARP; s < segments_of_row; s += WARP) {
            largest = fmaxf(largest, __ldcg(shares + (first + (u64)s * query_heads) * 2));
        }
        largest = warp_max(largest);
        for (u32 s = lane; s < min(segments_of_row, (u32)SEGMENT); s += WARP) {
            const float share = s == lane ? own : __ldcg(shares + (first + (u64)s * query_heads) * 2);
            factors[warp * SEGMENT + s] = share == -INFINITE ? 0.0f : expf(share - largest);
        }
        if (lane == 0) largest_of[warp] = largest;
    }
    SYNC();
    for (u32 i = threadIdx.x; i < count * size; i += THREADS) {
        const u32 q = i / size, number = i % size;
        const u64 first = (u64)row * gridDim.x * query_heads + first_head + q;
        float total = 0.0f, sum = 0.0f;
#pragma unroll 8
        for (u32 s = 0; s < segments_of_row; s++) {
            const u64 at = first + (u64)s * query_heads;
            float factor;
            if (s < SEGMENT) {
                factor = factors[q * SEGMENT + s];
            } else {
                const float share = __ldcg(shares + at * 2);
                factor = share == -INFINITE ? 0.0f : expf(share - largest_of[q]);
            }
            total = fmaf(factor, __ldcg(segments + at * size + number), total);
            sum = fmaf(factor, __ldcg(shares + at * 2 + 1), sum);
        }
        out[((u64)row * query_heads + first_head) * size + i] = sum > 0.0f ? total / sum : 0.0f;
    }
}
