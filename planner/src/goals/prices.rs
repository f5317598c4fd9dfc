//! The prices of layers that bound what a token costs from below, in floats; the checker sums them up by itself.
//!
//! For plans with rates from `low` to `high` the bound is `L p - sum over devices of most(p)`, see
//! `isotherm_core::check`. It is concave in the price `p`, so a ternary search finds the best one. Rates are divided
//! into spans, since what it costs to hold a stage is shared by more tokens the faster the plan is.

use crate::tables::Tables;
use crate::throughput::clip::{self, Weights};
use crate::throughput::network::Network;
use isotherm_core::check::open_batches;
use isotherm_core::plan::LayerPrice;
use isotherm_core::power::Draw;
use isotherm_core::problem::{Objective, PlacementProblem, floor};
use isotherm_core::spending::Cost;

/// Most spans of rates.
const SPANS_MAX: usize = 40;
/// Ratio of the ends of a span.
const SPAN: f64 = 1.04;
/// Steps of a search for a price, each leaving two thirds.
const THIRDS: usize = 90;
/// What rounding may have added, beyond what the checker takes off.
const ROUNDED: f64 = 1e-11;

/// A way of a kind of device to hold layers: how many, its rate, its rate without heat.
type Choice = (f64, f64, f64);

/// Devices that are alike: how many, their cost, and what they may hold.
struct Class {
    count: f64,
    cost: Cost,
    draw: Option<Draw>,
    choices: Vec<Choice>,
}

/// The greatest bound on what plans cost that reach the goals, and the prices that prove it; none where nothing is
/// known.
pub(crate) fn best(problem: &PlacementProblem) -> Option<(f64, Vec<LayerPrice>)> {
    if problem.may_group() || !problem.objective.spends() {
        return None;
    }
    // As the checker does for plans that heat may limit.
    let limited;
    let problem = if problem.limits.cold || isotherm_core::sustained::Envelope::of(problem).is_empty() {
        problem
    } else {
        limited = problem.sustained();
        &limited
    };
    let variants = problem.variants();
    let begin = floor(&problem.limits.goals);
    let mut least = f64::INFINITY;
    let mut prices = Vec::new();
    for batch in problem.batches() {
        let classes = classes(&variants, problem, batch)?;
        let most = most(&variants, batch) * (1.0 + 1e-6);
        let mut low = begin;
        for high in spans(begin, most) {
            if low > 0.0 && !open_batches(problem, low * (1.0 - 2e-9)).contains(&batch) {
                break;
            }
            let (price, bound) = priced(problem, &classes, (low, high));
            least = least.min(bound);
            let rate_max = Some(high).filter(|high| high.is_finite());
            prices.push(LayerPrice { batch, rate_max, price });
            low = high;
        }
    }
    (least.is_finite() && least > 0.0).then_some((least, prices))
}

/// Ends of the spans, the last without one.
fn spans(begin: f64, most: f64) -> Vec<f64> {
    let mut ends = Vec::new();
    let mut at = if begin > 0.0 { begin } else { most / SPAN.powi(24) };
    if begin <= 0.0 {
        ends.push(at);
    }
    while at * SPAN < most && ends.len() < SPANS_MAX {
        at *= SPAN;
        ends.push(at);
    }
    if at < most {
        ends.push(most);
    }
    ends.push(f64::INFINITY);
    ends
}

/// No plan in these batches is faster than the clip bound of any format.
fn most(variants: &[std::borrow::Cow<'_, PlacementProblem>], batch: u32) -> f64 {
    let of = |variant: &PlacementProblem| {
        let tables = Tables::new(variant, false);
        let network = Network::new(&tables, &variant.life(batch));
        let spans = clip::spans(&tables, &network);
        clip::bound(&clip::counts(&tables), &spans, tables.layers, Weights::PLAIN)
    };
    // With several formats, devices choose their own: the greatest alone bounds nothing.
    match variants {
        [one] => of(one),
        _ => f64::INFINITY,
    }
}

fn classes(
    variants: &[std::borrow::Cow<'_, PlacementProblem>],
    problem: &PlacementProblem,
    batch: u32,
) -> Option<Vec<Class>> {
    let life = problem.life(batch);
    let mut devices: Vec<(Cost, Option<Draw>, Vec<Choice>)> = vec![];
    let mut ids: Vec<Option<usize>> = vec![None; problem.graph.devices().len()];
    for variant in variants {
        let tables = Tables::new(variant, false);
        let cool = variant.at_duties(|_| Some(1.0));
        for candidate in &tables.candidates {
            let Some(cost) = problem.cost(candidate.id, problem.objective) else { continue };
            let at = *ids[candidate.id.index()].get_or_insert_with(|| {
                devices.push((cost, problem.draw(candidate.id), Vec::new()));
                devices.len() - 1
            });
            let kind = &tables.kinds[candidate.kind];
            let mut seen = std::collections::BTreeSet::new();
            for held in 1..=tables.layers {
                for start in 0..=tables.layers - held {
                    let end = start + held;
                    if end > kind.reach[start] || !seen.insert((held, start == 0, end == tables.layers)) {
                        continue;
                    }
                    let layers = crate::tables::interval(start, end);
                    let rate =
                        |problem: &PlacementProblem| problem.rate(candidate.id, layers, &life).map(|r| r.value());
                    if let (Some(rate), Some(cool)) = (rate(variant), rate(&cool)) {
                        devices[at].2.push((held as f64, rate, cool));
                    }
                }
            }
        }
    }
    let mut classes: Vec<Class> = Vec::new();
    for (cost, draw, choices) in devices {
        let alike = |class: &&mut Class| class.cost == cost && class.draw == draw && class.choices == choices;
        match classes.iter_mut().find(alike) {
            Some(class) => class.count += 1.0,
            None => classes.push(Class { count: 1.0, cost, draw, choices }),
        }
    }
    Some(classes)
}

/// The price that bounds most, and its bound.
fn priced(problem: &PlacementProblem, classes: &[Class], span: (f64, f64)) -> (f64, f64) {
    let layers = f64::from(problem.layers());
    let of = |price: f64| bound(problem, classes, span, price);
    // Above the cost per layer of the dearest way to pass one, the bound only falls.
    let dearest = classes.iter().flat_map(|class| {
        class.choices.iter().map(move |&(held, rate, cool)| {
            let rate = if span.0 > 0.0 { rate.min(span.0) } else { rate };
            let cost = if problem.objective == Objective::MoneyPerHour {
                class.cost.held / (rate / span.0.max(rate)) + class.cost.worked
            } else {
                PlacementProblem::figure_of_cost(
                    problem.objective,
                    class.cost.held / rate + class.cost.worked / cool,
                    1.0,
                )
            };
            cost / held
        })
    });
    let (mut low, mut high) = (0.0, dearest.fold(0.0, f64::max) * 2.0);
    for _ in 0..THIRDS {
        let third = (high - low) / 3.0;
        if of(low + third) < of(high - third) { low += third } else { high -= third }
    }
    let price = 0.5 * (low + high);
    let found = of(price);
    (price, found - ROUNDED * (layers * price).abs())
}

fn bound(problem: &PlacementProblem, classes: &[Class], (low, high): (f64, f64), price: f64) -> f64 {
    let hourly = problem.objective == Objective::MoneyPerHour;
    let most = |class: &Class| {
        let (Cost { held, worked }, draw) = (class.cost, class.draw.as_ref());
        let gained = |(layers, rate, cool): Choice, share: f64| {
            let load = PlacementProblem::least_load(draw, share / cool, low);
            let cost = if hourly {
                held + worked * load * low
            } else {
                let each = held * (1.0 / high).max(share / rate) + worked * load;
                PlacementProblem::figure_of_cost(problem.objective, each, 1.0)
            };
            price * layers * share - cost
        };
        let of_choice = |&choice: &Choice| {
            let end = if low > 0.0 { (choice.1 / low).min(1.0) } else { 1.0 };
            let bend = if high.is_finite() { (choice.1 / high).min(end) } else { end };
            let corners = draw.into_iter().flat_map(Draw::corners).filter(|_| low > 0.0);
            let corners = corners.map(|(work, _)| (work * choice.2 / low).min(end));
            corners.chain([end, bend]).map(|share| gained(choice, share)).fold(0.0, f64::max)
        };
        class.count * class.choices.iter().map(of_choice).fold(0.0, f64::max)
    };
    price * f64::from(problem.layers()) - classes.iter().map(most).sum::<f64>()
}
