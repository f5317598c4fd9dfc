//! `isotherm generate`: completions, manual pages and the command reference, all from the one definition.

use crate::args::{Cli, GenerateCommand};
use crate::failure::{Done, Failure};
use crate::{files, ui};
use clap::CommandFactory;
use std::path::Path;

/// Characters in a line of the command reference.
const REFERENCE_WIDTH: usize = 100;

/// Runs the command.
pub fn run(command: &GenerateCommand) -> Done {
    match command {
        GenerateCommand::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "isotherm", &mut text);
            ui::print(&text)
        }
        GenerateCommand::Man { output } => {
            let mut root = Cli::command();
            root.build();
            manual(&root, output)
        }
        GenerateCommand::Reference => {
            // The same page whatever the terminal.
            let mut root = Cli::command().term_width(REFERENCE_WIDTH);
            root.build();
            let mut text = String::from("# Command reference\n\nWritten by `isotherm generate reference`.\n");
            reference(&mut root, &mut text);
            ui::print(text.as_bytes())
        }
    }
}

/// One page per command, `isotherm-plan.1` and so on.
fn manual(command: &clap::Command, directory: &Path) -> Done {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).replace(' ', "-");
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.clone()))
        .render(&mut page)
        .map_err(|e| Failure::io(format!("manual page {name} was not rendered: {e}")))?;
    files::write(&directory.join(format!("{name}.1")), &page)?;
    shown(command).try_for_each(|sub| manual(sub, directory))
}

fn reference(command: &mut clap::Command, text: &mut String) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).replace('-', " ");
    let help = command.render_long_help().to_string();
    text.push_str(&format!("\n## {name}\n\n```text\n{}\n```\n", help.trim_end()));
    let subcommands: Vec<String> = shown(command).map(|sub| sub.get_name().to_owned()).collect();
    for name in subcommands {
        if let Some(sub) = command.find_subcommand_mut(&name) {
            reference(sub, text);
        }
    }
}

fn shown(command: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}
