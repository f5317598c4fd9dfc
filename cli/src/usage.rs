//! Time and memory of a piece of work, where the system says.

use std::time::Instant;

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    pub wall_seconds: f64,
    /// Processor time of this process and of what it waited for.
    pub cpu_seconds: Option<f64>,
    /// Largest memory of this process meanwhile.
    pub peak_bytes: Option<u64>,
}

/// A measurement that has begun.
pub struct Usage {
    begin: Instant,
    cpu: Option<f64>,
}

impl Usage {
    /// Begins to measure.
    pub fn begin() -> Self {
        // On Linux 5 resets the largest memory so far; elsewhere there is no such file.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { cpu: cpu_seconds(), begin: Instant::now() }
    }

    /// Ends the measurement.
    pub fn end(self) -> Spent {
        let wall_seconds = self.begin.elapsed().as_secs_f64();
        let cpu_seconds = self.cpu.zip(cpu_seconds()).map(|(before, after)| after - before);
        Spent { wall_seconds, cpu_seconds, peak_bytes: peak_bytes() }
    }
}

/// Time that the processors spent on this thread, to the nanosecond where Linux counts it so; wall time elsewhere.
pub fn thread_seconds() -> f64 {
    let counted = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok().map(|nanoseconds| nanoseconds as f64 * 1e-9)
    };
    static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    counted().unwrap_or_else(|| BEGIN.elapsed().as_secs_f64())
}

/// User and system time of this process and of its children that ended, in hundredths of seconds as Linux counts.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in brackets, may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Some(ticks as f64 / 100.0)
}

fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_meanwhile_shows_in_the_peak_where_the_system_says() {
        let usage = Usage::begin();
        let block = vec![1_u8; 64 << 20];
        assert!(block.iter().map(|&byte| u64::from(byte)).sum::<u64>() > 0);
        let spent = usage.end();
        assert!(spent.wall_seconds >= 0.0 && spent.cpu_seconds.is_none_or(|cpu| cpu >= 0.0));
        assert!(spent.peak_bytes.is_none_or(|peak| peak >= 64 << 20), "{spent:?}");
    }
}
