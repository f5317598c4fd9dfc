//! How fast each device may work: the share of its full speed that a power cap, or heat, leaves it.
//!
//! A device at a share `s` of its full speed takes `1 / s` of the time for every step and draws what its operating
//! points say while it is busy, see [`crate::power`]. A power cap between idle and busy power is such a share; that is
//! how the simulator reads it too.

use super::PlacementProblem;
use crate::ids::DeviceId;
use crate::plan::Plan;
use crate::power::Draw;
use crate::units::Watts;
use std::borrow::Cow;

impl PlacementProblem {
    /// The share of its full speed at which a device works in this problem: 1 unless changed. At 0 it may hold nothing.
    #[must_use]
    pub fn speed(&self, device: DeviceId) -> f64 {
        self.speed.get(device.index()).copied().unwrap_or(1.0)
    }

    /// The same problem with devices at other speeds: of each device the share given, from 0 to 1, or as it is.
    #[must_use]
    pub fn at_speeds(&self, speed: impl Fn(DeviceId) -> Option<f64>) -> Self {
        let mut changed = self.clone();
        for id in self.graph.device_ids() {
            if let Some(share) = speed(id) {
                changed.speed[id.index()] = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
            }
        }
        changed
    }

    /// The share of the time at full speed that a device may work in the long run: 1 unless changed. Its rate is no
    /// more than that; a step takes as long as ever.
    #[must_use]
    pub fn duty(&self, device: DeviceId) -> f64 {
        self.duty.get(device.index()).copied().unwrap_or(1.0)
    }

    /// The same problem with other duties: of each device the share given, from 0 to 1, or as it is.
    #[must_use]
    pub fn at_duties(&self, duty: impl Fn(DeviceId) -> Option<f64>) -> Self {
        let mut changed = self.clone();
        for id in self.graph.device_ids() {
            if let Some(share) = duty(id) {
                changed.duty[id.index()] = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
            }
        }
        changed
    }

    /// Idle power and what full speed adds to it; none where either is not known, or busy is no more than idle.
    #[must_use]
    pub fn power_span(&self, device: DeviceId) -> Option<(Watts, Watts)> {
        let known = self.graph.device(device);
        let (idle, busy) = (known.idle_watts.as_ref()?.value, known.busy_watts.as_ref()?.value);
        (busy > idle).then(|| (idle, busy - idle))
    }

    /// What a device draws at each speed; none where its powers are not known, or busy is no more than idle.
    #[must_use]
    pub fn draw(&self, device: DeviceId) -> Option<Draw> {
        Draw::of(self.graph.device(device)).filter(|draw| draw.busy() > draw.idle())
    }

    /// Whether any device may work at a point where a piece of work takes less power than at full speed.
    #[must_use]
    pub fn has_points(&self) -> bool {
        self.graph.device_ids().any(|id| !self.graph.device(id).power_points.is_empty() && self.draw(id).is_some())
    }

    /// The power cap at which a device works at this share of its full speed; none where its powers are not known.
    #[must_use]
    pub fn cap_at(&self, device: DeviceId, speed: f64) -> Option<Watts> {
        self.draw(device).map(|draw| draw.power(speed))
    }

    /// The problem in which every device is as fast as the power cap of its stage leaves it; as it is where no stage of
    /// the plan has one. A cap on a device whose powers are not known slows nothing, since nobody knows by how much.
    #[must_use]
    pub fn capped(&self, plan: &Plan) -> Cow<'_, Self> {
        if plan.stages.iter().all(|stage| stage.power_cap_watts.is_none()) {
            return Cow::Borrowed(self);
        }
        let of = |id: DeviceId| {
            let name = &self.graph.device(id).name;
            let stage = plan.stages.iter().find(|stage| stage.devices.contains(name))?;
            Some(self.draw(id)?.speed_under(stage.power_cap_watts?).min(self.speed(id)))
        };
        Cow::Owned(self.at_speeds(of))
    }
}
