//! What devices and electricity cost: for questions over a batch; planning does not see it.

use super::reader::Reader;
use crate::device::Device;
use std::collections::BTreeMap;
use toml::de::DeValue;

/// Dearest device, and dearest kilowatt hour.
const PRICE_MAX: f64 = 1e12;

/// Prices of one scenario, in one currency.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prices {
    /// The currency, for people; none where nothing is priced.
    pub currency: Option<String>,
    /// Price of a kilowatt hour.
    pub electricity_per_kwh: Option<f64>,
    /// Prices of devices by class or name; a name goes before its class.
    pub devices: BTreeMap<String, f64>,
}

impl Prices {
    /// The price of one device, where it is known.
    #[must_use]
    pub fn of(&self, device: &Device) -> Option<f64> {
        self.devices.get(&device.name).or_else(|| self.devices.get(&device.class)).copied()
    }

    /// The price of several devices together; none where one of them is unknown.
    #[must_use]
    pub fn sum<'a>(&self, devices: impl IntoIterator<Item = &'a Device>) -> Option<f64> {
        devices.into_iter().map(|device| self.of(device)).sum()
    }
}

/// `[prices]`. Unless stated: no price is known. A price of what is not there is no fault: a sweep may put it there.
pub(super) fn read(root: &Reader<'_, '_>) -> Prices {
    let mut prices = Prices::default();
    let Some(reader) = root.table("prices") else { return prices };
    if !reader.has("currency") {
        reader.missing("currency", "currency = \"USD\"");
    }
    prices.currency = reader.name("currency").map(|currency| currency.value);
    let electricity = reader.get("electricity_per_kwh");
    prices.electricity_per_kwh =
        electricity.and_then(|value| reader.number_of("electricity_per_kwh", value, 0.0, PRICE_MAX));
    if let Some(value) = reader.get("devices") {
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong("devices", value, "a table of prices, for example { \"rtx-4090\" = 1599 }");
            return prices;
        };
        for (key, value) in table {
            if let Some(price) = reader.number_of(key.get_ref(), value, 0.0, PRICE_MAX) {
                prices.devices.insert(key.get_ref().to_string(), price);
            }
        }
    }
    reader.done();
    prices
}
