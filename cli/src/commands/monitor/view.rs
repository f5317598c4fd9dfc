//! The live view: a table of devices, the course of their temperatures, and the latest alerts.

use super::forecast::forecast;
use super::{State, words};
use crate::failure::{Done, Failure};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Style;
use ratatui::widgets::{Block, Paragraph, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};
use std::time::Duration;

/// A terminal that was taken over, and is given back when this goes.
pub struct View {
    terminal: DefaultTerminal,
}

impl Drop for View {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::io(format!("the terminal: {error}"))
}

impl View {
    /// Takes the terminal over.
    pub fn open() -> Result<Self, Failure> {
        ratatui::try_init().map(|terminal| Self { terminal }).map_err(|error| failed(&error))
    }

    /// Waits for a key; gives whether it was one that ends the view.
    pub fn quits(&mut self, nap: Duration) -> Result<bool, Failure> {
        if !event::poll(nap).map_err(|error| failed(&error))? {
            return Ok(false);
        }
        Ok(match event::read().map_err(|error| failed(&error))? {
            // A terminal that was taken over sends no signal, but the key.
            Event::Key(key) if key.modifiers.contains(KeyModifiers::CONTROL) => key.code == KeyCode::Char('c'),
            Event::Key(key) => matches!(key.code, KeyCode::Char('q') | KeyCode::Esc),
            _ => false,
        })
    }

    /// Draws what is known.
    pub fn draw(&mut self, state: &State, now_ms: u64) -> Done {
        self.terminal.draw(|frame| draw(frame, state, now_ms)).map(|_| ()).map_err(|error| failed(&error))
    }
}

const COLUMNS: [(&str, u16); 11] = [
    ("device", 28),
    ("°C", 6),
    ("hot", 6),
    ("W", 7),
    ("MHz", 6),
    ("busy", 5),
    ("memory", 24),
    ("fan", 6),
    ("in 60 s", 8),
    ("limit in", 9),
    ("state", 14),
];

/// The cells of the table, one row a device; a dash is what nobody knows.
pub(super) fn cells(state: &State, now_ms: u64) -> Vec<[String; 11]> {
    let row = |(at, device): (usize, &super::Watched)| {
        let dash = || "-".to_owned();
        let Some((sample, stale)) = state.ring.last(at, now_ms) else {
            return std::array::from_fn(|column| if column == 0 { device.name.clone() } else { dash() });
        };
        let raised = state.alerts.raised().filter(|(device, _)| *device == at).count();
        let word = match (sample.answered, stale, raised) {
            (false, ..) => "no answer",
            (_, true, _) => "stale",
            (.., 1..) => "ALERT",
            _ if sample.throttled == Some(true) => "throttled",
            _ => "ok",
        };
        let memory = match (sample.memory_used_bytes, device.memory_bytes) {
            (Some(used), Some(all)) => format!("{used} of {all}"),
            (Some(used), None) => used.to_string(),
            (None, Some(all)) => format!("- of {all}"),
            (None, None) => dash(),
        };
        let soon = state.known.get(at).and_then(|known| forecast(known, &state.ring, at));
        let number = |value: Option<f64>| value.map_or_else(dash, |value| format!("{value:.0}"));
        [
            device.name.clone(),
            number(sample.celsius.map(|celsius| celsius.value())),
            number(sample.hot_spot_celsius.map(|celsius| celsius.value())),
            number(sample.watts.map(|watts| watts.value())),
            number(sample.clock_hertz.map(|clock| clock.value() / 1e6)),
            sample.busy.map_or_else(dash, |busy| format!("{:.0} %", busy * 100.0)),
            memory,
            sample.fan_rpm.map_or_else(dash, |turns| turns.to_string()),
            number(soon.map(|soon| soon.soon.value())),
            soon.and_then(|soon| soon.limit_in).map_or_else(dash, |time| format!("{:.0} s", time.value())),
            word.to_owned(),
        ]
    };
    state.devices.iter().enumerate().map(row).collect()
}

fn draw(frame: &mut Frame<'_>, state: &State, now_ms: u64) {
    let rows = u16::try_from(state.devices.len()).unwrap_or(u16::MAX);
    let areas =
        Layout::vertical([Constraint::Length(rows.saturating_add(3)), Constraint::Length(8), Constraint::Fill(1)])
            .split(frame.area());
    let heading = Row::new(COLUMNS.map(|(name, _)| name)).style(Style::new().bold());
    let table =
        Table::new(cells(state, now_ms).into_iter().map(Row::new), COLUMNS.map(|(_, width)| Constraint::Length(width)));
    let title = format!(" isotherm monitor  {} samples kept, {} gone  q ends ", state.ring.len(), state.ring.dropped());
    frame.render_widget(table.header(heading).block(Block::bordered().title(title)), areas[0]);
    draw_courses(frame, state, areas[1]);
    let reasons = (0..state.devices.len()).filter_map(|device| {
        let words: Vec<&str> = state.ring.last(device, now_ms)?.0.reasons?.words().collect();
        (!words.is_empty()).then(|| format!("{}: clock held by {}", state.devices[device].name, words.join(", ")))
    });
    let stages = state.known.iter().flat_map(|known| &known.stages).map(|stage| format!("stage {stage}"));
    let noticed = reasons.chain(stages).collect::<Vec<_>>().into_iter();
    let noticed = noticed.chain(state.plugged.iter().rev().take(3).map(|change| format!("noticed: {change}")));
    let heard: Vec<String> = noticed.chain(state.heard.iter().rev().map(words)).collect();
    let text = if heard.is_empty() { "nothing is wrong".to_owned() } else { heard.join("\n") };
    frame.render_widget(
        Paragraph::new(text).block(Block::bordered().title(" stages, changes, alerts; newest first ")),
        areas[2],
    );
}

/// The temperatures of the devices that have any, side by side.
fn draw_courses(frame: &mut Frame<'_>, state: &State, area: ratatui::layout::Rect) {
    let courses: Vec<(usize, Vec<u64>)> = (0..state.devices.len())
        .map(|device| {
            (device, state.ring.of(device).filter_map(|s| Some(s.celsius?.value().max(0.0) as u64)).collect())
        })
        .filter(|(_, course): &(usize, Vec<u64>)| !course.is_empty())
        .collect();
    if courses.is_empty() {
        let text = "no device of this host tells its temperature";
        frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" temperature ")), area);
        return;
    }
    let parts = Layout::horizontal(vec![Constraint::Fill(1); courses.len()]).split(area);
    for ((device, course), part) in courses.iter().zip(parts.iter()) {
        let from = course.len().saturating_sub(usize::from(part.width));
        let title = format!(" {} °C ", state.devices[*device].name);
        let line = Sparkline::default().data(&course[from..]).max(110).block(Block::bordered().title(title));
        frame.render_widget(line, *part);
    }
}
