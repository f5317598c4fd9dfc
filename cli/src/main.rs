#![forbid(unsafe_code)]
//! The command line: files, arguments, exit codes, wiring. The only room that knows two rooms.

mod access;
mod args;
mod builtin;
mod commands;
mod counters;
mod execution;
mod failure;
mod files;
mod interrupt;
mod keyset;
mod llmservingsim;
mod models;
mod question;
mod receipts;
mod registry;
mod roots;
mod session;
mod trust;
mod ui;
mod usage;

use args::{BenchCommand, Cli, Command};
use clap::Parser;
use failure::Done;
use std::process::ExitCode;
use ui::Ui;

fn main() -> ExitCode {
    // A usage error is printed by clap, which ends with code 2.
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli) -> Done {
    interrupt::listen()?;
    let ui = Ui { format: cli.format, quiet: cli.quiet };
    match &cli.command {
        Command::Tour(args) => commands::tour::run(&ui, args),
        Command::Probe(args) => commands::probe::run(&ui, args),
        Command::Devices(args) => commands::devices::run(&ui, args),
        Command::Monitor(args) => commands::monitor::run(&ui, args),
        Command::Model(command) => commands::model::run(&ui, command),
        Command::Scenario(command) => commands::scenario::run(&ui, command),
        Command::Plan(args) => commands::plan::run(&ui, args),
        Command::Check(args) => commands::plan::check(&ui, args),
        Command::Explain(args) => commands::explain::run(&ui, args),
        Command::Simulate(args) => commands::simulate::run(&ui, args),
        Command::Seal(args) => commands::seal::run(&ui, args),
        Command::Verify(args) => commands::verify::run(&ui, args),
        Command::Run(args) => commands::run::run(&ui, args),
        Command::Report(args) => commands::report::run(&ui, args),
        Command::Batch(args) => commands::batch::run(&ui, args),
        Command::Query(args) => commands::query::run(&ui, args),
        Command::FitThermal(args) => commands::fit_thermal::run(&ui, args),
        Command::Import(command) => commands::import::run(&ui, command),
        Command::Validate(command) => commands::validate::run(&ui, command),
        Command::Export(args) => commands::export::run(&ui, args),
        Command::Advise(args) => commands::advise::run(&ui, args),
        Command::Bench(BenchCommand::Truth { output, model, runs }) => commands::truth::run(&ui, output, model, *runs),
        Command::Bench(BenchCommand::Placements(args)) => commands::bench_placements::run(&ui, args),
        Command::Bench(BenchCommand::Planner(args)) => commands::bench_planner::run(&ui, args),
        Command::Bench(BenchCommand::Plans(args)) => commands::bench_plans::run(&ui, args),
        Command::Bench(BenchCommand::Probe(args)) => commands::bench_probe::run(&ui, args),
        Command::Bench(BenchCommand::Device(args)) => commands::bench_device::run(&ui, args),
        Command::Bench(BenchCommand::Runtime(args)) => commands::bench_runtime::run(&ui, args),
        Command::Bench(BenchCommand::Cuda(args)) => commands::bench_cuda::run(&ui, args),
        Command::Bench(BenchCommand::Sim(args)) => commands::bench_sim::run(&ui, args),
        Command::Bench(BenchCommand::All(args)) => commands::bench_load::run(&ui, args),
        Command::Bench(BenchCommand::Compare(args)) => commands::bench_compare::run(&ui, args),
        Command::Bench(BenchCommand::Targets(args)) => commands::bench_targets::run(&ui, args),
        Command::Audit(command) => commands::audit::run(&ui, command),
        Command::Access(command) => commands::access::run(&ui, command),
        Command::Keys(command) => commands::keys::run(&ui, command),
        Command::Generate(command) => commands::generate::run(command),
    }
}
