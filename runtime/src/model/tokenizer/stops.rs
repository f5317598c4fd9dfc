//! Texts that end an answer.

/// Watches the pieces of an answer for stop strings, which may begin in one piece and end in another. What might be the
/// beginning of one is held back until it is known.
#[derive(Clone, Debug)]
pub struct Stops {
    texts: Vec<String>,
    held: String,
    found: bool,
}

impl Stops {
    /// A watch for these texts; empty ones are passed over.
    #[must_use]
    pub fn new(texts: impl IntoIterator<Item = String>) -> Self {
        Self { texts: texts.into_iter().filter(|text| !text.is_empty()).collect(), held: String::new(), found: false }
    }

    /// Takes the next piece; gives the text that is certain to be the answer's. The text from a stop string on is no part
    /// of it.
    pub fn push(&mut self, piece: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(piece);
        let first = self.texts.iter().filter_map(|text| self.held.find(text.as_str())).min();
        if let Some(at) = first {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let certain = self.held.len() - self.begun();
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Whether a stop string has come.
    #[must_use]
    pub const fn found(&self) -> bool {
        self.found
    }

    /// What was held back when the answer ends without a stop string.
    #[must_use]
    pub fn finish(self) -> String {
        self.held
    }

    /// Bytes at the end of what is held that are the beginning of a stop string; the most of all.
    fn begun(&self) -> usize {
        let longest = |text: &String| {
            let ends = text.char_indices().map(|(at, _)| at).filter(|&at| at > 0 && at <= self.held.len());
            ends.filter(|&at| self.held.ends_with(&text[..at])).max().unwrap_or(0)
        };
        self.texts.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oracle: the whole text, cut at the first stop string in it.
    fn cut(text: &str, stops: &[&str]) -> (String, bool) {
        let end = (0..text.len())
            .find(|&at| text.is_char_boundary(at) && stops.iter().any(|stop| text[at..].starts_with(stop)));
        (text[..end.unwrap_or(text.len())].to_owned(), end.is_some())
    }

    #[test]
    fn pieces_of_any_size_give_the_text_before_the_first_stop_string() {
        let cases: [(&str, &[&str]); 6] = [
            ("one two three", &["two"]),
            ("aaab and aab", &["aab"]),
            ("no such thing", &["thinge", "zz"]),
            ("ends with abab", &["ababc", "bab"]),
            ("caf\u{e9}\u{e9} \u{4e16}\u{754c}.", &["\u{e9} ", "\u{754c}"]),
            ("", &["x"]),
        ];
        for (text, stops) in cases {
            let letters: Vec<String> = text.chars().map(String::from).collect();
            for size in 1..=letters.len().max(1) {
                let mut watch = Stops::new(stops.iter().map(|stop| (*stop).to_owned()));
                let mut out = String::new();
                for piece in letters.chunks(size) {
                    out.push_str(&watch.push(&piece.concat()));
                }
                let found = watch.found();
                out.push_str(&watch.finish());
                assert_eq!((out, found), cut(text, stops), "{text:?} in pieces of {size}");
            }
        }
    }
}
