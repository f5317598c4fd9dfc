//! Any text as a question: refused with a place and a remedy, or answered, twice the same, without a panic.

use isotherm_core::query::{Column, Query, Table};

/// Panics where the promise above is broken.
pub fn check(text: &str) {
    let columns = vec![
        (
            "scenario".to_owned(),
            Column::Texts(vec![Some("a".to_owned()), Some("b".to_owned()), None, Some("a".to_owned())]),
        ),
        ("price".to_owned(), Column::Numbers(vec![Some(1.5), None, Some(0.0), Some(-2.0)])),
        ("rate".to_owned(), Column::Numbers(vec![Some(3.0), Some(1e300), Some(3.0), None])),
        ("hot".to_owned(), Column::Truths(vec![Some(true), None, Some(false), Some(true)])),
    ];
    let table = Table::new(columns).expect("columns of one length");
    let query = match Query::parse(text) {
        Ok(query) => query,
        Err(error) => {
            assert!(error.at <= text.chars().count() && !error.what.is_empty() && !error.remedy.is_empty());
            return;
        }
    };
    let answer = query.answer(&table);
    assert_eq!(answer, query.answer(&table), "the same question has the same answer");
    if let Ok(answer) = answer {
        assert!(answer.columns().iter().all(|(_, column)| column.len() == answer.rows()));
    }
}
