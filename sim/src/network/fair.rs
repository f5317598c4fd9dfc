//! Max-min fair rates by progressive filling (Bertsekas and Gallager, "Data Networks", 2nd edition, 1992, section
//! 6.5.2): all flows grow alike until a channel is full; its flows are then fixed, and the others grow on.

/// Rates of flows, each given by the channels that it passes (every one at most once), on channels of these
/// capacities. A flow that passes no channel is not limited: its rate is infinite.
#[must_use]
pub fn fair_rates(flows: &[&[u32]], capacity: &[f64]) -> Vec<f64> {
    let mut rates = vec![f64::INFINITY; flows.len()];
    let mut used: Vec<u32> = flows.iter().flat_map(|channels| channels.iter().copied()).collect();
    used.sort_unstable();
    used.dedup();
    // What is left of each channel in use, and how many of its flows still grow.
    let mut left: Vec<f64> = used.iter().map(|&channel| capacity[channel as usize]).collect();
    let place = |channel: u32| used.binary_search(&channel).expect("collected above");
    let mut growing: Vec<usize> = vec![0; used.len()];
    for channel in flows.iter().flat_map(|channels| channels.iter()) {
        growing[place(*channel)] += 1;
    }
    let mut open: Vec<usize> = (0..flows.len()).filter(|&flow| !flows[flow].is_empty()).collect();
    while !open.is_empty() {
        let share = |at: usize| (left[at] / growing[at] as f64).max(0.0);
        let full = (0..used.len()).filter(|&at| growing[at] > 0).min_by(|&a, &b| share(a).total_cmp(&share(b)));
        let Some(full) = full else { break };
        let rate = share(full);
        open.retain(|&flow| {
            if !flows[flow].contains(&used[full]) {
                return true;
            }
            rates[flow] = rate;
            for &channel in flows[flow] {
                left[place(channel)] -= rate;
                growing[place(channel)] -= 1;
            }
            false
        });
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    #[test]
    fn a_flow_held_back_elsewhere_leaves_its_part_to_the_others() {
        // The textbook case: three flows on a channel of 1, one of them held to 0.2 by another channel.
        let rates = fair_rates(&[&[0], &[0], &[0, 1]], &[1.0, 0.2]);
        assert_eq!(rates, [0.4, 0.4, 0.2]);
    }

    #[test]
    fn a_dead_channel_stops_its_flows_only() {
        assert_eq!(fair_rates(&[&[0], &[0, 1], &[2]], &[4.0, 0.0, 3.0]), [4.0, 0.0, 3.0]);
        assert_eq!(fair_rates(&[&[]], &[]), [f64::INFINITY]);
        assert_eq!(fair_rates(&[], &[1.0]), Vec::<f64>::new());
    }

    /// Every flow grows by one drop at a time until something it passes has no room for a drop.
    fn poured(flows: &[&[u32]], capacity: &[f64], drop: f64) -> Vec<f64> {
        let mut rates = vec![0.0; flows.len()];
        let mut level = vec![0.0; capacity.len()];
        let mut frozen = vec![false; flows.len()];
        while frozen.contains(&false) {
            for flow in 0..flows.len() {
                if frozen[flow] {
                    continue;
                }
                if flows[flow].iter().any(|&c| level[c as usize] + drop > capacity[c as usize]) {
                    frozen[flow] = true;
                    continue;
                }
                rates[flow] += drop;
                flows[flow].iter().for_each(|&c| level[c as usize] += drop);
            }
        }
        rates
    }

    fn instances() -> impl Strategy<Value = (Vec<Vec<u32>>, Vec<f64>)> {
        (1_usize..7).prop_flat_map(|channels| {
            let channel = 0..u32::try_from(channels).expect("few");
            let flow = prop::collection::btree_set(channel, 1..=channels);
            let flows = prop::collection::vec(flow.prop_map(|f| f.into_iter().collect()), 1..9);
            (flows, prop::collection::vec(prop_oneof![4 => 0.1_f64..10.0, 1 => Just(0.0), 1 => Just(2.0)], channels))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(300) })]
        /// An allocation is max-min fair exactly where every flow has a bottleneck: a full channel on which no other
        /// flow is faster (Bertsekas and Gallager, section 6.5.2).
        #[test]
        fn no_channel_overflows_and_every_flow_has_a_bottleneck((flows, capacity) in instances()) {
            let flows: Vec<&[u32]> = flows.iter().map(Vec::as_slice).collect();
            let rates = fair_rates(&flows, &capacity);
            let load = |c: u32| -> f64 { (0..flows.len()).filter(|&f| flows[f].contains(&c)).map(|f| rates[f]).sum() };
            for (c, &most) in (0..).zip(&capacity) {
                prop_assert!(load(c) <= most * (1.0 + 1e-12) + 1e-12, "channel {c}: {} over {most}", load(c));
            }
            for (f, channels) in flows.iter().enumerate() {
                let bottleneck = channels.iter().any(|&c| {
                    let full = load(c) >= capacity[c as usize] * (1.0 - 1e-9) - 1e-9;
                    full && (0..flows.len()).all(|g| !flows[g].contains(&c) || rates[g] <= rates[f] + 1e-9)
                });
                prop_assert!(bottleneck, "flow {f} of {flows:?} on {capacity:?} has none: {rates:?}");
            }
        }

        #[test]
        fn rates_are_those_of_pouring_drop_by_drop((flows, capacity) in instances()) {
            let flows: Vec<&[u32]> = flows.iter().map(Vec::as_slice).collect();
            let drop = 1e-4;
            let poured = poured(&flows, &capacity, drop);
            // Each channel may lack a drop for each of its flows, and each fixed flow passes its lack on.
            let slack = drop * (flows.len() * flows.len() + 1) as f64;
            for (exact, poured) in fair_rates(&flows, &capacity).iter().zip(&poured) {
                prop_assert!((exact - poured).abs() <= slack, "{exact} {poured}");
            }
        }
    }
}
