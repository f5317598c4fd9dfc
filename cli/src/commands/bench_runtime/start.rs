//! How long a process that begins from nothing takes to its first token, and how much memory it takes at most.

use crate::commands::truth::Sealed;
use crate::failure::Failure;
use isotherm_core::units::{Bytes, Seconds};
use serde::Serialize;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Times that it is started; the median counts.
const STARTS: usize = 5;
/// Time to the first token that is aimed at, with the file in the page cache.
const FIRST_TOKEN: f64 = 0.5;
/// Memory beside weights and cache that is aimed at.
const BESIDE: Bytes = Bytes(64 << 20);

/// How the program starts.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Start {
    /// From the start of the process to the first token's text.
    first_token_seconds: f64,
    /// Most memory that the process held at once; absent where the system does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_bytes: Option<Bytes>,
    /// Weights and cache of the plan.
    planned_bytes: Bytes,
}

impl Start {
    /// For people.
    pub(super) fn lines(&self) -> String {
        let seconds = |value| Seconds::of(value).to_string();
        let peak = self.peak_bytes.map_or_else(
            || "unknown".to_owned(),
            |peak| {
                let over = peak.0.saturating_sub(self.planned_bytes.0);
                format!("{peak}, {} beyond weights and cache (goal {BESIDE})", Bytes(over))
            },
        );
        format!(
            "  first token of a cold process: {} (goal {}); memory at most: {peak}\n",
            seconds(self.first_token_seconds),
            seconds(FIRST_TOKEN)
        )
    }
}

/// Runs the sealed plan in processes of its own. None where such a process does not answer.
pub(super) fn measure(sealed: &Sealed) -> Result<Option<Start>, Failure> {
    let program =
        std::env::current_exe().map_err(|e| Failure::io(format!("this program does not find itself: {e}")))?;
    let mut times = Vec::new();
    let mut peak = None;
    for _ in 0..STARTS {
        let begin = Instant::now();
        let child = Command::new(&program)
            .args(["run", "--raw", "--tokens", "4", "--prompt", "The", "--quiet", "--output"])
            .arg(sealed.manifest.with_file_name("run-start.json"))
            .arg(&sealed.manifest)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else { return Ok(None) };
        let Some(first) = first_byte(&mut child, begin) else { return Ok(None) };
        times.push(first.as_secs_f64());
        peak = peak.max(highest(&mut child));
    }
    times.sort_by(f64::total_cmp);
    let held = |stage: &isotherm_core::plan::Stage| Bytes(stage.bytes.weights.0 + stage.bytes.kv.0);
    Ok(Some(Start {
        first_token_seconds: times[times.len() / 2],
        peak_bytes: peak,
        planned_bytes: sealed.plan.stages.iter().map(held).sum(),
    }))
}

/// When the first byte of the answer came.
fn first_byte(child: &mut Child, begin: Instant) -> Option<Duration> {
    let mut byte = [0];
    child.stdout.as_mut()?.read_exact(&mut byte).ok()?;
    Some(begin.elapsed())
}

/// The most memory that the process held until it ended: the kernel keeps the mark, which is read while the process lives.
fn highest(child: &mut Child) -> Option<Bytes> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = None;
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mark = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = mark.and_then(|mark| mark.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kibibytes.map(|count| Bytes(count << 10)));
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            _ => return peak,
        }
    }
}
