//! A model's temperature under a log's power, free running from the first sample.
//!
//! Between two samples power and conductance are constant, so each step is the exact exponential of the linear network.
//! The fan's conductance goes in steps of [`FAN_STEP`] kelvin, as it does in the simulator, and the decomposition of each
//! step's network is made once.
//!
//! What is not in the log is not made up: a pause of more than [`GAP`] usual intervals has no readings, and the power in
//! it is a parameter; the temperatures of nodes without a sensor begin where the power before the first sample would have
//! them relative to the die, whose temperature is known.

use super::candidate::{Nodes, Shape, Values};
use crate::thermal::log::ThermalLog;
use crate::thermal::matrix::{Eigen, eigen};

/// Kelvin of one step of the fan's conductance.
pub const FAN_STEP: f64 = 0.25;
/// Pauses longer than so many usual intervals hold power that nobody read; shorter ones are samples that were missed.
pub const GAP: f64 = 6.0;
/// Most steps of the fan, so that no value of a search asks for more memory.
const LEVELS_MAX: usize = 1_200;

/// A log made ready for replays: intervals, and what follows each reading.
#[derive(Debug, Clone)]
pub struct Course {
    /// Seconds since the sample before.
    spans: Vec<f64>,
    watts: Vec<f64>,
    /// Measured temperature of the die.
    pub celsius: Vec<f64>,
    ambient: Option<Vec<f64>>,
    fan: Option<Vec<f64>>,
    memory: Option<Vec<f64>>,
    /// Whether a pause without readings lies before the sample.
    after_gap: Vec<bool>,
    interval: f64,
}

impl Course {
    /// The log, with its own power or another's prediction of it.
    #[must_use]
    pub fn of(log: &ThermalLog, watts: Vec<f64>) -> Self {
        let interval = log.interval();
        let mut spans = vec![0.0];
        spans.extend(log.seconds.windows(2).map(|pair| pair[1] - pair[0]));
        let after_gap = spans.iter().map(|&span| span > GAP * interval).collect();
        Self {
            spans,
            watts,
            celsius: log.celsius.clone(),
            ambient: log.ambient.clone(),
            fan: log.fan.clone(),
            memory: log.memory.clone(),
            after_gap,
            interval,
        }
    }

    /// Number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Whether it has pauses without readings.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.after_gap.iter().any(|&gap| gap)
    }

    /// Measured powers.
    #[must_use]
    pub fn watts(&self) -> &[f64] {
        &self.watts
    }

    /// Utilisation of the memory over the interval that ends with sample `k`: the greater of both ends. A counter that
    /// falls to zero at once would leave all of a power that is reported late to the die.
    fn memory(&self, k: usize) -> f64 {
        self.memory.as_ref().map_or(0.0, |memory| memory[k].max(memory[k - 1]))
    }

    /// Power over the interval that ends with sample `k`: its reading, or in part the next one where readings come
    /// late. What follows the last reading before a pause is the power of the pause.
    fn power(&self, k: usize, values: &Values) -> f64 {
        let own = self.watts[k];
        let next = match (self.after_gap.get(k + 1), values.gap_power) {
            (Some(true), Some(power)) => power,
            (Some(_), _) => self.watts[k + 1],
            (None, _) => own,
        };
        own + values.lag * (next - own)
    }
}

/// A network of at most three nodes between two events: rates and what brings temperatures to modes and back.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    nodes: usize,
    rates: [f64; 3],
    to_modes: [[f64; 3]; 3],
    from_modes: [[f64; 3]; 3],
}

impl Level {
    fn of(shape: Shape, values: &Values, conductance: f64) -> Self {
        // Node 0 has the sensor and takes the power; the last of the chain before the case gives heat to the air.
        let (nodes, capacities) = match shape.nodes {
            Nodes::One => (1, [values.capacity, 1.0, 1.0]),
            Nodes::Two => (2, [values.die_capacity, values.capacity, 1.0]),
            Nodes::Three => (3, [values.die_capacity, values.capacity, values.case_capacity]),
        };
        let mut matrix = vec![0.0; nodes * nodes];
        let mut join = |i: usize, j: usize, g: f64| {
            matrix[i * nodes + i] += g;
            matrix[j * nodes + j] += g;
            matrix[i * nodes + j] -= g;
            matrix[j * nodes + i] -= g;
        };
        if nodes > 1 {
            join(0, 1, 1.0 / values.die_resistance);
        }
        if nodes > 2 {
            join(1, 2, values.case_conductance);
        }
        let sink = nodes.min(2) - 1;
        matrix[sink * nodes + sink] += conductance;
        for i in 0..nodes {
            for j in 0..nodes {
                matrix[i * nodes + j] /= (capacities[i] * capacities[j]).sqrt();
            }
        }
        let Eigen { values: rates, vectors } = eigen(matrix, nodes);
        let mut level = Self { nodes, ..Self::default() };
        for k in 0..nodes {
            level.rates[k] = rates[k].max(1e-12);
            for i in 0..nodes {
                let root = capacities[i].sqrt();
                level.to_modes[k][i] = vectors[i * nodes + k] * root;
                level.from_modes[i][k] = vectors[i * nodes + k] / root;
            }
        }
        level
    }

    fn advance(&self, rises: &mut [f64; 3], (power, at_sink): (f64, f64), span: f64) {
        let mut modes = [0.0; 3];
        for (k, mode) in modes.iter_mut().enumerate().take(self.nodes) {
            let state: f64 = (0..self.nodes).map(|i| self.to_modes[k][i] * rises[i]).sum();
            let drive = self.from_modes[0][k] * (power - at_sink) + self.from_modes[1][k] * at_sink;
            let steady = drive / self.rates[k];
            *mode = steady + (state - steady) * libm::exp(-self.rates[k] * span);
        }
        for (i, rise) in rises.iter_mut().enumerate().take(self.nodes) {
            *rise = (0..self.nodes).map(|k| self.from_modes[i][k] * modes[k]).sum();
        }
    }
}

/// Networks by step of the fan, made when first needed.
struct Levels<'v> {
    shape: Shape,
    values: &'v Values,
    made: Vec<Option<Level>>,
}

impl Levels<'_> {
    /// The step at this temperature of the die, or at this share of the fan's speed.
    fn step(&self, celsius: f64, fan: Option<f64>) -> usize {
        if !self.shape.fan {
            return 0;
        }
        let steps = match fan {
            // A hundredth of the fan's range for each step.
            Some(share) => share * 100.0,
            None => (celsius - self.values.fan_start) / FAN_STEP,
        };
        if steps > 0.0 { (libm::ceil(steps) as usize).min(LEVELS_MAX) } else { 0 }
    }

    fn at(&mut self, step: usize, recorded: bool) -> &Level {
        if self.made.len() <= step {
            self.made.resize(step + 1, None);
        }
        let over = if recorded { step as f64 / 100.0 } else { (step as f64 - 0.5).max(0.0) * FAN_STEP };
        let conductance = self.values.conductance + self.values.fan_slope * over;
        self.made[step].get_or_insert_with(|| Level::of(self.shape, self.values, conductance))
    }
}

/// Temperatures of the die at the log's samples, the first being the measured one.
#[must_use]
pub fn replay(shape: Shape, values: &Values, course: &Course) -> Vec<f64> {
    let mut levels = Levels { shape, values, made: Vec::new() };
    let air = |k: usize| values.reference + course.ambient.as_ref().map_or(0.0, |ambient| ambient[k]);
    let fan = |k: usize| if shape.fan { course.fan.as_ref().map(|fan| fan[k]) } else { None };
    let first = course.celsius[0];
    // Before the log the device rested, or did what its first reading says.
    let before = values.gap_power.unwrap_or(course.watts[0]);
    let die = first - air(0);
    let sink = die - values.die_resistance * before;
    let mut rises = [die, sink, sink];
    let mut temperatures = Vec::with_capacity(course.len());
    temperatures.push(first);
    for k in 1..course.len() {
        let warmer = air(k) - air(k - 1);
        let memory = course.memory(k) * values.memory_power;
        let mut run = |rises: &mut [f64; 3], power: (f64, f64), span: f64| {
            let step = levels.step(rises[0] + air(k), fan(k));
            levels.at(step, fan(k).is_some()).advance(rises, power, span);
        };
        let mut span = course.spans[k];
        if let (true, Some(power)) = (course.after_gap[k], values.gap_power) {
            // The last interval of a pause ends with a reading; the time before it has none. The fan follows in steps.
            let mut rest = span - course.interval;
            while rest > 0.0 {
                let part = rest.min(2.0 * course.interval);
                run(&mut rises, (power, 0.0), part);
                rest -= part;
            }
            span = course.interval;
        }
        let power = course.power(k, values);
        run(&mut rises, (power, memory.min(power)), span);
        for rise in &mut rises {
            *rise -= warmer;
        }
        temperatures.push(rises[0] + air(k));
    }
    temperatures
}
