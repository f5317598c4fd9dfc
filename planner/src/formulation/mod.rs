//! The integer programs, and the solvers that take them: the only place with modelling crates.

pub(crate) mod chain;
pub(crate) mod positions;
pub(crate) mod program;
pub(crate) mod solve;
