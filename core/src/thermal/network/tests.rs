//! Networks against oracles that know nothing of modes.

use super::*;
use crate::thermal::{ThermalNode, ThermalState};
use crate::units::{Celsius, JoulesPerKelvin, KelvinPerWatt, Seconds, Watts};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Fourth-order Runge-Kutta of `C dT/dt = P - G T`, by small steps.
fn by_small_steps(network: &Network, rises: &mut [f64], powers: &[f64], span: f64, steps: u32) {
    let slope = |t: &[f64]| -> Vec<f64> {
        let mut heat: Vec<f64> = powers.iter().zip(&network.to_air).zip(t).map(|((p, g), t)| p - g * t).collect();
        for &(i, j, g) in &network.couplings {
            heat[i] -= g * (t[i] - t[j]);
            heat[j] -= g * (t[j] - t[i]);
        }
        heat.iter().zip(&network.capacities).map(|(q, c)| q / c).collect()
    };
    let h = span / f64::from(steps);
    for _ in 0..steps {
        let moved = |by: f64, k: &[f64]| rises.iter().zip(k).map(|(t, k)| t + by * k).collect::<Vec<f64>>();
        let k1 = slope(rises);
        let k2 = slope(&moved(h / 2.0, &k1));
        let k3 = slope(&moved(h / 2.0, &k2));
        let k4 = slope(&moved(h, &k3));
        for i in 0..rises.len() {
            rises[i] += h / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]);
        }
    }
}

/// A die on a sink: 0.1 K/W between them, 0.25 K/W to the air.
fn card() -> Network {
    let mut network = Network::of(vec![60.0, 400.0]);
    network.join(0, 1, 10.0);
    network.to_air[1] = 4.0;
    network
}

#[test]
fn the_step_response_of_two_nodes_is_what_fine_steps_give() {
    let (network, powers) = (card(), [150.0, 0.0]);
    let modes = network.modes();
    let (mut exact, mut stepped) = ([0.0, 0.0], [0.0, 0.0]);
    for span in [0.5, 3.0, 20.0, 120.0] {
        modes.advance(&mut exact, &powers, span);
        by_small_steps(&network, &mut stepped, &powers, span, 20_000);
        for (a, b) in exact.iter().zip(&stepped) {
            assert!((a - b).abs() < 1e-9, "{exact:?} {stepped:?}");
        }
    }
    let steady = modes.steady(&powers).expect("it is joined to the air");
    assert!((steady[0] - 52.5).abs() < 1e-10 && (steady[1] - 37.5).abs() < 1e-10, "{steady:?}");
}

#[test]
fn one_node_is_the_exact_exponential() {
    let node = ThermalNode::new(KelvinPerWatt::of(0.3119), JoulesPerKelvin::of(501.07), Celsius::of(0.0));
    let mut network = Network::of(vec![501.07]);
    network.to_air[0] = 1.0 / 0.3119;
    let modes = network.modes();
    let mut state = ThermalState::new(node, Celsius::of(10.0));
    let mut rises = [10.0];
    for (span, power) in [(1e-6, 120.0), (1.0, 120.0), (200.0, 30.0), (5_000.0, 80.0)] {
        state.advance(Seconds::of(span), Watts::of(power));
        modes.advance(&mut rises, &[power], span);
        assert!((rises[0] / state.temperature().value() - 1.0).abs() < 1e-9, "{rises:?} {state:?}");
    }
    let after = modes.crossing(&rises, &[200.0], 0, 50.0, Way::Up).expect("200 W lead to 62 K");
    let exact = state.crossing(Celsius::of(50.0), Watts::of(200.0)).expect("likewise").value();
    assert!((after / exact - 1.0).abs() < 1e-9, "{after} {exact}");
}

#[test]
fn a_die_that_cools_while_its_sink_still_warms_meets_the_lower_threshold_first() {
    let modes = card().modes();
    // A hot die on a cold sink: it falls quickly, then both rise slowly.
    let (rises, powers) = ([50.0, 0.0], [200.0, 0.0]);
    let down = modes.crossing(&rises, &powers, 0, 35.0, Way::Down).expect("it falls below 35 first");
    let mut there = rises;
    modes.advance(&mut there, &powers, down);
    assert!((there[0] - 35.0).abs() < 1e-9 && down < 30.0, "{down} {there:?}");
    assert_eq!(modes.crossing(&rises, &powers, 0, 80.0, Way::Up), None);
}

#[test]
fn what_is_cut_off_from_the_air_has_no_steady_state_and_still_warms() {
    let mut network = Network::of(vec![10.0, 30.0]);
    network.join(0, 1, 2.0);
    let modes = network.modes();
    assert_eq!(modes.steady(&[4.0, 0.0]), None);
    let mut rises = [0.0, 0.0];
    let balance = modes.advance(&mut rises, &[4.0, 0.0], 1_000.0);
    assert!((balance.stored - 4_000.0).abs() < 1e-8 && balance.dissipated == 0.0, "{balance:?}");
    let after = modes.crossing(&[0.0, 0.0], &[4.0, 0.0], 1, 50.0, Way::Up).expect("it drifts there");
    let mut there = [0.0, 0.0];
    modes.advance(&mut there, &[4.0, 0.0], after);
    assert!((there[1] - 50.0).abs() < 1e-9);
}

prop_compose! {
    fn any_network()(
        n in 1_usize..6,
        capacities in prop::collection::vec(1.0..2_000.0, 5),
        chain in prop::collection::vec(0.05..20.0, 5),
        to_air in prop::collection::vec(0.0..5.0, 5),
        extra in prop::collection::vec((0_usize..5, 0_usize..5, 0.0..3.0), 0..4),
    ) -> Network {
        let mut network = Network::of(capacities[..n].to_vec());
        for (i, &g) in chain.iter().enumerate().take(n).skip(1) {
            network.join(i - 1, i, g);
        }
        for (i, j, g) in extra {
            if i < n && j < n && i != j {
                network.join(i, j, g);
            }
        }
        network.to_air.copy_from_slice(&to_air[..n]);
        network.to_air[n - 1] += 0.1;
        network
    }
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    #[test]
    fn what_comes_in_is_stored_or_dissipated(
        network in any_network(), start in prop::collection::vec(-10.0..80.0_f64, 5),
        spans in prop::collection::vec((0.0..500.0, prop::collection::vec(0.0..400.0_f64, 5)), 1..12),
    ) {
        let (modes, n) = (network.modes(), network.capacities.len());
        let mut rises = start[..n].to_vec();
        let (mut total, mut scale) = (Balance::default(), 1.0);
        for (span, powers) in &spans {
            let flow = modes.advance(&mut rises, &powers[..n], *span);
            total.absorbed += flow.absorbed;
            total.dissipated += flow.dissipated;
            scale += flow.absorbed + flow.dissipated.abs() + flow.stored.abs();
        }
        let stored: f64 = (0..n).map(|i| network.capacities[i] * (rises[i] - start[i])).sum();
        prop_assert!((total.absorbed - stored - total.dissipated).abs() <= 1e-9 * scale, "{total:?} {stored}");
    }

    #[test]
    fn any_network_is_what_small_steps_converge_to(
        network in any_network(), start in prop::collection::vec(0.0..80.0_f64, 5),
        powers in prop::collection::vec(0.0..400.0_f64, 5), span in 0.1..3.0,
    ) {
        let n = network.capacities.len();
        let (mut exact, mut stepped) = (start[..n].to_vec(), start[..n].to_vec());
        network.modes().advance(&mut exact, &powers[..n], span);
        by_small_steps(&network, &mut stepped, &powers[..n], span, 6_000);
        for (a, b) in exact.iter().zip(&stepped) {
            prop_assert!((a - b).abs() < 1e-7 * (1.0 + b.abs()), "{exact:?} {stepped:?}");
        }
    }

    #[test]
    fn a_crossing_is_at_the_threshold_and_nothing_is_there_before(
        network in any_network(), start in prop::collection::vec(0.0..80.0_f64, 5),
        powers in prop::collection::vec(0.0..400.0_f64, 5), threshold in 10.0..120.0_f64,
    ) {
        let (modes, n) = (network.modes(), network.capacities.len());
        let way = if start[0] < threshold { Way::Up } else { Way::Down };
        let sign = if way == Way::Up { 1.0 } else { -1.0 };
        let found = modes.crossing(&start[..n], &powers[..n], 0, threshold, way);
        let end = found.unwrap_or(2_000.0);
        for i in 0..400 {
            let mut there = start[..n].to_vec();
            modes.advance(&mut there, &powers[..n], end * f64::from(i) / 400.0);
            prop_assert!(sign * (there[0] - threshold) < 1e-6, "{i} {end} {there:?}");
        }
        if let Some(end) = found {
            let mut there = start[..n].to_vec();
            modes.advance(&mut there, &powers[..n], end);
            prop_assert!((there[0] - threshold).abs() < 1e-6 * (1.0 + threshold), "{end} {there:?}");
        }
    }
}
