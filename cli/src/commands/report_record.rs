//! Records of single benchmarks as tables: planners side by side, simulators, placements, probes. Each list of the record is
//! a table, each figure by itself a fact, whatever the benchmark; so a new figure is on the page without more ado.

use crate::failure::Failure;
use crate::files;
use isotherm_core::digest::Digest;
use isotherm_core::units::{Bytes, Seconds};
use isotherm_reports::{Grid, GridRow, Sheet};
use serde_json::{Map, Value};
use std::path::Path;

/// Schemas of records that are shown so, the file that each lies in, the command that makes it, and what it is.
const RECORDS: [(&str, &str, &str, &str); 7] = [
    ("isotherm.bench-planner/v1", "planner.json", "isotherm bench planner", "Planners side by side"),
    ("isotherm.bench-plans/v1", "plans.json", "isotherm bench plans", "Plans of several planners in simulation"),
    ("isotherm.bench-sim/v1", "sim.json", "isotherm bench sim", "Simulators side by side"),
    ("isotherm.placements/v2", "placements.json", "isotherm bench placements", "Placements predicted and run"),
    ("isotherm.probe-bench/v1", "probe.json", "isotherm bench probe", "The probe repeated"),
    ("isotherm/bench-cuda/v1", "bench-cuda.json", "isotherm bench cuda", "Kernels on NVIDIA's cards"),
    ("isotherm.device-bench/1", "device.json", "isotherm bench device", "Copies and products on every device"),
];

/// Most rows of one table: enough for any of these benchmarks, and a bound on the page.
const ROWS_MAX: usize = 2000;

/// Most items of a list that are shown in one cell.
const LISTED_MAX: usize = 8;

/// One record of a folder.
struct Found {
    title: &'static str,
    command: &'static str,
    file: &'static str,
    digest: Digest,
    value: Map<String, Value>,
}

/// The sheet of a folder that holds such records and no other; none where it holds none.
pub fn sheet(folder: &Path) -> Result<Option<Sheet>, Failure> {
    let found = read(folder)?;
    let Some(first) = found.first() else { return Ok(None) };
    let names: Vec<&str> = found.iter().map(|record| record.title).collect();
    let mut sheet = Sheet {
        schema: "isotherm.bench-record-page/v1",
        title: first.title.to_owned(),
        headline: format!("{}.", names.join("; ")),
        ..Sheet::default()
    };
    found.iter().for_each(|record| add(&mut sheet, record, folder));
    Ok(Some(sheet))
}

/// Adds the records that lie beside another benchmark's to its sheet, so that peers stand on the same page.
pub fn beside(sheet: &mut Sheet, folder: &Path) -> Result<(), Failure> {
    read(folder)?.iter().for_each(|record| add(sheet, record, folder));
    Ok(())
}

fn read(folder: &Path) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for (schema, file, command, title) in RECORDS {
        let path = folder.join(file);
        if !path.is_file() {
            continue;
        }
        let bytes = files::read(&path)?;
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|e| Failure::file(&path, format!("is damaged: {e}")))?;
        let Value::Object(value) = value else { continue };
        if value.get("schema").and_then(Value::as_str) == Some(schema) {
            found.push(Found { title, command, file, digest: Digest::of(&bytes), value });
        }
    }
    Ok(found)
}

fn add(sheet: &mut Sheet, record: &Found, folder: &Path) {
    let made = |name: &str| format!("{}: {name}", record.title);
    let remade = format!("{} -o {}", record.command, folder.display());
    for (key, value) in &record.value {
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let note = format!("From {} {}. Remake: {remade}", record.file, record.digest.short());
                sheet.tables.push(grid(made(&words(key)), note, items));
            }
            Value::Array(items) if items.iter().any(Value::is_array) => {
                let note = format!("From {} {}. Remake: {remade}", record.file, record.digest.short());
                sheet.tables.push(listed(made(&words(key)), note, key, items));
            }
            // Digests of what it was made from.
            Value::Array(items) if key == "inputs" && !items.is_empty() => {
                sheet.facts.push([made("inputs"), joined(key, items, ", ")]);
            }
            // Sentences, as notes are.
            Value::Array(items) if items.iter().all(Value::is_string) => {
                sheet.sentences.extend(items.iter().filter_map(Value::as_str).map(made));
            }
            Value::Object(inside) if !inside.is_empty() => {
                let note = format!("From {} {}. Remake: {remade}", record.file, record.digest.short());
                sheet.tables.push(grid(made(&words(key)), note, std::slice::from_ref(value)));
            }
            Value::Array(_) | Value::Object(_) | Value::Null => {}
            plain => sheet.facts.push([made(&words(key)), shown(key, plain)]),
        }
    }
    sheet.facts.push([made("record"), record.digest.to_string()]);
    sheet.commands.push(remade);
}

fn words(key: &str) -> String {
    let bare = ["_seconds", "_bytes"].iter().find_map(|ending| key.strip_suffix(ending)).unwrap_or(key);
    bare.replace('_', " ")
}

/// A table of objects: a column for each key of any of them, in the order in which they come up.
fn grid(title: String, note: String, items: &[Value]) -> Grid {
    let flat: Vec<Vec<(String, Value)>> = items
        .iter()
        .flat_map(unfolded)
        .map(|item| {
            let mut cells = Vec::new();
            flatten("", &item, &mut cells);
            cells
        })
        .collect();
    let mut keys: Vec<&str> = Vec::new();
    for (key, _) in flat.iter().flatten() {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let number = |key: &str| {
        let mut of = flat.iter().flatten().filter(|(other, value)| other == key && !value.is_null()).peekable();
        of.peek().is_some() && of.all(|(_, value)| value.is_number())
    };
    let columns = keys.iter().map(|key| (words(key), number(key))).collect();
    let cell = |row: &[(String, Value)], key: &str| {
        row.iter().find(|(other, _)| other == key).map_or_else(String::new, |(key, value)| shown(key, value))
    };
    let rows = flat.iter().take(ROWS_MAX);
    let rows = rows.map(|row| GridRow { row: None, cells: keys.iter().map(|key| cell(row, key)).collect() }).collect();
    let note = if flat.len() > ROWS_MAX { format!("{ROWS_MAX} of {} rows. {note}", flat.len()) } else { note };
    Grid { title, note, columns, rows }
}

/// A table of lists, a column for each place in them.
fn listed(title: String, note: String, key: &str, items: &[Value]) -> Grid {
    let rows: Vec<&[Value]> =
        items.iter().map(|item| item.as_array().map_or(std::slice::from_ref(item), Vec::as_slice)).collect();
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let number = |i: usize| rows.iter().filter_map(|row| row.get(i)).all(Value::is_number);
    let columns = (0..width).map(|i| ((i + 1).to_string(), number(i))).collect();
    let cell = |row: &[Value], i: usize| row.get(i).map_or_else(String::new, |value| text(key, value));
    let filled = rows.iter().take(ROWS_MAX);
    let filled = filled.map(|row| GridRow { row: None, cells: (0..width).map(|i| cell(row, i)).collect() }).collect();
    let note = if rows.len() > ROWS_MAX { format!("{ROWS_MAX} of {} rows. {note}", rows.len()) } else { note };
    Grid { title, note, columns, rows: filled }
}

/// A value as text, a list with its items after one another.
fn text(key: &str, value: &Value) -> String {
    value.as_array().map_or_else(|| shown(key, value), |items| joined(key, items, " "))
}

fn joined(key: &str, items: &[Value], between: &str) -> String {
    items.iter().map(|item| text(key, item)).collect::<Vec<_>>().join(between)
}

/// An object as the rows that its list of objects holds, each with the object's own figures; itself where it holds none.
fn unfolded(item: &Value) -> Vec<Value> {
    let lists = |(_, value): &(&String, &Value)| value.as_array().is_some_and(|list| list.iter().any(Value::is_object));
    let Some((name, list)) = item.as_object().and_then(|object| object.iter().find(lists)) else {
        return vec![item.clone()];
    };
    let own: Map<String, Value> = item
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != name)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let inner = list.as_array().into_iter().flatten().filter_map(Value::as_object);
    inner.map(|row| Value::Object(own.clone().into_iter().chain(row.clone()).collect())).collect()
}

/// Figures of an object, those of objects in it under both names; of a list of objects, or a long one, only how long it is.
fn flatten(prefix: &str, value: &Value, cells: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(inside) => {
            for (key, value) in inside {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}_{key}") };
                flatten(&name, value, cells);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) || items.len() > LISTED_MAX => {
            cells.push((format!("{prefix}_count"), items.len().into()));
        }
        Value::Array(items) => {
            cells.push((prefix.to_owned(), joined(prefix, items, ", ").into()));
        }
        plain => cells.push((prefix.to_owned(), plain.clone())),
    }
}

/// A figure as one reads it; its key says its unit. Nothing where it is unknown.
fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            if key.ends_with("_bytes")
                && let Some(bytes) = number.as_u64()
            {
                return Bytes(bytes).to_string();
            }
            if let Some(whole) = number.as_u64() {
                return whole.to_string();
            }
            let value = number.as_f64().unwrap_or(f64::NAN);
            match Seconds::new(value) {
                Ok(seconds) if key.ends_with("_seconds") => seconds.to_string(),
                _ if value != 0.0 && (value.abs() >= 1e6 || value.abs() < 1e-3) => format!("{value:.3e}"),
                _ if value.abs() >= 1000.0 => format!("{value:.0}"),
                _ => format!("{value:.4}"),
            }
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(folder: &Path, file: &str, text: &str) {
        std::fs::write(folder.join(file), text).expect("writable");
    }

    #[test]
    fn every_row_and_figure_of_a_record_is_on_its_page_and_an_unknown_one_is_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(sheet(folder.path()).expect("readable").is_none(), "an empty folder holds no benchmark");
        written(
            folder.path(),
            "planner.json",
            r#"{"schema": "isotherm.bench-planner/v1", "cap_seconds": 20.0, "notes": ["CP-SAT was NOT run: absent"],
                "rows": [{"planner": "isotherm", "gap": 0.0012, "wall_seconds": 0.25, "peak_bytes": 1048576},
                         {"planner": "greedy", "gap": null, "wall_seconds": 0.004, "extra": {"ratio": 2.5}}]}"#,
        );
        let sheet = sheet(folder.path()).expect("readable").expect("a benchmark");
        let table = &sheet.tables[0];
        let heads: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(table.rows.len(), 2);
        let cell =
            |row: usize, head: &str| table.rows[row].cells[heads.iter().position(|h| *h == head).expect(head)].as_str();
        assert_eq!((cell(0, "gap"), cell(1, "gap")), ("0.0012", ""));
        assert_eq!((cell(0, "wall"), cell(0, "peak"), cell(1, "extra ratio")), ("250.0 ms", "1.00 MiB", "2.5000"));
        assert!(sheet.sentences.iter().any(|s| s.contains("NOT run")));
        assert!(sheet.facts.iter().any(|[name, value]| name.ends_with("cap") && value == "20.00 s"));
        assert!(sheet.commands.iter().any(|line| line.starts_with("isotherm bench planner -o ")));
    }

    #[test]
    fn lists_of_lists_are_on_the_page_and_digests_are_no_sentences() {
        let folder = tempfile::tempdir().expect("a folder");
        written(
            folder.path(),
            "device.json",
            r#"{"schema": "isotherm.device-bench/1", "inputs": ["sha256:ab", "sha256:cd"],
                "absent": [["cuda", "no driver"], ["wgpu", "no adapter"]], "digests": [[1, "sha256:ef"]],
                "devices": [{"name": "cpu", "rows": [{"at_least": [["H100", 0.5], ["A100", 2]]}]},
                            {"name": "two", "rows": [{"stages": [["a", 0, 4], ["b", 4, 9]]}]}]}"#,
        );
        let sheet = sheet(folder.path()).expect("readable").expect("a benchmark");
        let rows = |what: &str| -> Vec<&[String]> {
            let table = sheet.tables.iter().find(|table| table.title.ends_with(what)).expect(what);
            table.rows.iter().map(|row| row.cells.as_slice()).collect()
        };
        assert_eq!(rows("absent"), [["cuda", "no driver"], ["wgpu", "no adapter"]]);
        assert_eq!(rows("digests"), [["1", "sha256:ef"]]);
        let cells: Vec<&String> = rows("devices").into_iter().flatten().collect();
        for whole in ["H100 0.5000, A100 2", "a 0 4, b 4 9"] {
            assert!(cells.iter().any(|cell| *cell == whole), "{cells:?}");
        }
        assert!(sheet.sentences.is_empty(), "{:?}", sheet.sentences);
        assert!(sheet.facts.iter().any(|[name, value]| name.ends_with("inputs") && value == "sha256:ab, sha256:cd"));
    }

    #[test]
    fn records_beside_another_benchmark_stand_on_its_page_and_foreign_files_do_not() {
        let folder = tempfile::tempdir().expect("a folder");
        written(folder.path(), "sim.json", r#"{"schema": "isotherm.bench-sim/v1", "queues": [{"pending": 16}]}"#);
        written(folder.path(), "probe.json", r#"{"schema": "somebody.else/v1", "rows": [{"a": 1}]}"#);
        let mut sheet = Sheet { tables: vec![Grid::default()], ..Sheet::default() };
        beside(&mut sheet, folder.path()).expect("readable");
        assert_eq!(sheet.tables.len(), 2);
        assert!(sheet.tables[1].title.contains("queues"));
        written(folder.path(), "sim.json", "{");
        assert!(beside(&mut sheet, folder.path()).is_err(), "a damaged record is named");
    }
}
