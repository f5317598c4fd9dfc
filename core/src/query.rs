//! Questions over a table: a small subset of SQL, parsed, checked for types and answered here.
//!
//! ```sql
//! SELECT scenario, argmin(point, pile_price) AS point, min(pile_price) AS price
//! FROM results WHERE ttft_p90_seconds <= 2 AND status IN ('optimal', 'feasible')
//! GROUP BY scenario HAVING count(*) > 1 ORDER BY price LIMIT 10
//! ```
//!
//! * `SELECT [DISTINCT] expression [AS name], ... | *`, `FROM table`, `WHERE`, `GROUP BY`, `HAVING`, `QUALIFY` (a condition
//!   over neighbours), `ORDER BY expression [DESC]`, `LIMIT`, in this order; all but `SELECT` may be left out.
//! * Values are numbers, texts and truth values; null is unknown and a comparison with it is unknown (three-valued logic).
//!   Nulls sort last. Column names that are no plain word stand in double quotes: `"vary.environment.ambient"`.
//! * Operators: `OR AND NOT = <> != < <= > >= + - * / %`, `IS [NOT] NULL`, `[NOT] IN (..)`, `[NOT] BETWEEN .. AND ..`,
//!   `[NOT] LIKE 'a%_'`, `CASE WHEN .. THEN .. ELSE .. END`. Division by zero is null.
//! * Functions of a row: `abs round sqrt ln log10 pow least greatest coalesce if lower upper length contains starts_with
//!   quantity`; `quantity('10 Gbit/s')` is that quantity in base units.
//! * Over a group: `count(*) count sum mean min max median quantile(x, share) stddev share(condition) argmin(x, key)
//!   argmax(x, key)`. Quantiles are nearest ranks; `share` is the part of rows, among those that know, where it holds.
//! * Over neighbours: `lag(x)` and `lead(x)`, each with `OVER (PARTITION BY a, b ORDER BY c)`.
//!
//! The answer depends on nothing but the query and the table: rows keep the order of the table unless one is asked for,
//! groups the order of their first rows.

mod answer;
mod check;
mod functions;
mod parse;
mod tokens;
mod value;

pub use value::{Column, Table, Value};

/// Longest query, in bytes.
pub const TEXT_MAX: usize = 64 << 10;

/// What is wrong with a query, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the query, character {}: {what}; {remedy}", at + 1)]
pub struct QueryError {
    /// Characters before the place.
    pub at: usize,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// A query that was read; [`Query::answer`] checks it against a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub(crate) distinct: bool,
    pub(crate) items: Vec<Item>,
    /// The table it names, `results` unless stated.
    pub(crate) from: String,
    pub(crate) filter: Option<Node>,
    pub(crate) group: Vec<Node>,
    pub(crate) having: Option<Node>,
    pub(crate) qualify: Option<Node>,
    pub(crate) order: Vec<(Node, bool)>,
    pub(crate) limit: Option<usize>,
}

/// One thing that is selected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    All,
    Named(Node, String),
}

/// An expression and the character where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: usize,
    pub(crate) expr: Expr,
}

// Two expressions are the same wherever they stand.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.expr == other.expr
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Literal(Value),
    Column(String),
    Not(Box<Node>),
    Negative(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    IsNull(Box<Node>),
    In(Box<Node>, Vec<Node>),
    Like(Box<Node>, String),
    Case(Vec<(Node, Node)>, Option<Box<Node>>),
    /// A function of a row or a group; `count(*)` has no arguments.
    Call(String, Vec<Node>),
    /// A function over neighbours: its name and argument, the partition, the order.
    Over(String, Box<Node>, Vec<Node>, Vec<(Node, bool)>),
}

/// An operator between two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
    Plus,
    Minus,
    Times,
    Over,
    Modulo,
}

impl Query {
    /// Reads a query. Errors: where it is none, and what was expected there.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        parse::query(text)
    }

    /// The table that it asks.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.from
    }

    /// The answer as a table. Errors: a column is not there, or types do not fit.
    pub fn answer(&self, table: &Table) -> Result<Table, QueryError> {
        answer::answer(self, table)
    }
}

#[cfg(test)]
mod tests;
