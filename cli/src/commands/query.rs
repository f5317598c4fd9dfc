//! `isotherm query`: questions over a batch, or over any table that isotherm writes.

use super::batch::{RESULTS_SCHEMA, parts};
use crate::args::{Format, QueryArgs};
use crate::commands::report::write_table;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::{Ui, table};
use isotherm_core::query::{Column, Query, Table, Value};
use isotherm_reports::tables::{Format as FileFormat, Values, read_columns, write_columns};
use std::path::{Path, PathBuf};

/// Schema of an answer that is written as a table.
const ANSWER_SCHEMA: &str = "isotherm.query-answer/v1";

/// Runs the command.
pub fn run(ui: &Ui, args: &QueryArgs) -> Done {
    let Some(question) = args.question.as_deref() else {
        if !args.columns {
            return Err(Failure::new(Code::Usage, "a question is missing")
                .remedy("isotherm query OUT \"SELECT scenario, status\", or --columns for what there is to ask"));
        }
        return columns(ui, &read(&args.source, "results")?);
    };
    let refused = |e: isotherm_core::query::QueryError| {
        let mut text: String = question.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.push_str(&format!("\n    {}^", " ".repeat(e.at)));
        Failure::new(Code::Usage, format!("{}\n    {text}", e.what)).remedy(e.remedy)
    };
    let query = Query::parse(question).map_err(refused)?;
    let answer = query.answer(&read(&args.source, query.table())?).map_err(refused)?;
    if let Some(path) = &args.output {
        let format = match path.extension().and_then(|ending| ending.to_str()) {
            Some("csv") => FileFormat::Csv,
            Some("parquet") => FileFormat::Parquet,
            _ => {
                return Err(Failure::new(Code::Usage, format!("{} ends in neither .csv nor .parquet", path.display())));
            }
        };
        write_table(path, |out| write_columns(ANSWER_SCHEMA, written(&answer), format, out))?;
    }
    if ui.format == Format::Json {
        return ui.result(&json(&answer), String::new);
    }
    ui.result(&(), || text(&answer))
}

/// The table of this name in a batch's folder; or the one file that was named.
pub fn read(source: &Path, name: &str) -> Result<Table, Failure> {
    let (paths, schema): (Vec<PathBuf>, _) = if source.is_dir() {
        let (_, results) = parts(&source.join("results"))?;
        match name {
            "results" => (results, Some(RESULTS_SCHEMA)),
            "solve" => {
                let beside = |path: &PathBuf| {
                    let name = path.file_name().map(|name| name.to_string_lossy().replace("part-", "solve-"));
                    path.with_file_name(name.unwrap_or_default())
                };
                (results.iter().map(beside).collect(), Some(super::batch::SOLVE_SCHEMA))
            }
            other => {
                return Err(Failure::new(Code::Usage, format!("a batch has no table {other:?}"))
                    .remedy("ask FROM results, or FROM solve for how long each point took"));
            }
        }
    } else {
        (vec![source.to_owned()], None)
    };
    let mut whole: Vec<(String, Values)> = Vec::new();
    for path in paths {
        let read = read_columns(&files::read(&path)?).map_err(|e| Failure::file(&path, crate::models::causes(&e)))?;
        if schema.is_some() && read.schema.as_deref() != schema {
            let found = read.schema.unwrap_or_else(|| "no schema".to_owned());
            return Err(Failure::file(&path, format!("is a {found}; it was written by an incompatible version")));
        }
        append(&mut whole, read.columns).map_err(|why| Failure::file(&path, why))?;
    }
    let columns = whole.into_iter().map(|(name, values)| {
        let column = match values {
            Values::Text(words) => Column::Texts(words),
            Values::Counts(counts) => Column::Numbers(counts.into_iter().map(|n| n.map(|n| n as f64)).collect()),
            Values::Numbers(numbers) => Column::Numbers(numbers),
        };
        (name, column)
    });
    Table::new(columns.collect()).ok_or_else(|| Failure::file(source, "holds columns that do not fit together"))
}

fn append(whole: &mut Vec<(String, Values)>, part: Vec<(String, Values)>) -> Result<(), &'static str> {
    if whole.is_empty() {
        *whole = part;
        return Ok(());
    }
    if whole.len() != part.len() {
        return Err("has other columns than the files before it");
    }
    for ((name, to), (other, from)) in whole.iter_mut().zip(part) {
        match (to, from) {
            (Values::Text(to), Values::Text(from)) if *name == other => to.extend(from),
            (Values::Counts(to), Values::Counts(from)) if *name == other => to.extend(from),
            (Values::Numbers(to), Values::Numbers(from)) if *name == other => to.extend(from),
            _ => return Err("has other columns than the files before it"),
        }
    }
    Ok(())
}

fn columns(ui: &Ui, table: &Table) -> Done {
    let named: Vec<(&str, &str, usize)> = table
        .columns()
        .iter()
        .map(|(name, column)| {
            let kind = match column {
                Column::Texts(_) => "text",
                Column::Numbers(_) => "number",
                Column::Truths(_) => "condition",
            };
            let known = (0..column.len()).filter(|&row| !column.value(row).is_null()).count();
            (name.as_str(), kind, known)
        })
        .collect();
    ui.result(&named, || {
        let mut rows = vec![["column", "type", "known"].map(str::to_owned).to_vec()];
        rows.extend(named.iter().map(|(name, kind, known)| {
            let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.');
            let name = if plain { (*name).to_owned() } else { format!("\"{name}\"") };
            vec![name, (*kind).to_owned(), format!("{known} of {}", table.rows())]
        }));
        self::table(&rows, &[2])
    })
}

/// A number with at most six significant digits, whole numbers whole.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value}");
    }
    let digits = (5 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let shown = format!("{value:.digits$}");
    let shown = if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.') } else { &shown };
    if value.abs() < 1e-6 { format!("{value:.5e}") } else { shown.to_owned() }
}

fn text(answer: &Table) -> String {
    let mut rows = vec![answer.columns().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()];
    for row in 0..answer.rows() {
        let cell = |column: &Column| match column.value(row) {
            Value::Null => "-".to_owned(),
            Value::Truth(truth) => if truth { "yes" } else { "no" }.to_owned(),
            Value::Number(value) => number(value),
            Value::Text(text) => text,
        };
        rows.push(answer.columns().iter().map(|(_, column)| cell(column)).collect());
    }
    let right: Vec<usize> = answer
        .columns()
        .iter()
        .enumerate()
        .filter_map(|(i, (_, column))| matches!(column, Column::Numbers(_)).then_some(i))
        .collect();
    format!("{}  {} rows\n", table(&rows, &right), answer.rows())
}

fn json(answer: &Table) -> serde_json::Value {
    let cell = |value: Value| match value {
        Value::Null => serde_json::Value::Null,
        Value::Truth(truth) => truth.into(),
        Value::Number(value) => value.into(),
        Value::Text(text) => text.into(),
    };
    let row = |row: usize| {
        let pairs = answer.columns().iter().map(|(name, column)| (name.clone(), cell(column.value(row))));
        serde_json::Value::Object(pairs.collect())
    };
    (0..answer.rows()).map(row).collect()
}

fn written(answer: &Table) -> Vec<(String, Values)> {
    let values = |column: &Column| match column {
        Column::Texts(words) => Values::Text(words.clone()),
        Column::Numbers(numbers) => Values::Numbers(numbers.clone()),
        Column::Truths(truths) => {
            Values::Text(truths.iter().map(|truth| truth.map(|truth| truth.to_string())).collect())
        }
    };
    answer.columns().iter().map(|(name, column)| (name.clone(), values(column))).collect()
}
