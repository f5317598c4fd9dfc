//! A sheet as Markdown, for places where no HTML goes.

use super::{Chart, Sheet};
use std::fmt::Write as _;

/// Text that means nothing to Markdown.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for c in crate::html::clean(text).chars() {
        match c {
            '\n' | '\t' => out.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// The sheet as Markdown. Charts become the points of their line, where they have one, since Markdown draws nothing.
#[must_use]
pub fn markdown(sheet: &Sheet) -> String {
    let mut text = format!("# {}\n\n**{}**\n\n", plain(&sheet.title), plain(&sheet.headline));
    for [name, value, basis] in &sheet.tiles {
        let _ = writeln!(text, "* {}: **{}** ({})", plain(name), plain(value), plain(basis));
    }
    for sentence in &sheet.sentences {
        let _ = writeln!(text, "* {}", plain(sentence));
    }
    for chart in sheet.charts.iter().filter(|chart| !chart.line.is_empty()) {
        line(&mut text, chart);
    }
    for table in &sheet.tables {
        let _ = writeln!(text, "\n## {}\n", plain(&table.title));
        if !table.note.is_empty() {
            let _ = writeln!(text, "{}\n", plain(&table.note));
        }
        let heads: Vec<String> = table.columns.iter().map(|(name, _)| plain(name)).collect();
        let rules: Vec<&str> = table.columns.iter().map(|(_, number)| if *number { "---:" } else { "---" }).collect();
        let _ = writeln!(text, "| {} |\n| {} |", heads.join(" | "), rules.join(" | "));
        for row in &table.rows {
            let cells: Vec<String> = row.cells.iter().map(|cell| plain(cell)).collect();
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    if !sheet.facts.is_empty() {
        text.push_str("\n## Environment and digests\n\n");
        for [name, value] in &sheet.facts {
            let _ = writeln!(text, "* {}: {}", plain(name), plain(value));
        }
    }
    if !sheet.commands.is_empty() {
        text.push_str("\n## Commands\n\n");
        for command in &sheet.commands {
            let _ = writeln!(text, "    {}", command.replace('\n', " "));
        }
    }
    text
}

fn line(text: &mut String, chart: &Chart) {
    let head = |axis: &super::Axis| {
        if axis.unit.is_empty() { axis.name.clone() } else { format!("{} ({})", axis.name, axis.unit) }
    };
    let _ = writeln!(text, "\n## {}\n\n{}\n", plain(&chart.title), plain(&chart.line_name));
    let _ = writeln!(text, "| {} | {} |\n| ---: | ---: |", plain(&head(&chart.x)), plain(&head(&chart.y)));
    for (x, y) in &chart.line {
        let _ = writeln!(text, "| {x} | {y} |");
    }
}
