//! Devices that are measured in turns.
//!
//! What a machine gives changes within seconds: with its clock, and in a guest with its neighbours. Of two devices
//! measured one after the other, one may so seem to be quicker than its equal. In turns of moments both meet the same.

use std::sync::mpsc::Sender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a device is measured before the next has its turn.
const TURN: Duration = Duration::from_millis(250);

/// Whose turn it is.
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Those that want further turns.
    present: Vec<bool>,
    whose: usize,
    /// Whether nobody needs to be measured any more.
    over: bool,
}

impl State {
    /// Gives the turn to the next that wants one.
    fn pass_on(&mut self) {
        let count = self.present.len();
        let next = (1..=count).map(|step| (self.whose + step) % count).find(|&next| self.present[next]);
        self.whose = next.unwrap_or(self.whose);
    }
}

impl Turns {
    /// So many devices; the first has the first turn.
    pub(super) fn of(devices: usize) -> Self {
        let state = State { present: vec![true; devices], whose: 0, over: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits for the first turn of a device. What it says is done of the device's measurement goes to `done`, with its
    /// number.
    pub(super) fn first(&self, device: usize, done: Sender<(usize, f64)>) -> Turn<'_> {
        self.wait(device);
        Turn { turns: self, device, before: Duration::ZERO, since: Instant::now(), done }
    }

    /// Says that a device wants no turn.
    pub(super) fn absent(&self, device: usize) {
        let mut state = self.lock();
        state.present[device] = false;
        if state.whose == device {
            state.pass_on();
        }
        drop(state);
        self.changed.notify_all();
    }

    fn wait(&self, device: usize) {
        let mut state = self.lock();
        while state.whose != device {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device's turn. Dropped, the device wants no further one.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    device: usize,
    /// The time of all turns before this one.
    before: Duration,
    since: Instant,
    done: Sender<(usize, f64)>,
}

impl Turn<'_> {
    /// The time of all turns so far.
    pub(super) fn spent(&self) -> Duration {
        self.before + self.since.elapsed()
    }

    /// Lets the others have their turns where this one has been long enough. True where others may have used the cores.
    pub(super) fn may_pass_on(&mut self, done: f64) -> bool {
        if self.since.elapsed() < TURN {
            return false;
        }
        // Whoever listened may have gone.
        let _ = self.done.send((self.device, done));
        self.before += self.since.elapsed();
        self.turns.lock().pass_on();
        self.turns.changed.notify_all();
        self.turns.wait(self.device);
        self.since = Instant::now();
        true
    }

    /// Says that all is in vain, so that others end soon.
    pub(super) fn give_up(&self) {
        self.turns.lock().over = true;
    }

    /// Whether somebody said so.
    pub(super) fn is_over(&self) -> bool {
        self.turns.lock().over
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.absent(self.device);
        let _ = self.done.send((self.device, 1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn one_at_a_time_has_the_turn_each_in_order_and_whoever_ends_is_left_out() {
        let (turns, order) = (Turns::of(3), Mutex::new(Vec::new()));
        let (done, told) = channel();
        std::thread::scope(|scope| {
            for (device, rounds) in [(0, 3), (1, 1), (2, 2)] {
                let (turns, order, done) = (&turns, &order, done.clone());
                scope.spawn(move || {
                    let mut turn = turns.first(device, done);
                    for round in 0..rounds {
                        order.lock().expect("no panic").push(device);
                        turn.since = Instant::now().checked_sub(TURN).expect("the clock has run so long");
                        if round + 1 < rounds {
                            assert!(turn.may_pass_on(0.5));
                        }
                    }
                });
            }
        });
        drop(done);
        assert_eq!(*order.lock().expect("no panic"), [0, 1, 2, 0, 2, 0]);
        assert_eq!(told.into_iter().filter(|(_, done)| *done >= 1.0).count(), 3);
    }

    #[test]
    fn a_short_turn_goes_on_and_its_time_counts() {
        let turns = Turns::of(1);
        let (done, _told) = channel();
        let mut turn = turns.first(0, done);
        assert!(!turn.may_pass_on(0.0) && !turn.is_over());
        turn.since = Instant::now().checked_sub(TURN).expect("the clock has run so long");
        assert!(turn.may_pass_on(0.5) && turn.spent() >= TURN);
        turn.give_up();
        assert!(turn.is_over());
    }
}
