//! From logs to a chosen model: fits, cross-validation, refusals, baselines.

use super::candidate::Name;
use super::optimise::{Found, least_squares, normal_equations};
use super::power::PowerModel;
use super::replay::replay;
use super::{
    BTreeMap, Baseline, Course, Fit, FitError, Named, Offer, Predicted, Score, Search, Shape, Start, ThermalLog, Tried,
    Values, inverted, label,
};
use crate::thermal::matrix::{cholesky, inverse_diagonal};

/// Samples that say as much about a parameter as one independent one.
const SAMPLES_ALIKE: f64 = 40.0;
/// Blocks that a single log is divided into.
const BLOCKS: usize = 4;
/// What is lost by a simpler model that may be lost, as a share of the error.
const SIMPLER: f64 = 1.01;

/// A resistance or capacity whose 95 % interval ends at more than this many times where it begins is not determined:
/// it may as well be ten times as large or as small.
const INTERVAL_RATIO_MAX: f64 = 100.0;

/// How many times wider than in the fit expectations are for intervals.
const DOUBT: f64 = 2.0;

/// Distances, in the logarithm, at which the profile of what a die stores is looked at.
const PROFILE: [f64; 4] = [-1.5, -0.75, 0.75, 1.5];
/// How stiffly it is held there.
const PIN: f64 = 1e3;
/// Of one degree of freedom.
const CHI_SQUARED_95: f64 = 3.84;

/// A shape fitted to some logs.
struct Fitted {
    found: Found,
    values: Values,
}

/// Everything that fits share.
struct Bench<'l> {
    names: Vec<String>,
    logs: Vec<&'l ThermalLog>,
    courses: Vec<Course>,
    offer: Offer,
    start: Start,
    coldest: f64,
}

/// Identifies a device from training logs and scores it on test logs. Both are pairs of a name and a log.
/// Errors: see [`FitError`].
pub fn fit(train: &[(String, ThermalLog)], test: &[(String, ThermalLog)]) -> Result<Fit, FitError> {
    repeated(train, test)?;
    let mut notes = Vec::new();
    let blocks = blocks(train);
    let (scheme, parts): (&'static str, Vec<(String, &ThermalLog)>) = match (&blocks, train) {
        (_, []) => return Err(FitError::NoLog),
        (Some(blocks), _) => {
            ("each of four blocks of the log left out", blocks.iter().map(|(n, l)| (n.clone(), l)).collect())
        }
        (None, _) => ("each log left out", train.iter().map(|(name, log)| (name.clone(), log)).collect()),
    };
    let bench = Bench::of(parts)?;
    if bench.offer.gaps {
        notes.push(format!(
            "pauses of more than {} usual intervals hold no readings; the power in them is a parameter",
            super::replay::GAP
        ));
    }
    let whole = Bench::of(train.iter().map(|(name, log)| (name.clone(), log)).collect())?;
    let whole = Bench { offer: bench.offer, start: bench.start, ..whole };
    let tests: Vec<&ThermalLog> = test.iter().map(|(_, log)| log).collect();
    let mut baselines = bench.baselines(&whole, &tests);
    let constant = baselines[0].clone();
    let mut candidates = Vec::new();
    let mut kept = Vec::new();
    for shape in Shape::ALL {
        let all: Vec<usize> = (0..whole.logs.len()).collect();
        let fitted = whole.best(shape, &all);
        let errors: Vec<Vec<f64>> = all.iter().map(|&i| errors_of(shape, &fitted.values, &whole.courses[i])).collect();
        let folds = bench.folds(shape);
        let searches = shape.searches(whole.offer, &whole.start);
        let train = score(&errors);
        let mut refused = whole.faults(&searches, &fitted);
        refused.extend(undetermined(&whole.of_fit(&searches, &fitted, &errors)));
        let together: Vec<Vec<f64>> = folds.iter().map(|(_, errors)| errors.clone()).collect();
        if train.mae_celsius >= constant.train.mae_celsius {
            refused.push("it is no better than a constant temperature".to_owned());
        } else if score(&together).mae_celsius >= constant.cross_validation.mae_celsius {
            refused.push(format!(
                "on logs left out its mean error is {:.2} K, no better than a constant temperature with {:.2} K",
                score(&together).mae_celsius,
                constant.cross_validation.mae_celsius
            ));
        }
        candidates.push(Tried {
            model: shape.name(),
            parameters: shown(&searches, &fitted.found.point, whole.offer),
            train,
            cross_validation: score(&together),
            folds: named(&bench.names, &together),
            refused,
        });
        kept.push((shape, fitted, errors, folds));
    }
    let least = candidates.iter().filter(|c| c.refused.is_empty()).map(|c| c.cross_validation.mae_celsius);
    let least = least.fold(f64::INFINITY, f64::min);
    let chosen = candidates
        .iter()
        .position(|c| c.refused.is_empty() && c.cross_validation.mae_celsius <= least * SIMPLER)
        .ok_or_else(|| FitError::Unphysical(reasons(&candidates)))?;
    let (shape, fitted, train_errors, folds) = &kept[chosen];
    let searches = shape.searches(whole.offer, &whole.start);
    let courses: Vec<Course> = test.iter().map(|(_, log)| Course::of(log, log.watts.clone())).collect();
    let test_errors: Vec<Vec<f64>> = courses.iter().map(|course| errors_of(*shape, &fitted.values, course)).collect();
    let test_names: Vec<String> = test.iter().map(|(name, _)| name.clone()).collect();
    let one = &kept[0];
    let one_test: Vec<Vec<f64>> = courses.iter().map(|course| errors_of(one.0, &one.1.values, course)).collect();
    let some = |errors: &[Vec<f64>]| Score::of(&errors.concat());
    baselines.push(Baseline {
        name: "one-node",
        train: candidates[0].train,
        cross_validation: candidates[0].cross_validation,
        test: some(&one_test),
    });
    if whole.offer.ambient {
        notes
            .push("the ambient column was used: the reference is what the air around the device is over it".to_owned());
    }
    if whole.offer.fan {
        notes.push("the fan column was used in place of a fan that follows the temperature".to_owned());
    }
    Ok(Fit {
        model: shape.name(),
        parameters: candidates[chosen].parameters.clone(),
        intervals: whole.intervals(*shape, &searches, fitted, train_errors),
        train: candidates[chosen].train,
        train_files: named(&whole.names, train_errors),
        cross_validation: candidates[chosen].cross_validation,
        scheme,
        folds: candidates[chosen].folds.clone(),
        test: some(&test_errors),
        test_files: named(&test_names, &test_errors),
        baselines,
        predicted_power: bench.predicted(*shape, fitted, folds, &whole, &tests),
        candidates,
        notes,
        shape: *shape,
        values: fitted.values,
    })
}

/// Errors: a log is given twice, so that it would be left out of a fit and in it, or train and test at once.
fn repeated(train: &[(String, ThermalLog)], test: &[(String, ThermalLog)]) -> Result<(), FitError> {
    let logs: Vec<&(String, ThermalLog)> = train.iter().chain(test).collect();
    for (i, (second, log)) in logs.iter().enumerate() {
        let same = |(_, other): &&&(String, ThermalLog)| {
            other.seconds == log.seconds && other.watts == log.watts && other.celsius == log.celsius
        };
        if let Some((first, _)) = logs[..i].iter().find(same) {
            return Err(FitError::Repeated { first: first.clone(), second: second.clone() });
        }
    }
    Ok(())
}

/// Resistances and capacities whose interval says that they could be anything.
fn undetermined(intervals: &BTreeMap<&'static str, (f64, f64)>) -> Vec<String> {
    let positive = |name: &str| name.contains("resistance") || name.contains("capacity");
    let wide = intervals
        .iter()
        .filter(|&(name, &(low, high))| positive(name) && (high > low * INTERVAL_RATIO_MAX || (high - low).is_nan()));
    let fault = |(name, (low, high)): (&&'static str, &(f64, f64))| {
        format!(
            "the logs do not determine {name}: its 95 % interval is {low:.4} to {high:.4}, and a factor of \
             {INTERVAL_RATIO_MAX} is the most that is accepted"
        )
    };
    wide.map(fault).collect()
}

/// A single log in blocks.
fn blocks(train: &[(String, ThermalLog)]) -> Option<Vec<(String, ThermalLog)>> {
    let [(name, log)] = train else { return None };
    let size = log.len() / BLOCKS;
    let block = |b: usize| {
        let end = if b + 1 == BLOCKS { log.len() } else { (b + 1) * size };
        (format!("{name}, block {}", b + 1), log.part(b * size..end))
    };
    Some((0..BLOCKS).map(block).collect())
}

fn reasons(candidates: &[Tried]) -> Vec<String> {
    candidates.iter().map(|c| format!("{}: {}", c.model, c.refused.join(", "))).collect()
}

fn score(errors: &[Vec<f64>]) -> Score {
    Score::of(&errors.concat()).expect("a log has samples")
}

fn named(names: &[String], errors: &[Vec<f64>]) -> Vec<Named> {
    let one = |(name, errors): (&String, &Vec<f64>)| Some(Named { file: name.clone(), score: Score::of(errors)? });
    names.iter().zip(errors).filter_map(one).collect()
}

/// Predicted less measured temperature. A prediction that left all bounds counts as far off.
fn errors_of(shape: Shape, values: &Values, course: &Course) -> Vec<f64> {
    let error = |(predicted, measured): (&f64, &f64)| {
        let error = predicted - measured;
        if error.is_finite() { error.clamp(-500.0, 500.0) } else { 500.0 }
    };
    replay(shape, values, course).iter().zip(&course.celsius).map(error).collect()
}

fn constant_errors(train: &[&ThermalLog], scored: &[&ThermalLog]) -> Vec<Vec<f64>> {
    let all = || train.iter().flat_map(|log| &log.celsius);
    let mean = all().sum::<f64>() / all().count() as f64;
    scored.iter().map(|log| log.celsius.iter().map(|t| mean - t).collect()).collect()
}

/// A straight line of temperature over power.
fn linear_errors(train: &[&ThermalLog], scored: &[&ThermalLog]) -> Vec<Vec<f64>> {
    let pairs = || train.iter().flat_map(|log| log.watts.iter().zip(&log.celsius));
    let count = pairs().count() as f64;
    let (power, heat) = pairs().fold((0.0, 0.0), |(p, t), (x, y)| (p + x / count, t + y / count));
    let (both, own) = pairs()
        .fold((0.0, 0.0), |(both, own), (x, y)| (both + (x - power) * (y - heat), own + (x - power) * (x - power)));
    let slope = if own > 0.0 { both / own } else { 0.0 };
    let at = |(watts, celsius): (&f64, &f64)| heat + slope * (watts - power) - celsius;
    scored.iter().map(|log| log.watts.iter().zip(&log.celsius).map(at).collect()).collect()
}

fn shown(searches: &[Search], point: &[f64], offer: Offer) -> BTreeMap<&'static str, f64> {
    let one = |(search, &x): (&Search, &f64)| {
        let value = search.value(x);
        let value = if inverted(search.name) { 1.0 / value } else { value };
        (label(search.name, offer.ambient, offer.fan), value)
    };
    searches.iter().zip(point).map(one).collect()
}

impl<'l> Bench<'l> {
    fn of(logs: Vec<(String, &'l ThermalLog)>) -> Result<Self, FitError> {
        let (names, logs): (Vec<String>, Vec<&ThermalLog>) = logs.into_iter().unzip();
        let courses: Vec<Course> = logs.iter().map(|log| Course::of(log, log.watts.clone())).collect();
        let all = |of: fn(&ThermalLog) -> &Vec<f64>| logs.iter().flat_map(move |log| of(log)).copied();
        let span = |of| {
            let least = all(of).fold(f64::INFINITY, f64::min);
            (least, all(of).fold(f64::NEG_INFINITY, f64::max), all(of).sum::<f64>() / all(of).count().max(1) as f64)
        };
        let (least_watts, most_watts, watts) = span(|log| &log.watts);
        let (coldest, hottest, celsius) = span(|log| &log.celsius);
        if most_watts - least_watts < 0.05 * most_watts || hottest - coldest < 2.0 {
            return Err(FitError::NoContrast { least_watts, most_watts, coldest, hottest });
        }
        let offer = Offer {
            ambient: logs.iter().all(|log| log.ambient.is_some()),
            fan: logs.iter().all(|log| log.fan.is_some()),
            gaps: courses.iter().any(Course::has_gaps),
            memory: logs.iter().all(|log| log.memory.is_some()),
        };
        // A device warms by its mean power to its mean temperature, within some minutes.
        let conductance = watts / (celsius - 25.0).max(5.0);
        let fan_start = coldest + 0.4 * (hottest - coldest);
        let start = Start {
            conductance,
            capacity: conductance * 150.0,
            fan_start,
            idle: least_watts.max(0.1),
            most: most_watts,
        };
        Ok(Self { names, logs, courses, offer, start, coldest })
    }

    /// The points a search begins at: what is expected, and a quick die in slow surroundings.
    fn starts(searches: &[Search]) -> Vec<Vec<f64>> {
        let expected: Vec<f64> = searches.iter().map(|s| s.coordinate(s.expected)).collect();
        if !searches.iter().any(|s| s.name == Name::DieCapacity) {
            return vec![expected];
        }
        let mut quick = expected.clone();
        for (search, x) in searches.iter().zip(&mut quick) {
            match search.name {
                Name::DieCapacity | Name::DieResistance => *x -= 0.7,
                Name::CaseCapacity => *x -= 0.5,
                _ => {}
            }
        }
        vec![expected, quick]
    }

    fn best(&self, shape: Shape, logs: &[usize]) -> Fitted {
        let searches = shape.searches(self.offer, &self.start);
        let starts = 0..Self::starts(&searches).len();
        let found = starts.map(|start| self.from(shape, logs, start));
        found.min_by(|a, b| a.found.cost.total_cmp(&b.found.cost)).expect("there is a start")
    }

    fn from(&self, shape: Shape, logs: &[usize], start: usize) -> Fitted {
        let searches = shape.searches(self.offer, &self.start);
        let steps: Vec<f64> = searches.iter().map(Search::step).collect();
        let samples: usize = logs.iter().map(|&i| self.courses[i].len()).sum();
        let weight = (samples as f64 / SAMPLES_ALIKE).sqrt();
        let mut residuals = |point: &[f64]| {
            let values = Values::at(&searches, point);
            let mut all: Vec<f64> = Vec::with_capacity(samples + point.len());
            for &i in logs {
                all.extend(errors_of(shape, &values, &self.courses[i]));
            }
            all.extend(searches.iter().zip(point).map(|(search, &x)| weight * search.surprise(x)));
            all
        };
        let point = Self::starts(&searches).swap_remove(start);
        let found = least_squares(point, &steps, &mut residuals);
        let values = Values::at(&searches, &found.point);
        Fitted { found, values }
    }

    /// Values fitted without a log, and the errors on it.
    fn folds(&self, shape: Shape) -> Vec<(Values, Vec<f64>)> {
        (0..self.logs.len())
            .map(|out| {
                let others: Vec<usize> = (0..self.logs.len()).filter(|&i| i != out).collect();
                let values = self.best(shape, &others).values;
                (values, errors_of(shape, &values, &self.courses[out]))
            })
            .collect()
    }

    /// What cannot be, or is not known, about fitted parameters.
    fn faults(&self, searches: &[Search], fitted: &Fitted) -> Vec<String> {
        let mut faults = Vec::new();
        for (i, (search, &x)) in searches.iter().zip(&fitted.found.point).enumerate() {
            let name = label(search.name, self.offer.ambient, self.offer.fan);
            let value = search.value(x);
            if search.name == Name::Reference && !self.offer.ambient && value > self.coldest + 1.0 {
                faults.push(format!(
                    "{name} is {value:.1}, warmer than the coldest reading, {:.1} °C: no device is cooler than its air",
                    self.coldest
                ));
            }
            let free = matches!(search.name, Name::Lag | Name::GapPower | Name::MemoryPower);
            if !free && (value <= search.limits.0 || value >= search.limits.1) {
                faults.push(format!("{name} is at the end of what is possible, {value}"));
            }
            let variance = fitted.found.inverse.as_ref().map(|inverse| inverse[i]);
            if search.logarithmic && variance.is_none_or(|v| !v.is_finite()) {
                faults.push(format!("the logs do not determine {name}"));
            }
        }
        faults
    }

    /// 95 % intervals of the parameters: what the errors say, as many of which as are alike count as one, together with what
    /// is expected, no more certain than it is. In the fit the latter weighs more, so that it decides what logs leave open;
    /// an interval reaches from where the parameter would be without that weight, or is, whichever is further.
    fn intervals(
        &self,
        shape: Shape,
        searches: &[Search],
        fitted: &Fitted,
        errors: &[Vec<f64>],
    ) -> BTreeMap<&'static str, (f64, f64)> {
        let n = searches.len();
        let steps: Vec<f64> = searches.iter().map(Search::step).collect();
        let squares = errors.iter().flatten().map(|e| e * e).sum::<f64>();
        let freedom = errors.iter().map(Vec::len).sum::<usize>().saturating_sub(n).max(1) as f64;
        let weight = (squares / freedom * alike(errors)).max(f64::MIN_POSITIVE).sqrt();
        let mut residuals = |point: &[f64]| -> Vec<f64> {
            let values = Values::at(searches, point);
            let of_logs = self.courses.iter().flat_map(|course| errors_of(shape, &values, course));
            of_logs.chain(searches.iter().zip(point).map(|(search, &x)| weight / DOUBT * search.surprise(x))).collect()
        };
        let free = least_squares(fitted.found.point.clone(), &steps, &mut residuals);
        let here = residuals(&free.point);
        let (normal, _) = normal_equations(&free.point, &here, &steps, &mut residuals);
        let Some(lower) = cholesky(&normal, n) else { return BTreeMap::new() };
        let halves: Vec<f64> =
            inverse_diagonal(&lower, n).into_iter().map(|inverse| 1.96 * weight * inverse.sqrt()).collect();
        let mut points = vec![fitted.found.point.clone(), free.point.clone()];
        // What the die stores hardly shows, and everything else bends with it: others are as far as they go with whatever
        // of it the errors do not speak against (its profile likelihood).
        if let Some(die) = searches.iter().position(|search| search.name == Name::DieCapacity) {
            for away in PROFILE {
                let target = free.point[die] + away;
                let mut start = free.point.clone();
                start[die] = target;
                let mut pinned = |point: &[f64]| {
                    let mut all = residuals(point);
                    all.push(PIN * weight * (point[die] - target));
                    all
                };
                let found = least_squares(start, &steps, &mut pinned);
                if 2.0 * (found.cost - free.cost) <= CHI_SQUARED_95 * weight * weight {
                    points.push(found.point);
                }
            }
        }
        let end = |i: usize, sign: f64| {
            let reach = points.iter().map(|point| sign * point[i] + halves[i]).fold(f64::NEG_INFINITY, f64::max);
            sign * reach
        };
        self.named(searches, (0..n).map(|i| (end(i, -1.0), end(i, 1.0))))
    }

    /// The same as the fit itself weighs things, from which follows what logs do not determine.
    fn of_fit(&self, searches: &[Search], fitted: &Fitted, errors: &[Vec<f64>]) -> BTreeMap<&'static str, (f64, f64)> {
        let samples: usize = errors.iter().map(Vec::len).sum();
        let freedom = samples.saturating_sub(searches.len()).max(1) as f64;
        let variance = 2.0 * fitted.found.cost / freedom * alike(errors);
        let Some(inverse) = &fitted.found.inverse else { return BTreeMap::new() };
        let ends = fitted.found.point.iter().zip(inverse).map(|(&x, &inverse)| {
            let half = 1.96 * (variance * inverse).sqrt();
            (x - half, x + half)
        });
        self.named(searches, ends)
    }

    /// Intervals between coordinates of the search, by the names of the parameters.
    fn named(&self, searches: &[Search], ends: impl Iterator<Item = (f64, f64)>) -> BTreeMap<&'static str, (f64, f64)> {
        let one = |(search, (low, high)): (&Search, (f64, f64))| {
            let (mut low, mut high) = (search.value(low), search.value(high));
            if inverted(search.name) {
                (low, high) = (1.0 / high, 1.0 / low);
            }
            (label(search.name, self.offer.ambient, self.offer.fan), (low, high))
        };
        searches.iter().zip(ends).map(one).collect()
    }

    fn baselines(&self, whole: &Self, test: &[&ThermalLog]) -> Vec<Baseline> {
        type Rule = fn(&[&ThermalLog], &[&ThermalLog]) -> Vec<Vec<f64>>;
        let rules: [(&'static str, Rule); 2] = [("constant", constant_errors), ("static-linear", linear_errors)];
        let one = |(name, rule): (&'static str, Rule)| {
            let left_out = |out: usize| {
                let others: Vec<&ThermalLog> =
                    self.logs.iter().enumerate().filter(|&(i, _)| i != out).map(|(_, &log)| log).collect();
                rule(&others, &[self.logs[out]]).swap_remove(0)
            };
            let folds: Vec<Vec<f64>> = (0..self.logs.len()).map(left_out).collect();
            Baseline {
                name,
                train: score(&rule(&whole.logs, &whole.logs)),
                cross_validation: score(&folds),
                test: Score::of(&rule(&whole.logs, test).concat()),
            }
        };
        rules.into_iter().map(one).collect()
    }

    fn predicted(
        &self,
        shape: Shape,
        fitted: &Fitted,
        folds: &[(Values, Vec<f64>)],
        whole: &Self,
        test: &[&ThermalLog],
    ) -> Option<Predicted> {
        let model = PowerModel::fit(&whole.logs)?;
        let run = |model: &PowerModel, values: &Values, log: &ThermalLog| {
            Some(errors_of(shape, values, &Course::of(log, model.predict(log)?)))
        };
        let train: Vec<Vec<f64>> =
            whole.logs.iter().map(|log| run(&model, &fitted.values, log)).collect::<Option<_>>()?;
        let powers: Vec<f64> = whole
            .logs
            .iter()
            .flat_map(|log| {
                model.predict(log).unwrap_or_default().into_iter().zip(&log.watts).map(|(p, w)| (p - w).abs())
            })
            .collect();
        let folds: Vec<Vec<f64>> = folds
            .iter()
            .enumerate()
            .map(|(out, (values, _))| {
                let others = self.logs.iter().enumerate().filter(|&(i, _)| i != out).map(|(_, &log)| log);
                let model = PowerModel::fit(&others.collect::<Vec<_>>())?;
                run(&model, values, self.logs[out])
            })
            .collect::<Option<_>>()?;
        let test: Option<Vec<Vec<f64>>> = test.iter().map(|log| run(&model, &fitted.values, log)).collect();
        Some(Predicted {
            power_mae_watts: powers.iter().sum::<f64>() / powers.len() as f64,
            train: score(&train),
            cross_validation: score(&folds),
            test: test.and_then(|errors| Score::of(&errors.concat())),
        })
    }
}

/// How many samples say as much as one independent one: the integrated autocorrelation of the errors, summed until it
/// falls below a twentieth.
fn alike(errors: &[Vec<f64>]) -> f64 {
    let count: usize = errors.iter().map(Vec::len).sum();
    let variance = errors.iter().flatten().map(|e| e * e).sum::<f64>() / count.max(1) as f64;
    if variance <= 0.0 {
        return 1.0;
    }
    let mut sum = 1.0;
    for lag in 1..count / 4 {
        let products = errors.iter().flat_map(|log| log.iter().zip(log.iter().skip(lag)).map(|(a, b)| a * b));
        let correlation = products.sum::<f64>() / count as f64 / variance;
        if correlation < 0.05 {
            break;
        }
        sum += 2.0 * correlation;
    }
    sum
}
