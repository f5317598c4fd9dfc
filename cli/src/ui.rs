//! Standard output holds results, standard error holds progress and messages.

use crate::args::Format;
use crate::failure::Failure;
use crate::files;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How this invocation talks.
#[derive(Debug, Clone, Copy)]
pub struct Ui {
    /// How results are printed.
    pub format: Format,
    /// Whether progress is silent.
    pub quiet: bool,
}

impl Ui {
    /// Prints a result: JSON in one piece, or the given text.
    pub fn result<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => print(&files::json(value)?),
            Format::Text => print(text().as_bytes()),
        }
    }

    /// One line of what is going on.
    pub fn note(&self, line: impl AsRef<str>) {
        if !self.quiet {
            eprintln!("{}", line.as_ref());
        }
    }

    /// The same, where there is something to say.
    pub fn note_some(&self, line: Option<String>) {
        if let Some(line) = line {
            self.note(line);
        }
    }

    /// A heading for a step of a longer command.
    pub fn step(&self, number: usize, of: usize, what: &str) {
        if !self.quiet {
            let text = format!("[{number}/{of}] {what}");
            let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            if coloured { eprintln!("\x1b[1m{text}\x1b[0m") } else { eprintln!("{text}") }
        }
    }

    /// A bar for work of known length, on standard error; lines of text where that is no terminal.
    pub fn bar(&self, total: u64, what: &str) -> Bar {
        if self.quiet {
            return Bar { bar: ProgressBar::hidden(), plain: None };
        }
        if !std::io::stderr().is_terminal() {
            return Bar { bar: ProgressBar::hidden(), plain: Some(Plain { what: what.to_owned(), total, tenths: 0 }) };
        }
        let bar = ProgressBar::new(total);
        let style = ProgressStyle::with_template("  {msg} [{bar:30}] {percent}% {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar { bar, plain: None }
    }
}

/// Progress of one piece of work.
pub struct Bar {
    bar: ProgressBar,
    plain: Option<Plain>,
}

/// Progress where there is no terminal: a line at each quarter.
struct Plain {
    what: String,
    total: u64,
    tenths: u64,
}

impl Bar {
    /// So much is done, of what the bar was made for or of a total that became known later.
    pub fn at(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        if let Some(plain) = &mut self.plain {
            plain.total = total;
            let quarter = (done * 4).checked_div(total).unwrap_or(0);
            if quarter > plain.tenths {
                plain.tenths = quarter;
                eprintln!("  {}: {} %", plain.what, quarter * 25);
            }
        }
    }

    /// The work is done; the bar goes.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// Writes to standard output. A reader that closed the pipe is no failure.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::io(format!("standard output was not written: {e}")))
        }
        _ => Ok(()),
    }
}

/// Rows in aligned columns; the first row is the heading. Columns listed in `right` are aligned to the right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(c, cell)| {
            let pad = " ".repeat(widths[c] - cell.chars().count());
            if right.contains(&c) { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = rows.first().map(line).unwrap_or_default();
    if rows.len() > 1 {
        text.push_str(&format!("  {}\n", widths.iter().map(|&w| "-".repeat(w)).collect::<Vec<_>>().join("  ")));
    }
    text.extend(rows.iter().skip(1).map(line));
    text
}

/// A signed percentage, from a share.
pub fn percent(share: f64) -> String {
    format!("{:+.1} %", share * 100.0)
}

/// A percentage without a plus, from a share, where words say which way it goes.
pub fn plain_percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_script() {
        let rows = [["name", "°C"], ["größe", "5"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, &[1]), "  name   °C\n  -----  --\n  größe   5\n");
    }

    #[test]
    fn a_percentage_has_a_plus_only_where_no_word_says_which_way_it_goes() {
        assert_eq!((percent(0.477), plain_percent(0.477)), ("+47.7 %".to_owned(), "47.7 %".to_owned()));
    }
}
