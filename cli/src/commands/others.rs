//! How much of the processor other programs took meanwhile: what a measurement has to say of itself.

/// Ticks of the clock so far: of all cores busy with anything, of all cores at all, and of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    busy: u64,
    all: u64,
    own: u64,
}

impl Ticks {
    /// Now; none where the system does not tell.
    pub fn now() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// From the two files as proc(5) gives them. Both count in the same unit, whatever that is.
    fn parse(host: &str, own: &str) -> Option<Self> {
        let cores = host.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let figures: Vec<u64> = cores.split_ascii_whitespace().map_while(|figure| figure.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guests are within user and nice.
        let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = *figures.as_slice() else { return None };
        let busy = user + nice + system + irq + softirq + steal;
        // The name in parentheses may hold anything; after it come the state, ten more, and utime and stime.
        let after = &own[own.rfind(')')? + 1..];
        let mut times = after.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
        let own = times.next()?.ok()? + times.next()?.ok()?;
        Some(Self { busy, all: busy + idle + iowait, own })
    }

    /// The share of all cores that others took since `before`, from 0 to 1; none where no tick has passed.
    pub fn others_since(self, before: Self) -> Option<f64> {
        let all = self.all.checked_sub(before.all).filter(|&all| all > 0)?;
        let busy = self.busy.saturating_sub(before.busy);
        let own = self.own.saturating_sub(before.own);
        Some((busy.saturating_sub(own) as f64 / all as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_took_is_what_was_busy_less_our_own() {
        let host = |user: u64, idle: u64| format!("cpu  {user} 5 10 {idle} 0 1 2 2 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n");
        let own =
            |user: u64, system: u64| format!("7 (a b) c) S 1 7 7 0 -1 4194304 1 2 3 4 {user} {system} 0 0 20 0 1\n");
        let before = Ticks::parse(&host(100, 1000), &own(40, 2)).expect("figures");
        assert_eq!(before, Ticks { busy: 120, all: 1120, own: 42 });
        // Of 200 ticks of all cores 80 were busy, 50 of them with us.
        let after = Ticks::parse(&host(180, 1120), &own(85, 7)).expect("figures");
        assert_eq!(after.others_since(before), Some(30.0 / 200.0));
        assert_eq!(before.others_since(before), None);
        assert_eq!(Ticks::parse("intr 5", &own(1, 1)), None);
    }
}
