//! Tables are read back and compared with the traces they came from.

use crate::sample;
use isotherm_core::trace::Trace;
use isotherm_reports::tables::{
    Format, REQUESTS_SCHEMA, Source, TableError, Values, sources, write_columns, write_requests, write_runs,
};
use polars::prelude::{CsvReader, DataFrame, ParquetReader, SerReader};
use std::io::{Cursor, Error, Write};

fn parquet(bytes: &[u8]) -> DataFrame {
    ParquetReader::new(Cursor::new(bytes)).finish().expect("a Parquet file")
}

fn numbers(frame: &DataFrame, column: &str) -> Vec<Option<f64>> {
    frame.column(column).expect("the column").f64().expect("floats").iter().collect()
}

fn counts(frame: &DataFrame, column: &str) -> Vec<Option<u64>> {
    frame.column(column).expect("the column").u64().expect("integers").iter().collect()
}

fn words(frame: &DataFrame, column: &str) -> Vec<String> {
    let column = frame.column(column).expect("the column");
    column.str().expect("text").iter().map(|t| t.expect("no null").to_owned()).collect()
}

#[test]
fn every_request_reads_back_from_parquet_as_it_was() {
    let report = sample::sample();
    let sources = sources(&report);
    let mut bytes = Vec::new();
    let rows = write_requests(&sources, Format::Parquet, &mut bytes).expect("writes");
    let frame = parquet(&bytes);
    // Three plans: a simulation and five runs each, eight requests a run.
    assert_eq!((rows, frame.height(), sources.len()), (3 * 6 * 8, 3 * 6 * 8, 3 * 6));
    let requests = || sources.iter().flat_map(|s| &s.trace.requests);
    let finished: Vec<Option<u64>> = requests().map(|r| Some(r.finished_ns.0)).collect();
    assert_eq!(counts(&frame, "finished_ns"), finished);
    let ttft: Vec<Option<f64>> = requests().map(|r| Some(r.ttft().seconds().value())).collect();
    assert_eq!(numbers(&frame, "ttft_seconds"), ttft);
    let tpot: Vec<Option<f64>> = requests().map(isotherm_core::trace::RequestRecord::tpot_seconds).collect();
    assert_eq!(numbers(&frame, "tpot_seconds"), tpot);
    let origins = words(&frame, "origin");
    assert_eq!(origins.iter().filter(|o| *o == "predicted").count(), 3 * 8);
    assert_eq!(words(&frame, "plan")[0], report.cases[0].plan.digest().to_string());
    assert_eq!(words(&frame, "record")[8], report.cases[0].runs[0].digest.to_string());
}

#[test]
fn csv_and_parquet_hold_the_same_table() {
    let report = sample::sample();
    let sources = sources(&report);
    type Door = fn(&[Source<'_>], Format, &mut Vec<u8>) -> Result<usize, TableError>;
    let doors: [(Door, &str); 2] = [
        (|sources, format, out| write_requests(sources, format, out), "tpot_seconds"),
        (|sources, format, out| write_runs(sources, format, out), "tpot_mean_seconds"),
    ];
    for (write, column) in doors {
        let (mut columns, mut text) = (Vec::new(), Vec::new());
        write(&sources, Format::Parquet, &mut columns).expect("writes");
        write(&sources, Format::Csv, &mut text).expect("writes");
        let (columns, text) = (parquet(&columns), CsvReader::new(Cursor::new(text)).finish().expect("a CSV file"));
        assert_eq!(columns.get_column_names(), text.get_column_names());
        assert_eq!(columns.shape(), text.shape());
        assert_eq!(numbers(&columns, column), numbers(&text, column));
    }
}

#[test]
fn a_run_without_a_sensor_has_null_and_not_zero() {
    let report = sample::sample();
    let sources = sources(&report);
    let mut bytes = Vec::new();
    assert_eq!(write_runs(&sources, Format::Parquet, &mut bytes).expect("writes"), 18);
    let frame = parquet(&bytes);
    let energy = numbers(&frame, "energy_joules");
    let simulated: f64 = sources[0].trace.devices.iter().filter_map(|d| Some(d.energy_joules?.value())).sum();
    assert_eq!(energy[0], Some(simulated));
    assert_eq!(energy[1..6], [None; 5]);
    assert_eq!(numbers(&frame, "temperature_max_celsius")[1], None);
    let rates: Vec<Option<f64>> = sources.iter().map(|s| s.trace.tokens_per_second()).collect();
    assert_eq!(numbers(&frame, "tokens_per_second"), rates);
}

#[test]
fn a_trace_without_requests_and_no_trace_at_all_are_tables_too() {
    let report = sample::sample();
    let mut source = sources(&report)[0];
    let empty = Trace { requests: Vec::new(), devices: Vec::new(), ..source.trace.clone() };
    source.trace = &empty;
    let mut bytes = Vec::new();
    assert_eq!(write_runs(&[source], Format::Parquet, &mut bytes).expect("writes"), 1);
    assert_eq!(numbers(&parquet(&bytes), "ttft_p99_seconds"), [None]);
    let mut bytes = Vec::new();
    assert_eq!(write_requests(&[], Format::Parquet, &mut bytes).expect("writes"), 0);
    assert_eq!(parquet(&bytes).width(), 13);
}

#[test]
fn equal_inputs_give_equal_files_that_say_what_they_are() {
    let report = sample::sample();
    let write = || {
        let mut bytes = Vec::new();
        write_requests(&sources(&report), Format::Parquet, &mut bytes).expect("writes");
        bytes
    };
    let bytes = write();
    assert_eq!(bytes, write());
    let mut reader = ParquetReader::new(Cursor::new(&bytes));
    let metadata = reader.get_metadata().expect("metadata").key_value_metadata().clone().expect("some");
    let schema = metadata.iter().find(|entry| entry.key == "schema").and_then(|entry| entry.value.clone());
    assert_eq!(schema.as_deref(), Some(REQUESTS_SCHEMA));
}

#[test]
fn hostile_text_stays_in_its_cell() {
    let report = sample::sample();
    let mut source: Source<'_> = sources(&report)[0];
    source.scenario = "a,\"b\"\nc\r\n=1+1,ü";
    let mut bytes = Vec::new();
    write_runs(&[source], Format::Csv, &mut bytes).expect("writes");
    let frame = CsvReader::new(Cursor::new(bytes)).finish().expect("a CSV file");
    assert_eq!(frame.height(), 1);
    assert_eq!(words(&frame, "scenario"), [source.scenario]);
}

#[test]
fn columns_of_the_callers_own_keep_what_is_absent_absent() {
    let columns = || {
        vec![
            ("name".to_owned(), Values::Text(vec![Some("a,b".to_owned()), None])),
            ("devices".to_owned(), Values::Counts(vec![Some(3), None])),
            ("gap".to_owned(), Values::Numbers(vec![Some(f64::NAN), Some(0.25)])),
        ]
    };
    let (mut table, mut text) = (Vec::new(), Vec::new());
    assert_eq!(write_columns("isotherm.own/v1", columns(), Format::Parquet, &mut table).expect("writes"), 2);
    write_columns("isotherm.own/v1", columns(), Format::Csv, &mut text).expect("writes");
    let frame = parquet(&table);
    assert_eq!(counts(&frame, "devices"), [Some(3), None]);
    assert_eq!(numbers(&frame, "gap"), [None, Some(0.25)]);
    assert_eq!(String::from_utf8(text).expect("UTF-8"), "name,devices,gap\n\"a,b\",3,\n,,0.25\n");
}

#[test]
fn columns_that_differ_in_length_or_share_a_name_are_refused() {
    let count = |n: usize| Values::Counts(vec![Some(1); n]);
    for columns in [[("a", count(1)), ("b", count(2))], [("a", count(1)), ("a", count(1))]] {
        let columns = columns.map(|(name, values)| (name.to_owned(), values)).to_vec();
        let refused = write_columns("isotherm.own/v1", columns, Format::Csv, Vec::new());
        assert!(refused.is_err_and(|error| error.to_string().contains("isotherm.own/v1")));
    }
}

/// A disk that is full.
struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> Result<usize, Error> {
        Err(Error::other("no space left"))
    }
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_that_names_the_table() {
    let report = sample::sample();
    for format in [Format::Parquet, Format::Csv] {
        let error = write_requests(&sources(&report), format, Full).expect_err("no space");
        assert!(error.to_string().contains(REQUESTS_SCHEMA), "{error}");
        assert!(std::error::Error::source(&error).is_some_and(|s| s.to_string().contains("no space left")));
    }
}
