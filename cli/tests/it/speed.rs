//! `isotherm bench runtime --speed` beside peers that answer as real ones do, and within a budget for weights.

use super::Place;
use std::os::unix::fs::PermissionsExt;

const LINE: &str = "bench runtime --speed --model model.gguf --rounds 1 --prompt-tokens 8 --output-tokens 4";

/// A program that greets, and answers each line with these words.
fn peer(place: &Place, name: &str, answer: &str) {
    let text = format!("#!/bin/sh\necho '{{\"version\":\"{name} 1\"}}'\nwhile read _; do echo '{answer}'; done\n");
    std::fs::write(place.path(name), text).expect("a script");
    std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(0o755)).expect("permissions");
}

#[test]
fn each_figure_is_divided_by_that_of_the_peer_that_is_best_at_it() {
    let place = Place::new();
    place.expect(0, "model synth tiny -o model.gguf");
    // Eight tokens of prompt: 8 and 4 a second; answers: 2 and 5 a second; together: one of each.
    peer(&place, "first", r#"{"prefill_s":1.0,"token_s":[0.5,0.5,0.5],"together":[10.0,40.0]}"#);
    peer(&place, "second", r#"{"prefill_s":2.0,"token_s":[0.2,0.2,0.2],"together":[30.0,20.0]}"#);
    let peers = format!(
        "{LINE} --format json --peer-program {} --peer-program {}",
        place.path("first").display(),
        place.path("second").display()
    );
    let (out, _) = place.expect(0, &peers);
    let result: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let rows = result["rows"].as_array().expect("rows");
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let best = [8.0, 5.0, 30.0, 40.0];
    let (mut own, mut theirs) = (0, 0);
    for row in rows {
        let together: Vec<f64> = row["together"].as_array().expect("a list").iter().map(number).collect();
        let figures = [number(&row["prefill"]), number(&row["decode"]), together[0], together[1]];
        match row["who"].as_str().expect("a name") {
            "first 1" => assert_eq!(figures, [8.0, 2.0, 10.0, 40.0]),
            "second 1" => assert_eq!(figures, [4.0, 5.0, 30.0, 20.0]),
            _ => {
                let over: Vec<f64> = row["over_peers"].as_array().expect("a list").iter().map(number).collect();
                let wanted: Vec<f64> = figures.iter().zip(best).map(|(own, best)| own / best).collect();
                assert_eq!(over, wanted);
                own += 1;
                continue;
            }
        }
        assert!(row.get("over_peers").is_none(), "{row}");
        theirs += 1;
    }
    assert!(own >= 2 && own == theirs, "{own} rows of our own, {theirs} of peers");
}

#[test]
fn a_peer_that_says_nothing_or_something_else_is_named() {
    let place = Place::new();
    place.expect(0, "model synth tiny -o model.gguf");
    peer(&place, "odd", "good morning");
    let (_, err) = place.expect(1, &format!("{LINE} --peer-program {}", place.path("odd").display()));
    assert!(err.contains("the peer odd 1 said \"good morning\""), "{err}");
    let (_, err) = place.expect(1, &format!("{LINE} --peer-program /bin/true"));
    assert!(err.contains("the peer /bin/true ended without an answer"), "{err}");
}

#[test]
fn within_a_budget_the_slowdown_is_foretold() {
    let place = Place::new();
    place.expect(0, "model synth tiny -o model.gguf");
    let budgets = |budget: &str| {
        let (out, _) = place.expect(0, &format!("{LINE} --format json --weights-budget {budget}"));
        let result: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        let budgets = result["budgets"].as_array().expect("a list").clone();
        assert_eq!(budgets.len(), 2, "one for each arithmetic");
        budgets
    };
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    for all in budgets("1GB") {
        assert_eq!(all["layers_away"], 0, "all of it fits");
        assert_eq!(all["tpot_predicted"], all["tpot_held"]);
        assert!(number(&all["held"]) > 0.0 && all.get("card").is_none(), "{all}");
    }
    place.expect(0, "model synth smollm2-135m -o model.gguf");
    for less in budgets("40MB") {
        assert!((1.0..=30.0).contains(&number(&less["layers_away"])), "{less}");
        // All layers take some 60 MB, and the head is within the budget too.
        assert!((5e6..40e6).contains(&number(&less["held"])), "{less}");
        assert!(number(&less["read_rate"]) > 0.0);
        assert!(number(&less["tpot_predicted"]) >= number(&less["tpot_held"]), "{less}");
    }
    let (_, err) = place.expect(2, &format!("{LINE} --weights-budget 1MB"));
    assert!(err.contains("give a larger budget"), "{err}");
}
