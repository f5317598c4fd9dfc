//! What one more device of each known table would give.

use super::candidates::Candidate;
use super::{Figure, Load, Row, planned};
use crate::args::Advise;
use crate::commands::plan;
use crate::failure::Failure;
use crate::ui::{Ui, plain_percent, table};
use crate::{builtin, files};
use isotherm_core::device::Device;
use isotherm_core::figure;
use isotherm_core::graph::{DevicesFile, Link, LinkKind};
use isotherm_core::problem::Objective;
use isotherm_core::scenario::{Kind, Scenario};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What one more device would give.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Purchase {
    device: String,
    /// Time per token of the model judged by, with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    tpot_seconds: Option<Figure>,
    /// Share by which that is less than without.
    #[serde(skip_serializing_if = "Option::is_none")]
    gain: Option<f64>,
    /// Models that fit with it and not without.
    new_models: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    /// Gain over price.
    #[serde(skip_serializing_if = "Option::is_none")]
    gain_per_price: Option<f64>,
}

/// Prices by device table, all in one currency.
pub(super) struct Prices {
    currency: Option<String>,
    of: BTreeMap<String, f64>,
}

/// Reads prices: a TOML table of numbers by name of a device table, and `currency`.
pub(super) fn prices(path: &Path) -> Result<Prices, Failure> {
    let text = files::read_text(path)?;
    let read: toml::Table = toml::from_str(&text).map_err(|e| Failure::file(path, e.message()))?;
    let mut prices = Prices { currency: None, of: BTreeMap::new() };
    for (name, value) in read {
        let price = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
        if name == "currency" {
            prices.currency = value.as_str().map(str::to_owned);
        } else if !builtin::of(Kind::Device).iter().any(|(known, _)| *known == name) {
            let known: Vec<&str> = builtin::of(Kind::Device).iter().map(|(known, _)| *known).collect();
            return Err(Failure::file(path, format!("{name:?} is no device table; known: {}", known.join(", "))));
        } else if let Some(price) = price.filter(|price| price.is_finite() && *price > 0.0) {
            prices.of.insert(name, price);
        } else {
            return Err(Failure::file(path, format!("the price of {name:?} is {value}; give a number above zero")));
        }
    }
    Ok(prices)
}

/// The device that a table describes.
fn device(name: &str) -> Option<Device> {
    let text = format!(
        "name = \"x\"\nquestion = \"?\"\n[model]\nname = \"llama-3.1-8b-q4_0\"\n[[devices]]\ntable = \"{name}\"\n"
    );
    let mut lookup = |kind: Kind, name: &str| {
        let found = builtin::of(kind).iter().find(|(known, _)| *known == name);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(Vec::new)
    };
    let scenario = Scenario::parse(&text, &mut lookup).ok()?;
    scenario.devices.devices.into_iter().next()
}

/// The devices with one more, joined to every other and to where requests come in.
fn with(file: &DevicesFile, name: &str, args: &Advise) -> Option<DevicesFile> {
    let mut more = file.clone();
    let mut device = device(name)?;
    let known = |name: &str| file.devices.iter().any(|d| d.name == name) || file.junctions.iter().any(|j| j == name);
    while known(&device.name) {
        device.name.push('+');
    }
    device.host.clone_from(&device.name);
    let places = file.devices.iter().map(|d| &d.name).chain(&file.coordinator);
    let mut joined: Vec<&String> = places.collect();
    joined.sort();
    joined.dedup();
    for place in joined {
        for (from, to) in [(place, &device.name), (&device.name, place)] {
            more.links.push(Link {
                from: from.clone(),
                to: to.clone(),
                kind: LinkKind::Socket,
                latency_seconds: Some(figure::Figure::declared(args.link_latency, "assumed")),
                bandwidth_bytes_per_second: Some(figure::Figure::declared(args.link_bandwidth, "assumed")),
                tokens_per_second: None,
                groups: Vec::new(),
            });
        }
    }
    more.devices.push(device);
    Some(more)
}

/// One purchase for every device table.
pub(super) fn all<'a>(
    ui: &Ui,
    args: &Advise,
    file: &DevicesFile,
    load: Load,
    goal: Option<(&Row, &Candidate)>,
    judged: impl Iterator<Item = (&'a Row, &'a Candidate)>,
) -> Result<Vec<Purchase>, Failure> {
    let too_large: Vec<(&Row, &Candidate)> = judged.filter(|(row, _)| !row.fits).collect();
    let mut purchases = Vec::new();
    for (i, (name, _)) in builtin::of(Kind::Device).iter().enumerate() {
        ui.note(format!("  one more {}/{} {name}", i + 1, builtin::of(Kind::Device).len()));
        let Some(more) = with(file, name, args) else { continue };
        let mut purchase = Purchase {
            device: (*name).to_owned(),
            tpot_seconds: None,
            gain: None,
            new_models: Vec::new(),
            price: None,
            currency: None,
            gain_per_price: None,
        };
        if let Some((row, candidate)) = goal
            && let Ok((_, figure)) = planned(ui, &candidate.model, &more, load, Objective::Tpot)?
        {
            let before = row.tpot_seconds.as_ref().map(|before| before.value).filter(|value| *value > 0.0);
            purchase.gain = before.map(|before| 1.0 - figure.value / before);
            purchase.tpot_seconds = Some(figure);
        }
        for (row, candidate) in &too_large {
            if planned(ui, &candidate.model, &more, load, Objective::Tpot)?.is_ok() {
                purchase.new_models.push(format!("{} {}", row.model, row.quantisation));
            }
        }
        purchases.push(purchase);
    }
    Ok(purchases)
}

/// The purchases with their prices, best first: by gain for the money where prices are known, else by gain; of equal
/// ones the one with which more fits.
pub(super) fn priced(mut purchases: Vec<Purchase>, prices: Option<&Prices>) -> Vec<Purchase> {
    for purchase in &mut purchases {
        let Some(price) = prices.and_then(|prices| prices.of.get(&purchase.device)) else { continue };
        purchase.price = Some(*price);
        purchase.currency = prices.and_then(|prices| prices.currency.clone());
        purchase.gain_per_price = purchase.gain.map(|gain| gain / price);
    }
    let key = |p: &Purchase| p.gain_per_price.or(p.gain).unwrap_or(0.0);
    purchases.sort_by(|a, b| {
        let known = b.gain_per_price.is_some().cmp(&a.gain_per_price.is_some());
        known.then(key(b).total_cmp(&key(a))).then(b.new_models.len().cmp(&a.new_models.len()))
    });
    purchases
}

/// The purchases as text.
pub(super) fn described(purchases: &[Purchase]) -> String {
    let priced = purchases.iter().any(|purchase| purchase.price.is_some());
    let mut heading = vec!["one more", "time per token", "less by", "also fits"];
    if priced {
        heading.extend(["price", "less by, per 1000"]);
    }
    let mut cells = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    cells.extend(purchases.iter().map(|purchase| {
        let dash = || "-".to_owned();
        let tpot = purchase.tpot_seconds.as_ref().map_or_else(dash, |figure| plan::quantity(figure.value, "s"));
        let gain = purchase
            .gain
            .map_or_else(dash, |gain| if gain.abs() < 5e-4 { "nothing".to_owned() } else { plain_percent(gain) });
        // The largest comes first.
        let new = match purchase.new_models.as_slice() {
            [] => dash(),
            [one] => one.clone(),
            [largest, others @ ..] => format!("{largest} and {} smaller", others.len()),
        };
        let mut row = vec![purchase.device.clone(), tpot, gain, new];
        if priced {
            let currency = purchase.currency.as_deref().unwrap_or("");
            row.push(purchase.price.map_or_else(dash, |price| format!("{price} {currency}").trim_end().to_owned()));
            row.push(purchase.gain_per_price.map_or_else(dash, |gain| plain_percent(gain * 1000.0)));
        }
        row
    }));
    table(&cells, &[1, 2])
}
