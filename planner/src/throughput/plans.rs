//! Plans by one search after another.

use super::clip::Span;
use super::dive::Dives;
use super::random::Random;
use super::replay::Carried;
use super::settle::{Seen, settled};
use super::stretches::Grown;
use super::worths::Covers;
use super::{BestFlow, Flows, groups, lean, mixed, profiles, rails, stretches, sweep};
use crate::budget::Budget;
use crate::formulation::solve::SolverFault;
use crate::latency::chains::Link;
use isotherm_core::units::Seconds;

/// Most devices for which regions of rails are an integer program of a size worth solving.
const RAILS_DEVICES_MAX: usize = 64;
/// The same for sweeps over layers.
const SWEEPS_DEVICES_MAX: usize = 64;
/// The same for stretches of plans at one site, and the least.
const STRETCHES_DEVICES_MAX: usize = 64;
const STRETCHES_DEVICES_MIN: usize = 12;
/// The same for disjoint pipelines.
const PIPELINES_DEVICES_MAX: usize = 128;
/// Least devices for which dives are worth their while.
const DIVES_DEVICES_MIN: usize = 12;
/// Least devices for which blocks of several sites are looked for.
const MIXED_DEVICES_MIN: usize = 65;
/// Share of the time that it may take, and for how many devices it may take all.
const MIXED: f64 = 0.9;
const MIXED_DEVICES_MANY: usize = 160;
/// Dives of a round.
const DIVES: u64 = 40;
/// Most rounds.
const ROUNDS: u64 = 4;
/// Rounds of a brief search: what the first does not find is hardly ever found.
const ROUNDS_BRIEF: u64 = 1;
/// Share of the time that one search for plans in which sites stand side by side may take.
const PROFILES: f64 = 0.5;
/// The same where stairs are looked for.
const PROFILES_STAIRS: f64 = 0.1;
/// The same of sweeps over layers.
const SWEEPS: f64 = 0.5;
/// The same of stretches.
const STRETCHES: f64 = 0.6;
/// The same where sites are joined by slow ways of each pair of devices.
const SWEEPS_APART: f64 = 0.65;
/// The same where ways between two sites share a capacity.
const SWEEPS_SHARED: f64 = 0.35;

/// Share of the time for devices for what a search has found on even ways.
const SETTLING: f64 = 0.2;

/// What is kept from one call to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Stretches that were grown, and how often they were.
    grown: Grown,
    /// Searches before, each of which draws other numbers.
    pub turns: u64,
}

/// How plans are searched for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Whether a bound that is known decides the gap, so that only a much better plan is of use.
    pub brief: bool,
    /// Whether requests may not stay for long. Sites side by side have many devices in which they do, and what finds a
    /// plan in a moment comes first.
    pub hurry: bool,
}

/// One way to search.
#[derive(Debug, Clone, Copy)]
enum By {
    Profiles,
    Dives,
    Groups,
    Mixed,
    Rails,
    Stretches,
    Sweeps,
}

/// Which searches make a round, in turn.
const ROUND: [By; 6] = [By::Profiles, By::Dives, By::Sweeps, By::Stretches, By::Groups, By::Rails];
/// The same where stretches have been grown before.
const ROUND_AGAIN: [By; 6] = [By::Stretches, By::Sweeps, By::Profiles, By::Dives, By::Groups, By::Rails];
/// The same where sites are joined by slow ways of each pair of devices.
const ROUND_APART: [By; 5] = [By::Sweeps, By::Profiles, By::Dives, By::Groups, By::Rails];
/// The same where blocks of several sites are looked for.
const ROUND_MANY: [By; 3] = [By::Profiles, By::Mixed, By::Groups];
/// The same where requests may not stay for long. Blocks of rails take a moment, and find other plans from where dives
/// ended; the integer programs of regions of rails take as long as all else.
const ROUND_HURRY: [By; 3] = [By::Groups, By::Dives, By::Groups];

/// Plans by one search after another, until one closes the gap: each begins where another ended, because what one finds
/// in a moment another does not find at all. Where the ways of `flows` are even ones, devices for what is found are
/// looked for [on](settle) the true ones.
pub(super) fn plans(
    (flows, on): (&Flows<'_>, Option<&Flows<'_>>),
    spans: &[Vec<Span>],
    covers: &mut Covers,
    best: &mut BestFlow,
    (manner, memory): (Manner, &mut Memory),
    budget: &Budget<'_>,
) -> Result<(), SolverFault> {
    if best.enough(budget) {
        return Ok(());
    }
    let count = flows.tables.candidates.len();
    let mut random = Random::new(count as u64);
    if count <= PIPELINES_DEVICES_MAX
        && let Some((placement, carried)) = rails::disjoint(flows, best.bound, budget)?
    {
        offer((flows, on), best, (placement, carried), "disjoint pipelines", (&mut random, budget))?;
    }
    if manner.hurry
        && !best.enough(budget)
        && let Some((placement, carried)) = lean::search(flows, best.bound, best.goal(budget), budget)?
    {
        offer((flows, on), best, (placement, carried), "chains of least residence", (&mut random, budget))?;
    }
    let mut dives = Dives::new(flows, spans, best.bound);
    // At several sites, annealing gets further in the same time.
    let late = dives.sites() > 1 && !manner.hurry;
    // What sweeps have learnt.
    let mut learnt = Vec::new();
    // Between which rates regions of rails were looked for last.
    let mut railed = None;
    // Where ways between two sites share a capacity, sites side by side get further first.
    let pairs = late && flows.network.shared.is_empty();
    let many = pairs && count >= MIXED_DEVICES_MIN;
    let sides = if many && mixed::by_stairs(flows) { PROFILES_STAIRS } else { PROFILES };
    // What stairs were made of, from where they were first looked for.
    let mut stairs = None;
    let sweeps = match (late, pairs) {
        (false, _) => SWEEPS,
        (true, true) => SWEEPS_APART,
        (true, false) => SWEEPS_SHARED,
    };
    let round: &[By] = match (manner.hurry, many) {
        (true, _) => &ROUND_HURRY,
        (false, true) => &ROUND_MANY,
        (false, false) if pairs => &ROUND_APART,
        (false, false) if memory.turns > 0 => &ROUND_AGAIN,
        (false, false) => &ROUND,
    };
    for number in 0..if manner.brief { ROUNDS_BRIEF } else { ROUNDS } {
        let before = best.rate();
        for by in round {
            if best.enough(budget) {
                return Ok(());
            }
            let goal = best.goal(budget);
            // Devices for what is found on even ways are looked for afterwards.
            let whole = budget;
            let others = whole.seconds_left().filter(|_| on.is_some()).map(|left| left * SETTLING);
            let own = || Seconds::of((whole.seconds_left().zip(others)).map_or(0.0, |(a, b)| (a - b).max(0.0)));
            let searches = Budget { remaining: others.map(|_| &own as _).or(whole.remaining), ..*whole };
            let budget = &searches;
            let (found, method) = match by {
                By::Profiles => {
                    let search =
                        |budget: &Budget<'_>| profiles::search(flows, spans, best.reach(), goal, number, budget);
                    (budget.part(sides, search)?, "sites side by side")
                }
                By::Dives if count >= DIVES_DEVICES_MIN && (!late || number > 0) => {
                    (dives.search(flows, best.reach(), goal, DIVES, budget)?, "dives over blocks")
                }
                By::Stretches
                    if (STRETCHES_DEVICES_MIN..=STRETCHES_DEVICES_MAX).contains(&count) && dives.sites() == 1 =>
                {
                    let rates = (best.reach(), goal);
                    let Memory { grown, turns } = &mut *memory;
                    *turns += 1;
                    let search =
                        |budget: &Budget<'_>| stretches::search(flows, spans, covers, rates, (*turns, grown), budget);
                    (budget.part(STRETCHES, search)?, "stretches")
                }
                By::Sweeps if count <= SWEEPS_DEVICES_MAX => {
                    let rates = (best.reach(), goal);
                    let search = |budget: &Budget<'_>| {
                        sweep::search(flows, spans, covers, rates, (number + memory.turns, &mut learnt), budget)
                    };
                    (budget.part(sweeps, search)?, "sweeps over layers")
                }
                By::Groups => {
                    let known = best.placement.as_ref().map(|(placement, _)| placement.clone());
                    let found = groups::search(flows, spans, known.as_deref(), best.bound, number, budget)?;
                    (found, "blocks of rails")
                }
                By::Mixed => {
                    let known =
                        best.placement.as_ref().map(|(placement, carried)| (placement.as_slice(), carried.rate));
                    let rates = (best.bound, goal);
                    let search =
                        |budget: &Budget<'_>| mixed::search(flows, spans, known, rates, &mut stairs, number, budget);
                    (
                        budget.part(if count >= MIXED_DEVICES_MANY { 1.0 } else { MIXED }, search)?,
                        "blocks of several sites",
                    )
                }
                By::Rails if count <= RAILS_DEVICES_MAX => {
                    // Between the same rates the same would be found.
                    let rates = Some((best.reach(), goal));
                    if std::mem::replace(&mut railed, rates) == rates {
                        continue;
                    }
                    (rails::search(flows, covers, best.reach(), goal, budget)?, "regions of rails")
                }
                By::Dives | By::Rails | By::Stretches | By::Sweeps => continue,
            };
            if let Some(found) = found {
                offer((flows, on), best, found, method, (&mut random, whole))?;
            }
        }
        if count <= RAILS_DEVICES_MAX && number > 1 && best.rate() <= before {
            break;
        }
    }
    Ok(())
}

/// Offers what was found; where that was on even ways, the best that can be made of it on the true ones.
fn offer(
    (flows, on): (&Flows<'_>, Option<&Flows<'_>>),
    best: &mut BestFlow,
    found: (Vec<Link>, Carried),
    method: &'static str,
    (random, budget): (&mut Random, &Budget<'_>),
) -> Result<(), SolverFault> {
    let found = match on {
        None => Some(found),
        Some(on) => {
            let mut plans = flows.seen.map(Seen::take).unwrap_or_default();
            if !plans.iter().any(|(placement, _)| *placement == found.0) {
                let position = plans.partition_point(|(_, carried)| carried.rate >= found.1.rate);
                plans.insert(position, found);
            }
            let rate = best.reach();
            budget.part(SETTLING, |budget| settled(on, plans, rate, random, budget))?
        }
    };
    if let Some((placement, carried)) = found {
        best.offer(placement, carried, method);
        best.report(budget);
    }
    Ok(())
}
