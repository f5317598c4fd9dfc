//! How full each device's routes are over time, beside its power and heat.

use super::World;
use crate::body::Samples;
use isotherm_core::trace::DeviceSample;
use isotherm_core::units::SimTime;

impl World<'_> {
    /// Keeps how full the routes through a device are, where that is wanted.
    pub(super) fn observe(&mut self, now: SimTime, server: usize) {
        if !self.series.get(server).is_some_and(|series| series.wants(now)) {
            return;
        }
        let (mut waiting, mut held, mut blocks) = (0, 0, 0);
        for (chain, route) in self.chains.iter().zip(&self.setup.routes) {
            if route.stops.iter().all(|stop| stop.0 != server) {
                continue;
            }
            let Some(fullness) = chain.policy.fullness() else { return };
            waiting += fullness.waiting;
            held += u64::from(fullness.held_blocks);
            blocks += u64::from(route.resources.kv_blocks);
        }
        let device = &self.servers[server];
        let working = device.current.as_ref().map_or(0, |current| now.since(current.started).0);
        let busy = (device.record.busy_ns.0 + working) as f64 * 1e-9;
        let sample = DeviceSample {
            at_ns: now,
            temperature_celsius: None,
            speed: None,
            power_watts: None,
            energy_joules: None,
            utilisation: None,
            charge: None,
            waiting: Some(waiting),
            cache: (blocks > 0).then(|| held as f64 / blocks as f64),
        };
        self.series[server].add(sample, busy);
    }
}

/// Samples of power and heat with how full the routes were then; where there are none, the latter alone.
pub(super) fn merged(samples: Vec<DeviceSample>, series: Samples) -> Vec<DeviceSample> {
    let series = series.kept();
    if samples.is_empty() {
        return series;
    }
    let full = |at: SimTime| series[..series.partition_point(|sample| sample.at_ns <= at)].last();
    let with = samples.into_iter().map(|sample| {
        let full = full(sample.at_ns);
        let (waiting, cache) = (full.and_then(|full| full.waiting), full.and_then(|full| full.cache));
        DeviceSample { waiting, cache, ..sample }
    });
    with.collect()
}
