//! What serving costs: energy per token, money per token, money per hour.
//!
//! A device that holds a stage costs something however little it works, and something more the more it does. While a
//! plan runs at its throughput `F`, with `x` the [load](crate::sustained) of a device, at the operating point of its
//! stage,
//!
//! ```text
//! cost           = sum over devices that hold a stage of (held + worked * x)
//! energy         = cost / F                   held = idle power, worked = busy power less idle power
//! money per hour = cost                       held = hourly price + price of idle power, worked = price of the rest
//! money          = cost * 1e6 / 3600 / F      the same, for a million output tokens
//! ```
//!
//! Devices that hold nothing are taken to be off, or not rented. A figure of which a part is not known is not known.

use crate::ids::DeviceId;
use crate::objective::evaluate;
use crate::plan::Plan;
use crate::power::Draw;
use crate::problem::{Objective, PlacementProblem};
use crate::sustained::loads;
use std::borrow::Cow;

/// Seconds of an hour.
const HOUR: f64 = 3_600.0;
/// Tokens that money is stated for.
const MILLION: f64 = 1e6;

/// What a device costs, for a figure: watts, or money per hour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// While it holds a stage.
    pub held: f64,
    /// What full load adds.
    pub worked: f64,
}

impl PlacementProblem {
    /// What a device costs, for a figure; none where a part of it is not known, or the figure is no cost.
    ///
    /// Money: the hourly price where any device has one, and electricity where its price is stated; with neither
    /// nothing is known. A rented device's electricity is in its price, so one does not state both for it.
    #[must_use]
    pub fn cost(&self, device: DeviceId, figure: Objective) -> Option<Cost> {
        let power = || {
            let (idle, span) = self.power_span(device)?;
            Some((idle.value(), span.value()))
        };
        if figure == Objective::Energy {
            let (held, worked) = power()?;
            return Some(Cost { held, worked });
        }
        if !figure.spends() {
            return None;
        }
        let prices = &self.prices;
        let mut cost = Cost { held: 0.0, worked: 0.0 };
        if prices.knows_hours() {
            cost.held += prices.per_hour(self.graph.device(device))?;
        } else {
            prices.electricity_per_kwh?;
        }
        if let Some(price) = prices.electricity_per_kwh {
            let (idle, span) = power()?;
            cost.held += idle / 1_000.0 * price;
            cost.worked += span / 1_000.0 * price;
        }
        Some(cost)
    }

    /// The least load that each unit of the rate brings a device, where a unit asks for this much of its time at full
    /// speed and the rate is `rate` or more: no [operating point](crate::power) asks for less. At 0, whatever the rate.
    #[must_use]
    pub fn least_load(draw: Option<&Draw>, time: f64, rate: f64) -> f64 {
        match draw.filter(|draw| draw.has_points()) {
            // What a piece of work takes only rises with how much there is.
            Some(draw) if rate > 0.0 => draw.least(time * rate) / rate,
            Some(draw) => time * draw.pieces().next().map_or(1.0, |(_, load)| load),
            None => time,
        }
    }

    /// What a cost, summed over devices, makes of a figure at a rate.
    #[must_use]
    pub fn figure_of_cost(figure: Objective, cost: f64, rate: f64) -> f64 {
        match figure {
            Objective::MoneyPerHour => cost,
            Objective::Money => cost * MILLION / HOUR / rate,
            _ => cost / rate,
        }
    }
}

/// What serving by a plan costs while it runs at its throughput, in the unit of the figure. None where a part of it is
/// not known, or the plan is malformed.
#[must_use]
pub fn spent(plan: &Plan, problem: &PlacementProblem, figure: Objective) -> Option<f64> {
    let problem = serving(problem);
    let rate = evaluate(plan, &at_throughput(&problem)).throughput?.value();
    let loads = loads(plan, &problem)?;
    let mut cost = 0.0;
    for device in plan.stages.iter().flat_map(|stage| &stage.devices) {
        let id = problem.graph.find(device)?;
        let Cost { held, worked } = problem.cost(id, figure)?;
        cost += held + worked * loads[id.index()];
    }
    let spent = PlacementProblem::figure_of_cost(figure, cost, rate);
    (rate > 0.0 && spent.is_finite()).then_some(spent)
}

/// Any figure of a plan, whatever it was made for.
#[must_use]
pub fn figure(plan: &Plan, problem: &PlacementProblem, figure: Objective) -> Option<f64> {
    if figure.spends() {
        return spent(plan, problem, figure);
    }
    evaluate(plan, &at_throughput(problem)).value(figure)
}

/// The problem in which a plan serves many requests.
fn serving(problem: &PlacementProblem) -> Cow<'_, PlacementProblem> {
    if problem.objective.serves() { Cow::Borrowed(problem) } else { Cow::Owned(with_throughput(problem)) }
}

/// The problem by throughput, so that valuing a plan does not ask for what it costs again.
fn at_throughput(problem: &PlacementProblem) -> Cow<'_, PlacementProblem> {
    if problem.objective.spends() { Cow::Owned(with_throughput(problem)) } else { Cow::Borrowed(problem) }
}

fn with_throughput(problem: &PlacementProblem) -> PlacementProblem {
    let mut serving = problem.clone();
    serving.objective = Objective::Throughput;
    serving
}
