//! Pages of batches and benchmarks: found by what lies in the folder, written by the ending of the file's name.

use super::{bench_load, bench_targets, query, report_batch, report_record};
use crate::args::Report as Args;
use crate::commands::report::write_table;
use crate::failure::{Code, Done, Failure};
use crate::files;
use crate::ui::Ui;
use isotherm_core::query::Column;
use isotherm_reports::tables::{Format, Values, write_columns};
use isotherm_reports::{Sheet, markdown, render_sheet};
use std::path::Path;

/// Schema of a sheet's largest table as Parquet.
const TABLE_SCHEMA: &str = "isotherm.sheet-table/v1";

/// The sheet of a folder; none where it holds no batch and no benchmark.
pub fn of(folder: &Path) -> Result<Option<Sheet>, Failure> {
    if folder.join("batch.json").is_file() {
        return report_batch::sheet(folder).map(Some);
    }
    if folder.join("bench.json").is_file() {
        let mut sheet = bench_load::sheet(folder)?;
        report_record::beside(&mut sheet, folder)?;
        return Ok(Some(sheet));
    }
    if folder.join(bench_targets::FILE).is_file() {
        return bench_targets::sheet_of(folder).map(Some);
    }
    report_record::sheet(folder)
}

/// Writes a sheet in the form that the file's ending names.
pub fn write(ui: &Ui, sheet: &Sheet, args: &Args) -> Done {
    let output = args.output.clone().unwrap_or_else(|| args.directory.join("report.html"));
    match output.extension().and_then(|ending| ending.to_str()) {
        Some("html") => files::write(&output, render_sheet(sheet).as_bytes())?,
        Some("md") => files::write(&output, markdown(sheet).as_bytes())?,
        Some("json") => drop(files::write_json(&output, sheet)?),
        Some("parquet") => table(args, sheet, &output)?,
        _ => {
            let what = format!("{} ends in none of .html, .md, .json and .parquet", output.display());
            return Err(Failure::new(Code::Usage, what));
        }
    }
    ui.result(sheet, || format!("{}\n", output.display()))
}

/// A batch's whole table of results as one file; of a benchmark, the table of its page.
fn table(args: &Args, sheet: &Sheet, output: &Path) -> Done {
    let columns: Vec<(String, Values)> = if args.directory.join("batch.json").is_file() {
        let table = query::read(&args.directory, "results")?;
        let values = |column: &Column| match column {
            Column::Texts(words) => Values::Text(words.clone()),
            Column::Numbers(numbers) => Values::Numbers(numbers.clone()),
            Column::Truths(truths) => Values::Text(truths.iter().map(|t| t.map(|t| t.to_string())).collect()),
        };
        table.columns().iter().map(|(name, column)| (name.clone(), values(column))).collect()
    } else {
        let Some(grid) = sheet.tables.first() else { return Ok(()) };
        let column = |(i, (name, _)): (usize, &(String, bool))| {
            let cell = |row: &isotherm_reports::GridRow| row.cells.get(i).filter(|cell| !cell.is_empty()).cloned();
            (name.clone(), Values::Text(grid.rows.iter().map(cell).collect()))
        };
        grid.columns.iter().enumerate().map(column).collect()
    };
    write_table(output, |out| write_columns(TABLE_SCHEMA, columns, Format::Parquet, out))
}
