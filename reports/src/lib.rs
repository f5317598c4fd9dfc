#![forbid(unsafe_code)]
//! Renders a run as one self-contained page.
