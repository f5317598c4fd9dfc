//! Any text as a sweep: faults that say where, or points that are TOML without a sweep and can be made again the same.

use isotherm_core::sweep::Sweep;

/// Points up to which each is made.
const POINTS_MAX: u64 = 16;

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    let sweep = match Sweep::read(text) {
        Ok(sweep) => sweep,
        Err(faults) => {
            assert!(!faults.is_empty(), "refused without a fault");
            return;
        }
    };
    for number in (0..sweep.len().min(POINTS_MAX)).chain([sweep.len() - 1]) {
        let point = sweep.point(number).expect("below the number of points");
        assert_eq!(Some(&point), sweep.point(number).as_ref(), "the same number is the same point");
        if sweep.varies() {
            let again = Sweep::read(&point.text).expect("a point is TOML");
            assert!(!again.varies(), "a point has no sweep");
        }
    }
    assert!(sweep.point(sweep.len()).is_none());
}
