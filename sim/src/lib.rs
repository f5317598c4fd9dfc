#![forbid(unsafe_code)]
//! Discrete-event simulation of a plan in time and temperature.
