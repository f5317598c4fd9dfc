//! The functions that a query may call.

use super::value::{Type, Value};
use std::ops::RangeInclusive;

/// What a function works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Row,
    Group,
    Neighbours,
}

/// Every function: name, what it works on, least and most arguments.
pub(super) const NAMES: [(&str, Scoped, usize, usize); 29] = [
    ("abs", Scoped(Scope::Row), 1, 1),
    ("round", Scoped(Scope::Row), 1, 2),
    ("sqrt", Scoped(Scope::Row), 1, 1),
    ("ln", Scoped(Scope::Row), 1, 1),
    ("log10", Scoped(Scope::Row), 1, 1),
    ("pow", Scoped(Scope::Row), 2, 2),
    ("least", Scoped(Scope::Row), 1, 16),
    ("greatest", Scoped(Scope::Row), 1, 16),
    ("coalesce", Scoped(Scope::Row), 1, 16),
    ("if", Scoped(Scope::Row), 3, 3),
    ("lower", Scoped(Scope::Row), 1, 1),
    ("upper", Scoped(Scope::Row), 1, 1),
    ("length", Scoped(Scope::Row), 1, 1),
    ("contains", Scoped(Scope::Row), 2, 2),
    ("starts_with", Scoped(Scope::Row), 2, 2),
    ("quantity", Scoped(Scope::Row), 1, 1),
    ("count", Scoped(Scope::Group), 0, 1),
    ("sum", Scoped(Scope::Group), 1, 1),
    ("mean", Scoped(Scope::Group), 1, 1),
    ("min", Scoped(Scope::Group), 1, 1),
    ("max", Scoped(Scope::Group), 1, 1),
    ("median", Scoped(Scope::Group), 1, 1),
    ("quantile", Scoped(Scope::Group), 2, 2),
    ("stddev", Scoped(Scope::Group), 1, 1),
    ("share", Scoped(Scope::Group), 1, 1),
    ("argmin", Scoped(Scope::Group), 2, 2),
    ("argmax", Scoped(Scope::Group), 2, 2),
    ("lag", Scoped(Scope::Neighbours), 1, 1),
    ("lead", Scoped(Scope::Neighbours), 1, 1),
];

/// A scope, private to this module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scoped(Scope);

fn find(name: &str) -> Option<&'static (&'static str, Scoped, usize, usize)> {
    NAMES.iter().find(|(known, ..)| *known == name)
}

/// How many arguments a function takes; none where there is no such function.
pub(super) fn arguments(name: &str) -> Option<RangeInclusive<usize>> {
    find(name).map(|(_, _, least, most)| *least..=*most)
}

/// Whether a function works on a group.
pub(super) fn is_aggregate(name: &str) -> bool {
    find(name).is_some_and(|(_, scope, ..)| scope.0 == Scope::Group)
}

/// Whether a function works on neighbours.
pub(super) fn is_neighbour(name: &str) -> bool {
    find(name).is_some_and(|(_, scope, ..)| scope.0 == Scope::Neighbours)
}

/// What a function's arguments must be and what it gives, from what they are; or which argument is wrong.
pub(super) fn typed(name: &str, given: &[Type]) -> Result<Type, (usize, Type)> {
    let need = |i: usize, kind: Type| match given.get(i) {
        Some(found) if *found != kind && *found != Type::Any => Err((i, kind)),
        _ => Ok(()),
    };
    let alike = |from: usize| {
        let kind = given[from..].iter().copied().find(|kind| *kind != Type::Any).unwrap_or(Type::Any);
        (from..given.len()).try_for_each(|i| need(i, kind)).map(|()| kind)
    };
    match name {
        "abs" | "round" | "sqrt" | "ln" | "log10" | "pow" | "sum" | "mean" | "median" | "quantile" | "stddev" => {
            (0..given.len()).try_for_each(|i| need(i, Type::Number)).map(|()| Type::Number)
        }
        "least" | "greatest" | "coalesce" => alike(0),
        "if" => need(0, Type::Truth).and_then(|()| alike(1)),
        "lower" | "upper" => need(0, Type::Text).map(|()| Type::Text),
        "length" | "quantity" => need(0, Type::Text).map(|()| Type::Number),
        "contains" | "starts_with" => need(0, Type::Text).and_then(|()| need(1, Type::Text)).map(|()| Type::Truth),
        "share" => need(0, Type::Truth).map(|()| Type::Number),
        "count" => Ok(Type::Number),
        // The least and most, and the value where something else is least or most, are of the first argument's type.
        _ => Ok(given.first().copied().unwrap_or(Type::Any)),
    }
}

/// A function of a row's values, which have the right types or are unknown.
pub(super) fn row(name: &str, values: &[Value]) -> Value {
    if name == "coalesce" {
        return values.iter().find(|value| !value.is_null()).cloned().unwrap_or(Value::Null);
    }
    if name == "if" {
        return values[if values[0].as_truth() == Some(true) { 1 } else { 2 }].clone();
    }
    if values.iter().any(Value::is_null) {
        return Value::Null;
    }
    let number = |i: usize| values.get(i).and_then(Value::as_number).unwrap_or(f64::NAN);
    let text = |i: usize| values.get(i).and_then(Value::as_text).unwrap_or_default();
    match name {
        "abs" => Value::number(number(0).abs()),
        "round" => {
            let digits = if values.len() > 1 { number(1).clamp(-300.0, 300.0) } else { 0.0 };
            let scale = libm::pow(10.0, libm::round(digits));
            Value::number(libm::round(number(0) * scale) / scale)
        }
        "sqrt" => Value::number(number(0).sqrt()),
        "ln" => Value::number(libm::log(number(0))),
        "log10" => Value::number(libm::log10(number(0))),
        "pow" => Value::number(libm::pow(number(0), number(1))),
        "least" => values.iter().min_by(|a, b| a.order(b)).cloned().unwrap_or(Value::Null),
        "greatest" => values.iter().max_by(|a, b| a.order(b)).cloned().unwrap_or(Value::Null),
        "lower" => Value::Text(text(0).to_lowercase()),
        "upper" => Value::Text(text(0).to_uppercase()),
        "length" => Value::number(text(0).chars().count() as f64),
        "contains" => Value::Truth(text(0).contains(text(1))),
        "starts_with" => Value::Truth(text(0).starts_with(text(1))),
        "quantity" => crate::text::base_value(text(0)).map_or(Value::Null, Value::number),
        _ => Value::Null,
    }
}

/// A function of a group, from the values of its arguments in each row.
pub(super) fn group(name: &str, rows: &[Vec<Value>]) -> Value {
    let known: Vec<&Value> = rows.iter().filter_map(|row| row.first()).filter(|value| !value.is_null()).collect();
    let mut numbers: Vec<f64> = known.iter().filter_map(|value| value.as_number()).collect();
    let count = numbers.len() as f64;
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / count;
    let rank = |numbers: &mut Vec<f64>, share: f64| {
        numbers.sort_by(f64::total_cmp);
        let at = (libm::ceil(share.clamp(0.0, 1.0) * count - 1e-9) as usize).max(1) - 1;
        numbers.get(at).copied().map_or(Value::Null, Value::number)
    };
    let beside = |rows: &[Vec<Value>], most: bool| {
        let mut best: Option<&Vec<Value>> = None;
        for row in rows.iter().filter(|row| !row[1].is_null()) {
            let better = |known: &Vec<Value>| {
                if most { row[1].order(&known[1]).is_gt() } else { row[1].order(&known[1]).is_lt() }
            };
            if best.is_none_or(better) {
                best = Some(row);
            }
        }
        best.map_or(Value::Null, |row| row[0].clone())
    };
    match name {
        // Without an argument, rows are counted.
        "count" if rows.first().is_some_and(Vec::is_empty) => Value::number(rows.len() as f64),
        "count" => Value::number(known.len() as f64),
        "sum" if numbers.is_empty() => Value::Null,
        "sum" => Value::number(numbers.iter().sum()),
        "mean" => Value::number(mean(&numbers)),
        "stddev" => {
            let middle = mean(&numbers);
            Value::number((numbers.iter().map(|x| (x - middle) * (x - middle)).sum::<f64>() / (count - 1.0)).sqrt())
        }
        "min" => known.iter().min_by(|a, b| a.order(b)).map_or(Value::Null, |value| (*value).clone()),
        "max" => known.iter().max_by(|a, b| a.order(b)).map_or(Value::Null, |value| (*value).clone()),
        "median" => rank(&mut numbers, 0.5),
        "quantile" => {
            let share = rows.first().and_then(|row| row.get(1)).and_then(Value::as_number);
            share.map_or(Value::Null, |share| rank(&mut numbers, share))
        }
        "share" => {
            let held = known.iter().filter(|value| value.as_truth() == Some(true)).count();
            Value::number(held as f64 / known.len() as f64)
        }
        "argmin" => beside(rows, false),
        "argmax" => beside(rows, true),
        _ => Value::Null,
    }
}
