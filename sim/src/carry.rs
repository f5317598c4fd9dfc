//! What a server carries from one piece of work into the next.

use isotherm_core::units::SimTime;

/// The part of a nanosecond that rounding left over when the last work ended. Work that follows at once starts that much
/// late, so that roundings do not add up: each one alone would flip decisions. Work after a pause starts on time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Carry {
    ended: SimTime,
    rest: f64,
}

impl Carry {
    /// How much later than `now`, in nanoseconds, work truly starts that is begun now.
    #[must_use]
    pub fn offset(&self, now: SimTime) -> f64 {
        if self.ended == now { self.rest } else { 0.0 }
    }

    /// Work ends now, and truly so many nanoseconds later.
    pub const fn end(&mut self, now: SimTime, rest: f64) {
        (self.ended, self.rest) = (now, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_at_once_starts_late() {
        let mut carry = Carry::default();
        assert_eq!(carry.offset(SimTime::ZERO), 0.0);
        carry.end(SimTime(7), 0.25);
        assert_eq!((carry.offset(SimTime(7)), carry.offset(SimTime(8))), (0.25, 0.0));
    }
}
