//! What devices that hold intervals pass on to a layer: a maximum flow by augmenting paths.

use super::super::blocks::Yard;

/// Devices as (site, first layer, end, rate), and arcs between them.
pub(super) struct Flow {
    /// Arcs by position, each followed by its reverse: where it leads and what it still passes.
    arcs: Vec<(usize, f64)>,
    of_node: Vec<Vec<usize>>,
    seen: Vec<bool>,
}

/// The first two nodes.
const SOURCE: usize = 0;
const SINK: usize = 1;

impl Flow {
    /// From before the first layer to whoever holds `end - 1`.
    pub fn new(yard: &Yard, devices: &[(usize, usize, usize, f64)], end: usize) -> Self {
        let mut flow = Self { arcs: Vec::new(), of_node: vec![Vec::new(); 2 + 2 * devices.len()], seen: Vec::new() };
        let (into, out) = (|i: usize| 2 + 2 * i, |i: usize| 3 + 2 * i);
        for (i, &(site, first, last, rate)) in devices.iter().enumerate() {
            flow.arc(into(i), out(i), rate);
            if first == 0 {
                flow.arc(SOURCE, into(i), f64::INFINITY);
            }
            if last >= end {
                flow.arc(out(i), SINK, f64::INFINITY);
                continue;
            }
            for (j, &(other, start, ..)) in devices.iter().enumerate() {
                if start == last {
                    let way = if site == other { f64::INFINITY } else { yard.between[site][other] };
                    flow.arc(out(i), into(j), way);
                }
            }
        }
        flow
    }

    fn arc(&mut self, from: usize, to: usize, most: f64) {
        self.of_node[from].push(self.arcs.len());
        self.of_node[to].push(self.arcs.len() + 1);
        self.arcs.extend([(to, most), (from, 0.0)]);
    }

    /// The most that passes, no more than `enough`.
    pub fn most(&mut self, enough: f64) -> f64 {
        let mut passed = 0.0;
        while passed < enough {
            self.seen = vec![false; self.of_node.len()];
            let more = self.augment(SOURCE, enough - passed, enough * 1e-12);
            if more <= 0.0 {
                break;
            }
            passed += more;
        }
        passed
    }

    fn augment(&mut self, node: usize, much: f64, dust: f64) -> f64 {
        if node == SINK {
            return much;
        }
        self.seen[node] = true;
        for position in 0..self.of_node[node].len() {
            let arc = self.of_node[node][position];
            let (to, left) = self.arcs[arc];
            if left <= dust || self.seen[to] {
                continue;
            }
            let more = self.augment(to, much.min(left), dust);
            if more > 0.0 {
                self.arcs[arc].1 -= more;
                self.arcs[arc ^ 1].1 += more;
                return more;
            }
        }
        0.0
    }
}
