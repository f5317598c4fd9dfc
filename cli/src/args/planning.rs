//! What `isotherm plan` is asked beside the best plan: promises, losses, and a plan that already runs.

use clap::{Args, ValueEnum};
use isotherm_core::problem::{Division, Goal, Objective};
use isotherm_core::units::{BytesPerSecond, Seconds};
use isotherm_planner::robust::Guard;
use isotherm_planner::survive::Scope;
use std::path::PathBuf;

/// Promises on times, kept in simulation.
#[derive(Debug, Clone, Args)]
pub struct Promises {
    /// Time to the first token that the plan has to keep in simulation.
    #[arg(long, value_name = "TIME")]
    pub slo_ttft: Option<Seconds>,
    /// Time per output token that the plan has to keep in simulation.
    #[arg(long, value_name = "TIME")]
    pub slo_tpot: Option<Seconds>,
    /// Percent of the requests that have to keep them.
    #[arg(long, value_name = "PERCENT", default_value_t = 95.0)]
    pub slo_percentile: f64,
    /// Most plans that are simulated in the search for one that keeps them.
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub rounds: usize,
    /// Simulated runs of each.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub seeds: u32,
}

/// What a plan has to reach beside being the best.
#[derive(Debug, Clone, Args)]
pub struct Goals {
    /// Share by which a later objective may worsen each one before it.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    pub give: f64,
    /// Least throughput, in output tokens per second.
    #[arg(long, value_name = "RATE")]
    pub throughput_min: Option<f64>,
    /// Most energy per output token, in joules.
    #[arg(long, value_name = "JOULES")]
    pub energy_max: Option<f64>,
    /// Most money per million output tokens, in the currency of the scenario's prices.
    #[arg(long, value_name = "MONEY")]
    pub money_max: Option<f64>,
    /// Most money per hour.
    #[arg(long, value_name = "MONEY")]
    pub money_per_hour_max: Option<f64>,
}

impl Goals {
    /// The goals; an error names the option whose number is none.
    pub fn asked(&self) -> Result<Vec<Goal>, String> {
        let all = [
            ("throughput-min", Objective::Throughput, self.throughput_min),
            ("energy-max", Objective::Energy, self.energy_max),
            ("money-max", Objective::Money, self.money_max),
            ("money-per-hour-max", Objective::MoneyPerHour, self.money_per_hour_max),
        ];
        if !(self.give.is_finite() && (0.0..1.0).contains(&self.give)) {
            return Err(format!("--give is {}; give a share of at least 0 and below 1, like 0.01", self.give));
        }
        let mut goals = Vec::new();
        for (name, figure, limit) in all {
            let Some(limit) = limit else { continue };
            if !(limit.is_finite() && limit > 0.0) {
                return Err(format!("--{name} is {limit}; give a number above zero"));
            }
            goals.push(Goal { figure, limit });
        }
        Ok(goals)
    }
}

/// Devices that are slower than was measured.
#[derive(Debug, Clone, Args)]
pub struct Guarded {
    /// Plan for slow devices: `quantile`, all of them, or a number, any so many of them.
    #[arg(long, value_name = "GUARD", value_parser = guard, conflicts_with_all = ["algorithm", "from"])]
    pub robust: Option<Guard>,
    /// Quantile of a device's measured times at which it counts as slow.
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    pub robust_quantile: f64,
    /// Spread (interquartile range over median) of a device of which none was measured.
    #[arg(long, value_name = "SPREAD", default_value_t = 0.05)]
    pub assumed_spread: f64,
    /// Simulated runs with drawn speeds of devices, to verify what is promised.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "robust")]
    pub monte_carlo: u32,
}

fn guard(text: &str) -> Result<Guard, String> {
    match text {
        "quantile" => Ok(Guard::Quantile),
        count => count
            .parse()
            .map(Guard::Budget)
            .map_err(|_| format!("{text:?} is neither `quantile` nor a number of devices")),
    }
}

/// What is ready for a loss.
#[derive(Debug, Clone, Args)]
pub struct Losses {
    /// Prepare a plan for the loss of any one device, or host, of the plan.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub survive: Option<Survive>,
    /// Share of the plan's rate that each of them has to keep; below it, exit code 3.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, requires = "survive")]
    pub survive_share: f64,
    /// Folder to write them to: DEVICE.json, or HOST.json.
    #[arg(long, value_name = "DIR", requires = "survive")]
    pub fallbacks: Option<PathBuf>,
}

/// A plan that already runs.
#[derive(Debug, Clone, Args)]
pub struct Running {
    /// The plan that runs: keep what it holds as far as possible.
    #[arg(long, value_name = "PLAN", conflicts_with = "algorithm")]
    pub from: Option<PathBuf>,
    /// Most bytes to move, as a multiple of the least that any plan has to move.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.2, requires = "from")]
    pub moved_max: f64,
    /// Move what lost devices held even where others hold it too, to serve as much as before.
    #[arg(long, requires = "from")]
    pub restore: bool,
    /// Also plan from scratch, and take that where it pays.
    #[arg(long, requires = "from")]
    pub reconsider: bool,
    /// Share by which a plan from scratch has to be better.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, requires = "from")]
    pub hysteresis: f64,
    /// Time within which it has to earn back what moving costs.
    #[arg(long, value_name = "TIME", default_value = "1 h", requires = "from")]
    pub horizon: Seconds,
    /// Rate at which a device takes in weights.
    #[arg(long, value_name = "RATE", default_value = "1 GB/s", requires = "from")]
    pub move_rate: BytesPerSecond,
}

/// Several figures at once.
#[derive(Debug, Clone, Args)]
pub struct Frontier {
    /// In the place of one plan, those of which none is better than another by all of these figures.
    #[arg(long, value_enum, value_name = "FIGURES", value_delimiter = ',', conflicts_with_all = ["algorithm", "from"])]
    pub pareto: Vec<FrontierAxis>,
    /// Folder to write these plans to: 1.json, 2.json ... and frontier.json, which the page of a run in the folder above
    /// shows, as in `--pareto-out RUN/frontier`.
    #[arg(long, value_name = "DIR", requires = "pareto")]
    pub pareto_out: Option<PathBuf>,
}

/// A figure of a frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FrontierAxis {
    /// Output tokens per second.
    Throughput,
    /// Time per output token of a request by itself.
    Latency,
    /// Energy per output token.
    Energy,
    /// Money per million output tokens.
    Money,
    /// Money per hour.
    MoneyPerHour,
}

impl FrontierAxis {
    /// What it is called in a table.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::Throughput => "tok/s",
            Self::Latency => "time per token",
            Self::Energy => "J/token",
            Self::Money => "per Mtok",
            Self::MoneyPerHour => "per h",
        }
    }

    /// What it is, in words, and its unit.
    #[must_use]
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Throughput => ("throughput", "tok/s"),
            Self::Latency => ("time per token of a request by itself", "s"),
            Self::Energy => ("energy per output token", "J"),
            Self::Money => ("money per million output tokens", ""),
            Self::MoneyPerHour => ("money per hour", ""),
        }
    }

    /// Its name on the command line.
    #[must_use]
    pub fn option(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// A figure in words.
    #[must_use]
    pub fn shown(self, figure: f64) -> String {
        match self {
            Self::Throughput | Self::Energy | Self::Money | Self::MoneyPerHour => format!("{figure:.3}"),
            Self::Latency => Seconds::new(figure).map_or_else(|_| "-".to_owned(), |time| time.to_string()),
        }
    }
}

impl From<FrontierAxis> for Objective {
    fn from(axis: FrontierAxis) -> Self {
        match axis {
            FrontierAxis::Throughput => Self::Throughput,
            FrontierAxis::Latency => Self::Tpot,
            FrontierAxis::Energy => Self::Energy,
            FrontierAxis::Money => Self::Money,
            FrontierAxis::MoneyPerHour => Self::MoneyPerHour,
        }
    }
}

/// When prompts and answers have devices of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Disaggregate {
    /// In no plan.
    Never,
    /// Where it is better.
    Auto,
    /// In every plan.
    Always,
}

impl From<Disaggregate> for Division {
    fn from(when: Disaggregate) -> Self {
        match when {
            Disaggregate::Never => Self::Never,
            Disaggregate::Auto => Self::Auto,
            Disaggregate::Always => Self::Always,
        }
    }
}

/// What may be lost at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Survive {
    /// One device.
    Device,
    /// One host with all its devices.
    Host,
}

impl From<Survive> for Scope {
    fn from(what: Survive) -> Self {
        match what {
            Survive::Device => Self::Device,
            Survive::Host => Self::Host,
        }
    }
}
