#![forbid(unsafe_code)]
//! Solves the placement of a model's layers as an integer program and proves how good the answer is.
