//! The sections of the page after the verdict, and what they share: how a figure names the command that remakes it
//! and how a number names the artefact it comes from.

use crate::html::{Html, element, element_with, seq};
use crate::report::{Report, Step};
use isotherm_core::digest::Digest;
use std::collections::BTreeSet;

pub(crate) mod attribution;
pub(crate) mod certificates;
pub(crate) mod devices;
pub(crate) mod environment;
pub(crate) mod evidence;
pub(crate) mod frontier;
pub(crate) mod plans;
pub(crate) mod requests;
pub(crate) mod series;
pub(crate) mod thermal;
pub(crate) mod truth;

/// A section with its anchor and heading.
pub(crate) fn section(id: &'static str, heading: &'static str, inside: Html) -> Html {
    element_with("section", &[("id", id)], seq![element("h2", heading), inside])
}

/// A drawing with its caption and the commands that remake it; nothing without a drawing.
pub(crate) fn figure(report: &Report, drawing: Html, caption: impl Into<Html>, steps: &[Step]) -> Html {
    if drawing.is_empty() {
        return Html::none();
    }
    let caption = element("figcaption", seq![caption, " ", remake(report, steps)]);
    let scroll = element_with("div", &[("class", "scroll"), ("tabindex", "0")], drawing);
    element("figure", seq![scroll, caption])
}

/// What the marks of a figure mean.
pub(crate) fn legend(marks: &[(Mark, &'static str)]) -> Html {
    let items: Html = marks
        .iter()
        .map(|(mark, meaning)| {
            let (class, symbol) = match mark {
                Mark::Diamond => ("key ink-predicted", "◇"),
                Mark::Outline => ("key ink-predicted", "▭"),
                Mark::Filled => ("key ink-predicted", "▬"),
                Mark::Line => ("key ink-predicted", "━"),
                Mark::Dot => ("key ink-measured", "●"),
                Mark::Bar => ("key ink-measured", "▬"),
                Mark::Whisker => ("key ink-text", "⊢⊣"),
                Mark::Dashes => ("key ink-predicted", "╌╌"),
                Mark::Limit => ("key ink-limit", "╌╌"),
            };
            let symbol = element_with("span", &[("class", class), ("aria-hidden", "true")], symbol);
            element_with("span", &[("class", "mark")], seq![symbol, " ", *meaning])
        })
        .collect();
    element_with("p", &[("class", "legend")], items)
}

/// The marks that figures use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A predicted figure.
    Diamond,
    /// A predicted time as a bar.
    Outline,
    /// A second predicted figure as a bar, filled.
    Filled,
    /// A predicted curve.
    Line,
    /// One run or one request.
    Dot,
    /// A measured figure or time.
    Bar,
    /// A range over runs.
    Whisker,
    /// A predicted figure across a panel.
    Dashes,
    /// A limit.
    Limit,
}

/// Several drawings side by side under one legend and caption; nothing without a drawing.
pub(crate) fn figures(
    report: &Report,
    drawings: Vec<Html>,
    legend: Html,
    caption: impl Into<Html>,
    steps: &[Step],
) -> Html {
    let panels: Html =
        drawings.into_iter().filter(|d| !d.is_empty()).map(|d| element_with("div", &[("class", "panel")], d)).collect();
    if panels.is_empty() {
        return Html::none();
    }
    let caption = element("figcaption", seq![caption, " ", remake(report, steps)]);
    element("figure", seq![legend, element_with("div", &[("class", "panels")], panels), caption])
}

/// The commands that remake a figure, by number and, where it is one, by line.
fn remake(report: &Report, steps: &[Step]) -> Html {
    let lines: Vec<(usize, &str)> = report
        .commands
        .iter()
        .enumerate()
        .filter(|(_, c)| steps.contains(&c.step) || matches!(c.step, Step::Tour | Step::Report))
        .map(|(i, c)| (i + 1, c.line.as_str()))
        .collect();
    let inside = match lines.as_slice() {
        [] => Html::from("The command that remakes it was not recorded."),
        [(_, line)] => seq!["Remake: ", element("code", *line), "."],
        many => {
            let links: Html = many
                .iter()
                .take(12)
                .enumerate()
                .map(|(k, (number, line))| {
                    let href = format!("#command-{number}");
                    let link = element_with("a", &[("href", &href), ("title", line)], number.to_string());
                    seq![if k == 0 { "" } else { ", " }, link]
                })
                .collect();
            let more = if many.len() > 12 { " and more" } else { "" };
            seq!["Remake: commands ", links, more, "."]
        }
    };
    element_with("span", &[("class", "remake")], inside)
}

/// A digest, short, whole in its title, and linked to its file where the page lists it.
pub(crate) fn cite(report: &Report, digest: &Digest) -> Html {
    let whole = digest.to_string();
    let code = element_with("code", &[("title", &whole), ("class", "short")], digest.short());
    if evidence::listed(report).contains(digest) {
        element_with("a", &[("href", &format!("#file-{}", digest.short()))], code)
    } else {
        code
    }
}

/// Several digests in a row, the first few of them.
pub(crate) fn cite_all<'a>(report: &Report, digests: impl IntoIterator<Item = &'a Digest>) -> Html {
    let distinct: BTreeSet<&Digest> = digests.into_iter().collect();
    let count = distinct.len();
    let mut all = Html::none();
    for (i, digest) in distinct.into_iter().take(6).enumerate() {
        all.push(if i == 0 { "" } else { ", " });
        all.push(cite(report, digest));
    }
    if count > 6 {
        all.push(format!(" and {} more", count - 6));
    }
    all
}

/// What a table leaves out, in words; nothing where it is whole.
pub(crate) fn left_out(all: usize, shown: usize, what: &str) -> Html {
    if all <= shown {
        return Html::none();
    }
    element_with("p", &[("class", "note")], format!("{} of {all} {what} shown.", shown.min(all)))
}
