//! Sweeps: one scenario that stands for many, each with some of its values replaced.
//!
//! `[sweep]` names values of the scenario by their path and says what each may be. [`Sweep::read`] reads it,
//! [`Sweep::point`] gives the text of one scenario without it; the text alone decides what that point is, so that a
//! point can be planned again anywhere. A path is the keys that lead to a value, joined by dots; an entry of a list of
//! sections is named by its `name`, else its `table`, else its position from 1: `devices.l4.count`,
//! `network.within_site.bandwidth`, `links.1.latency`. A key that holds a dot stands in quotes:
//! `devices."rtx-4090.a".count`.
//!
//! Values are a list, or a range `{ from, to, steps, scale }` of whole numbers, numbers, or quantities of one kind,
//! whose points are written in the unit of `from`. Three methods choose points: `grid` (every combination), `list` (the
//! first of each, the second of each ...) and `latin_hypercube` (as many points as asked for, each value's range divided
//! evenly among them). Several `[[sweep]]` sections multiply. The same text gives the same points in the same order on any
//! machine.

mod draw;
mod place;
mod range;

use crate::scenario::{Fault, Origin, Reader, ScenarioError, Source, toml_value};
use draw::Strata;
use place::Place;
use range::Values;
use toml::de::DeValue;
use toml::{Table, Value};

/// Most points of one scenario.
pub const POINTS_MAX: u64 = 10_000_000;
/// Most points of one Latin hypercube, whose order is kept in memory.
const DRAWN_MAX: u32 = 1_000_000;

/// How the points of one section are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Grid,
    List,
    LatinHypercube,
}

/// One value that varies.
#[derive(Debug, Clone, PartialEq)]
struct Axis {
    path: String,
    place: Place,
    values: Values,
}

/// One `[sweep]` section.
#[derive(Debug, Clone, PartialEq)]
struct Block {
    axes: Vec<Axis>,
    points: u64,
    /// For a Latin hypercube, the stratum of each point on each axis.
    strata: Option<Strata>,
    grid: bool,
}

/// The points of one scenario's text. A scenario without `[sweep]` has one, itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    text: String,
    base: Table,
    blocks: Vec<Block>,
    points: u64,
}

/// One point of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The scenario, without its sweep.
    pub text: String,
    /// What was put where, as written; empty without a sweep.
    pub values: Vec<(String, Value)>,
}

impl Sweep {
    /// Reads the sweep of a scenario. What else stands in the scenario is not looked at.
    /// Errors: the text is no TOML, or everything that is wrong with its sweep, each with its place.
    pub fn read(text: &str) -> Result<Self, Vec<ScenarioError>> {
        let source = Source::new(Origin::Scenario, text);
        let found = source.parse().and_then(|root| {
            let root = Reader::new(&source, root.get_ref(), 0..0, "the scenario".to_owned());
            let blocks = blocks(&root)?;
            let mut base: Table = toml::from_str(text).ok()?;
            base.remove("sweep");
            Some((base, blocks))
        });
        let faults = source.into_faults();
        match found {
            Some((base, blocks)) if faults.is_empty() => {
                let points = blocks.iter().map(|block| block.points).product();
                Ok(Self { text: text.to_owned(), base, blocks, points })
            }
            _ => Err(faults),
        }
    }

    /// Number of points, at least one.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.points
    }

    /// Always false: a scenario is at least one point.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether the scenario varies anything.
    #[must_use]
    pub fn varies(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Paths of what varies, in the order of the text.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.blocks.iter().flat_map(|block| block.axes.iter().map(|axis| axis.path.as_str()))
    }

    /// The point of this number, the last path varying fastest; none past the last.
    #[must_use]
    pub fn point(&self, number: u64) -> Option<Point> {
        if number >= self.points {
            return None;
        }
        if self.blocks.is_empty() {
            return Some(Point { text: self.text.clone(), values: Vec::new() });
        }
        let (mut table, mut values, mut rest) = (self.base.clone(), Vec::new(), number);
        // Number in each block, the last block varying fastest.
        let mut inside = vec![0; self.blocks.len()];
        for (i, block) in self.blocks.iter().enumerate().rev() {
            (inside[i], rest) = (rest % block.points, rest / block.points);
        }
        for (block, &number) in self.blocks.iter().zip(&inside) {
            for (path, place, value) in block.values(number) {
                place.put(&mut table, value.clone());
                values.push((path.to_owned(), value));
            }
        }
        Some(Point { text: table.to_string(), values })
    }
}

impl Block {
    /// What a point of this block puts where.
    fn values(&self, number: u64) -> Vec<(&str, &Place, Value)> {
        let mut chosen = Vec::new();
        let mut rest = number;
        for (i, axis) in self.axes.iter().enumerate().rev() {
            let value = match &self.strata {
                Some(strata) => axis.values.within(strata.share(i, number)),
                None if self.grid => {
                    let steps = axis.values.len();
                    let at = rest % steps;
                    rest /= steps;
                    axis.values.at(at)
                }
                None => axis.values.at(number),
            };
            chosen.push((axis.path.as_str(), &axis.place, value));
        }
        chosen.reverse();
        chosen
    }
}

/// The `[sweep]` sections of a scenario; none where something is wrong with them, which is then among the faults.
pub(crate) fn check(root: &Reader<'_, '_>) {
    let _ = blocks(root);
}

fn blocks(root: &Reader<'_, '_>) -> Option<Vec<Block>> {
    let sections = match root.get("sweep").map(|value| value.get_ref()) {
        None => return Some(Vec::new()),
        Some(DeValue::Array(_)) => root.tables("sweep"),
        Some(_) => root.table("sweep").into_iter().collect(),
    };
    let mut blocks: Vec<Block> = Vec::new();
    let (wanted, mut points) = (sections.len(), 1_u64);
    for section in sections {
        let Some(block) = block(root, section, &blocks) else { continue };
        points = points.saturating_mul(block.points);
        blocks.push(block);
    }
    if points > POINTS_MAX {
        let what = format!("the sweep has more than {POINTS_MAX} points");
        root.fault(Fault::Conflict { what, remedy: "vary less, or draw points by latin_hypercube".to_owned() });
        return None;
    }
    (blocks.len() == wanted && wanted > 0).then_some(blocks)
}

fn block(root: &Reader<'_, '_>, section: Reader<'_, '_>, before: &[Block]) -> Option<Block> {
    let methods = [("grid", Method::Grid), ("list", Method::List), ("latin_hypercube", Method::LatinHypercube)];
    let stated = section.word("method", &methods);
    if stated.is_none() && section.has("method") {
        return None;
    }
    let method = stated.unwrap_or(Method::Grid);
    let drawn = section.integer("points", 1, DRAWN_MAX);
    let seed = section.integer("seed", 0, u32::MAX);
    let axes = axes(root, &section, before)?;
    let counts: Vec<u64> = axes.iter().map(|axis| axis.values.len()).collect();
    let open = |axis: &&Axis| axis.values.len() == 0;
    if method != Method::LatinHypercube {
        if section.has("points") || section.has("seed") {
            let what = "points and seed are for drawn points, and the method is another".to_owned();
            let remedy = "write method = \"latin_hypercube\", or leave them out".to_owned();
            section.fault(Fault::Conflict { what, remedy });
        }
        if let Some(axis) = axes.iter().find(open) {
            let what = format!("the range of {} does not say how many steps it has", axis.path);
            section.fault(Fault::Conflict { what, remedy: "add steps = 5, at least 2".to_owned() });
            return None;
        }
    }
    let (points, strata) = match method {
        Method::Grid => (counts.iter().fold(1_u64, |product, &count| product.saturating_mul(count)), None),
        Method::List => {
            if let Some(axis) = axes.iter().find(|axis| axis.values.len() != counts[0]) {
                let what = format!(
                    "a list takes the first of each, the second of each and so on, and {} has {} values where {} has {}",
                    axis.path,
                    axis.values.len(),
                    axes[0].path,
                    counts[0]
                );
                section.fault(Fault::Conflict { what, remedy: "give each as many, or use method = \"grid\"".into() });
                return None;
            }
            (counts[0], None)
        }
        Method::LatinHypercube => {
            let Some(points) = drawn else {
                if !section.has("points") {
                    section.missing("points", "points = 100");
                }
                return None;
            };
            let paths = axes.iter().map(|axis| axis.path.as_str());
            (u64::from(points), Some(Strata::draw(points, seed.unwrap_or(1), paths)))
        }
    };
    section.done();
    Some(Block { axes, points, strata, grid: method == Method::Grid })
}

/// `[sweep.vary]`.
fn axes(root: &Reader<'_, '_>, section: &Reader<'_, '_>, before: &[Block]) -> Option<Vec<Axis>> {
    if !section.has("vary") {
        section.missing("vary", "[sweep.vary] with \"environment.ambient\" = [\"15 °C\", \"35 °C\"]");
        return None;
    }
    let vary = section.table("vary")?;
    let mut axes: Vec<Axis> = Vec::new();
    let mut whole = true;
    // In the order of the text, which a map by name does not keep.
    let mut entries: Vec<_> = vary.entries().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in &entries {
        let path = key.get_ref().to_string();
        let place = Place::read(&path, root);
        let values = Values::read(&vary, &path, value);
        let taken = axes.iter().chain(before.iter().flat_map(|block| &block.axes));
        if let Some(other) = taken.into_iter().find(|axis| place.as_ref().is_ok_and(|p| axis.place.overlaps(p))) {
            let what = format!("{path} and {} name the same value or one inside the other", other.path);
            let fault = Fault::Conflict { what, remedy: "vary it once".to_owned() };
            section.source.fault(key.span(), fault);
            whole = false;
            continue;
        }
        match (place, values) {
            (Ok(place), Some(values)) => axes.push(Axis { path, place, values }),
            (Err((what, remedy)), _) => {
                section.source.fault(key.span(), Fault::Conflict { what, remedy });
                whole = false;
            }
            (_, None) => whole = false,
        }
    }
    if entries.is_empty() {
        let what = "a sweep varies nothing".to_owned();
        let remedy = "name at least one value, for example \"environment.ambient\" = [\"15 °C\", \"35 °C\"]".to_owned();
        vary.fault(Fault::Conflict { what, remedy });
    }
    (whole && !axes.is_empty()).then_some(axes)
}

/// The value of a swept text in base units, so that points can be compared: a number itself, a quantity by its unit;
/// none of other texts.
#[must_use]
pub fn base_value(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number).filter(|n| n.is_finite()),
        Value::Boolean(yes) => Some(f64::from(u8::from(*yes))),
        Value::String(text) => crate::text::base_value(text),
        _ => None,
    }
}

/// A value as one writes it, a text without quotes.
#[must_use]
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string().trim_end().to_owned(),
    }
}

/// A value of the text being read, as a value of its own; none for what a scenario does not hold (a date).
fn owned(value: &DeValue<'_>) -> Option<Value> {
    toml_value(value)
}

#[cfg(test)]
mod tests;
