//! `isotherm devices --here`: what this host has, and what changed since it was last looked at.

use crate::access::Wish;
use crate::commands::access::{LISTING, pass};
use crate::failure::{Done, Failure};
use crate::roots::roots;
use crate::ui::{Ui, table};
use crate::{registry, trust};
use isotherm_audit::log::{EventKind, Severity};
use isotherm_runtime::discover::registry::{Change, Registry};
use isotherm_runtime::discover::{Card, Machine};
use serde::Serialize;

#[derive(Serialize)]
struct Found {
    machine: Machine,
    /// Absent at the first look.
    changes: Option<Vec<Change>>,
}

/// Runs the command.
pub fn run(ui: &Ui) -> Done {
    let identity = trust::identity(ui)?;
    trust::record(&identity, EventKind::SystemDiscoveryStarted, Severity::Info, trust::Note::default())?;
    let machine = Machine::discover(&roots());
    let names: Vec<(&str, u64)> = std::iter::once("cpu")
        .chain(machine.cards.iter().map(|card| card.key.as_str()))
        .map(|name| (name, 0))
        .collect();
    pass(&identity, &Wish { guest: None, permissions: &LISTING, devices: &names, subjects: &[] })?;
    let path = registry::machine()?;
    let now = Registry::of(&machine);
    let before = Registry::load(&path).map_err(|e| Failure::io(e.to_string()))?;
    let changes = before.as_ref().map(|before| now.since(before));
    if before.as_ref() != Some(&now) {
        now.store(&path).map_err(|e| Failure::io(e.to_string()))?;
    }
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let changed = count(changes.as_ref().map_or(0, Vec::len));
    let note = trust::Note::default().with("things", count(now.entries.len())).with("changes", changed);
    trust::record(&identity, EventKind::SystemDiscoveryCompleted, Severity::Info, note)?;
    let found = Found { machine, changes };
    ui.result(&found, || text(&found))
}

fn text(found: &Found) -> String {
    let Machine { product, host, pci, cards, disks, nics, batteries, supplies } = &found.machine;
    let mut text = String::new();
    let mut line = |name: &str, value: Option<String>| {
        text.push_str(&format!("  {name}: {}\n", value.unwrap_or_else(|| "unknown".to_owned())));
    };
    line("machine", product.clone());
    line("processor", host.cpu_model.clone());
    line("cores", host.cores.map(|cores| cores.to_string()));
    line("memory", host.memory_total_bytes.map(|bytes| bytes.to_string()));
    line("memory nodes", (!host.numa_nodes.is_empty()).then(|| host.numa_nodes.len().to_string()));
    line("PCI devices", (!pci.is_empty()).then(|| pci.len().to_string()));
    text.push('\n');
    let mut rows = vec![["what", "name", "where", "driver", "size", "identity"].map(str::to_owned).to_vec()];
    let unknown = || "unknown".to_owned();
    let or = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
    for card in cards {
        rows.push(vec![
            "card".to_owned(),
            card.name.clone(),
            card.pci.clone().unwrap_or_else(|| "built in".to_owned()),
            driver(card),
            card.memory_bytes.map_or_else(unknown, |bytes| bytes.to_string()),
            or(&card.uuid),
        ]);
    }
    for disk in disks {
        let size = disk.bytes.map_or_else(unknown, |bytes| bytes.to_string());
        rows.push(vec![
            "disk".to_owned(),
            or(&disk.model),
            disk.name.clone(),
            or(&disk.driver),
            size,
            or(&disk.serial),
        ]);
    }
    for nic in nics {
        let speed = nic.megabits_per_second.map_or_else(unknown, |speed| format!("{speed} Mbit/s"));
        let place = nic.pci.clone().unwrap_or_else(|| "built in".to_owned());
        rows.push(vec!["nic".to_owned(), nic.name.clone(), place, or(&nic.driver), speed, or(&nic.address)]);
    }
    for battery in batteries {
        let size = battery.capacity_joules.map_or_else(unknown, |energy| energy.to_string());
        let charge = battery.charge.map_or_else(unknown, |charge| format!("{:.0} % charged", charge * 100.0));
        rows.push(vec!["battery".to_owned(), battery.name.clone(), charge, "-".to_owned(), size, unknown()]);
    }
    for supply in supplies {
        let state =
            supply.online.map_or_else(unknown, |online| if online { "plugged in" } else { "unplugged" }.to_owned());
        rows.push(vec![
            "supply".to_owned(),
            supply.name.clone(),
            state,
            "-".to_owned(),
            "-".to_owned(),
            supply.kind.clone(),
        ]);
    }
    text.push_str(&table(&rows, &[4]));
    match &found.changes {
        None => text.push_str("\n  looked at for the first time\n"),
        Some(changes) if changes.is_empty() => text.push_str("\n  nothing changed since the last look\n"),
        Some(changes) => changes.iter().for_each(|change| text.push_str(&format!("\n  {}\n", words(change)))),
    }
    text
}

fn driver(card: &Card) -> String {
    match (&card.driver, &card.driver_version) {
        (Some(driver), Some(version)) => format!("{driver} {version}"),
        (Some(driver), None) => driver.clone(),
        (None, _) => "none".to_owned(),
    }
}

/// What is different, in words.
pub fn words(change: &Change) -> String {
    let or = |driver: &Option<String>| driver.clone().unwrap_or_else(|| "none".to_owned());
    match change {
        Change::Added { key, now } => format!("added: {} {} in {} ({key})", now.kind, now.name, now.slot),
        Change::Removed { key, before } => {
            format!("removed: {} {} from {} ({key})", before.kind, before.name, before.slot)
        }
        Change::Moved { key, from, to } => format!("moved: {key} from {from} to {to}"),
        Change::Driver { key, from, to } => {
            format!("driver: {key} had {}, has {}; what was measured under the old one is stale", or(from), or(to))
        }
    }
}
