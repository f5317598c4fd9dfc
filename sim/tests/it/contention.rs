//! Devices that slow one another.

use crate::material::{Case, Costs, UNIT, closed};

#[test]
fn devices_of_one_co_run_set_slow_each_other_only_while_both_are_busy() {
    // Alone 6 and 3 units; together each takes twice as long. The short one ends at 6, by when half of the long one
    // is done; its other half then runs at full speed.
    let mut case = Case::replicas(&[Costs::fixed(6.0), Costs::fixed(3.0)], closed(2, 2, 1, 1));
    case.co_run = vec![1.0, 2.0];
    let trace = case.trace();
    let ends: Vec<u64> = trace.requests.iter().map(|r| r.finished_ns.0 / UNIT).collect();
    assert_eq!(ends, [9, 6]);
    assert_eq!((trace.devices[0].busy_ns.0, trace.devices[1].busy_ns.0), (9 * UNIT, 6 * UNIT));
}

#[test]
fn a_device_of_a_co_run_set_may_be_slowed_by_a_factor_of_its_own() {
    // As above, but the first is slowed by 1.5 only: while the second does its 3 in 6, it does 4 of its 6.
    let mut case = Case::replicas(&[Costs::fixed(6.0), Costs::fixed(3.0)], closed(2, 2, 1, 1));
    case.co_run = vec![1.0, 2.0];
    case.co_run_of = vec![(0, vec![1.0, 1.5])];
    let ends: Vec<u64> = case.trace().requests.iter().map(|r| r.finished_ns.0 / UNIT).collect();
    assert_eq!(ends, [8, 6]);
}

#[test]
fn work_is_conserved_under_any_pattern_of_contention() {
    // Three devices with different steps, two requests in turn on each. Whatever the pattern, the time that a device
    // was busy, divided by the slowdown at each moment, is its work.
    let mut case = Case::replicas(&[Costs::fixed(8.0), Costs::fixed(12.0), Costs::fixed(20.0)], closed(3, 6, 1, 1));
    case.co_run = vec![1.0, 2.0, 4.0];
    let trace = case.trace();
    // By hand, in units: all three run at a quarter until the first has done 8 at 32; the closed loop deals the next
    // requests to devices 0, 1, 2 in turn, so device 0 goes on at once. At 48 device 1 has done 12; its client's next
    // request is dealt to device 1. At 64 device 0 is done for good. Devices 1 and 2 run at half from then on: device
    // 2 has 20 - 16 = 4 left and is done at 72, and takes its second; device 1 has 12 - 4 - 4 = 4 left and is done at
    // 80. Device 2 has 20 - 4 = 16 left, alone: done at 96.
    let mut ends: Vec<u64> = trace.requests.iter().map(|r| r.finished_ns.0 / UNIT).collect();
    ends.sort_unstable();
    assert_eq!(ends, [32, 48, 64, 72, 80, 96]);
}

#[test]
fn a_set_with_one_busy_member_runs_at_full_speed() {
    let mut case = Case::single(Costs::fixed(5.0), closed(1, 4, 1, 1));
    case.co_run = vec![1.0, 3.0];
    assert_eq!(case.trace().end_ns.0, 20 * UNIT);
}
