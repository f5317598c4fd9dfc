//! How far a batch is: done, rate, time left, worst gap.

use super::point::Done;
use crate::ui::Ui;
use isotherm_core::units::Seconds;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between two lines.
const PAUSE: Duration = Duration::from_secs(2);

struct State {
    done: u64,
    resumed: u64,
    failed: u64,
    gap_max: Option<f64>,
    told: Instant,
}

/// The progress of one run.
pub struct Progress<'a> {
    ui: &'a Ui,
    total: u64,
    begin: Instant,
    state: Mutex<State>,
}

impl<'a> Progress<'a> {
    /// Begins.
    pub fn begin(ui: &'a Ui, total: u64) -> Self {
        let begin = Instant::now();
        let state = State { done: 0, resumed: 0, failed: 0, gap_max: None, told: begin };
        Self { ui, total, begin, state: Mutex::new(state) }
    }

    /// One point more is done.
    pub fn done(&self, done: &Done) {
        let Ok(mut state) = self.state.lock() else { return };
        state.done += 1;
        state.resumed += u64::from(done.resumed);
        state.failed += u64::from(done.failed);
        state.gap_max = state.gap_max.into_iter().chain(done.gap).reduce(f64::max);
        if state.told.elapsed() >= PAUSE || state.done == self.total {
            state.told = Instant::now();
            self.ui.note(self.line(&state));
        }
    }

    fn line(&self, state: &State) -> String {
        let seconds = self.begin.elapsed().as_secs_f64();
        let computed = state.done - state.resumed;
        let rate = computed as f64 / seconds.max(1e-9);
        let mut line = format!("  {}/{} points", state.done, self.total);
        if computed > 0 {
            let left = (self.total - state.done) as f64 / rate;
            line.push_str(&format!(", {rate:.2} /s, {} left", Seconds::of(left.clamp(0.0, 1e9))));
        }
        if let Some(gap) = state.gap_max {
            line.push_str(&format!(", worst gap {:.3} %", gap * 100.0));
        }
        if state.failed > 0 {
            line.push_str(&format!(", {} failed", state.failed));
        }
        line
    }

    /// Ends; gives the seconds and the points that were there before.
    pub fn end(self) -> (f64, u64) {
        let resumed = self.state.lock().map_or(0, |state| state.resumed);
        (self.begin.elapsed().as_secs_f64(), resumed)
    }
}
