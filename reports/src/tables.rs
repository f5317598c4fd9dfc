//! Requests and runs as tables, for people who bring their own tools: Parquet and CSV, written through polars.
//!
//! Column names carry units; absent values are null (empty in CSV), never 0. Rows are in the order of the sources,
//! requests in the order of their identifiers, so that equal inputs give equal tables. A Parquet file also holds
//! `schema` and `tool_version` as file metadata.
//!
//! [`write_requests`], schema `isotherm.requests/v1`, one row per request:
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `scenario` | text | scenario of the plan |
//! | `plan` | text | digest of the plan |
//! | `record` | text | digest of the simulation report or run record it came from |
//! | `origin` | text | `predicted` or `measured` |
//! | `id` | u32 | position in order of arrival |
//! | `arrival_ns` | u64 | when it arrived, since the start of the run |
//! | `prompt_tokens`, `output_tokens` | u32 | lengths |
//! | `first_token_ns`, `finished_ns` | u64 | when first and last token were out |
//! | `ttft_seconds`, `e2e_seconds` | f64 | from arrival to first and to last token |
//! | `tpot_seconds` | f64, null | per output token after the first; null for a single token |
//!
//! [`write_runs`], schema `isotherm.runs/v1`, one row per trace: `scenario`, `plan`, `record`, `origin` as above, then
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `requests` | u64 | requests that finished |
//! | `output_tokens` | u64 | tokens of their answers |
//! | `end_ns` | u64 | when the last event happened |
//! | `tokens_per_second` | f64, null | output tokens from first arrival to last token; null without requests |
//! | `ttft_`, `tpot_`, `e2e_` + `mean_`, `p50_`, `p90_`, `p99_` + `seconds` | f64, null | over its requests |
//! | `energy_joules` | f64, null | sum over devices; null where one of them is unknown |
//! | `temperature_max_celsius` | f64, null | hottest device; null where one of them is unknown |
//! | `throttled_seconds` | f64, null | sum over devices; null where one of them is unknown |
//!
//! [`write_columns`] writes a table whose columns the caller names, under the same rules.

use crate::measure::values;
use crate::report::Report;
use crate::show::Metric;
use isotherm_core::artefact::TOOL_VERSION;
use isotherm_core::digest::Digest;
use isotherm_core::trace::{DeviceRecord, Origin, RequestRecord, Statistic, Trace};
use isotherm_core::units::Celsius;
use polars::prelude::{
    Column, CsvWriter, DataFrame, DataType, KeyValueMetadata, ParquetReader, ParquetWriter, PolarsError, SerReader,
    SerWriter,
};
use std::io::Write;

/// Schema of a table of requests.
pub const REQUESTS_SCHEMA: &str = "isotherm.requests/v1";
/// Schema of a table of runs.
pub const RUNS_SCHEMA: &str = "isotherm.runs/v1";

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet, compressed.
    Parquet,
    /// Text with commas and a heading, UTF-8.
    Csv,
}

/// A table could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the {table} table could not be written")]
pub struct TableError {
    /// Its schema.
    table: &'static str,
    /// What went wrong: in most cases the disk.
    #[source]
    source: PolarsError,
}

/// A table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no Parquet file, or a damaged one.
    #[error("it is no Parquet table, or a damaged one")]
    Damaged(#[from] PolarsError),
    /// A column holds something that no table of isotherm has.
    #[error("column {column:?} holds {found}; only texts, counts and numbers are read")]
    Type {
        /// The column.
        column: String,
        /// What it holds.
        found: String,
    },
}

/// A table as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// Its schema, where it states one.
    pub schema: Option<String>,
    /// Version of isotherm that wrote it, likewise.
    pub tool_version: Option<String>,
    /// Its columns, in order.
    pub columns: Vec<(String, Values)>,
}

/// The values of one column, one a row; an absent value is null.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Words.
    Text(Vec<Option<String>>),
    /// Whole numbers.
    Counts(Vec<Option<u64>>),
    /// Measured or computed numbers; one that is not finite is null.
    Numbers(Vec<Option<f64>>),
}

impl Values {
    /// Number of values.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Text(values) => values.len(),
            Self::Counts(values) => values.len(),
            Self::Numbers(values) => values.len(),
        }
    }

    /// Whether there is no value.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A trace and where it came from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Scenario of the plan.
    pub scenario: &'a str,
    /// Digest of the plan.
    pub plan: Digest,
    /// Digest of the simulation report or run record.
    pub record: Digest,
    /// What happened.
    pub trace: &'a Trace,
}

/// Every trace of a report: of each plan first the simulated one, then its runs.
#[must_use]
pub fn sources(report: &Report) -> Vec<Source<'_>> {
    let mut all = Vec::new();
    for case in &report.cases {
        let (scenario, plan) = (case.plan.scenario.as_str(), case.plan.digest());
        if let Some(simulation) = &case.simulation
            && let Some(trace) = &simulation.value.trace
        {
            all.push(Source { scenario, plan, record: simulation.digest, trace });
        }
        all.extend(case.runs.iter().map(|run| Source { scenario, plan, record: run.digest, trace: &run.value.trace }));
    }
    all
}

/// Writes one row per request and returns their number. Errors: the table could not be written.
pub fn write_requests(sources: &[Source<'_>], format: Format, out: impl Write + Send) -> Result<usize, TableError> {
    let rows: Vec<(&Source<'_>, &RequestRecord)> =
        sources.iter().flat_map(|source| source.trace.requests.iter().map(move |request| (source, request))).collect();
    let of = |get: &dyn Fn(&RequestRecord) -> u64| rows.iter().map(|(_, request)| get(request)).collect::<Vec<u64>>();
    let small =
        |get: &dyn Fn(&RequestRecord) -> u32| rows.iter().map(|(_, request)| get(request)).collect::<Vec<u32>>();
    let seconds = |get: &dyn Fn(&RequestRecord) -> Option<f64>| {
        rows.iter().map(|(_, request)| get(request)).collect::<Vec<Option<f64>>>()
    };
    let owners: Vec<&Source<'_>> = rows.iter().map(|(source, _)| *source).collect();
    let mut columns = identity(&owners);
    columns.extend([
        Column::new("id".into(), small(&|r| r.id)),
        Column::new("arrival_ns".into(), of(&|r| r.arrival_ns.0)),
        Column::new("prompt_tokens".into(), small(&|r| r.prompt_tokens)),
        Column::new("output_tokens".into(), small(&|r| r.output_tokens)),
        Column::new("first_token_ns".into(), of(&|r| r.first_token_ns.0)),
        Column::new("finished_ns".into(), of(&|r| r.finished_ns.0)),
        Column::new("ttft_seconds".into(), seconds(&|r| Some(r.ttft().seconds().value()))),
        Column::new("tpot_seconds".into(), seconds(&RequestRecord::tpot_seconds)),
        Column::new("e2e_seconds".into(), seconds(&|r| Some(r.e2e().seconds().value()))),
    ]);
    write(REQUESTS_SCHEMA, columns, format, out)
}

/// Writes one row per trace and returns their number. Errors: the table could not be written.
pub fn write_runs(sources: &[Source<'_>], format: Format, out: impl Write + Send) -> Result<usize, TableError> {
    let owners: Vec<&Source<'_>> = sources.iter().collect();
    let counts = |get: &dyn Fn(&Trace) -> u64| sources.iter().map(|s| get(s.trace)).collect::<Vec<u64>>();
    let figures = |get: &dyn Fn(&Trace) -> Option<f64>| {
        sources.iter().map(|s| get(s.trace).filter(|v| v.is_finite())).collect::<Vec<Option<f64>>>()
    };
    let mut columns = identity(&owners);
    columns.extend([
        Column::new("requests".into(), counts(&|t| t.requests.len() as u64)),
        Column::new("output_tokens".into(), counts(&|t| t.requests.iter().map(|r| u64::from(r.output_tokens)).sum())),
        Column::new("end_ns".into(), counts(&|t| t.end_ns.0)),
        Column::new("tokens_per_second".into(), figures(&Trace::tokens_per_second)),
    ]);
    for metric in [Metric::Ttft, Metric::Tpot, Metric::E2e] {
        let statistics: Vec<Option<Statistic>> =
            sources.iter().map(|s| Statistic::of(values(s.trace, metric))).collect();
        let mut add = |part: &str, of: fn(&Statistic) -> f64| {
            let stem = metric.key().trim_end_matches("_seconds");
            let shown: Vec<Option<f64>> = statistics.iter().map(|s| s.as_ref().map(of)).collect();
            columns.push(Column::new(format!("{stem}_{part}_seconds").into(), shown));
        };
        add("mean", |s| s.mean);
        add("p50", |s| s.p50);
        add("p90", |s| s.p90);
        add("p99", |s| s.p99);
    }
    let joules = |d: &DeviceRecord| Some(d.energy_joules?.value());
    let celsius = |d: &DeviceRecord| d.temperature_max_celsius.map(Celsius::value);
    let throttled = |d: &DeviceRecord| Some(d.throttled_ns?.seconds().value());
    columns.extend([
        Column::new("energy_joules".into(), figures(&|t| Some(known(t, joules)?.iter().sum()))),
        Column::new("temperature_max_celsius".into(), figures(&|t| known(t, celsius)?.into_iter().reduce(f64::max))),
        Column::new("throttled_seconds".into(), figures(&|t| Some(known(t, throttled)?.iter().sum()))),
    ]);
    write(RUNS_SCHEMA, columns, format, out)
}

/// Writes a table of the caller's own and returns its rows. Errors: the table could not be written, or its columns
/// differ in length or share a name.
pub fn write_columns(
    schema: &'static str,
    columns: Vec<(impl AsRef<str>, Values)>,
    format: Format,
    out: impl Write + Send,
) -> Result<usize, TableError> {
    let columns = columns.into_iter().map(|(name, values)| match values {
        Values::Text(words) => Column::new(name.as_ref().into(), words),
        Values::Counts(counts) => Column::new(name.as_ref().into(), counts),
        Values::Numbers(numbers) => {
            let finite: Vec<Option<f64>> = numbers.into_iter().map(|n| n.filter(|n| n.is_finite())).collect();
            Column::new(name.as_ref().into(), finite)
        }
    });
    write(schema, columns.collect(), format, out)
}

/// Reads a Parquet table that [`write_columns`] wrote: its schema and version as it states them, and its columns.
/// Errors: the bytes are no such table, or a column is of a type that none of them has.
pub fn read_columns(bytes: &[u8]) -> Result<Read, ReadError> {
    let mut reader = ParquetReader::new(std::io::Cursor::new(bytes));
    let metadata = reader.get_metadata()?.key_value_metadata().clone().unwrap_or_default();
    let stated = |key: &str| metadata.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone());
    let (schema, tool_version) = (stated("schema"), stated("tool_version"));
    let frame = reader.finish()?;
    let mut columns = Vec::new();
    for column in frame.columns() {
        let name = column.name().to_string();
        let series = column.as_materialized_series();
        let values = match series.dtype() {
            DataType::String => Values::Text(series.str()?.iter().map(|text| text.map(str::to_owned)).collect()),
            DataType::UInt64 => Values::Counts(series.u64()?.iter().collect()),
            DataType::UInt32 => Values::Counts(series.u32()?.iter().map(|n| n.map(u64::from)).collect()),
            DataType::Float64 => Values::Numbers(series.f64()?.iter().collect()),
            other => return Err(ReadError::Type { column: name, found: other.to_string() }),
        };
        columns.push((name, values));
    }
    Ok(Read { schema, tool_version, columns })
}

/// A figure of every device of a trace; none where one lacks it or there is no device.
fn known(trace: &Trace, figure: impl Fn(&DeviceRecord) -> Option<f64>) -> Option<Vec<f64>> {
    trace.devices.iter().map(figure).collect::<Option<Vec<f64>>>().filter(|all| !all.is_empty())
}

/// The columns that say what a row is about.
fn identity(rows: &[&Source<'_>]) -> Vec<Column> {
    let origin = |source: &&Source<'_>| match source.trace.origin {
        Origin::Predicted => "predicted",
        Origin::Measured => "measured",
    };
    vec![
        Column::new("scenario".into(), rows.iter().map(|s| s.scenario).collect::<Vec<&str>>()),
        Column::new("plan".into(), rows.iter().map(|s| s.plan.to_string()).collect::<Vec<String>>()),
        Column::new("record".into(), rows.iter().map(|s| s.record.to_string()).collect::<Vec<String>>()),
        Column::new("origin".into(), rows.iter().map(origin).collect::<Vec<&str>>()),
    ]
}

fn write(
    table: &'static str,
    columns: Vec<Column>,
    format: Format,
    out: impl Write + Send,
) -> Result<usize, TableError> {
    let failed = |source| TableError { table, source };
    let mut frame = DataFrame::new_infer_height(columns).map_err(failed)?;
    match format {
        Format::Parquet => {
            let metadata = [("schema", table), ("tool_version", TOOL_VERSION)];
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
            ParquetWriter::new(out)
                .with_key_value_metadata(Some(KeyValueMetadata::from_static(metadata)))
                .finish(&mut frame)
                .map_err(failed)?;
        }
        Format::Csv => CsvWriter::new(out).finish(&mut frame).map_err(failed)?,
    }
    Ok(frame.height())
}
