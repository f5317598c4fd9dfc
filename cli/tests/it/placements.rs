//! Placements predicted and run, on a small model: that every row is there and adds up, never how fast it is.

use super::Place;
use serde_json::Value;

#[test]
fn every_placement_is_predicted_and_run_and_adds_up() {
    let place = Place::new();
    place.expect(0, "-q model synth tiny -o model.gguf");
    let (text, _) = place.expect(
        0,
        "-q bench placements --model model.gguf --placements 12 --runs 1 --budget 200ms -o out --format json",
    );
    let found: Value = serde_json::from_str(&text).expect("JSON");
    let rows = found["rows"].as_array().expect("rows");
    assert!(rows.len() >= 10, "{}", rows.len());
    for row in rows {
        let stages = row["stages"].as_array().expect("stages");
        let ends: Vec<(u64, u64)> =
            stages.iter().map(|s| (s[1].as_u64().expect("layers"), s[2].as_u64().expect("layers"))).collect();
        // Stages follow one another and begin with the first layer.
        assert_eq!(ends[0].0, 0);
        assert!(ends.windows(2).all(|pair| pair[0].1 == pair[1].0), "{ends:?}");
        let figure = |name: &str| row[name].as_f64().expect("a figure");
        assert!(figure("predicted") > 0.0 && figure("measured") > 0.0);
        assert!((figure("predicted") / figure("measured") - 1.0 - figure("error")).abs() < 1e-9);
    }
    assert!(rows.iter().filter(|row| row["chosen"] == true).count() >= 4, "the planner chose for each load");
    let layers = |half: &str, device: &str| -> u64 {
        let on = found["slower"][half]["layers"].as_array().expect("layers").iter().find(|one| one[0] == device);
        on.expect("it holds a stage")[1].as_u64().expect("a count")
    };
    let slower = &found["slower"];
    assert_eq!(slower["factor"].as_f64(), Some(2.0));
    for half in ["before", "after"] {
        assert_eq!(layers(half, "cpu0") + layers(half, "cpu1"), 2, "{slower}");
    }
    let again = "-q bench placements --model model.gguf --placements 2 --runs 1 --reuse --skip-slower -o out";
    let (text, _) = place.expect(0, again);
    assert!(text.contains("Kendall's tau"), "{text}");
    place.expect(2, "-q bench placements --model model.gguf --placements 0 -o out");
}
