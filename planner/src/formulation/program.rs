//! An integer program as data, so that two solvers can be given the very same rows.

/// A column of a [`Program`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Column {
    /// Coefficient in the objective.
    pub cost: f64,
    /// Least value.
    pub lower: f64,
    /// Greatest value.
    pub upper: f64,
    /// Whether it must be whole.
    pub integer: bool,
}

/// How a row's left side relates to its right side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// At most.
    AtMost,
    /// Exactly.
    Equal,
    /// At least.
    AtLeast,
}

/// A row of a [`Program`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Columns and their coefficients; each column at most once.
    pub terms: Vec<(usize, f64)>,
    /// Relation of left to right side.
    pub relation: Relation,
    /// The right side.
    pub right: f64,
}

/// A mixed-integer linear program.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Program {
    /// Whether the objective is maximised.
    pub maximise: bool,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows.
    pub rows: Vec<Row>,
    /// What one unit of the objective is worth outside, for those who are told of progress; 0 where nobody is.
    pub unit: f64,
}

impl Program {
    /// Adds a column and returns its position.
    pub fn column(&mut self, cost: f64, lower: f64, upper: f64, integer: bool) -> usize {
        self.columns.push(Column { cost, lower, upper, integer });
        self.columns.len() - 1
    }

    /// Adds a row and returns its position.
    pub fn row(&mut self, terms: Vec<(usize, f64)>, relation: Relation, right: f64) -> usize {
        self.rows.push(Row { terms, relation, right });
        self.rows.len() - 1
    }

    /// Objective value of an assignment.
    pub fn value(&self, at: &[f64]) -> f64 {
        self.columns.iter().zip(at).map(|(column, x)| column.cost * x).sum()
    }

    /// Largest violation of any row or bound by an assignment.
    #[cfg(test)]
    pub fn violation(&self, at: &[f64]) -> f64 {
        let bounds = self.columns.iter().zip(at).map(|(column, &x)| (column.lower - x).max(x - column.upper));
        let rows = self.rows.iter().map(|row| {
            let left: f64 = row.terms.iter().map(|&(column, factor)| factor * at[column]).sum();
            match row.relation {
                Relation::AtMost => left - row.right,
                Relation::AtLeast => row.right - left,
                Relation::Equal => (left - row.right).abs(),
            }
        });
        bounds.chain(rows).fold(0.0, f64::max)
    }

    /// The same program with every column continuous.
    pub fn relaxed(&self) -> Self {
        let columns = self.columns.iter().map(|c| Column { integer: false, ..*c }).collect();
        Self { columns, ..self.clone() }
    }
}
