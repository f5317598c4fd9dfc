//! The figures of the page, drawn by plotters as SVG.

pub(crate) mod busy;
pub(crate) mod canvas;
pub(crate) mod parts;
pub(crate) mod plan;
pub(crate) mod requests;
pub(crate) mod series;
pub(crate) mod temperature;
pub(crate) mod truth;
