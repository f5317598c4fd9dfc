//! Parts of the time of requests, as shares of the whole.

use super::canvas::{Anchor, Ink, drawing, fit};
use crate::html::Html;
use crate::sections::attribution::{ranked, sums};
use isotherm_core::record::Attribution;

/// Most parts of one figure.
pub(crate) const PARTS_MAX: usize = 10;
const WIDTH: f64 = 460.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 30.0;
const ROW: f64 = 40.0;

/// The figure of one simulation: a row for each part, the share of the time to first token above that of the time per
/// output token; nothing where no request took any time.
pub(crate) fn parts(all: &Attribution, label: &str) -> Html {
    let sum = sums(all);
    let of = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    let row = |part: &isotherm_core::record::Part| {
        let shares = (of(part.ttft_seconds, sum.0), of(part.tpot_seconds, sum.1));
        (part.cause.word(), part.place.clone(), shares)
    };
    let rows: Vec<_> = ranked(all).into_iter().take(PARTS_MAX).map(row).collect();
    let finite = |shares: (f64, f64)| shares.0.is_finite() && shares.1.is_finite();
    if rows.iter().all(|(.., shares)| *shares == (0.0, 0.0)) || !rows.iter().all(|(.., shares)| finite(*shares)) {
        return Html::none();
    }
    let height = TOP + rows.len() as f64 * ROW + 4.0;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let sentence = |(cause, place, (first, each)): &(&str, String, (f64, f64))| {
        format!("{cause} {place}: {} of TTFT, {} of TPOT", percent(*first), percent(*each))
    };
    let description = rows.iter().map(sentence).collect::<Vec<_>>().join("; ");
    drawing((WIDTH, height), &format!("Where the time of requests goes, {label}"), &description, |canvas| {
        canvas.text(Ink::Text, 13.0, (0.0, 10.0), Anchor::Start, &format!("{label}: shares of the mean times"))?;
        let x = |share: f64| LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0);
        canvas.line(Ink::Muted, 0.75, (LEFT, TOP - 2.0), (LEFT, height - 6.0))?;
        for (i, (cause, place, (first, each))) in rows.iter().enumerate() {
            let y = TOP + i as f64 * ROW + 2.0;
            canvas.text(Ink::Text, 12.0, (LEFT - 8.0, y + 8.0), Anchor::End, cause)?;
            canvas.text(Ink::Muted, 11.0, (LEFT - 8.0, y + 23.0), Anchor::End, &fit(place, 11.0, LEFT - 12.0))?;
            canvas.outlined(Ink::Predicted, 1.5, (LEFT, y), (x(*first), y + 13.0))?;
            canvas.text(Ink::Text, 11.0, (x(*first) + 6.0, y + 7.0), Anchor::Start, &percent(*first))?;
            canvas.filled(Ink::Predicted, (LEFT, y + 17.0), (x(*each), y + 30.0))?;
            canvas.text(Ink::Text, 11.0, (x(*each) + 6.0, y + 24.0), Anchor::Start, &percent(*each))?;
        }
        Ok(())
    })
}
