// Attention over the paged cache, softmax included.
//
// A block takes up to four query heads that read the same keys and values, and one segment of 256 positions. Segments
// are cut at multiples of 256 whatever the length, and merged in rising order by whichever block of a row finishes
// last; a row of one segment needs no merging. So the result depends on the row alone: not on the rows beside it, nor
// on which block came last.

// Threads that share the dot product of one position.
#define TOGETHER 8
// Groups of threads that share the values of a segment, at most.
#define GROUPS_MAX 16

struct Share {
    float largest, sum;
};

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
        if (block_of(blocks, blocks_count, begin, i * CACHE_BLOCK, cache_blocks) >= cache_blocks) there_are = min(there_are, i);
    }
    for (int distance = WARP / 2; distance > 0; distance /= 2) there_are = min(there_are, shuffle_xor(there_are, distance));
    if (threadIdx.x % WARP == 0) reach[threadIdx.x / WARP] = there_are;
    SYNC();
    for (int i = 0; i < WARPS; i++) there_are = min(there_are, reach[i]);
    seen = min(seen, there_are * CACHE_BLOCK);
    const u32 from = segment * SEGMENT;
    if (from >= seen && segment > 0) return;
    const u32 here = seen == 0 ? 0 : min((u32)SEGMENT, seen - from);
    const u32 segments_of_row = seen == 0 ? 1 : (seen + SEGMENT - 1) / SEGMENT;
    const bool wide = is_wide(keys, size) && (((u64)values) & 15) == 0;

    for (u32 i = threadIdx.x; i < count * size; i += THREADS) {
        queries[i / size * HEAD_SIZE_MAX + i % size] = query[((u64)row * query_heads + first_head) * size + i];
    }
    for (u32 i = threadIdx.x; i < SEGMENT / CACHE_BLOCK; i += THREADS) {
        block_of_position[i] = i * CACHE_BLOCK < here
                                   ? block_of(blocks, blocks_count, begin, from + i * CACHE_BLOCK, cache_blocks)
                                   : cache_blocks;
    }
    SYNC();

    // Scores: eight threads a position.
    const u32 quads = (size + 3) / 4, in_group = threadIdx.x % TOGETHER;
    for (u32 at = threadIdx.x / TOGETHER; at < SEGMENT; at += THREADS / TOGETHER) {
        const u32 block = block_of_position[at / CACHE_BLOCK];
        float score[QUERIES] = {0.0f, 0.0f, 0.0f, 0.0f};
        const bool there = at < here && block < cache_blocks;
        if (there) {
            const float* key = keys + (((u64)block * kv_heads + kv_head) * CACHE_BLOCK + at % CACHE_BLOCK) * size;
            for (u32 quad = in_group; quad < quads; quad += TOGETHER) {
                const float4 k = load_quad(key, quad * 4, size, wide);
#pragma unroll
                for (u32 q = 0; q < QUERIES; q++) {
                    if (q < count) {
                        const float4 number = load_quad(queries + q * HEAD_SIZE_MAX, quad * 4, size, true);
                        score[q] = fmaf(k.w, number.w,
                                        fmaf(k.z, number.z, fmaf(k.y, number.y, fmaf(k.x, number.x, score[q]))));
                    }
                }
            }
        }
#pragma unroll
        for (u32 q = 0; q < QUERIES; q++) {
            for (int distance = TOGETHER / 2; distance > 0; distance /= 2) {
                score[q] = __fadd_rn(score[q], shuffle_xor(score[q], distance));
            }
            if (in_group == 0) weights[q * SEGMENT + at] = there ? __fmul_rn(score[q], scale) : -INFINITE;
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

    // Weighted sums of values: a thread a quad of numbers, groups of threads taking positions in turn.
    const u32 groups = min((u32)GROUPS_MAX, THREADS / quads), group = threadIdx.x / quads, quad = threadIdx.x % quads;
    float4 mine[QUERIES];
    for (u32 q = 0; q < QUERIES; q++) mine[q] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (group < groups) {
        for (u32 at = group; at < here; at += groups) {
            const u32 block = block_of_position[at / CACHE_BLOCK];
            if (block >= cache_blocks) continue;
            const float* value = values + (((u64)block * kv_heads + kv_head) * CACHE_BLOCK + at % CACHE_BLOCK) * size;
            const float4 v = load_quad(value, quad * 4, size, wide);
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
    for (u32 i = threadIdx.x; i < count * size; i += THREADS) {
        const u32 q = i / size, number = i % size;
        const u64 first = (u64)row * gridDim.x * query_heads + first_head + q;
        float largest = -INFINITE;
        for (u32 s = 0; s < segments_of_row; s++) {
            largest = fmaxf(largest, __ldcg(shares + (first + (u64)s * query_heads) * 2));
        }
        float total = 0.0f, sum = 0.0f;
        for (u32 s = 0; s < segments_of_row; s++) {
            const u64 at = first + (u64)s * query_heads;
            const float share = __ldcg(shares + at * 2);
            const float factor = share == -INFINITE ? 0.0f : expf(share - largest);
            total = fmaf(factor, __ldcg(segments + at * size + number), total);
            sum = fmaf(factor, __ldcg(shares + at * 2 + 1), sum);
        }
        out[((u64)row * query_heads + first_head) * size + i] = sum > 0.0f ? total / sum : 0.0f;
    }
}
