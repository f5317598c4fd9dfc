//! What a swept value may be: a list, or a range of numbers or quantities.

use crate::scenario::{Fault, Reader};
use toml::de::DeValue;
use toml::{Spanned, Value};

/// Most values of one list or range.
const VALUES_MAX: u32 = 1_000_000;

/// Whether a range is divided by differences or by ratios.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
}

/// What a range is made of.
#[derive(Debug, Clone, PartialEq)]
enum Made {
    Whole,
    Number,
    /// Numbers with this unit behind them.
    Quantity(String),
}

/// The values of one path.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    List(Vec<Value>),
    Range { from: f64, to: f64, steps: Option<u32>, scale: Scaling, made: Unit },
}

/// How a range is divided, kept private to this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scaling(Scale);

/// What a range is made of, kept private to this module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit(Made);

impl Values {
    /// Reads a list or a range; what is wrong with it is among the faults.
    pub(super) fn read(vary: &Reader<'_, '_>, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(items) => list(vary, path, value, items),
            DeValue::Table(table) => {
                range(Reader::new(vary.source, table, value.span(), format!("the range of {path}")))
            }
            _ => {
                vary.wrong(path, value, "a list of values, or a range { from = 1, to = 8, steps = 4 }");
                None
            }
        }
    }

    /// Number of values; 0 for a range without steps.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::List(values) => values.len() as u64,
            Self::Range { steps, .. } => steps.map_or(0, u64::from),
        }
    }

    /// The value of this number, below [`Values::len`].
    pub(super) fn at(&self, number: u64) -> Value {
        match self {
            Self::List(values) => values[number as usize].clone(),
            Self::Range { steps, .. } => {
                let last = steps.map_or(1, u64::from).saturating_sub(1).max(1);
                self.between(number as f64 / last as f64)
            }
        }
    }

    /// The value at a share from 0 to below 1 of all there are.
    pub(super) fn within(&self, share: f64) -> Value {
        match self {
            Self::List(values) => {
                let at = (share * values.len() as f64) as usize;
                values[at.min(values.len() - 1)].clone()
            }
            // Each whole number gets an equal part of the range.
            Self::Range { from, to, scale: Scaling(Scale::Linear), made: Unit(Made::Whole), .. } => {
                Value::Integer(((from + share * (to - from + 1.0)).floor()).min(*to) as i64)
            }
            Self::Range { .. } => self.between(share),
        }
    }

    fn between(&self, share: f64) -> Value {
        let Self::Range { from, to, scale, made, .. } = self else { return Value::Boolean(false) };
        let value = match scale.0 {
            _ if share <= 0.0 => *from,
            _ if share >= 1.0 => *to,
            Scale::Linear => from + share * (to - from),
            Scale::Log => from * libm::pow(to / from, share),
        };
        match &made.0 {
            Made::Whole => Value::Integer(libm::round(value) as i64),
            Made::Number => Value::Float(value),
            Made::Quantity(unit) => Value::String(format!("{} {unit}", rounded(value))),
        }
    }
}

/// A number with at most nine significant digits: what a range needs, and a text that one can read.
fn rounded(value: f64) -> f64 {
    format!("{value:.8e}").parse().unwrap_or(value)
}

fn list(
    vary: &Reader<'_, '_>,
    path: &str,
    whole: &Spanned<DeValue<'_>>,
    items: &[Spanned<DeValue<'_>>],
) -> Option<Values> {
    if items.is_empty() || items.len() > VALUES_MAX as usize {
        vary.wrong(path, whole, "a list of at least one and at most a million values");
        return None;
    }
    let mut values: Vec<Value> = Vec::new();
    for item in items {
        let Some(value) = super::owned(item.get_ref()) else {
            vary.wrong(path, item, "a text, number, true or false, list or table");
            return None;
        };
        // A long list is trusted: looking each one up in it would take its square.
        if items.len() <= 10_000 && values.contains(&value) {
            let name = super::shown(&value);
            vary.source.fault(item.span(), Fault::Duplicate { what: "swept value", name });
            return None;
        }
        values.push(value);
    }
    Some(Values::List(values))
}

/// A number and what it is made of.
fn end(reader: &Reader<'_, '_>, key: &'static str) -> Option<(f64, Made)> {
    let Some(value) = reader.get(key) else {
        reader.missing(key, "from = \"1 Gbit/s\", to = \"100 Gbit/s\"");
        return None;
    };
    let read = match super::owned(value.get_ref()) {
        Some(Value::Integer(number)) if number.unsigned_abs() <= 1 << 53 => Some((number as f64, Made::Whole)),
        Some(Value::Float(number)) if number.is_finite() => Some((number, Made::Number)),
        Some(Value::String(text)) => crate::text::number_and_unit(&text)
            .filter(|(number, unit)| number.is_finite() && !unit.is_empty())
            .map(|(number, unit)| (number, Made::Quantity(unit.to_owned()))),
        _ => None,
    };
    if read.is_none() {
        reader.wrong(key, value, "a number or a quantity with its unit");
    }
    read
}

/// The upper end in what the lower one is made of, and what both are made of then; none where they are of two kinds.
fn alike(made: Made, to: f64, other: Made) -> Option<(f64, Made)> {
    match (made, other) {
        (Made::Whole, Made::Number) | (Made::Number, Made::Whole) => Some((to, Made::Number)),
        (Made::Quantity(unit), Made::Quantity(of)) if unit != of => {
            Some((to * crate::text::units_in(&unit, &of)?, Made::Quantity(unit)))
        }
        (made, other) => (made == other).then_some((to, made)),
    }
}

fn range(reader: Reader<'_, '_>) -> Option<Values> {
    let (from, to) = (end(&reader, "from"), end(&reader, "to"));
    let steps = reader.integer("steps", 2, VALUES_MAX);
    let scale = reader.word("scale", &[("linear", Scale::Linear), ("log", Scale::Log)]);
    if (steps.is_none() && reader.has("steps")) || (scale.is_none() && reader.has("scale")) {
        return None;
    }
    let ((from, made), (to, other)) = (from?, to?);
    let Some((to, made)) = alike(made, to, other) else {
        let what = format!("{} has ends of different kinds", reader.place);
        reader.fault(Fault::Conflict { what, remedy: "write both ends in units of the same quantity".to_owned() });
        return None;
    };
    let conflict = |what: String, remedy: &str| {
        reader.fault(Fault::Conflict { what, remedy: remedy.to_owned() });
        None
    };
    if from >= to {
        return conflict(format!("{} does not rise", reader.place), "make from less than to");
    }
    let scale = scale.unwrap_or(Scale::Linear);
    if scale == Scale::Log && from <= 0.0 {
        return conflict(format!("{} has a log scale and begins at or below 0", reader.place), "begin above 0");
    }
    if made == Made::Whole && steps.is_some_and(|steps| f64::from(steps) > to - from + 1.0) {
        return conflict(format!("{} has fewer whole numbers than steps", reader.place), "take fewer steps");
    }
    let values = Values::Range { from, to, steps, scale: Scaling(scale), made: Unit(made) };
    if let (Values::Range { made: Unit(Made::Whole), .. }, Some(steps)) = (&values, steps)
        && (1..u64::from(steps.min(10_000))).any(|i| values.at(i) == values.at(i - 1))
    {
        return conflict(format!("{} gives a whole number twice", reader.place), "take fewer steps or a linear scale");
    }
    reader.done();
    Some(values)
}
