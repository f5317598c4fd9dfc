//! Every request of every run: one column of dots per run, in the order they were made, with the prediction across.

use super::canvas::{Anchor, Axis, Ink, drawing, range, time_unit};
use crate::html::Html;
use crate::measure::values;
use crate::report::{Case, RunStatistic};
use crate::show::{self, Metric};

/// Most dots of one figure: past that, dots hide one another and the page grows.
pub(crate) const DOTS_MAX: usize = 2_000;
/// Up to so many, dots of a run are large: they rarely meet.
const FEW: usize = 24;
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 42.0;
const BOTTOM: f64 = 36.0;

/// A strip and how many of its requests are drawn, of how many.
pub(crate) struct Strip {
    /// The drawing; empty where there is nothing to show.
    pub(crate) figure: Html,
    /// Requests drawn.
    pub(crate) drawn: usize,
    /// Requests there are.
    pub(crate) all: usize,
}

/// The strip of one metric of one case.
pub(crate) fn strip(case: &Case, label: &str, metric: Metric, statistic: RunStatistic) -> Strip {
    let runs: Vec<Vec<f64>> = case.runs.iter().map(|run| values(&run.value.trace, metric)).collect();
    let all: usize = runs.iter().map(Vec::len).sum();
    let per_run = (DOTS_MAX / runs.len().max(1)).max(5);
    let thinned: Vec<Vec<f64>> = runs.into_iter().map(|values| thin(values, per_run)).collect();
    let drawn = thinned.iter().map(Vec::len).sum();
    let predicted = case
        .sealed
        .as_ref()
        .and_then(|s| s.figure(metric))
        .map(|value| (value, "sealed prediction"))
        .or_else(|| Some((case.simulated(metric, statistic)?, "simulated")));
    let reach = thinned.iter().flatten().copied().chain(predicted.map(|p| p.0));
    let Some((low, high)) = range(reach).filter(|_| drawn > 0) else {
        return Strip { figure: Html::none(), drawn: 0, all };
    };
    let (unit_name, unit) = time_unit(high);
    let title = format!("{} of every request, {label}", metric.words());
    let description = format!("{} in {}", show::counted(all, "request"), show::counted(thinned.len(), "run"));
    let figure = drawing((WIDTH, HEIGHT), &title, &description, |canvas| {
        let heading = format!("{label}: {}, {unit_name}", metric.words());
        canvas.text(Ink::Text, 13.0, (0.0, 10.0), Anchor::Start, &heading)?;
        let axis = Axis { values: (low, high), pixels: (HEIGHT - BOTTOM, TOP) };
        axis.grid(canvas, LEFT, WIDTH - RIGHT, unit, 5)?;
        // Under the dots, and named beside the heading: a name at the line would hide them.
        if let Some((value, name)) = predicted {
            canvas.dashed(Ink::Predicted, 1.75, (LEFT, axis.at(value)), (WIDTH - RIGHT, axis.at(value)))?;
            canvas.text(Ink::Muted, 11.0, (0.0, 24.0), Anchor::Start, &format!("dashed: {name}"))?;
        }
        let column = (WIDTH - LEFT - RIGHT) / thinned.len() as f64;
        let every = (thinned.len() / 16 + 1).max(1);
        for (i, run) in thinned.iter().enumerate() {
            let middle = LEFT + column * (i as f64 + 0.5);
            let spread = (column * 0.36).min(26.0);
            let (opacity, radius) = if run.len() <= FEW { (0.85, 3.4) } else { (0.55, 2.2) };
            for (k, value) in run.iter().enumerate() {
                // Spread over the column by the golden ratio: even, and the same on every page.
                let aside = ((k as f64 * 0.618_033_988_75).fract() * 2.0 - 1.0) * spread;
                canvas.dot(Ink::Measured, opacity, (middle + aside, axis.at(*value)), radius)?;
            }
            if i % every == 0 {
                let number = (i + 1).to_string();
                canvas.text(Ink::Muted, 11.0, (middle, HEIGHT - 23.0), Anchor::Middle, &number)?;
            }
        }
        canvas.text(Ink::Muted, 11.0, ((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 7.0), Anchor::Middle, "run")?;
        Ok(())
    });
    Strip { figure, drawn, all }
}

/// At most `wanted` of the values, at even ranks, smallest and largest among them.
pub(crate) fn thin(mut values: Vec<f64>, wanted: usize) -> Vec<f64> {
    values.retain(|v| v.is_finite());
    if values.len() <= wanted || wanted < 2 {
        return values;
    }
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    (0..wanted).map(|i| values[i * last / (wanted - 1)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_the_best_and_the_worst() {
        let many: Vec<f64> = (0..10_000).rev().map(f64::from).collect();
        let few = thin(many, 100);
        assert_eq!(few.len(), 100);
        assert_eq!((few[0], few[99]), (0.0, 9_999.0));
        assert_eq!(thin(vec![2.0, 1.0], 100), [2.0, 1.0]);
    }
}
