//! Where in a scenario a value stands: its path, resolved once.

use crate::scenario::Reader;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Entry(usize),
}

/// A resolved path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Vec<Step>);

/// What is wrong with a path, and what to do.
type Wrong = (String, String);

/// The parts of a path: split at dots outside quotes.
fn parts(path: &str) -> Result<Vec<String>, Wrong> {
    let wrong = |what: &str| {
        let remedy = "write keys joined by dots, like devices.l4.count; a key with a dot in quotes".to_owned();
        (format!("the path {path:?} {what}"), remedy)
    };
    let (mut parts, mut part, mut quote, mut quoted) = (Vec::new(), String::new(), None, false);
    for c in path.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => part.push(c),
            ('"' | '\'', None) if part.is_empty() => (quote, quoted) = (Some(c), true),
            ('.', None) => {
                if part.is_empty() && !quoted {
                    return Err(wrong("has an empty part"));
                }
                parts.push(std::mem::take(&mut part));
                quoted = false;
            }
            (c, None) => part.push(c),
        }
    }
    if quote.is_some() {
        return Err(wrong("has a quote that does not end"));
    }
    if part.is_empty() {
        return Err(wrong("has an empty part"));
    }
    parts.push(part);
    Ok(parts)
}

/// What an entry of a list of sections is called.
fn called<'a>(entry: &'a DeValue<'_>) -> Option<&'a str> {
    let table = entry.as_table()?;
    let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
    text("name").or_else(|| text("table"))
}

fn entry(entries: &[toml::Spanned<DeValue<'_>>], path: &str, part: &str) -> Result<usize, Wrong> {
    if let Some(at) = entries.iter().position(|entry| called(entry.get_ref()) == Some(part)) {
        return Ok(at);
    }
    let position = part.parse::<usize>().ok().filter(|n| (1..=entries.len()).contains(n));
    position.map(|n| n - 1).ok_or_else(|| {
        let known: Vec<&str> = entries.iter().filter_map(|entry| called(entry.get_ref())).take(20).collect();
        let remedy = format!("name one of {}, or a position from 1 to {}", known.join(", "), entries.len());
        (format!("the path {path:?}: there is no entry {part:?}"), remedy)
    })
}

impl Place {
    /// Resolves a path in a scenario. Errors: an entry or section on the way is not there.
    pub(super) fn read(path: &str, root: &Reader<'_, '_>) -> Result<Self, Wrong> {
        let mut steps = Vec::new();
        let parts = parts(path)?;
        if parts[0] == "sweep" {
            return Err((format!("the path {path:?} leads into the sweep itself"), "vary another value".to_owned()));
        }
        let mut at: Option<&DeValue<'_>> = None;
        let mut table: Option<&DeTable<'_>> = Some(root.all());
        for (i, part) in parts.iter().enumerate() {
            if let Some(DeValue::Array(entries)) = at {
                let position = entry(entries, path, part)?;
                steps.push(Step::Entry(position));
                at = Some(entries[position].get_ref());
            } else {
                if i > 0 && table.is_none() && at.is_some() {
                    let what = format!("the path {path:?}: {} holds a value, not keys", parts[..i].join("."));
                    return Err((what, "name a key of a section".to_owned()));
                }
                steps.push(Step::Key(part.clone()));
                at = table.and_then(|table| table.get(part.as_str())).map(|value| value.get_ref());
            }
            table = at.and_then(DeValue::as_table);
        }
        Ok(Self(steps))
    }

    /// Whether one place is the other or inside it.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// Puts a value here; sections that are not there yet are made.
    pub(super) fn put(&self, root: &mut Table, value: Value) {
        let (last, way) = self.0.split_last().expect("a path has a part");
        let mut at = Descent::Table(root);
        for step in way {
            at = match (at, step) {
                (Descent::Table(table), Step::Key(key)) => {
                    let inside = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
                    Descent::of(inside)
                }
                (Descent::Array(items), Step::Entry(i)) => items.get_mut(*i).map_or(Descent::None, Descent::of),
                _ => Descent::None,
            };
        }
        match (at, last) {
            (Descent::Table(table), Step::Key(key)) => drop(table.insert(key.clone(), value)),
            (Descent::Array(items), Step::Entry(i)) => {
                if let Some(item) = items.get_mut(*i) {
                    *item = value;
                }
            }
            // `read` walked this way in the same text, so it is there.
            _ => {}
        }
    }
}

/// Where a walk through values is.
enum Descent<'a> {
    Table(&'a mut Table),
    Array(&'a mut Vec<Value>),
    None,
}

impl<'a> Descent<'a> {
    fn of(value: &'a mut Value) -> Self {
        match value {
            Value::Table(table) => Self::Table(table),
            Value::Array(items) => Self::Array(items),
            _ => Self::None,
        }
    }
}
