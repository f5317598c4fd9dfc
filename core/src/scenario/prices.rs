//! What devices and electricity cost: for questions over a batch, and for plans that spend little.

use super::fault::Fault;
use super::reader::Reader;
use crate::device::Device;
use crate::units::Seconds;
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
    /// Prices of an hour of a device by class or name, likewise.
    pub hours: BTreeMap<String, f64>,
    /// Time over which the price of a device is spread where no price of an hour is stated for it.
    pub lifetime: Option<Seconds>,
}

impl Prices {
    /// The price of one device, where it is known.
    #[must_use]
    pub fn of(&self, device: &Device) -> Option<f64> {
        self.devices.get(&device.name).or_else(|| self.devices.get(&device.class)).copied()
    }

    /// Whether the price of an hour is known of any device.
    #[must_use]
    pub fn knows_hours(&self) -> bool {
        !self.hours.is_empty() || (self.lifetime.is_some() && !self.devices.is_empty())
    }

    /// The price of an hour of one device, where it is known: as stated, or its own price spread over its lifetime.
    #[must_use]
    pub fn per_hour(&self, device: &Device) -> Option<f64> {
        let stated = self.hours.get(&device.name).or_else(|| self.hours.get(&device.class)).copied();
        stated.or_else(|| Some(self.of(device)? / (self.lifetime?.value() / 3_600.0)))
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
    prices.devices = listed(&reader, "devices", "a table of prices, for example { \"rtx-4090\" = 1599 }");
    prices.hours = listed(&reader, "hours", "a table of prices of an hour, for example { \"nvidia-a10\" = 0.75 }");
    prices.lifetime = reader.quantity("lifetime");
    if let Some(lifetime) = prices.lifetime.filter(|lifetime| *lifetime <= Seconds::ZERO) {
        let (key, value) = ("lifetime".to_owned(), lifetime.to_string());
        reader.fault(Fault::OutOfRange { key, value, must: "above zero".to_owned() });
        prices.lifetime = None;
    }
    reader.done();
    prices
}

/// A table of prices by class or name.
fn listed(reader: &Reader<'_, '_>, key: &'static str, example: &'static str) -> BTreeMap<String, f64> {
    let Some(value) = reader.get(key) else { return BTreeMap::new() };
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong(key, value, example);
        return BTreeMap::new();
    };
    let mut prices = BTreeMap::new();
    for (key, value) in table {
        if let Some(price) = reader.number_of(key.get_ref(), value, 0.0, PRICE_MAX) {
            prices.insert(key.get_ref().to_string(), price);
        }
    }
    prices
}
