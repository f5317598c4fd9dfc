// Formats of weights: where the bits of a unit lie, and what they mean. FORMAT_ID is the number that GGUF gives a
// format.
//
// A unit is 32 weights in two runs of 16; all weights of a run share scale and minimum. For formats that keep two
// weights in one byte, the runs are the low and the high halves of the same 16 bytes, so that one load serves both.
//
// On a device a matrix is not stored as in its file. Blocks of Q8_0, Q4_0, Q5_0 and Q6_K are 34, 18, 22 and 210 bytes,
// which no wide load can read; so the parts of a block are kept apart, each in a plane of its own, quants first, and
// every unit begins at a multiple of 16 bytes. Q4_K and Q5_K, of 144 and 176 bytes, and the float formats are stored
// as they are. The planes take exactly the bytes of the blocks. `planes.rs` is the other half of this agreement.

#define JOINED(a, b) a##_##b
#define JOIN(a, b) JOINED(a, b)
#define NAME(kernel) JOIN(kernel, FORMAT)

#if FORMAT_ID == 0
#define FORMAT f32
#elif FORMAT_ID == 1
#define FORMAT f16
#elif FORMAT_ID == 30
#define FORMAT bf16
#elif FORMAT_ID == 8
#define FORMAT q8_0
#elif FORMAT_ID == 2
#define FORMAT q4_0
#elif FORMAT_ID == 3
#define FORMAT q4_1
#elif FORMAT_ID == 6
#define FORMAT q5_0
#elif FORMAT_ID == 7
#define FORMAT q5_1
#elif FORMAT_ID == 12
#define FORMAT q4_k
#elif FORMAT_ID == 13
#define FORMAT q5_k
#elif FORMAT_ID == 14
#define FORMAT q6_k
#else
#error "FORMAT_ID names no format"
#endif

#define IS_FLOAT (FORMAT_ID == 0 || FORMAT_ID == 1 || FORMAT_ID == 30)
#define IS_NIBBLES (FORMAT_ID == 2 || FORMAT_ID == 3)
#define IS_FIVE (FORMAT_ID == 6 || FORMAT_ID == 7)
#define IS_K45 (FORMAT_ID == 12 || FORMAT_ID == 13)
#define HAS_MINIMUM (FORMAT_ID == 3 || FORMAT_ID == 7 || IS_K45)

// First column of run `run` of unit `unit`.
DEVICE u32 column_of(u32 unit, u32 run) {
#if IS_K45
    return unit / 8 * 256 + unit % 8 / 2 * 64 + unit % 2 * 16 + run * 32;
#elif FORMAT_ID == 14
    return unit / 8 * 256 + unit % 8 / 4 * 128 + unit % 4 / 2 * 32 + unit % 2 * 16 + run * 64;
#else
    return unit * 32 + run * 16;
#endif
}

// The other way round: which unit, run and quad holds the four columns from `column` on. Quads 0 to 3 are run 0.
DEVICE void place_of(u32 column, u32& unit, u32& quad) {
    u32 run;
#if IS_K45
    u32 in = column % 64;
    run = in / 32;
    unit = column / 64 * 2 + in % 32 / 16;
#elif FORMAT_ID == 14
    u32 in = column % 128;
    run = in / 64;
    unit = column / 128 * 4 + in % 64 / 16;
#else
    run = column % 32 / 16;
    unit = column / 32;
#endif
    quad = run * 4 + column % 16 / 4;
}

#if IS_FLOAT

// A unit of a float format is read where it is needed: holding 32 weights of several rows would cost too many
// registers.
struct Unit {
    const u8* row;
    u32 column, columns;
    bool wide;
};

DEVICE Unit load_unit(const u8* weights, u32 rows, u32 columns, u32 row, u32 unit) {
    Unit out;
    const u32 size = FORMAT_ID == 0 ? 4 : 2;
    out.row = weights + (u64)row * columns * size;
    out.column = unit * 32;
    out.columns = columns;
    out.wide = (((u64)out.row) & (4 * size - 1)) == 0;
    return out;
}

DEVICE float widened(u16 bits) {
#if FORMAT_ID == 1
    return half_to_float(bits);
#else
    return __uint_as_float((u32)bits << 16);
#endif
}

DEVICE float4 weights_of(const Unit& unit, u32 quad) {
    u32 at = unit.column + quad * 4;
#if FORMAT_ID == 0
    return load_quad((const float*)unit.row, at, unit.columns, unit.wide);
#else
    const u16* from = (const u16*)unit.row;
    float4 out = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (unit.wide && at + 4 <= unit.columns) {
        uint2 four = *(const uint2*)(from + at);
        out = make_float4(widened(four.x & 0xffff), widened(four.x >> 16), widened(four.y & 0xffff), widened(four.y >> 16));
    } else {
        if (at < unit.columns) out.x = widened(from[at]);
        if (at + 1 < unit.columns) out.y = widened(from[at + 1]);
        if (at + 2 < unit.columns) out.z = widened(from[at + 2]);
        if (at + 3 < unit.columns) out.w = widened(from[at + 3]);
    }
    return out;
#endif
}

DEVICE float4 exact_weights_of(const Unit& unit, u32 quad) { return weights_of(unit, quad); }

#if FORMAT_ID == 0
typedef Unit Ready;

DEVICE Ready load_ready(const u8* weights, u32 rows, u32 columns, u32 row, u32 unit) {
    return load_unit(weights, rows, columns, row, unit);
}

DEVICE float4 ready_weights_of(const Ready& unit, u32 quad) { return weights_of(unit, quad); }
#else
// A unit held as its bits, for kernels that multiply few rows of numbers and so have the registers: all of it is on its
// way at once.
struct Ready {
    uint4 bits[4];
};

DEVICE Ready load_ready(const u8* weights, u32 rows, u32 columns, u32 row, u32 unit) {
    Ready out;
    const u16* from = (const u16*)(weights + (u64)row * columns * 2);
    const u32 column = unit * 32;
    if ((((u64)from) & 15) == 0 && column + 32 <= columns) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) out.bits[i] = *(const uint4*)(from + column + i * 8);
    } else {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 words[4];
#pragma unroll
            for (u32 j = 0; j < 4; j++) {
                const u32 at = column + i * 8 + j * 2;
                words[j] = (at < columns ? from[at] : 0) | (at + 1 < columns ? (u32)from[at + 1] << 16 : 0);
            }
            out.bits[i] = make_uint4(words[0], words[1], words[2], words[3]);
        }
    }
    return out;
}

DEVICE float4 ready_weights_of(const Ready& unit, u32 quad) {
    const uint4 eight = unit.bits[quad / 2];
    const u32 low = quad % 2 == 0 ? eight.x : eight.z, high = quad % 2 == 0 ? eight.y : eight.w;
    return make_float4(widened(low & 0xffff), widened(low >> 16), widened(high & 0xffff), widened(high >> 16));
}
#endif

#else

// The zero point of the stored numbers when they are read as unsigned bytes.
#if FORMAT_ID == 8
#define ZERO 128
#elif FORMAT_ID == 2
#define ZERO 8
#elif FORMAT_ID == 6
#define ZERO 16
#elif FORMAT_ID == 14
#define ZERO 32
#else
#define ZERO 0
#endif

struct Unit {
    // Both runs: bytes of Q8_0, low bits of the others.
    uint4 low;
#if FORMAT_ID == 8
    uint4 second;
#elif IS_FIVE
    u32 high;
#elif FORMAT_ID == 13 || FORMAT_ID == 14
    // Higher bits, and by how much the unit's are shifted.
    uint4 high;
    u32 shift;
#endif
    // Of each run.
    float scale[2];
#if HAS_MINIMUM
    float minimum[2];
#endif
};

#if IS_K45
// Byte `index` of the twelve bytes that pack the scales of a Q4_K or Q5_K block.
DEVICE u32 packed_byte(const uint4& head, u32 index) {
    u32 word = index < 4 ? head.y : index < 8 ? head.z : head.w;
    return word >> (index % 4 * 8) & 255;
}
#endif

DEVICE Unit load_unit(const u8* weights, u32 rows, u32 columns, u32 row, u32 unit) {
    Unit out;
#if IS_K45
    const u32 block_bytes = FORMAT_ID == 12 ? 144 : 176;
    const u8* block = weights + ((u64)row * (columns / 256) + unit / 8) * block_bytes;
    u32 in = unit % 8;
    uint4 head = *(const uint4*)block;
    float d = half_to_float(head.x & 0xffff), dmin = half_to_float(head.x >> 16);
    for (u32 run = 0; run < 2; run++) {
        u32 sub = in / 2 * 2 + run;
        u32 scale, minimum;
        if (sub < 4) {
            scale = packed_byte(head, sub) & 63;
            minimum = packed_byte(head, sub + 4) & 63;
        } else {
            scale = (packed_byte(head, sub + 4) & 15) | packed_byte(head, sub - 4) >> 6 << 4;
            minimum = packed_byte(head, sub + 4) >> 4 | packed_byte(head, sub) >> 6 << 4;
        }
        out.scale[run] = __fmul_rn(d, (float)scale);
        out.minimum[run] = -__fmul_rn(dmin, (float)minimum);
    }
    out.low = *(const uint4*)(block + block_bytes - 128 + in / 2 * 32 + in % 2 * 16);
#if FORMAT_ID == 13
    out.high = *(const uint4*)(block + 16 + in % 2 * 16);
    out.shift = in / 2 * 2;
#endif
#elif FORMAT_ID == 14
    u64 blocks = (u64)rows * (columns / 256), block = (u64)row * (columns / 256) + unit / 8;
    u32 in = unit % 8;
    out.low = *(const uint4*)(weights + block * 128 + in / 4 * 64 + in % 4 * 16);
    out.high = *(const uint4*)(weights + blocks * 128 + block * 64 + in / 4 * 32 + in % 2 * 16);
    out.shift = in % 4 / 2 * 2;
    const signed char* scales = (const signed char*)(weights + blocks * 192 + block * 16);
    float d = half_to_float(((const u16*)(weights + blocks * 208))[block]);
    u32 first = in / 4 * 8 + in % 4;
    out.scale[0] = __fmul_rn(d, (float)scales[first]);
    out.scale[1] = __fmul_rn(d, (float)scales[first + 4]);
#else
    u64 units = (u64)rows * (columns / 32), at = (u64)row * (columns / 32) + unit;
#if FORMAT_ID == 8
    const uint4* quants = (const uint4*)(weights + at * 32);
    out.low = quants[0];
    out.second = quants[1];
    const u8* rest = weights + units * 32;
#else
    out.low = *(const uint4*)(weights + at * 16);
    const u8* rest = weights + units * 16;
#endif
#if IS_FIVE
    out.high = ((const u32*)rest)[at];
    rest += units * 4;
#endif
#if HAS_MINIMUM
    u32 both = ((const u32*)rest)[at];
    out.scale[0] = out.scale[1] = half_to_float(both & 0xffff);
    out.minimum[0] = out.minimum[1] = half_to_float(both >> 16);
#else
    out.scale[0] = out.scale[1] = half_to_float(((const u16*)rest)[at]);
#endif
#endif
    return out;
}

DEVICE u32 word_of(const uint4& words, u32 index) {
    return index == 0 ? words.x : index == 1 ? words.y : index == 2 ? words.z : words.w;
}

// Four stored numbers as bytes: unsigned, or signed for Q8_0.
DEVICE u32 bytes_of(const Unit& unit, u32 quad) {
    u32 run = quad / 4, in = quad % 4;
#if FORMAT_ID == 8
    return run == 0 ? word_of(unit.low, in) : word_of(unit.second, in);
#else
    u32 low = word_of(unit.low, in) >> (run * 4) & 0x0f0f0f0fu;
#if IS_FIVE
    // Bits b0 to b3 go to bit 4 of bytes 0 to 3: the product places copies at distances of seven, which never carry.
    u32 bits = unit.high >> (run * 16 + in * 4) & 15;
    low |= (bits * 0x00204081u & 0x01010101u) << 4;
#elif FORMAT_ID == 13
    low |= (word_of(unit.high, in) >> (unit.shift + run) & 0x01010101u) << 4;
#elif FORMAT_ID == 14
    low |= (word_of(unit.high, in) >> (unit.shift + run * 4) & 0x03030303u) << 4;
#endif
    return low;
#endif
}

// The stored number in byte `index`, less its zero point, exactly. A byte under the exponent of 2^23 is that number
// plus 2^23; integer to float conversion would run at an eighth of the rate.
DEVICE float number_of(u32 bytes, u32 index) {
    return __fadd_rn(__uint_as_float(pick_bytes(bytes, 0x4b000000u, 0x7440u + index)), -(8388608.0f + ZERO));
}

DEVICE float4 numbers_of(const Unit& unit, u32 quad) {
    u32 bytes = bytes_of(unit, quad);
#if FORMAT_ID == 8
    bytes ^= 0x80808080u;
#endif
    return make_float4(number_of(bytes, 0), number_of(bytes, 1), number_of(bytes, 2), number_of(bytes, 3));
}

DEVICE float weight_of(float number, float scale, float minimum) {
#if HAS_MINIMUM
    return fmaf(scale, number, minimum);
#else
    return __fmul_rn(scale, number);
#endif
}

// The weights of a quad for products.
DEVICE float4 weights_of(const Unit& unit, u32 quad) {
    float4 n = numbers_of(unit, quad);
    float scale = unit.scale[quad / 4];
#if HAS_MINIMUM
    float minimum = unit.minimum[quad / 4];
#else
    float minimum = 0.0f;
#endif
    return make_float4(weight_of(n.x, scale, minimum), weight_of(n.y, scale, minimum), weight_of(n.z, scale, minimum),
                       weight_of(n.w, scale, minimum));
}

// The weights of a quad as the format defines them, every step rounded.
DEVICE float4 exact_weights_of(const Unit& unit, u32 quad) {
#if HAS_MINIMUM
    float4 n = numbers_of(unit, quad);
    float scale = unit.scale[quad / 4], minimum = unit.minimum[quad / 4];
    return make_float4(__fadd_rn(__fmul_rn(scale, n.x), minimum), __fadd_rn(__fmul_rn(scale, n.y), minimum),
                       __fadd_rn(__fmul_rn(scale, n.z), minimum), __fadd_rn(__fmul_rn(scale, n.w), minimum));
#else
    return weights_of(unit, quad);
#endif
}

typedef Unit Ready;

DEVICE Ready load_ready(const u8* weights, u32 rows, u32 columns, u32 row, u32 unit) {
    return load_unit(weights, rows, columns, row, unit);
}

DEVICE float4 ready_weights_of(const Ready& unit, u32 quad) { return weights_of(unit, quad); }

#endif
