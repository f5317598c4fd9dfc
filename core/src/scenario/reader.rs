//! Reading a TOML table key by key: every fault is kept with its place, and what was not asked for is unknown.

use super::fault::{Fault, Origin, ScenarioError, nearest};
use crate::figure::{Figure, How};
use crate::text::QuantityError;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text being read, and the faults found in it.
pub(crate) struct Source<'a> {
    pub(crate) origin: Origin,
    pub(crate) text: &'a str,
    faults: RefCell<Vec<ScenarioError>>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(origin: Origin, text: &'a str) -> Self {
        Self { origin, text, faults: RefCell::new(Vec::new()) }
    }

    /// The document's root, or the syntax faults: where the text is no TOML, nothing else is worth saying.
    pub(crate) fn parse(&self) -> Option<Spanned<DeTable<'a>>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.fault(error.span().unwrap_or(0..0), Fault::Syntax(error.message().to_owned()));
        }
        errors.is_empty().then_some(root)
    }

    pub(crate) fn fault(&self, span: Range<usize>, fault: Fault) {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let before = &self.text[..start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
        let end = span.end.clamp(start, self.text.len());
        let error = ScenarioError { origin: self.origin.clone(), start, end, line, column, fault };
        self.faults.borrow_mut().push(error);
    }

    /// The faults so far, in order of their places.
    pub(crate) fn into_faults(self) -> Vec<ScenarioError> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| (fault.start, fault.end));
        faults
    }
}

/// A value and the bytes where it stands.
#[derive(Debug, Clone)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// Who says a figure, where it does not say so itself.
#[derive(Debug, Clone)]
pub(crate) struct Says {
    pub(crate) how: How,
    pub(crate) source: String,
}

/// A table, read key by key. [`Reader::done`] reports the keys that nobody asked for.
pub(crate) struct Reader<'r, 't> {
    pub(crate) source: &'r Source<'t>,
    table: &'r DeTable<'t>,
    pub(crate) span: Range<usize>,
    /// How messages call this table.
    pub(crate) place: String,
    asked: RefCell<BTreeSet<&'static str>>,
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn float_of(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(float) => float.as_str().parse().ok(),
        DeValue::Integer(_) => integer_of(value).map(|n| n as f64),
        _ => None,
    }
}

fn integer_of(value: &DeValue<'_>) -> Option<i128> {
    let integer = value.as_integer()?;
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A value of the text as one of its own; none for a date, which no scenario holds.
pub(crate) fn toml_value(value: &DeValue<'_>) -> Option<toml::Value> {
    Some(match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(_) => toml::Value::Integer(i64::try_from(integer_of(value)?).ok()?),
        DeValue::Float(_) => toml::Value::Float(float_of(value)?),
        DeValue::Boolean(yes) => toml::Value::Boolean(*yes),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => {
            toml::Value::Array(items.iter().map(|item| toml_value(item.get_ref())).collect::<Option<_>>()?)
        }
        DeValue::Table(table) => {
            let pair = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Some((key.to_string(), toml_value(value.get_ref())?))
            };
            toml::Value::Table(table.iter().map(pair).collect::<Option<_>>()?)
        }
    })
}

impl<'r, 't> Reader<'r, 't> {
    /// The whole table.
    pub(crate) const fn all(&self) -> &'r DeTable<'t> {
        self.table
    }

    /// Every key and its value, whatever the keys.
    pub(crate) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'r Spanned<std::borrow::Cow<'t, str>>, &'r Spanned<DeValue<'t>>)> {
        self.table.iter()
    }

    pub(crate) fn new(source: &'r Source<'t>, table: &'r DeTable<'t>, span: Range<usize>, place: String) -> Self {
        Self { source, table, span, place, asked: RefCell::default() }
    }

    /// Faults that concern the whole table are shown at its first line only.
    pub(crate) fn fault(&self, fault: Fault) {
        self.source.fault(self.span.clone(), fault);
    }

    pub(crate) fn get(&self, key: &'static str) -> Option<&'r Spanned<DeValue<'t>>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    /// Whether the key is there; it still counts as unknown unless it is read.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Reports every key that was never asked for.
    pub(crate) fn done(self) {
        let asked = self.asked.into_inner();
        for (key, _) in self.table.iter().filter(|(key, _)| !asked.contains(key.get_ref().as_ref())) {
            let name = key.get_ref().to_string();
            let known: Vec<String> = asked.iter().map(|&k| k.to_owned()).collect();
            let nearest = nearest(&name, asked.iter().copied());
            self.source.fault(key.span(), Fault::UnknownKey { place: self.place.clone(), key: name, nearest, known });
        }
    }

    pub(crate) fn missing(&self, key: &str, example: &'static str) {
        self.fault(Fault::Missing { place: self.place.clone(), key: key.to_owned(), example });
    }

    pub(crate) fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &'static str) {
        let found = type_name(value.get_ref());
        self.source.fault(value.span(), Fault::WrongType { key: key.to_owned(), found, expected });
    }

    /// A text, with its place.
    pub(crate) fn text(&self, key: &'static str) -> Option<At<String>> {
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong(key, value, "a text in quotes");
            return None;
        };
        Some(At { value: text.to_owned(), span: value.span() })
    }

    /// A text that is not blank and has no control character.
    pub(crate) fn name(&self, key: &'static str) -> Option<At<String>> {
        self.named(key, self.text(key)?)
    }

    /// One name, or a list of names; none where the key is absent.
    pub(crate) fn names(&self, key: &'static str) -> Vec<At<String>> {
        if self.get(key).is_some_and(|value| value.get_ref().as_str().is_some()) {
            return self.name(key).into_iter().collect();
        }
        self.texts(key).into_iter().filter_map(|text| self.named(key, text)).collect()
    }

    fn named(&self, key: &'static str, text: At<String>) -> Option<At<String>> {
        // Written as an escape, since a terminal would act on the character itself.
        let value = match text.value.chars().find(|c| c.is_control()) {
            _ if text.value.trim().is_empty() => "blank".to_owned(),
            Some(control) => format!("a text with the control character {control:?}"),
            None => return Some(text),
        };
        let must = "a name without control characters".to_owned();
        self.source.fault(text.span, Fault::OutOfRange { key: key.to_owned(), value, must });
        None
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*choice);
        }
        let nearest = nearest(&text.value, choices.iter().map(|c| c.0));
        let choices = choices.iter().map(|c| c.0.to_owned()).collect();
        self.source.fault(text.span, Fault::Word { key: key.to_owned(), found: text.value, choices, nearest });
        None
    }

    pub(crate) fn boolean(&self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        if value.get_ref().as_bool().is_none() {
            self.wrong(key, value, "true or false");
        }
        value.get_ref().as_bool()
    }

    /// An integer from `min` to `max`.
    pub(crate) fn integer(&self, key: &'static str, min: u32, max: u32) -> Option<u32> {
        self.integer_of(key, self.get(key)?, min, max)
    }

    pub(crate) fn integer_of(&self, key: &str, value: &Spanned<DeValue<'_>>, min: u32, max: u32) -> Option<u32> {
        if !value.get_ref().is_integer() {
            self.wrong(key, value, "an integer");
            return None;
        }
        let number = integer_of(value.get_ref());
        let fits = number.and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n));
        if fits.is_none() {
            let shown = number.map_or_else(|| "too long".to_owned(), |n| n.to_string());
            let must = format!("an integer from {min} to {max}");
            self.source.fault(value.span(), Fault::OutOfRange { key: key.to_owned(), value: shown, must });
        }
        fits
    }

    /// A number without unit from `min` to `max`.
    pub(crate) fn number_of(&self, key: &str, value: &Spanned<DeValue<'_>>, min: f64, max: f64) -> Option<f64> {
        let Some(number) = float_of(value.get_ref()) else {
            self.wrong(key, value, "a number without unit");
            return None;
        };
        if number >= min && number <= max {
            return Some(number);
        }
        let must = format!("a number from {min} to {max}");
        self.source.fault(value.span(), Fault::OutOfRange { key: key.to_owned(), value: number.to_string(), must });
        None
    }

    /// A quantity with its unit.
    pub(crate) fn quantity<T: FromStr<Err = QuantityError>>(&self, key: &'static str) -> Option<T> {
        self.quantity_of(key, self.get(key)?)
    }

    pub(crate) fn quantity_of<T: FromStr<Err = QuantityError>>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<T> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong(
                key,
                value,
                "a quantity with its unit in quotes, for example \"24 GiB\", \"5 ms\", \"10 Gbit/s\"",
            );
            return None;
        };
        match text.parse() {
            Ok(quantity) => Some(quantity),
            Err(cause) => {
                self.source.fault(value.span(), Fault::Quantity { key: key.to_owned(), cause });
                None
            }
        }
    }

    /// A figure: a quantity alone, or a table with `value` and any of `source`, `how`, `samples`, `spread`, `when`.
    pub(crate) fn figure<T: FromStr<Err = QuantityError>>(&self, key: &'static str, says: &Says) -> Option<Figure<T>> {
        self.figure_with(key, says, |reader, key, value| reader.quantity_of(key, value))
    }

    /// A figure without unit, from `min` to `max`.
    pub(crate) fn ratio(&self, key: &'static str, says: &Says, min: f64, max: f64) -> Option<Figure<f64>> {
        self.figure_with(key, says, |reader, key, value| reader.number_of(key, value, min, max))
    }

    fn figure_with<T>(
        &self,
        key: &'static str,
        says: &Says,
        read: impl Fn(&Reader<'r, 't>, &str, &Spanned<DeValue<'t>>) -> Option<T>,
    ) -> Option<Figure<T>> {
        let value = self.get(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            let value = read(self, key, value)?;
            let source = Some(says.source.clone());
            return Some(Figure { value, how: says.how, source, samples: None, spread: None, when: None });
        };
        let reader = Reader::new(self.source, table, value.span(), format!("{}.{key}", self.place));
        let stated = reader.get("value");
        if stated.is_none() {
            reader.missing("value", "value = \"24 GiB\"");
        }
        let figure = stated.and_then(|stated| read(&reader, key, stated)).map(|value| Figure {
            value,
            how: reader.how().unwrap_or(says.how),
            source: Some(reader.text("source").map_or_else(|| says.source.clone(), |s| s.value)),
            samples: reader.integer("samples", 1, u32::MAX),
            spread: reader.get("spread").and_then(|v| reader.number_of("spread", v, 0.0, 1e6)),
            when: reader.text("when").map(|w| w.value),
        });
        if figure.is_some() {
            reader.done();
        }
        figure
    }

    /// How something is known, where that is said.
    pub(crate) fn how(&self) -> Option<How> {
        self.word("how", &[("measured", How::Measured), ("declared", How::Declared), ("estimated", How::Estimated)])
    }

    /// A list of texts; empty where the key is absent.
    pub(crate) fn texts(&self, key: &'static str) -> Vec<At<String>> {
        let items = self.list(key, "a list of texts, for example [\"a\", \"b\"]");
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref().as_str() {
                Some(text) => texts.push(At { value: text.to_owned(), span: item.span() }),
                None => self.wrong(key, item, "a text in quotes"),
            }
        }
        texts
    }

    /// Whether a key has a list in which nothing is.
    pub(crate) fn is_empty_list(&self, key: &'static str) -> bool {
        self.get(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Array(items) if items.is_empty()))
    }

    /// The items of a list; none where the key is absent.
    pub(crate) fn list(&self, key: &'static str, expected: &'static str) -> Vec<&'r Spanned<DeValue<'t>>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => {
                self.wrong(key, value, expected);
                Vec::new()
            }
        }
    }

    /// Pairs of a count and something else, as `[[1, x], [2, y]]`.
    pub(crate) fn pairs<T>(
        &self,
        key: &'static str,
        read: impl Fn(&Spanned<DeValue<'t>>) -> Option<T>,
    ) -> Vec<(u32, T)> {
        const EXPECTED: &str = "a list of pairs, for example [[1, 0.5], [2, 0.9]]";
        let mut pairs = Vec::new();
        for item in self.list(key, EXPECTED) {
            let pair: Vec<_> = item.get_ref().as_array().map(|a| a.iter().collect()).unwrap_or_default();
            let &[count, other] = pair.as_slice() else {
                self.wrong(key, item, EXPECTED);
                continue;
            };
            if let (Some(count), Some(other)) = (self.integer_of(key, count, 0, u32::MAX), read(other)) {
                pairs.push((count, other));
            }
        }
        pairs
    }

    /// A table of its own.
    pub(crate) fn table(&self, key: &'static str) -> Option<Reader<'r, 't>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Reader::new(self.source, table, value.span(), self.inside(key))),
            _ => {
                self.wrong(key, value, "a table: a section [name] or { key = value }");
                None
            }
        }
    }

    fn inside(&self, key: &str) -> String {
        if self.place.is_empty() || self.place == "the scenario" {
            format!("[{key}]")
        } else {
            format!("{}.{key}", self.place)
        }
    }

    /// Sections written `[[key]]`.
    pub(crate) fn tables(&self, key: &'static str) -> Vec<Reader<'r, 't>> {
        let mut readers = Vec::new();
        for (i, item) in self.list(key, "sections, each headed [[name]]").into_iter().enumerate() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    let place = format!("[[{key}]] number {}", i + 1);
                    readers.push(Reader::new(self.source, table, item.span(), place));
                }
                _ => self.wrong(key, item, "sections, each headed [[name]]"),
            }
        }
        readers
    }
}
