//! The models that are tried, and their parameters.

/// How many nodes a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nodes {
    /// The device as one.
    One,
    /// A die on a sink.
    Two,
    /// A die on a sink that shares its heat with a slow mass around it: board, brackets, chassis.
    Three,
}

/// A model: its nodes, and whether a fan makes it lose heat more easily when it is hot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Its nodes.
    pub nodes: Nodes,
    /// Whether conductance to the air rises with temperature, or with the fan's speed where that was recorded.
    pub fan: bool,
}

/// A parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// Temperature of the air around the device in °C; over the ambient column's where there is one, then in K.
    Reference,
    /// Conductance to the air in W/K, with the fan at its slowest.
    Conductance,
    /// Heat capacity of the node that gives its heat to the air, in J/K.
    Capacity,
    /// Resistance between die and sink in K/W.
    DieResistance,
    /// Heat capacity of the die in J/K.
    DieCapacity,
    /// What the fan adds per kelvin over `FanStart` in W/K per K; per whole fan speed where that was recorded, in W/K.
    FanSlope,
    /// Temperature of the die from which the fan adds, in °C.
    FanStart,
    /// Conductance between sink and surroundings in W/K.
    CaseConductance,
    /// Heat capacity of the surroundings in J/K.
    CaseCapacity,
    /// Power drawn while nothing was recorded, in W.
    GapPower,
    /// Share of a sample by which the power's reading comes late.
    Lag,
    /// Power that the memory draws at full utilisation, in W: it warms the sink, not the die.
    MemoryPower,
}

/// How a parameter is searched for.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// The parameter.
    pub name: Name,
    /// Whether its logarithm is searched, which keeps it above zero.
    pub logarithmic: bool,
    /// What is expected before any log is seen, and within about how much (a factor where logarithmic).
    pub expected: f64,
    /// Standard deviation of that expectation, in the units of the search.
    pub within: f64,
    /// Values outside are never tried.
    pub limits: (f64, f64),
}

/// What a set of logs offers to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// Whether all logs have the temperature of the air.
    pub ambient: bool,
    /// Whether all logs have the speed of the fan.
    pub fan: bool,
    /// Whether some log has long pauses without samples.
    pub gaps: bool,
    /// Whether all logs have the utilisation of the memory.
    pub memory: bool,
}

impl Shape {
    /// All that are tried, the simplest first.
    pub const ALL: [Self; 5] = [
        Self { nodes: Nodes::One, fan: false },
        Self { nodes: Nodes::Two, fan: false },
        Self { nodes: Nodes::One, fan: true },
        Self { nodes: Nodes::Two, fan: true },
        Self { nodes: Nodes::Three, fan: true },
    ];

    /// Its name in artefacts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match (self.nodes, self.fan) {
            (Nodes::One, false) => "one-node",
            (Nodes::One, true) => "one-node-fan",
            (Nodes::Two, false) => "two-node",
            (Nodes::Two, true) => "two-node-fan",
            (Nodes::Three, false) => "three-node",
            (Nodes::Three, true) => "three-node-fan",
        }
    }

    /// Its parameters. Expectations are wide: a factor of ten or more for what differs between a phone and a server
    /// card, 10 K for the air around a device (rooms, cases and racks are at 15 to 35 °C). They decide only what a log
    /// leaves open.
    #[must_use]
    pub fn searches(self, offer: Offer, start: &Start) -> Vec<Search> {
        let log = |name, expected, within, limits| Search { name, logarithmic: true, expected, within, limits };
        let linear = |name, expected, within, limits| Search { name, logarithmic: false, expected, within, limits };
        let mut list = vec![
            if offer.ambient {
                linear(Name::Reference, 3.0, 5.0, (-5.0, 30.0))
            } else {
                linear(Name::Reference, 25.0, 7.0, (-40.0, 60.0))
            },
            log(Name::Conductance, start.conductance, 2.0, (1e-4, 1e5)),
            log(Name::Capacity, start.capacity, 2.0, (1e-2, 1e7)),
        ];
        if self.nodes > Nodes::One {
            list.push(log(Name::DieResistance, 0.2 / start.conductance, 1.5, (1e-4, 1e4)));
            list.push(log(Name::DieCapacity, start.capacity * 0.02, 0.6, (1e-3, 1e6)));
        }
        if self.fan {
            list.push(log(Name::FanSlope, start.conductance * if offer.fan { 1.0 } else { 0.04 }, 1.5, (1e-6, 1e4)));
            if !offer.fan {
                list.push(linear(Name::FanStart, start.fan_start, 15.0, (-20.0, 150.0)));
            }
        }
        if self.nodes == Nodes::Three {
            list.push(log(Name::CaseConductance, start.conductance * 0.15, 1.0, (1e-5, 1e4)));
            list.push(log(Name::CaseCapacity, start.capacity * 10.0, 1.0, (1e-1, 1e8)));
        }
        if offer.gaps {
            list.push(linear(Name::GapPower, start.idle, start.idle * 0.5, (0.0, 1e5)));
        }
        if self.nodes > Nodes::One {
            list.push(linear(Name::Lag, 0.5, 0.5, (0.0, 1.0)));
            if offer.memory {
                list.push(linear(Name::MemoryPower, 0.1 * start.most, 0.1 * start.most, (0.0, start.most)));
            }
        }
        list
    }
}

/// Where the search begins, from the logs' coarsest features.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Start {
    /// W/K.
    pub conductance: f64,
    /// J/K.
    pub capacity: f64,
    /// °C.
    pub fan_start: f64,
    /// Least power seen, in W.
    pub idle: f64,
    /// Greatest power seen, in W.
    pub most: f64,
}

/// Values of parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Values {
    /// See [`Name::Reference`]; the others likewise, zero or one where a shape has no such parameter.
    pub reference: f64,
    /// W/K.
    pub conductance: f64,
    /// J/K.
    pub capacity: f64,
    /// K/W.
    pub die_resistance: f64,
    /// J/K.
    pub die_capacity: f64,
    /// W/K per K, or W/K.
    pub fan_slope: f64,
    /// °C.
    pub fan_start: f64,
    /// W/K.
    pub case_conductance: f64,
    /// J/K.
    pub case_capacity: f64,
    /// W.
    pub gap_power: Option<f64>,
    /// Share of a sample.
    pub lag: f64,
    /// W.
    pub memory_power: f64,
}

impl Values {
    /// The values at a point of the search.
    #[must_use]
    pub fn at(searches: &[Search], point: &[f64]) -> Self {
        let mut values = Self {
            reference: 0.0,
            conductance: 1.0,
            capacity: 1.0,
            die_resistance: 0.0,
            die_capacity: 0.0,
            fan_slope: 0.0,
            fan_start: 0.0,
            case_conductance: 0.0,
            case_capacity: 1.0,
            gap_power: None,
            lag: 0.0,
            memory_power: 0.0,
        };
        for (search, &x) in searches.iter().zip(point) {
            *values.of(search.name) = search.value(x);
        }
        values
    }

    fn of(&mut self, name: Name) -> &mut f64 {
        match name {
            Name::Reference => &mut self.reference,
            Name::Conductance => &mut self.conductance,
            Name::Capacity => &mut self.capacity,
            Name::DieResistance => &mut self.die_resistance,
            Name::DieCapacity => &mut self.die_capacity,
            Name::FanSlope => &mut self.fan_slope,
            Name::FanStart => &mut self.fan_start,
            Name::CaseConductance => &mut self.case_conductance,
            Name::CaseCapacity => &mut self.case_capacity,
            Name::GapPower => self.gap_power.get_or_insert(0.0),
            Name::Lag => &mut self.lag,
            Name::MemoryPower => &mut self.memory_power,
        }
    }
}

impl Search {
    /// The value at a coordinate, inside the limits.
    #[must_use]
    pub fn value(&self, x: f64) -> f64 {
        let value = if self.logarithmic { libm::exp(x.clamp(-50.0, 50.0)) } else { x };
        value.clamp(self.limits.0, self.limits.1)
    }

    /// The coordinate of a value.
    #[must_use]
    pub fn coordinate(&self, value: f64) -> f64 {
        if self.logarithmic { libm::log(value) } else { value }
    }

    /// Distance of a coordinate from what is expected, in standard deviations.
    #[must_use]
    pub fn surprise(&self, x: f64) -> f64 {
        (x - self.coordinate(self.expected)) / self.within
    }

    /// Step for a derivative by differences.
    #[must_use]
    pub fn step(&self) -> f64 {
        if self.logarithmic {
            1e-3
        } else if self.name == Name::Lag {
            1e-2
        } else if self.name == Name::MemoryPower {
            1e-1
        } else {
            2e-2
        }
    }
}
