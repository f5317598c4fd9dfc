//! llama.cpp beside this program: a process of its own that measures a round whenever it is asked to.

use crate::args::BenchRuntime;
use crate::failure::Failure;
use crate::models;
use serde::Deserialize;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What the script says when its model is loaded.
#[derive(Debug, Deserialize)]
struct Greeting {
    version: String,
    release: Option<String>,
}

/// One round of it.
#[derive(Debug, Deserialize)]
pub(super) struct Round {
    /// Seconds of the prompt.
    pub(super) prefill_s: f64,
    /// Seconds of each token after it.
    pub(super) token_s: Vec<f64>,
    /// Tokens per second of several sequences together.
    pub(super) together: Vec<f64>,
}

/// The process.
pub(super) struct Peer {
    child: Child,
    ask: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    /// Who it is.
    pub(super) name: String,
}

impl Peer {
    /// Starts the script on so many cores and waits until its model is loaded.
    pub(super) fn start(
        args: &BenchRuntime,
        folder: &Path,
        model: &Path,
        cores: &[usize],
        together: &[usize],
        card: Option<usize>,
    ) -> Result<Self, Failure> {
        let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let numbers = [
            cores.len().to_string(),
            args.prompt_tokens.to_string(),
            args.output_tokens.to_string(),
            args.rounds.to_string(),
        ];
        let mut command = Command::new("taskset");
        if let Some(index) = card {
            command.env("ISOTHERM_PEER_GPU", "vulkan").env("GGML_VK_VISIBLE_DEVICES", index.to_string());
        }
        let mut child = command
            .args(["-c", &list(cores), "node"])
            .arg(&args.peer_script)
            .arg(folder)
            .arg(model)
            .args(numbers)
            .arg(list(together))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| {
                Failure::io(format!("the peer did not start: {e}"))
                    .remedy("install node and taskset, or leave out --peer")
            })?;
        let (ask, out) = (child.stdin.take(), child.stdout.take());
        let out = out.ok_or_else(|| Failure::io("the peer has no output"))?;
        let mut peer = Self { child, ask, answers: BufReader::new(out).lines(), name: String::new() };
        let greeting: Greeting = peer.answer()?;
        peer.name = format!("llama.cpp {} ({})", greeting.release.unwrap_or_default(), greeting.version);
        Ok(peer)
    }

    /// Measures one round.
    pub(super) fn round(&mut self) -> Result<Round, Failure> {
        let asked = self.ask.as_mut().map(|ask| ask.write_all(b"\n").and_then(|()| ask.flush()));
        match asked {
            Some(Ok(())) => self.answer(),
            _ => Err(Failure::io("the peer has ended")),
        }
    }

    fn answer<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, Failure> {
        let unheard = || {
            Failure::io("the peer ended without an answer").remedy("run its script by hand; its first lines say how")
        };
        let line = self.answers.next().and_then(Result::ok).ok_or_else(unheard)?;
        serde_json::from_str(&line).map_err(|e| Failure::io(format!("the peer said {line:?}: {}", models::causes(&e))))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ask = None;
        // It ends when nobody asks any more; where it does not, it is ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
