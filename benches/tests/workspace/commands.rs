//! Every `isotherm` command that the documents show is one the binary knows, with flags it takes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::checkout::{metadata, skip_without_git, tracked_texts};
use crate::expect_none;

/// A command line as a document shows it.
#[derive(Debug, PartialEq)]
struct Shown {
    line: usize,
    /// Words after `isotherm`, as the shell would split simple ones.
    words: Vec<String>,
}

/// Command lines in the shell blocks of a page, continuation lines joined.
fn shown(page: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    let mut in_shell = None;
    let mut pending = (0, String::new());
    for (index, line) in page.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let shell = matches!(language.trim(), "" | "sh" | "bash" | "console" | "shell");
            in_shell = if in_shell.is_some() { None } else { Some(shell) };
            continue;
        }
        if in_shell != Some(true) {
            continue;
        }
        if pending.1.is_empty() {
            pending.0 = index + 1;
        }
        if let Some(start) = line.strip_suffix('\\') {
            pending.1.push_str(start);
            pending.1.push(' ');
            continue;
        }
        pending.1.push_str(line);
        let (number, whole) = std::mem::take(&mut pending);
        let uncommented = whole.split(" #").next().unwrap_or_default();
        found.extend(uncommented.split(['|', ';', '&']).filter_map(|part| invocation(number, part)));
    }
    found
}

/// The words after `isotherm` where a part of a shell line calls it.
fn invocation(line: usize, part: &str) -> Option<Shown> {
    let mut words = part.split_whitespace().skip_while(|word| *word == "$" || word.contains('='));
    let program = words.next()?;
    let called = program == "isotherm" || program.ends_with("/isotherm");
    called.then(|| Shown { line, words: words.map(str::to_owned).collect() })
}

/// Whether a word could be a subcommand: plain lower-case letters and hyphens.
fn could_be_a_subcommand(word: &str) -> bool {
    !word.starts_with('-') && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

/// The long flags of a command line, without values.
fn flags(words: &[String]) -> impl Iterator<Item = &str> {
    words
        .iter()
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .map(|word| word.split('=').next().unwrap_or(word))
}

/// The built binary beside this test, if there is one.
fn binary() -> Option<PathBuf> {
    let path = metadata().target_directory.join("debug").join(format!("isotherm{}", std::env::consts::EXE_SUFFIX));
    path.is_file().then_some(path)
}

/// The help of `isotherm WORDS`, or `None` where the binary does not know those words as subcommands.
fn help(binary: &PathBuf, words: &[&str]) -> Option<String> {
    let output = Command::new(binary).args(words).arg("--help").env("NO_COLOR", "1").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut usage = vec!["isotherm"];
    usage.extend(words);
    let named = text.lines().any(|line| line.contains("Usage:") && line.contains(&usage.join(" ")));
    (output.status.success() && named).then_some(text)
}

/// What is wrong with a shown command, given a way to ask for help.
fn fault(shown: &Shown, mut help: impl FnMut(&[&str]) -> Option<String>) -> Option<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut text = help(&[])?;
    for word in shown.words.iter().take_while(|word| could_be_a_subcommand(word)) {
        path.push(word);
        match help(&path) {
            Some(deeper) => text = deeper,
            None if path.len() == 1 => return Some(format!("`isotherm {word}` is unknown")),
            None => {
                path.pop();
                break;
            }
        }
    }
    let takes = |flag: &str| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == flag);
    let unknown: Vec<&str> = flags(&shown.words).filter(|flag| !takes(flag)).collect();
    (!unknown.is_empty()).then(|| format!("`isotherm {}` takes no {}", path.join(" "), unknown.join(", ")))
}

#[test]
fn every_documented_command_exists_with_its_flags() {
    const TEST: &str = "every_documented_command_exists_with_its_flags";
    let Some(texts) = tracked_texts() else { return skip_without_git(TEST) };
    let Some(binary) = binary() else {
        assert!(std::env::var_os("CI").is_none(), "build the binary before this test: cargo build -p isotherm-cli");
        eprintln!("skipped: {TEST}: target/debug/isotherm is not built yet; run cargo build -p isotherm-cli");
        return;
    };
    assert!(help(&binary, &[]).is_some(), "`isotherm --help` prints no usage line");
    let mut asked: BTreeMap<Vec<String>, Option<String>> = BTreeMap::new();
    let mut ask = |words: &[&str]| {
        let key = words.iter().map(|word| (*word).to_owned()).collect();
        asked.entry(key).or_insert_with(|| help(&binary, words)).clone()
    };
    let mut found = Vec::new();
    for (path, text) in texts.iter().filter(|(path, _)| path.ends_with(".md") && path != "CHANGELOG.md") {
        for command in shown(text) {
            let why = fault(&command, &mut ask);
            found.extend(why.map(|why| format!("{path}:{}: {why}", command.line)));
        }
    }
    expect_none("Mend the document, or give the binary what it promises:", &found);
}

#[test]
fn commands_are_read_from_shell_blocks_alone() {
    let page = "isotherm prose\n```sh\n$ A=1 isotherm plan x.toml \\\n  --seeds 3 | isotherm check # isotherm no\n```\n```rust\nisotherm code\n```\n";
    let words = |text: &str| text.split(' ').map(str::to_owned).collect();
    assert_eq!(
        shown(page),
        [Shown { line: 3, words: words("plan x.toml --seeds 3") }, Shown { line: 3, words: words("check") }]
    );
}

#[test]
fn an_unknown_command_or_flag_is_caught() {
    let help = |words: &[&str]| match words {
        [] => Some("Usage: isotherm".to_owned()),
        ["batch"] => Some("--shard <I/N>".to_owned()),
        ["batch", "emit"] => Some("--tasks".to_owned()),
        _ => None,
    };
    let fault_of = |text: &str| fault(&Shown { line: 1, words: text.split(' ').map(str::to_owned).collect() }, help);
    assert_eq!(fault_of("batch folder --shard 1/2"), None);
    assert_eq!(fault_of("batch emit slurm --tasks=4"), None);
    assert!(fault_of("fly").is_some());
    assert!(fault_of("batch folder --shards 1/2").is_some());
    assert!(fault_of("batch emit slurm --shard 1/2").is_some());
}
