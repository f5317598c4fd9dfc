//! Types: every fault of a query that the table's columns reveal, before a row is looked at.

use super::value::{Table, Type, Value};
use super::{Expr, Node, Operator, QueryError, functions};

/// Where an expression stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) table: &'a Table,
    /// Expressions that rows are grouped by; none where they are not.
    pub(super) groups: Option<&'a [Node]>,
    /// Whether it is inside a function of a group or of neighbours.
    pub(super) inside: bool,
    /// Whether neighbours may be asked for.
    pub(super) neighbours: bool,
}

fn failed(node: &Node, what: impl Into<String>, remedy: impl Into<String>) -> QueryError {
    QueryError { at: node.at, what: what.into(), remedy: remedy.into() }
}

/// Requires one type of an expression; the unknown is of every type.
fn need(place: Place<'_>, node: &Node, wanted: Type) -> Result<(), QueryError> {
    let found = type_of(place, node)?;
    if found == wanted || found == Type::Any {
        return Ok(());
    }
    let what = format!("this is {}, not {}", found.words(), wanted.words());
    let remedy = match (found, wanted) {
        (Type::Text, Type::Number) => "quantity('5 ms') makes a number of a text with a unit",
        (_, Type::Truth) => "compare it with something",
        _ => "use another column",
    };
    Err(failed(node, what, remedy))
}

/// Requires a condition.
pub(super) fn condition(place: Place<'_>, node: &Node) -> Result<(), QueryError> {
    need(place, node, Type::Truth)
}

/// The two types as one. Errors: they differ.
fn same(node: &Node, a: Type, b: Type) -> Result<Type, QueryError> {
    match (a, b) {
        (Type::Any, other) | (other, Type::Any) => Ok(other),
        (a, b) if a == b => Ok(a),
        (a, b) => Err(failed(
            node,
            format!("{} is set against {}", a.words(), b.words()),
            "texts stand in 'single quotes', numbers do not; quantity('5 ms') makes a number of a text",
        )),
    }
}

fn column(place: Place<'_>, node: &Node, name: &str) -> Result<Type, QueryError> {
    let Some(column) = place.table.column(name) else {
        let mut names: Vec<&str> = place.table.columns().iter().map(|(name, _)| name.as_str()).collect();
        let near = |known: &&str| {
            known.contains(name)
                || name.contains(*known)
                || known.split('_').any(|part| part.len() > 3 && name.contains(part))
        };
        let close: Vec<&str> = names.iter().copied().filter(near).collect();
        names = if close.is_empty() { names } else { close };
        names.truncate(12);
        return Err(failed(
            node,
            format!("there is no column {name:?}"),
            format!("use one of {} ...", names.join(", ")),
        ));
    };
    Ok(column.kind())
}

/// The type of an expression. Errors: a column is not there, types do not fit, or it may not stand here.
pub(super) fn type_of(place: Place<'_>, node: &Node) -> Result<Type, QueryError> {
    if !place.inside && place.groups.is_some_and(|groups| groups.contains(node)) {
        return type_of(Place { groups: None, ..place }, node);
    }
    match &node.expr {
        Expr::Literal(Value::Null) => Ok(Type::Any),
        Expr::Literal(Value::Truth(_)) => Ok(Type::Truth),
        Expr::Literal(Value::Number(_)) => Ok(Type::Number),
        Expr::Literal(Value::Text(_)) => Ok(Type::Text),
        Expr::Column(name) => {
            let kind = column(place, node, name)?;
            if place.groups.is_some() && !place.inside {
                let what = format!("column {name:?} differs within a group");
                return Err(failed(node, what, "name it in GROUP BY, or ask for its min, max, mean or argmin"));
            }
            Ok(kind)
        }
        Expr::Not(inside) => need(place, inside, Type::Truth).map(|()| Type::Truth),
        Expr::Negative(inside) => need(place, inside, Type::Number).map(|()| Type::Number),
        Expr::IsNull(inside) => type_of(place, inside).map(|_| Type::Truth),
        Expr::Like(inside, _) => need(place, inside, Type::Text).map(|()| Type::Truth),
        Expr::Binary(operator, left, right) => match operator {
            Operator::And | Operator::Or => {
                need(place, left, Type::Truth)?;
                need(place, right, Type::Truth).map(|()| Type::Truth)
            }
            Operator::Plus | Operator::Minus | Operator::Times | Operator::Over | Operator::Modulo => {
                need(place, left, Type::Number)?;
                need(place, right, Type::Number).map(|()| Type::Number)
            }
            _ => same(node, type_of(place, left)?, type_of(place, right)?).map(|_| Type::Truth),
        },
        Expr::In(inside, list) => {
            let kind = type_of(place, inside)?;
            list.iter().try_for_each(|item| same(item, kind, type_of(place, item)?).map(|_| ())).map(|()| Type::Truth)
        }
        Expr::Case(arms, otherwise) => {
            let mut kind = Type::Any;
            for (when, then) in arms {
                need(place, when, Type::Truth)?;
                kind = same(then, kind, type_of(place, then)?)?;
            }
            match otherwise {
                Some(otherwise) => same(otherwise, kind, type_of(place, otherwise)?),
                None => Ok(kind),
            }
        }
        Expr::Call(name, arguments) => call(place, node, name, arguments),
        Expr::Over(_, argument, partition, order) => {
            if !place.neighbours || place.inside || place.groups.is_some() {
                let remedy = "neighbours are for SELECT, QUALIFY and ORDER BY, not nested, and not with GROUP BY";
                return Err(failed(node, "neighbours cannot be asked for here", remedy));
            }
            let inner = Place { inside: true, ..place };
            partition
                .iter()
                .chain(order.iter().map(|(node, _)| node))
                .try_for_each(|n| type_of(inner, n).map(|_| ()))?;
            type_of(inner, argument)
        }
    }
}

fn call(place: Place<'_>, node: &Node, name: &str, arguments: &[Node]) -> Result<Type, QueryError> {
    let mut inner = place;
    if functions::is_aggregate(name) {
        if place.groups.is_none() || place.inside {
            let remedy = "it stands in SELECT, HAVING or ORDER BY, and not inside another";
            return Err(failed(node, format!("{name} works on a group, and there is none here"), remedy));
        }
        inner.inside = true;
    }
    let kinds: Vec<Type> = arguments.iter().map(|node| type_of(inner, node)).collect::<Result<_, _>>()?;
    functions::typed(name, &kinds).map_err(|(i, wanted)| {
        let what = format!("{name} takes {} here, and this is {}", wanted.words(), kinds[i].words());
        failed(&arguments[i], what, "use another column; quantity('5 ms') makes a number of a text")
    })
}

/// Whether an expression asks something of a group.
pub(super) fn aggregates(node: &Node) -> bool {
    match &node.expr {
        Expr::Literal(_) | Expr::Column(_) | Expr::Over(..) => false,
        Expr::Not(inside) | Expr::Negative(inside) | Expr::IsNull(inside) | Expr::Like(inside, _) => aggregates(inside),
        Expr::Binary(_, left, right) => aggregates(left) || aggregates(right),
        Expr::In(inside, list) => aggregates(inside) || list.iter().any(aggregates),
        Expr::Case(arms, otherwise) => {
            arms.iter().any(|(when, then)| aggregates(when) || aggregates(then))
                || otherwise.as_ref().is_some_and(|node| aggregates(node))
        }
        Expr::Call(name, arguments) => functions::is_aggregate(name) || arguments.iter().any(aggregates),
    }
}
