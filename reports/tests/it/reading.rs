//! Reads a page back: a strict parser that knows nothing of how it was written.

use isotherm_reports::{Report, render};
use roxmltree::{Document, Node, ParsingOptions};

/// A page and its text.
pub struct Page {
    text: String,
}

impl Page {
    /// Renders a report.
    ///
    /// # Panics
    /// If the page is not well-formed.
    pub fn of(report: &Report) -> Self {
        let page = Self { text: render(report) };
        page.document();
        page
    }

    /// The markup.
    pub fn markup(&self) -> &str {
        &self.text
    }

    /// The page as a tree.
    pub fn document(&self) -> Document<'_> {
        let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
        match Document::parse_with_options(&self.text, options) {
            Ok(document) => document,
            Err(error) => {
                let at = error.pos();
                let line = self.text.lines().nth(at.row.saturating_sub(1) as usize).unwrap_or_default();
                let from = (at.col as usize).saturating_sub(80);
                panic!("{error}: …{}", line.chars().skip(from).take(160).collect::<String>());
            }
        }
    }

    /// What a reader sees of the section with this identifier: its text without drawings, spaces made single.
    pub fn section(&self, id: &str) -> Option<String> {
        let document = self.document();
        let section = document.descendants().find(|n| n.attribute("id") == Some(id))?;
        Some(visible(section))
    }

    /// What a reader sees of the whole page, drawings' texts included.
    pub fn words(&self) -> String {
        let document = self.document();
        let body = document.descendants().find(|n| n.has_tag_name("body")).expect("a body");
        let texts: Vec<&str> = body
            .descendants()
            .filter(|n| n.is_text() && !n.parent().is_some_and(|p| p.has_tag_name("script")))
            .filter_map(|n| n.text())
            .collect();
        squeeze(&texts.join(" "))
    }

    /// The cells of every row of the table whose caption begins so, heading included.
    pub fn table(&self, caption: &str) -> Option<Vec<Vec<String>>> {
        let document = self.document();
        let table = document.descendants().find(|n| {
            n.has_tag_name("table")
                && n.descendants().any(|c| c.has_tag_name("caption") && visible(c).starts_with(caption))
        })?;
        let cells = |row: Node<'_, '_>| row.children().filter(Node::is_element).map(visible).collect();
        Some(table.descendants().filter(|n| n.has_tag_name("tr")).map(cells).collect())
    }
}

fn visible(node: Node<'_, '_>) -> String {
    let drawn = |n: &Node<'_, '_>| n.ancestors().any(|a| a.tag_name().name() == "svg");
    let texts: Vec<&str> = node.descendants().filter(|n| n.is_text() && !drawn(n)).filter_map(|n| n.text()).collect();
    squeeze(&texts.concat())
}

fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
