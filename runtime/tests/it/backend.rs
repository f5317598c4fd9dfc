//! Every backend passes the conformance suite.

use isotherm_runtime::backend::conformance::{Report, Suite};
use isotherm_runtime::backend::scalar::ScalarPlatform;
use isotherm_runtime::backend::wgpu::{WgpuOptions, WgpuPlatform};
use isotherm_runtime::backend::{Device, DeviceError, Platform};

#[test]
fn the_reference_device_meets_the_whole_contract() {
    let platform = ScalarPlatform { devices: 2, memory_bytes: 64 << 20 };
    let report =
        Suite { open: &|index| Device::open(&platform, index), devices: &[0, 1], thorough: true, seed: 1 }.run();
    eprintln!("{report}");
    assert!(report.passed(), "{report}");
}

/// A platform with a device, or a skip. On CI a driver is installed, so that missing one is a failure.
fn wgpu(test: &str, options: WgpuOptions) -> Option<WgpuPlatform> {
    let platform = WgpuPlatform::new(options);
    match platform.devices() {
        Ok(_) => Some(platform),
        Err(DeviceError::NoDriver { why, .. }) => {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("skipped: {test}: {why}; apt install mesa-vulkan-drivers libvulkan1");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn conform(test: &str, options: WgpuOptions, devices: &[usize], thorough: bool) -> Option<Report> {
    let platform = wgpu(test, options)?;
    let report = Suite { open: &|index| Device::open(&platform, index), devices, thorough, seed: 2 }.run();
    eprintln!("{report}");
    assert!(report.passed(), "{report}");
    Some(report)
}

fn campaign() -> bool {
    std::env::var_os("ISOTHERM_CAMPAIGN").is_some()
}

#[test]
fn a_wgpu_device_meets_the_whole_contract() {
    let options = WgpuOptions { memory_bytes: Some(256 << 20), ..WgpuOptions::default() };
    // Two openings of one adapter are two devices.
    let name = "a_wgpu_device_meets_the_whole_contract";
    if conform(name, options.clone(), &[0], campaign()).is_none() {
        return;
    }
    let platform = WgpuPlatform::new(options);
    let suite = Suite { open: &|index| Device::open(&platform, index), devices: &[0], thorough: false, seed: 3 };
    let report = suite.pairs(0, 0);
    eprintln!("{report}");
    assert!(report.passed(), "{report}");
}

#[test]
fn wgpu_shaders_without_and_with_subgroups_meet_the_contract() {
    let name = "wgpu_shaders_without_and_with_subgroups_meet_the_contract";
    let all = [(Some(true), None), (Some(false), Some(8)), (Some(false), Some(32))];
    for (subgroups, lanes) in all.into_iter().take(if campaign() { 3 } else { 1 }) {
        let options = WgpuOptions { memory_bytes: Some(256 << 20), subgroups, lanes, ..WgpuOptions::default() };
        if conform(name, options, &[0], false).is_none() {
            return;
        }
    }
}

/// Whether half-precision numbers are read as such or unpacked from words, and over OpenGL where a driver is.
#[test]
fn wgpu_shaders_without_native_halves_meet_the_contract() {
    let options = WgpuOptions { memory_bytes: Some(256 << 20), halves: Some(false), ..WgpuOptions::default() };
    conform("wgpu_shaders_without_native_halves_meet_the_contract", options, &[0], false);
}

#[test]
fn halves_read_natively_and_unpacked_give_the_same_rows() {
    let name = "halves_read_natively_and_unpacked_give_the_same_rows";
    let rows = |halves| {
        let options = WgpuOptions { halves: Some(halves), ..WgpuOptions::default() };
        let mut device = Device::open(&wgpu(name, options)?, 0).expect("a device that was listed opens");
        Some(split::halves(&mut device))
    };
    let Some(natively) = rows(true) else { return };
    assert_eq!(natively, rows(false).expect("as before"));
}

#[test]
fn matrices_larger_than_a_binding_are_split_and_meet_the_contract() {
    // 64 KiB: the larger matrices and operands of the suite stay below it only in pieces.
    let small = Some(64 << 10);
    let options = WgpuOptions { binding_bytes_max: small, memory_bytes: Some(256 << 20), ..WgpuOptions::default() };
    let Some(platform) = wgpu("matrices_larger_than_a_binding_are_split_and_meet_the_contract", options) else {
        return;
    };
    let mut device = Device::open(&platform, 0).expect("a device that was listed opens");
    split::lookups_and_products(&mut device);
}

mod split {
    use isotherm_runtime::backend::{Arithmetic, Device, Input, Op, Store, View};
    use isotherm_runtime::model::format::BlockFormat;

    fn read(device: &mut Device, view: View, count: usize) -> Vec<f32> {
        let mut bytes = vec![0; 4 * count];
        device.copy_out(view.buffer, view.offset, &mut bytes).expect("a read");
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Every number in half precision that is one, subnormal ones left out: those may be flushed either way.
    pub(super) fn halves(device: &mut Device) -> Vec<f32> {
        let all = (0..=u16::MAX).filter(|bits| (0x400..0x7c00).contains(&(bits & 0x7fff)));
        let packed: Vec<u8> = all.flat_map(u16::to_le_bytes).collect();
        let columns = 1024_u32;
        let rows = (packed.len() / 2 / columns as usize) as u32;
        let matrix = device.load(BlockFormat::F16, rows, columns, &packed).expect("room");
        let indices = device.allocate(4 * u64::from(rows)).expect("room");
        let out = device.allocate(4 * u64::from(rows * columns)).expect("room");
        let words: Vec<u8> = (0..rows).flat_map(u32::to_le_bytes).collect();
        device.copy_in(indices, 0, &words).expect("a write");
        let lookup = Op::Lookup { table: matrix, indices: indices.into(), rows, out: out.into() };
        device.launch(&[lookup]).expect("a lookup");
        let found = read(device, out.into(), (rows * columns) as usize);
        for (found, bits) in found.iter().zip(packed.chunks_exact(2)) {
            assert_eq!(*found, half::f16::from_le_bytes([bits[0], bits[1]]).to_f32());
        }
        found
    }

    /// A matrix of whole numbers five bindings long, so that every sum is exact and each piece is reached.
    pub(super) fn lookups_and_products(device: &mut Device) {
        let (rows, columns) = (1300_usize, 64_usize);
        let value = |r: usize, c: usize| ((r * 7 + c * 3) % 11) as f32 - 5.0;
        let packed: Vec<u8> =
            (0..rows).flat_map(|r| (0..columns).flat_map(move |c| value(r, c).to_le_bytes())).collect();
        let matrix = device.load(BlockFormat::F32, rows as u32, columns as u32, &packed).expect("it is split");
        let tokens = [0_u32, 255, 256, 1299, 700];
        let x: Vec<u8> = (0..2 * columns).flat_map(|i| ((i % 5) as f32).to_le_bytes()).collect();
        let indices = device.allocate(4 * tokens.len() as u64).expect("room");
        let input = device.allocate(x.len() as u64).expect("room");
        let out = device.allocate(4 * 2 * rows as u64).expect("room");
        let found = device.allocate(4 * (tokens.len() * columns) as u64).expect("room");
        let words: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        device.copy_in(indices, 0, &words).expect("a write");
        device.copy_in(input, 0, &x).expect("a write");
        device
            .launch(&[
                Op::Lookup { table: matrix, indices: indices.into(), rows: tokens.len() as u32, out: found.into() },
                Op::Product {
                    input: Input { numbers: input.into(), norm: None },
                    rows: 2,
                    outs: vec![(matrix, out.into())],
                    store: Store::Set,
                    arithmetic: Arithmetic::F32,
                },
            ])
            .expect("both are queued");
        let wanted: Vec<f32> = tokens.iter().flat_map(|&t| (0..columns).map(move |c| value(t as usize, c))).collect();
        assert_eq!(read(device, found.into(), wanted.len()), wanted);
        let product =
            |t: usize, r: usize| -> f32 { (0..columns).map(|c| value(r, c) * ((t * columns + c) % 5) as f32).sum() };
        let wanted: Vec<f32> = (0..2).flat_map(|t| (0..rows).map(move |r| product(t, r))).collect();
        assert_eq!(read(device, out.into(), wanted.len()), wanted);
        assert!(device.counters().dispatches > 10, "the matrix was not split: {:?}", device.counters());
    }
}
