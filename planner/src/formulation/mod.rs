//! The integer programs, and the solvers that take them: the only place with modelling crates.

pub(crate) mod chain;
pub(crate) mod helix;
pub(crate) mod partial;
pub(crate) mod pipelines;
pub(crate) mod positions;
pub(crate) mod program;
pub(crate) mod rails;
pub(crate) mod routing;
pub(crate) mod solve;
pub(crate) mod spending;

use crate::latency::chains::Link;
use crate::tables::Tables;
use program::{Program, Relation};
use std::collections::BTreeMap;

/// Columns that count devices, by (class, start, end).
type Counts = BTreeMap<(usize, usize, usize), usize>;

/// Rows for the devices there are: so many of each class (all of them where pinned), and so much of each shared memory,
/// in shares of its size, because tolerances are absolute.
fn device_rows(program: &mut Program, tables: &Tables<'_>, classes: &[Vec<usize>], count: &Counts) {
    for (class, members) in classes.iter().enumerate() {
        let of_class = count.range((class, 0, 0)..(class + 1, 0, 0));
        let terms = of_class.map(|(_, &column)| (column, 1.0)).collect();
        let relation = if tables.candidates[members[0]].pinned { Relation::Equal } else { Relation::AtMost };
        program.row(terms, relation, members.len() as f64);
    }
    for (position, pool) in tables.pools.iter().enumerate() {
        let share = |(&(class, start, end), &column): (&(usize, usize, usize), &usize)| {
            let candidate = tables.candidates[classes[class][0]];
            let bytes = tables.kinds[candidate.kind].bytes.at(start, end) as f64;
            (candidate.pool == Some(position)).then_some((column, bytes / (pool.size as f64).max(1.0)))
        };
        program.row(count.iter().filter_map(share).collect(), Relation::AtMost, 1.0);
    }
}

/// The placement that an assignment is: devices of a class take its intervals in order.
fn placement(classes: &[Vec<usize>], count: &Counts, at: &[f64]) -> Vec<Link> {
    let mut next = vec![0; classes.len()];
    let mut placement = Vec::new();
    for (&(class, start, end), &column) in count {
        for _ in 0..at[column].round().max(0.0) as usize {
            if let Some(&device) = classes[class].get(next[class]) {
                placement.push((device, start, end));
                next[class] += 1;
            }
        }
    }
    placement
}
