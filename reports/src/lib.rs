#![forbid(unsafe_code)]
//! Renders a run as one self-contained page.
//!
//! Two doors: [`render`] makes a page of a [`Report`], [`render_sheet`] one of a [`Sheet`] of charts and tables; the
//! command line fills both from finished artefacts. Nothing is
//! recomputed here: predictions are shown as they were sealed, and where two artefacts disagree the page says so.

mod chrome;
mod contradictions;
mod figures;
mod html;
mod measure;
mod page;
mod report;
mod sections;
mod sheet;
mod show;
pub mod tables;
mod verdict;

pub use chrome::chrome_json;
pub use measure::{Spread, measured, run_figure};
pub use page::render;
pub use report::{
    Case, Command, Environment, Event, Evidence, Failure, FileDigest, LogEntry, Manifest, Report, RunStatistic, Sealed,
    SealedFigure, Step, Stored,
};
pub use sheet::{Axis, Chart, Grid, GridRow, Mark, Sheet, markdown, render_sheet};
