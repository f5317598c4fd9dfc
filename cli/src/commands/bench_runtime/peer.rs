//! Peers beside this program: llama.cpp by its script, others by a program that speaks as the script does; each is a
//! process of its own that measures a round whenever it is asked to.

use crate::args::BenchRuntime;
use crate::failure::Failure;
use crate::models;
use serde::Deserialize;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What it says when its model is loaded.
#[derive(Debug, Deserialize)]
struct Greeting {
    /// Its name and version; the script's own where it only drives the peer.
    version: String,
    /// The version of the peer that it drives.
    release: Option<String>,
}

/// Which peer.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// llama.cpp, of node-llama-cpp in this folder.
    LlamaCpp(&'a Path),
    /// What this program measures.
    Program(&'a Path),
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
    /// Starts it on these cores, or on the card of that number with these for the host's part, and waits until its model
    /// is loaded.
    pub(super) fn start(
        args: &BenchRuntime,
        which: Which<'_>,
        model: &Path,
        (cores, card): (&[usize], Option<usize>),
        together: &[usize],
    ) -> Result<Self, Failure> {
        let list = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let numbers = [
            cores.len().to_string(),
            args.prompt_tokens.to_string(),
            args.output_tokens.to_string(),
            args.rounds.to_string(),
        ];
        let mut command = Command::new("taskset");
        command.args(["-c", &list(cores)]);
        if let Some(index) = card {
            command.env("ISOTHERM_PEER_GPU", "vulkan").env("GGML_VK_VISIBLE_DEVICES", index.to_string());
        }
        let (who, needs) = match which {
            Which::LlamaCpp(folder) => {
                command.arg("node").arg(&args.peer_script).arg(folder);
                ("llama.cpp".to_owned(), "node and taskset, or leave out --peer")
            }
            Which::Program(program) => {
                // A name alone is a file here, not a command of the system.
                command.arg(program.canonicalize().map_err(|e| Failure::file(program, e))?);
                // What candle would take in the place of the threads and cores given to it.
                command.env("CANDLE_NUM_THREADS", cores.len().to_string()).env_remove("CANDLE_CPU_MASK");
                (program.display().to_string(), "taskset, or leave out --peer-program")
            }
        };
        let mut child = command
            .arg(model)
            .args(numbers)
            .arg(list(together))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| {
                Failure::io(format!("the peer {who} did not start: {e}")).remedy(format!("install {needs}"))
            })?;
        let (ask, out) = (child.stdin.take(), child.stdout.take());
        let out = out.ok_or_else(|| Failure::io("the peer has no output"))?;
        let mut peer = Self { child, ask, answers: BufReader::new(out).lines(), name: who };
        let greeting: Greeting = peer.answer()?;
        peer.name = match greeting.release {
            Some(release) => format!("{} {release} ({})", peer.name, greeting.version),
            None => greeting.version,
        };
        Ok(peer)
    }

    /// Measures one round.
    pub(super) fn round(&mut self) -> Result<Round, Failure> {
        let asked = self.ask.as_mut().map(|ask| ask.write_all(b"\n").and_then(|()| ask.flush()));
        match asked {
            Some(Ok(())) => self.answer(),
            _ => Err(Failure::io(format!("the peer {} has ended", self.name))),
        }
    }

    fn answer<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T, Failure> {
        let unheard = || {
            Failure::io(format!("the peer {} ended without an answer", self.name))
                .remedy("run it by hand; the first lines of its source say how")
        };
        let line = self.answers.next().and_then(Result::ok).ok_or_else(unheard)?;
        let unread =
            |e: serde_json::Error| Failure::io(format!("the peer {} said {line:?}: {}", self.name, models::causes(&e)));
        serde_json::from_str(&line).map_err(unread)
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
