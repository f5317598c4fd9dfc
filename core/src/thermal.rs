//! How a device warms, cools and throttles: a linear thermal network, exact between events.

use crate::figure::Figure;
use crate::units::{Celsius, JoulesPerKelvin, KelvinPerWatt};
use serde::{Deserialize, Serialize};

/// Thermal parameters of a device: one node that stores heat and loses it to the air around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ThermalRecord {
    /// Thermal resistance from the device to the air.
    pub resistance_kelvin_per_watt: Figure<KelvinPerWatt>,
    /// Heat capacity of the device.
    pub capacity_joules_per_kelvin: Figure<JoulesPerKelvin>,
    /// Temperature at which it slows itself; absent where it never does or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_celsius: Option<Figure<Celsius>>,
    /// Temperature at which it returns to full speed; below `throttle_celsius`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_celsius: Option<Figure<Celsius>>,
    /// Speed while throttled as a share of full speed, above 0 and at most 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_speed: Option<Figure<f64>>,
}
