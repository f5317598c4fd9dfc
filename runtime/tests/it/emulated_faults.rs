//! What the host-emulated driver sees and what it does not: mistakes are put into copies of the kernels, one at a time, and a
//! short check runs on each. A mistake that gets by is listed as missed, and is expected to be: whoever relies on this driver
//! shall know what it cannot show.

use super::emulated::{NOTHING_ON_A_CARD, checkout, inside, platform, ready, said, stand_in, target};
use isotherm_runtime::backend::scalar::ScalarPlatform;
use isotherm_runtime::backend::{
    Arithmetic, Buffer, Cache, Device, DeviceError, Heads, Input, NormBy, Op, Places, Store, View,
};
use isotherm_runtime::model::format::BlockFormat;

/// A mistake: its name, the file, what is replaced by what, and whether the driver is expected to see it.
struct Fault(&'static str, &'static str, &'static str, &'static str, bool);

const FAULTS: &[Fault] = &[
    Fault(
        "a missing barrier between filling shared memory and reading it",
        "product.cu",
        "first * 32, columns, wide);\n        }\n        SYNC();",
        "first * 32, columns, wide);\n        }",
        true,
    ),
    Fault(
        "a barrier that not all threads of a block reach",
        "element.cu",
        "    SYNC();\n    if (threadIdx.x == 0) {\n        for (int warp = 1",
        "    if (threadIdx.x < 32) SYNC();\n    if (threadIdx.x == 0) {\n        for (int warp = 1",
        // Threads that have ended no longer count at a barrier, here as on recent cards.
        false,
    ),
    Fault(
        "a wrong mask of lanes in a sum",
        "base.cu",
        "value = __fadd_rn(value, shuffle_xor(value, distance));",
        "value = __fadd_rn(value, __shfl_xor_sync(0x0000ffffu, value, distance));",
        true,
    ),
    Fault(
        "a misaligned load of four numbers",
        "base.cu",
        "return (((u64)from) & 15) == 0 && (width & 3) == 0;",
        "return true;",
        true,
    ),
    Fault(
        "a read far past a buffer",
        "element.cu",
        "if (is_before(row[i], i, best, best_index)) best = row[i], best_index = i;",
        "if (is_before(row[i + 100000], i, best, best_index)) best = row[i], best_index = i;",
        true,
    ),
    Fault(
        "a read one number past a row",
        "element.cu",
        "for (u32 i = threadIdx.x; i < width; i += THREADS) {\n        if (is_before",
        "for (u32 i = threadIdx.x; i <= width; i += THREADS) {\n        if (is_before",
        // The number there is the next row's, and one of ours happens to be larger.
        false,
    ),
    Fault(
        "a write past an array of shared memory",
        "attention.cu",
        "if (lane == 0) largest_of[warp] = largest",
        "if (lane == 0) largest_of[warp + QUERIES] = largest",
        true,
    ),
    Fault(
        "a write past the end of a buffer",
        "element.cu",
        "for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < count; i += (u64)gridDim.x * THREADS) {\n        to[i]",
        "for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < count + 3; i += (u64)gridDim.x * THREADS) {\n        to[i]",
        true,
    ),
    Fault(
        "shared memory that is read before it is written",
        "base.cu",
        "if (threadIdx.x % WARP == 0) partial[threadIdx.x / WARP] = squares;",
        "if (threadIdx.x == 0) partial[0] = squares;",
        true,
    ),
    Fault(
        "a race: a counter that blocks raise without an atomic operation",
        "attention.cu",
        "const u32 before = atomicAdd(counter, 1u);",
        "const u32 before = *counter; *counter = before + 1;",
        // Blocks run one after another.
        false,
    ),
    Fault(
        "a missing fence between blocks",
        "attention.cu",
        "    __threadfence();\n    SYNC();",
        "    SYNC();",
        // There is one order of memory.
        false,
    ),
];

#[test]
fn mistakes_in_copies_of_the_kernels_are_caught_or_known_to_be_missed() {
    const NAME: &str = "mistakes_in_copies_of_the_kernels_are_caught_or_known_to_be_missed";
    let Some((_, compiler)) = ready(NAME) else { return };
    let q8_0 = [BlockFormat::Q8_0.id()];
    let check = |folder: &std::path::Path, seed: &str| {
        inside("emulated_faults::inside_check", folder, &compiler, &[("ISOTHERM_EMULATED_SEED", seed)])
    };
    let sound = stand_in("one-format", None, &q8_0).expect("the kernels as they are build");
    for seed in ["0", "5"] {
        let output = check(&sound, seed);
        assert!(output.status.success(), "without a mistake nothing is found: {}", said(&output));
    }
    let (mut caught, mut wrong) = (0, Vec::new());
    for (number, &Fault(name, file, from, to, expected)) in FAULTS.iter().enumerate() {
        let kernels = target().join("emulated").join(format!("fault-{number}/kernels"));
        std::fs::create_dir_all(&kernels).expect("the build folder can be written");
        for entry in std::fs::read_dir(checkout().join("runtime/kernels")).expect("the kernels are there") {
            let path = entry.expect("a readable folder").path();
            let mut text = std::fs::read_to_string(&path).expect("kernels are text");
            if path.ends_with(file) {
                assert!(text.contains(from), "{name}: {file} has no {from:?} any more");
                text = text.replacen(from, to, 1);
            }
            std::fs::write(kernels.join(path.file_name().expect("a file")), text).expect("it can be written");
        }
        let folder = stand_in(&format!("fault-{number}"), Some(&kernels), &q8_0).expect("the mistake compiles");
        // Seen in any order of threads is seen.
        let seen = ["0", "5"].iter().any(|seed| !check(&folder, seed).status.success());
        eprintln!("  {:<7} {name}", if seen { "caught" } else { "MISSED" });
        caught += u32::from(seen);
        if seen != expected {
            wrong.push(name);
        }
    }
    eprintln!("{caught} of {} mistakes caught by the host-emulated driver; {NOTHING_ON_A_CARD}", FAULTS.len());
    assert!(wrong.is_empty(), "not as written down: {wrong:?}");
}

/// A device under check beside the reference device, with the same numbers in both.
struct Pair {
    devices: [Device; 2],
}

impl Pair {
    fn buffer(&mut self, numbers: &[f32]) -> Result<[Buffer; 2], DeviceError> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut one = |at: usize| {
            let device = &mut self.devices[at];
            let buffer = device.allocate(bytes.len() as u64)?;
            device.copy_in(buffer, 0, &bytes)?;
            Ok::<_, DeviceError>(buffer)
        };
        Ok([one(0)?, one(1)?])
    }

    /// Runs an operation on both and compares a buffer.
    fn same(&mut self, op: impl Fn(usize) -> Op, buffer: [Buffer; 2]) -> Result<(), DeviceError> {
        let mut results = [Vec::new(), Vec::new()];
        for (at, result) in results.iter_mut().enumerate() {
            let device = &mut self.devices[at];
            let op = op(at);
            device.launch(std::slice::from_ref(&op))?;
            device.synchronise()?;
            result.resize(buffer[at].bytes() as usize, 0);
            device.copy_out(buffer[at], 0, result)?;
        }
        let word = |bytes: &[u8]| [bytes[0], bytes[1], bytes[2], bytes[3]];
        for (i, (ours, theirs)) in results[0].chunks_exact(4).zip(results[1].chunks_exact(4)).enumerate() {
            let (a, b) = (f32::from_le_bytes(word(ours)), f32::from_le_bytes(word(theirs)));
            let close = ours == theirs || (a - b).abs() <= 1e-4 * (1.0 + b.abs());
            assert!(close, "{}: number {i} is {a}, not {b}", op(0).name());
        }
        Ok(())
    }
}

fn numbers(count: usize, factor: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * factor + 17) % 201) as f32 / 100.0 - 1.0).collect()
}

#[test]
#[ignore = "run by mistakes_in_copies_of_the_kernels..., with a host-emulated driver in reach"]
fn inside_check() {
    checked().expect("no device is lost");
}

fn checked() -> Result<(), DeviceError> {
    let scalar = ScalarPlatform { devices: 1, memory_bytes: 64 << 20 };
    let mut pair = Pair { devices: [Device::open(&platform(), 0)?, Device::open(&scalar, 0)?] };
    let (rows, columns, out_rows) = (9_u32, 1088_u32, 37_u32);
    let x = pair.buffer(&numbers((rows * columns) as usize + 1, 31))?;
    let weight = pair.buffer(&numbers(columns as usize + 1, 7))?;
    let out = pair.buffer(&vec![0.5; (rows * columns) as usize])?;
    let mut packed = Vec::new();
    for i in 0..out_rows * columns / 32 {
        packed.extend(half::f16::from_f32(0.01 + i as f32 * 1e-5).to_le_bytes());
        packed.extend((0..32).map(|j| (i * 29 + j * 13) as u8));
    }
    let matrices = [
        pair.devices[0].load(BlockFormat::Q8_0, out_rows, columns, &packed)?,
        pair.devices[1].load(BlockFormat::Q8_0, out_rows, columns, &packed)?,
    ];
    // Begins at a number that no load of four may begin at.
    let at = |buffer: Buffer| View::at(buffer, 1);
    let by = |device: usize| NormBy { weight: at(weight[device]), epsilon: 1e-5 };
    pair.same(|d| Op::Norm { input: at(x[d]), by: by(d), rows, width: columns, out: out[d].into() }, out)?;
    let products = pair.buffer(&vec![0.25; (rows * out_rows) as usize])?;
    for rows in [1, 3, rows] {
        pair.same(
            |d| Op::Product {
                input: Input { numbers: at(x[d]), norm: (rows < 9).then(|| by(d)) },
                rows,
                outs: vec![(matrices[d], products[d].into())],
                store: Store::Add,
                arithmetic: Arithmetic::F32,
            },
            products,
        )?;
    }
    let indices = pair.buffer(&vec![0.0; rows as usize])?;
    pair.same(|d| Op::Argmax { input: x[d].into(), rows, width: columns, out: indices[d].into() }, indices)?;
    pair.same(|d| Op::Add { to: View::at(out[d], 0), from: x[d].into(), count: 1000 }, out)?;
    attention(&mut pair)
}

/// Attention over two segments.
fn attention(pair: &mut Pair) -> Result<(), DeviceError> {
    let (heads, seen, blocks) = (Heads { query: 6, kv: 2, size: 20 }, 300_u32, 20_u32);
    let count = (blocks * heads.kv * 16 * heads.size) as usize;
    let (keys, values) = (pair.buffer(&numbers(count, 11))?, pair.buffer(&numbers(count, 23))?);
    let query = pair.buffer(&numbers((heads.query * heads.size) as usize, 3))?;
    let out = pair.buffer(&vec![0.0; (heads.query * heads.size) as usize])?;
    let words = |numbers: &[u32]| numbers.iter().map(|&number| f32::from_bits(number)).collect::<Vec<_>>();
    let places = pair.buffer(&words(&[seen, 0]))?;
    let order = pair.buffer(&words(&(0..blocks).rev().collect::<Vec<_>>()))?;
    for _ in 0..2 {
        pair.same(
            |d| Op::Attend {
                query: query[d].into(),
                rows: 1,
                heads,
                places: Places { rows: places[d].into(), blocks: order[d].into(), blocks_count: blocks },
                cache: Cache { keys: keys[d].into(), values: values[d].into(), blocks },
                scale: 0.25,
                seen_max: seen,
                out: out[d].into(),
            },
            out,
        )?;
    }
    Ok(())
}
