//! Answering a query over a table.

use super::check::{Place, aggregates, condition, type_of};
use super::value::{Column, Table, Type, Value};
use super::{Expr, Item, Node, Operator, Query, QueryError, functions};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Where an expression gets its values.
#[derive(Clone, Copy)]
struct Scope<'a> {
    table: &'a Table,
    /// The row, or the first of the group.
    row: usize,
    /// The rows of the group.
    rows: &'a [usize],
    /// Values over neighbours, computed beforehand.
    over: &'a [(Node, Vec<Value>)],
}

pub(super) fn answer(query: &Query, table: &Table) -> Result<Table, QueryError> {
    let items = items(query, table);
    let order: Vec<(Node, bool)> =
        query.order.iter().map(|(node, down)| (renamed(node, &items, table), *down)).collect();
    let asked = || items.iter().map(|(node, _)| node).chain(order.iter().map(|(node, _)| node));
    let having = query.having.as_ref().map(|node| renamed(node, &items, table));
    let grouped = !query.group.is_empty() || having.is_some() || asked().any(aggregates);
    let groups = grouped.then_some(query.group.as_slice());
    let plain = Place { table, groups: None, inside: false, neighbours: false };
    let place = Place { groups, neighbours: !grouped, ..plain };
    let qualify = query.qualify.as_ref().map(|node| renamed(node, &items, table));
    query.filter.iter().try_for_each(|node| condition(plain, node))?;
    query.group.iter().try_for_each(|node| type_of(plain, node).map(|_| ()))?;
    having.iter().chain(&qualify).try_for_each(|node| condition(place, node))?;
    asked().try_for_each(|node| type_of(place, node).map(|_| ()))?;

    let none = Scope { table, row: 0, rows: &[], over: &[] };
    let holds = |scope: Scope<'_>, node: &Option<Node>| {
        node.as_ref().is_none_or(|node| value(scope, node).as_truth() == Some(true))
    };
    let kept: Vec<usize> = (0..table.rows()).filter(|&row| holds(Scope { row, ..none }, &query.filter)).collect();
    // One entry for each row of the answer: its first row, and the rows of its group.
    let mut units: Vec<(usize, Vec<usize>)> =
        if grouped { groups_of(query, none, &kept) } else { kept.iter().map(|&row| (row, Vec::new())).collect() };
    units.retain(|(row, rows)| holds(Scope { row: *row, rows, ..none }, &having));
    let mut over: Vec<(Node, Vec<Value>)> = Vec::new();
    if !grouped {
        let mut wanted = Vec::new();
        asked().chain(&qualify).for_each(|node| neighbours(node, &mut wanted));
        for node in wanted {
            if !over.iter().any(|(known, _)| *known == node) {
                let values = over_neighbours(none, &kept, &node);
                over.push((node, values));
            }
        }
    }
    let scoped = Scope { over: &over, ..none };
    units.retain(|(row, rows)| holds(Scope { row: *row, rows, ..scoped }, &qualify));
    let scope_of = |unit: usize| Scope { row: units[unit].0, rows: &units[unit].1, ..scoped };
    let mut rows: Vec<(Vec<Value>, Vec<Value>)> = (0..units.len())
        .map(|unit| {
            let scope = scope_of(unit);
            let keys = order.iter().map(|(node, _)| value(scope, node)).collect();
            (keys, items.iter().map(|(node, _)| value(scope, node)).collect())
        })
        .collect();
    if query.distinct {
        let mut seen: BTreeMap<Vec<Ordered>, ()> = BTreeMap::new();
        rows.retain(|(_, row)| seen.insert(row.iter().cloned().map(Ordered).collect(), ()).is_none());
    }
    rows.sort_by(|(a, _), (b, _)| sorted(a, b, order.iter().map(|(_, down)| *down)));
    rows.truncate(query.limit.unwrap_or(usize::MAX));

    let mut columns = Vec::new();
    for (i, (node, name)) in items.iter().enumerate() {
        let kind = type_of(place, node)?;
        let values = rows.iter().map(|(_, row)| row[i].clone()).collect();
        columns.push((name.clone(), Column::of(values, if kind == Type::Any { Type::Text } else { kind })));
    }
    let doubled = QueryError {
        at: 0,
        what: "two columns of the answer have one name".to_owned(),
        remedy: "call one of them otherwise, with AS".to_owned(),
    };
    Table::new(columns).ok_or(doubled)
}

/// What is selected, with its names.
fn items(query: &Query, table: &Table) -> Vec<(Node, String)> {
    let mut items = Vec::new();
    for item in &query.items {
        match item {
            Item::Named(node, name) => items.push((node.clone(), name.clone())),
            Item::All => items.extend(
                table
                    .columns()
                    .iter()
                    .map(|(name, _)| (Node { at: 0, expr: Expr::Column(name.clone()) }, name.clone())),
            ),
        }
    }
    items
}

/// An expression in which the names of what is selected are replaced by what they stand for; a column of that name goes
/// before.
fn renamed(node: &Node, items: &[(Node, String)], table: &Table) -> Node {
    let again = |node: &Node| renamed(node, items, table);
    let boxed = |node: &Node| Box::new(again(node));
    let pairs = |order: &[(Node, bool)]| order.iter().map(|(node, down)| (again(node), *down)).collect();
    let expr = match &node.expr {
        Expr::Column(name) if table.column(name).is_none() => {
            return items
                .iter()
                .find(|(_, known)| known == name)
                .map_or_else(|| node.clone(), |(found, _)| found.clone());
        }
        Expr::Literal(_) | Expr::Column(_) => node.expr.clone(),
        Expr::Not(inside) => Expr::Not(boxed(inside)),
        Expr::Negative(inside) => Expr::Negative(boxed(inside)),
        Expr::IsNull(inside) => Expr::IsNull(boxed(inside)),
        Expr::Like(inside, pattern) => Expr::Like(boxed(inside), pattern.clone()),
        Expr::Binary(operator, left, right) => Expr::Binary(*operator, boxed(left), boxed(right)),
        Expr::In(inside, list) => Expr::In(boxed(inside), list.iter().map(again).collect()),
        Expr::Case(arms, otherwise) => Expr::Case(
            arms.iter().map(|(when, then)| (again(when), again(then))).collect(),
            otherwise.as_ref().map(|node| boxed(node)),
        ),
        Expr::Call(name, arguments) => Expr::Call(name.clone(), arguments.iter().map(again).collect()),
        Expr::Over(name, argument, partition, order) => {
            Expr::Over(name.clone(), boxed(argument), partition.iter().map(again).collect(), pairs(order))
        }
    };
    Node { at: node.at, expr }
}

/// A value in its total order.
#[derive(Clone, PartialEq)]
struct Ordered(Value);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.order(&other.0)
    }
}

/// Unknown values last, whichever way the others go.
fn sorted(a: &[Value], b: &[Value], down: impl Iterator<Item = bool>) -> Ordering {
    for ((a, b), down) in a.iter().zip(b).zip(down) {
        let order = if down && !a.is_null() && !b.is_null() { b.order(a) } else { a.order(b) };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Groups in the order of their first rows; one of all rows where nothing is grouped by.
fn groups_of(query: &Query, scope: Scope<'_>, kept: &[usize]) -> Vec<(usize, Vec<usize>)> {
    if query.group.is_empty() {
        return vec![(kept.first().copied().unwrap_or(0), kept.to_vec())];
    }
    let mut place: BTreeMap<Vec<Ordered>, usize> = BTreeMap::new();
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for &row in kept {
        let key = query.group.iter().map(|node| Ordered(value(Scope { row, ..scope }, node))).collect();
        let at = *place.entry(key).or_insert_with(|| {
            groups.push((row, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(row);
    }
    groups
}

/// Every question about neighbours in an expression.
fn neighbours(node: &Node, found: &mut Vec<Node>) {
    match &node.expr {
        Expr::Over(..) => found.push(node.clone()),
        Expr::Literal(_) | Expr::Column(_) => {}
        Expr::Not(inside) | Expr::Negative(inside) | Expr::IsNull(inside) | Expr::Like(inside, _) => {
            neighbours(inside, found);
        }
        Expr::Binary(_, left, right) => {
            neighbours(left, found);
            neighbours(right, found);
        }
        Expr::In(inside, list) => {
            neighbours(inside, found);
            list.iter().for_each(|node| neighbours(node, found));
        }
        Expr::Case(arms, otherwise) => {
            arms.iter().for_each(|(when, then)| {
                neighbours(when, found);
                neighbours(then, found);
            });
            otherwise.iter().for_each(|node| neighbours(node, found));
        }
        Expr::Call(_, arguments) => arguments.iter().for_each(|node| neighbours(node, found)),
    }
}

/// The values of a question about neighbours, by row of the table.
fn over_neighbours(scope: Scope<'_>, kept: &[usize], node: &Node) -> Vec<Value> {
    let mut values = vec![Value::Null; scope.table.rows()];
    let Expr::Over(name, argument, partition, order) = &node.expr else { return values };
    let mut parts: BTreeMap<Vec<Ordered>, Vec<(Vec<Value>, usize)>> = BTreeMap::new();
    for &row in kept {
        let at = Scope { row, ..scope };
        let key = partition.iter().map(|node| Ordered(value(at, node))).collect();
        let place = order.iter().map(|(node, _)| value(at, node)).collect();
        parts.entry(key).or_default().push((place, row));
    }
    for part in parts.values_mut() {
        part.sort_by(|(a, _), (b, _)| sorted(a, b, order.iter().map(|(_, down)| *down)));
        for pair in part.windows(2) {
            let (from, to) = if name == "lag" { (pair[0].1, pair[1].1) } else { (pair[1].1, pair[0].1) };
            values[to] = value(Scope { row: from, ..scope }, argument);
        }
    }
    values
}

/// The value of an expression whose types were checked.
fn value(scope: Scope<'_>, node: &Node) -> Value {
    match &node.expr {
        Expr::Literal(value) => value.clone(),
        Expr::Column(name) => scope.table.column(name).map_or(Value::Null, |column| column.value(scope.row)),
        Expr::Not(inside) => value(scope, inside).as_truth().map_or(Value::Null, |truth| Value::Truth(!truth)),
        Expr::Negative(inside) => value(scope, inside).as_number().map_or(Value::Null, |n| Value::number(-n)),
        Expr::IsNull(inside) => Value::Truth(value(scope, inside).is_null()),
        Expr::Like(inside, pattern) => {
            value(scope, inside).as_text().map_or(Value::Null, |text| Value::Truth(like(text, pattern)))
        }
        Expr::Binary(operator, left, right) => binary(scope, *operator, left, right),
        Expr::In(inside, list) => {
            let wanted = value(scope, inside);
            let mut unknown = wanted.is_null();
            for item in list {
                let item = value(scope, item);
                unknown |= item.is_null();
                if !item.is_null() && item == wanted {
                    return Value::Truth(true);
                }
            }
            if unknown { Value::Null } else { Value::Truth(false) }
        }
        Expr::Case(arms, otherwise) => {
            let chosen = arms.iter().find(|(when, _)| value(scope, when).as_truth() == Some(true));
            chosen.map(|(_, then)| then).or(otherwise.as_deref()).map_or(Value::Null, |node| value(scope, node))
        }
        Expr::Call(name, arguments) => {
            let of = |scope: Scope<'_>| arguments.iter().map(|node| value(scope, node)).collect::<Vec<_>>();
            if functions::is_aggregate(name) {
                let rows: Vec<Vec<Value>> = scope.rows.iter().map(|&row| of(Scope { row, ..scope })).collect();
                functions::group(name, &rows)
            } else {
                functions::row(name, &of(scope))
            }
        }
        Expr::Over(..) => {
            let known = scope.over.iter().find(|(known, _)| known == node);
            known.and_then(|(_, values)| values.get(scope.row)).cloned().unwrap_or(Value::Null)
        }
    }
}

fn binary(scope: Scope<'_>, operator: Operator, left: &Node, right: &Node) -> Value {
    let (a, b) = (value(scope, left), value(scope, right));
    if let Operator::And | Operator::Or = operator {
        let decides = operator == Operator::Or;
        return match (a.as_truth(), b.as_truth()) {
            (Some(truth), _) | (_, Some(truth)) if truth == decides => Value::Truth(decides),
            (Some(_), Some(_)) => Value::Truth(!decides),
            _ => Value::Null,
        };
    }
    if a.is_null() || b.is_null() {
        return Value::Null;
    }
    let order = if let (Value::Number(a), Value::Number(b)) = (&a, &b) {
        // Here, as in arithmetic, 0 is -0.
        a.partial_cmp(b).unwrap_or(Ordering::Equal)
    } else {
        a.order(&b)
    };
    let numbers = |of: fn(f64, f64) -> f64| match (a.as_number(), b.as_number()) {
        (Some(a), Some(b)) => Value::number(of(a, b)),
        _ => Value::Null,
    };
    match operator {
        Operator::Equal => Value::Truth(order.is_eq()),
        Operator::Unequal => Value::Truth(order.is_ne()),
        Operator::Less => Value::Truth(order.is_lt()),
        Operator::AtMost => Value::Truth(order.is_le()),
        Operator::More => Value::Truth(order.is_gt()),
        Operator::AtLeast => Value::Truth(order.is_ge()),
        Operator::Plus => numbers(|a, b| a + b),
        Operator::Minus => numbers(|a, b| a - b),
        Operator::Times => numbers(|a, b| a * b),
        Operator::Over => numbers(|a, b| a / b),
        Operator::Modulo => numbers(|a, b| a % b),
        Operator::And | Operator::Or => Value::Null,
    }
}

/// Whether a text matches a pattern in which `%` is any text and `_` any character.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p) = (0, 0);
    // Where the last `%` stands, and how much of the text it has taken.
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '%' {
            back = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '_' || pattern[p] == text[t]) {
            (t, p) = (t + 1, p + 1);
        } else if let Some((star, taken)) = back {
            back = Some((star, taken + 1));
            (t, p) = (taken + 1, star + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '%')
}
