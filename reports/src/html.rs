//! Text becomes markup here and nowhere else: [`Html`] holds escaped markup, and only this module can make one.
//!
//! The page is also well-formed XML, so that a strict parser can be its oracle in tests.

use std::borrow::Cow;

/// Longest name that is shown whole; the middle of a longer one is left out.
const NAME_CHARS_MAX: usize = 64;
/// Longest name that is never broken over two lines.
const BRIEF_CHARS_MAX: usize = 24;
/// Longest text kept anywhere: prose, reasons, command lines, attributes.
const TEXT_CHARS_MAX: usize = 4_000;

/// Markup in which every foreign character is escaped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Html(String);

impl Html {
    /// No markup.
    pub(crate) const fn none() -> Self {
        Self(String::new())
    }

    /// Markup written in this crate's own source.
    pub(crate) fn literal(markup: &'static str) -> Self {
        Self(markup.to_owned())
    }

    /// A finished drawing: the figures module escapes what it draws.
    pub(crate) fn drawing(svg: String) -> Self {
        Self(svg)
    }

    /// Adds markup at the end.
    pub(crate) fn push(&mut self, other: impl Into<Self>) {
        self.0.push_str(&other.into().0);
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The markup.
    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

impl From<&str> for Html {
    fn from(text: &str) -> Self {
        Self(escape(&clean(text)))
    }
}

impl From<String> for Html {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<&String> for Html {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl FromIterator<Html> for Html {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        let mut all = Self::none();
        for part in parts {
            all.push(part);
        }
        all
    }
}

/// Markup of several parts, each a text (escaped) or markup.
macro_rules! seq {
    ($($part:expr),* $(,)?) => {{
        let mut all = $crate::html::Html::none();
        $(all.push($part);)*
        all
    }};
}
pub(crate) use seq;

/// An element without attributes.
pub(crate) fn element(name: &'static str, inside: impl Into<Html>) -> Html {
    element_with(name, &[], inside)
}

/// An element with attributes; their values are escaped.
pub(crate) fn element_with(name: &'static str, attributes: &[(&'static str, &str)], inside: impl Into<Html>) -> Html {
    let mut markup = format!("<{name}");
    for (key, value) in attributes {
        markup.push_str(&format!(" {key}=\"{}\"", escape(&clean(value))));
    }
    markup.push('>');
    markup.push_str(&inside.into().0);
    markup.push_str(&format!("</{name}>"));
    if matches!(name, "p" | "tr" | "table" | "section" | "figure" | "li" | "h2" | "h3" | "thead" | "tbody") {
        markup.push('\n');
    }
    Html(markup)
}

/// A name from an artefact: isolated from the direction of the text around it, shortened when long, whole in its
/// title.
pub(crate) fn name(text: &str) -> Html {
    let short = shorten(text, NAME_CHARS_MAX);
    if text.chars().count() <= BRIEF_CHARS_MAX {
        element_with("bdi", &[("class", "name brief")], text)
    } else if short == text {
        element_with("bdi", &[("class", "name")], text)
    } else {
        element_with("bdi", &[("class", "name"), ("title", text)], short.as_ref())
    }
}

/// Text with its middle left out where it is longer than `chars_max`.
pub(crate) fn shorten(text: &str, chars_max: usize) -> Cow<'_, str> {
    let count = text.chars().count();
    if count <= chars_max {
        return Cow::Borrowed(text);
    }
    let tail = chars_max / 3;
    let head = chars_max.saturating_sub(tail + 1);
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    Cow::Owned(format!("{begin}…{end}"))
}

/// Text without characters that could not stand in a page or that reorder what is around them: control characters
/// and bidirectional overrides become U+FFFD, and an endless text ends in an ellipsis.
pub(crate) fn clean(text: &str) -> String {
    let short = shorten(text, TEXT_CHARS_MAX);
    short
        .chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// Names its row.
    Head(Html),
    /// Names its row in a few words of this crate's own, never broken over two lines.
    Label(String),
    /// Words.
    Words(Html),
    /// A number, set to the right.
    Number(Html),
}

impl Cell {
    /// A number, or words for its absence.
    pub(crate) fn number_or(value: Option<String>, absent: &str) -> Self {
        value.map_or_else(|| Self::absent(absent), |shown| Self::Number(shown.into()))
    }

    /// Says why there is no figure.
    pub(crate) fn absent(why: &str) -> Self {
        Self::Number(element_with("span", &[("class", "absent")], why))
    }

    fn markup(self) -> Html {
        match self {
            Self::Head(inside) => element_with("th", &[("scope", "row")], inside),
            Self::Label(text) => element_with("th", &[("scope", "row"), ("class", "label")], text),
            Self::Words(inside) => element("td", inside),
            Self::Number(inside) => element_with("td", &[("class", "number")], inside),
        }
    }
}

/// A table with a caption; nothing where it would have no rows. Columns whose first cell is a number have their
/// heading to the right as well.
pub(crate) fn table(caption: impl Into<Html>, columns: &[&str], rows: Vec<Vec<Cell>>) -> Html {
    if rows.is_empty() {
        return Html::none();
    }
    let right: Vec<bool> = rows[0].iter().map(|cell| matches!(cell, Cell::Number(_))).collect();
    let heads: Html = columns
        .iter()
        .enumerate()
        .map(|(i, column)| {
            let class = if right.get(i).copied().unwrap_or(false) { "number" } else { "words" };
            element_with("th", &[("scope", "col"), ("class", class)], *column)
        })
        .collect();
    let body: Html =
        rows.into_iter().map(|row| element("tr", row.into_iter().map(Cell::markup).collect::<Html>())).collect();
    let inside = seq![element("caption", caption), element("thead", element("tr", heads)), element("tbody", body)];
    // The region scrolls on narrow screens, so it can be reached from the keyboard.
    element_with("div", &[("class", "scroll"), ("tabindex", "0")], element("table", inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_open_a_tag_or_leave_an_attribute() {
        let hostile = "<script>alert(\"1\")</script>'&";
        let shown = element_with("td", &[("title", hostile)], hostile).into_string();
        assert_eq!(shown.matches('<').count(), 2, "{shown}");
        assert_eq!(shown.matches('"').count(), 2, "{shown}");
    }

    #[test]
    fn direction_overrides_and_control_characters_are_replaced() {
        assert_eq!(clean("a\u{202e}b\u{0}c\u{1b}d\u{2066}"), "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}");
        assert_eq!(clean("العربية\tשלום"), "العربية\tשלום");
    }

    #[test]
    fn a_long_name_keeps_both_ends_and_its_title() {
        let long = format!("begin{}end", "x".repeat(500));
        let shown = name(&long).into_string();
        assert!(shown.contains("title=\"begin"), "{shown}");
        assert!(shown.contains("…") && shown.ends_with("xend</bdi>"), "{shown}");
        assert_eq!(shorten("äöü", 3), "äöü");
        assert_eq!(shorten(&"ä".repeat(100), 10).chars().count(), 10);
    }
}
