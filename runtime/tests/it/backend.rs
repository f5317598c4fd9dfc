//! Every backend passes the conformance suite.

use isotherm_runtime::backend::Device;
use isotherm_runtime::backend::conformance::Suite;
use isotherm_runtime::backend::scalar::ScalarPlatform;

#[test]
fn the_reference_device_meets_the_whole_contract() {
    let platform = ScalarPlatform { devices: 2, memory_bytes: 64 << 20 };
    let report =
        Suite { open: &|index| Device::open(&platform, index), devices: &[0, 1], thorough: true, seed: 1 }.run();
    eprintln!("{report}");
    assert!(report.passed(), "{report}");
}
