//! Any text as quantities: an error, or a value whose own text is a quantity again.

use isotherm_core::units::{Bytes, BytesPerSecond, Celsius, Seconds, Watts};
use std::fmt::Display;
use std::str::FromStr;

fn reads_its_own_text<T: FromStr + Display>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let shown = value.to_string();
    assert!(shown.parse::<T>().is_ok(), "{text:?} shows as {shown:?}, which is no quantity");
}

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    reads_its_own_text::<Bytes>(text);
    reads_its_own_text::<BytesPerSecond>(text);
    reads_its_own_text::<Celsius>(text);
    reads_its_own_text::<Seconds>(text);
    reads_its_own_text::<Watts>(text);
}
