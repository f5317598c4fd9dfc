//! Pages as a whole: every test renders one and reads it back with a strict XML parser.

mod absence;
mod contradiction;
mod frontier;
mod hostile;
mod page;
mod reading;
#[allow(dead_code, reason = "the example uses what no test does, and the other way round")]
mod sample;
mod size;
mod tables;
