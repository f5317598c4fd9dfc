//! A page of charts and tables: what a batch or a benchmark found, as HTML, Markdown or JSON.
//!
//! The command line fills a [`Sheet`]; nothing is computed here but where things stand on the page.

mod chart;
mod markdown;

pub(crate) use chart::figure;
pub use markdown::markdown;

use crate::html::{Html, element, element_with, seq};
use serde::Serialize;

/// Everything that one page shows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sheet {
    /// Schema, for the form that programs read.
    pub schema: &'static str,
    /// Title of the page.
    pub title: String,
    /// The verdict in one sentence.
    pub headline: String,
    /// What else is to be said, most important first.
    pub sentences: Vec<String>,
    /// Figures that stand out: name, value, what it rests on.
    pub tiles: Vec<[String; 3]>,
    /// Charts.
    pub charts: Vec<Chart>,
    /// Tables.
    pub tables: Vec<Grid>,
    /// Where it happened, and digests: name and value.
    pub facts: Vec<[String; 2]>,
    /// Command lines that made it, in order.
    pub commands: Vec<String>,
}

/// Points over two quantities, or over names where `x` has no unit of its own.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The marks.
    pub marks: Vec<Mark>,
    /// Corners of a line that is drawn through, for example a frontier.
    pub line: Vec<(f64, f64)>,
    /// What the line is.
    pub line_name: String,
    /// What is to be known of it.
    pub note: String,
    /// The command that remakes it.
    pub remake: String,
    /// Digest of what it was made from.
    pub source: String,
}

/// An axis.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Axis {
    /// The quantity.
    pub name: String,
    /// Its unit; empty without one.
    pub unit: String,
    /// Whether equal ratios have equal lengths.
    pub log: bool,
}

/// One mark.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Mark {
    /// Where it stands.
    pub x: f64,
    /// Where it stands.
    pub y: f64,
    /// An interval around `y`; none where none is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// What it is, in words.
    pub words: String,
    /// Its group; groups differ in shape and colour.
    pub group: String,
    /// The row of a table that it belongs to.
    pub row: u64,
}

/// A table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Grid {
    /// What it shows.
    pub title: String,
    /// What is to be known of it.
    pub note: String,
    /// The columns: heading, and whether numbers stand below it.
    pub columns: Vec<(String, bool)>,
    /// The rows.
    pub rows: Vec<GridRow>,
}

/// A row of a table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GridRow {
    /// What marks of charts name it by; none where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// Its cells, as they are shown; empty where nothing is known.
    pub cells: Vec<String>,
}

/// Renders a sheet as one HTML page that asks the network for nothing and is whole without its script.
#[must_use]
pub fn render_sheet(sheet: &Sheet) -> String {
    let mut body = element("h1", &sheet.title);
    body.push(element_with("p", &[("class", "headline"), ("id", "verdict")], &sheet.headline));
    let tiles: Html = sheet
        .tiles
        .iter()
        .map(|[name, value, basis]| {
            let inside =
                seq![element("dt", name), element_with("dd", &[("class", "value")], value), element("dd", basis)];
            element_with("div", &[("class", "tile")], inside)
        })
        .collect();
    if !tiles.is_empty() {
        body.push(element_with("dl", &[("class", "tiles")], tiles));
    }
    let sentences: Html = sheet.sentences.iter().map(|sentence| element("li", sentence)).collect();
    if !sentences.is_empty() {
        body.push(element_with("ul", &[("class", "sentences")], sentences));
    }
    for (i, chart) in sheet.charts.iter().enumerate() {
        body.push(section(&format!("chart-{i}"), &chart.title, figure(chart)));
    }
    for (i, table) in sheet.tables.iter().enumerate() {
        body.push(section(&format!("table-{i}"), &table.title, grid(table)));
    }
    let facts: Html = sheet.facts.iter().map(|[name, value]| seq![element("dt", name), element("dd", value)]).collect();
    if !facts.is_empty() {
        body.push(section("environment", "Environment and digests", element_with("dl", &[("class", "terms")], facts)));
    }
    let commands: Html = sheet.commands.iter().map(|line| element("pre", line)).collect();
    if !commands.is_empty() {
        body.push(section("commands", "Commands", commands));
    }
    crate::page::wrap(&sheet.title, element("main", body))
}

fn section(id: &str, title: &str, inside: Html) -> Html {
    element_with("section", &[("id", id)], seq![element("h2", title), inside])
}

fn grid(table: &Grid) -> Html {
    let class = |number: bool| if number { "number" } else { "words" };
    let heads: Html = table
        .columns
        .iter()
        .map(|(name, number)| element_with("th", &[("scope", "col"), ("class", class(*number))], name))
        .collect();
    let rows: Html =
        table
            .rows
            .iter()
            .map(|row| {
                let cells: Html =
                    row.cells
                        .iter()
                        .zip(&table.columns)
                        .map(|(cell, (_, number))| {
                            if *number { element_with("td", &[("class", "number")], cell) } else { element("td", cell) }
                        })
                        .collect();
                let id = row.row.map(|row| format!("row-{row}"));
                id.map_or_else(|| element("tr", cells.clone()), |id| element_with("tr", &[("id", &id)], cells.clone()))
            })
            .collect();
    let whole = element("table", seq![element("thead", element("tr", heads)), element("tbody", rows)]);
    let note = if table.note.is_empty() { Html::none() } else { element_with("p", &[("class", "note")], &table.note) };
    seq![note, element_with("div", &[("class", "scroll"), ("tabindex", "0")], whole)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let mark = |x: f64, row| Mark {
            x,
            y: 2.0 * x,
            interval: Some((x, 3.0 * x)),
            words: "a <b>".into(),
            group: format!("g{}", row % 3),
            row,
        };
        Sheet {
            schema: "isotherm.sheet/v1",
            title: "A & b".into(),
            headline: "<it holds>".into(),
            charts: vec![Chart {
                title: "c".into(),
                x: Axis { name: "price".into(), unit: "USD".into(), log: true },
                y: Axis { name: "rate".into(), unit: "tok/s".into(), log: false },
                marks: (1..=20).map(|i| mark(f64::from(i), u64::from(i as u32))).collect(),
                line: vec![(1.0, 2.0), (20.0, 40.0)],
                ..Chart::default()
            }],
            tables: vec![Grid {
                title: "t".into(),
                columns: vec![("name".into(), false), ("n".into(), true)],
                rows: vec![GridRow { row: Some(1), cells: vec!["x|y".into(), "1".into()] }],
                ..Grid::default()
            }],
            ..Sheet::default()
        }
    }

    #[test]
    fn a_page_is_well_formed_and_its_only_script_is_the_one_that_its_policy_names() {
        let page = render_sheet(&sheet());
        let body = page.split_once('\n').expect("a doctype").1;
        let document = roxmltree::Document::parse(body).expect("well-formed");
        let scripts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("script")).collect();
        assert_eq!(scripts.len(), 1);
        assert_eq!(document.descendants().filter(|node| node.has_attribute("data-row")).count(), 20);
        let policy =
            document.descendants().find_map(|node| node.attribute("content").filter(|c| c.contains("script-src")));
        assert!(policy.expect("a policy").contains("'sha256-"));
        assert!(!page.contains("src=") && !page.contains("http:") || page.contains("http://www.w3.org/2000/svg"));
        assert!(page.contains("&lt;it holds&gt;") && page.contains("row-1"));
    }

    #[test]
    fn markdown_holds_the_same_figures_and_no_cell_breaks_its_row() {
        let text = markdown(&sheet());
        assert!(text.contains("| x\\|y | 1 |"), "{text}");
        assert!(text.contains("\\<it holds\\>"), "{text}");
    }
}
