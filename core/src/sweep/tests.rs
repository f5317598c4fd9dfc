use super::*;

const BASE: &str = "name = \"a\"\nquestion = \"?\"\n[model]\nname = \"m\"\n[[devices]]\ntable = \"l4\"\ncount = 2\n\
                    [[devices]]\ntable = \"t4\"\nname = \"old.card\"\n";

fn sweep(section: &str) -> Sweep {
    Sweep::read(&format!("{BASE}{section}")).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn all(sweep: &Sweep) -> Vec<Vec<String>> {
    let values = |number| sweep.point(number).expect("a point").values.iter().map(|(_, v)| shown(v)).collect();
    (0..sweep.len()).map(values).collect()
}

fn fault(section: &str) -> String {
    let faults = Sweep::read(&format!("{BASE}{section}")).expect_err("a fault");
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_scenario_without_a_sweep_is_its_own_only_point() {
    let sweep = Sweep::read(BASE).expect("no sweep");
    assert_eq!((sweep.len(), sweep.varies()), (1, false));
    assert_eq!(sweep.point(0).expect("itself").text, BASE);
    assert_eq!(sweep.point(1), None);
}

#[test]
fn a_grid_has_every_combination_the_last_varying_fastest() {
    let sweep =
        sweep("[sweep.vary]\n\"devices.l4.count\" = [1, 2]\n\"environment.ambient\" = [\"15 °C\", \"35 °C\"]\n");
    assert_eq!(all(&sweep), [["1", "15 °C"], ["1", "35 °C"], ["2", "15 °C"], ["2", "35 °C"]]);
    let point: Table = toml::from_str(&sweep.point(3).expect("a point").text).expect("TOML");
    assert_eq!(point["devices"][0]["count"].as_integer(), Some(2));
    assert_eq!(point["environment"]["ambient"].as_str(), Some("35 °C"), "a section that was not there is made");
    assert!(!point.contains_key("sweep"));
}

#[test]
fn a_list_takes_the_first_of_each_then_the_second() {
    let text =
        "[sweep]\nmethod = \"list\"\n[sweep.vary]\n\"model.name\" = [\"a\", \"b\"]\n\"devices.2.count\" = [3, 4]\n";
    assert_eq!(all(&sweep(text)), [["a", "3"], ["b", "4"]]);
    assert!(fault(&text.replace("[3, 4]", "[3]")).contains("has 1 values where model.name has 2"));
}

#[test]
fn sections_multiply() {
    let sweep = sweep(
        "[[sweep]]\nmethod = \"list\"\nvary = { \"model.name\" = [\"a\", \"b\"] }\n\
         [[sweep]]\nvary = { \"devices.'old.card'.count\" = { from = 1, to = 3, steps = 3 } }\n",
    );
    assert_eq!(all(&sweep), [["a", "1"], ["a", "2"], ["a", "3"], ["b", "1"], ["b", "2"], ["b", "3"]]);
}

#[test]
fn a_log_range_has_equal_ratios_and_exact_ends() {
    let text = "[sweep.vary]\n\"network.within_site.bandwidth\" = { from = \"1 Gbit/s\", to = \"100 Gbit/s\", steps = 3, scale = \"log\" }\n";
    assert_eq!(all(&sweep(text)), [["1 Gbit/s"], ["10 Gbit/s"], ["100 Gbit/s"]]);
}

#[test]
fn each_part_of_every_axis_of_a_latin_hypercube_holds_one_point() {
    let sweep = sweep(
        "[sweep]\nmethod = \"latin_hypercube\"\npoints = 50\nseed = 7\n[sweep.vary]\n\
         \"a.x\" = { from = 0.0, to = 50.0 }\n\"a.y\" = { from = 0.0, to = 50.0 }\n\"devices.l4.count\" = { from = 1, to = 5 }\n",
    );
    let mut columns: Vec<Vec<f64>> = vec![Vec::new(); 3];
    for number in 0..sweep.len() {
        for (column, (_, value)) in columns.iter_mut().zip(sweep.point(number).expect("a point").values) {
            column.push(base_value(&value).expect("a number").floor());
        }
    }
    for column in &mut columns {
        column.sort_by(f64::total_cmp);
    }
    let each: Vec<f64> = (0..50).map(f64::from).collect();
    assert_eq!((&columns[0], &columns[1]), (&each, &each));
    for count in 1..=5 {
        assert_eq!(columns[2].iter().filter(|&&c| c == f64::from(count)).count(), 10, "every count equally often");
    }
    assert_ne!(all(&sweep)[0][0], all(&sweep)[0][1], "axes have orders of their own");
    assert_eq!(all(&sweep), all(&sweep), "drawn again, the same");
}

#[test]
fn what_is_wrong_with_a_sweep_is_said_with_its_place() {
    for (section, part) in [
        ("[sweep]\nmethod = \"gird\"\nvary = { \"a\" = [1] }\n", "grid"),
        ("[sweep]\n", "vary"),
        ("[sweep.vary]\n", "varies nothing"),
        ("[sweep.vary]\n\"devices.h100.count\" = [1]\n", "l4"),
        ("[sweep.vary]\n\"devices.3.count\" = [1]\n", "from 1 to 2"),
        ("[sweep.vary]\n\"name.first\" = [1]\n", "holds a value"),
        ("[sweep.vary]\n\"a..b\" = [1]\n", "empty part"),
        ("[sweep.vary]\n\"a.'b\" = [1]\n", "does not end"),
        ("[sweep.vary]\n\"a\" = []\n", "at least one"),
        ("[sweep.vary]\n\"a\" = [1, 1]\n", "1"),
        ("[sweep.vary]\n\"a\" = { from = 1, to = 2 }\n", "steps"),
        ("[sweep.vary]\n\"a\" = { from = 1, to = 2, steps = 9 }\n", "fewer whole numbers"),
        ("[sweep.vary]\n\"a\" = { from = \"1 s\", to = \"2 ms\", steps = 2 }\n", "does not rise"),
        ("[sweep.vary]\n\"a\" = { from = \"1 s\", to = \"2 W\", steps = 2 }\n", "different kinds"),
        ("[sweep.vary]\n\"a\" = { from = \"1 s\", to = \"2 parsec\", steps = 2 }\n", "different kinds"),
        ("[sweep.vary]\n\"a\" = { from = 0.0, to = 2.0, steps = 2, scale = \"log\" }\n", "above 0"),
        ("[sweep.vary]\n\"a.b\" = [1]\n\"a\" = [2]\n", "one inside the other"),
        ("[sweep.vary]\n\"sweep.points\" = [1]\n", "into the sweep itself"),
        ("[sweep]\npoints = 3\nvary = { \"a\" = [1] }\n", "latin_hypercube"),
        ("[sweep]\nmethod = \"latin_hypercube\"\nvary = { \"a\" = [1] }\n", "points"),
        ("[sweep]\nhow = 1\nvary = { \"a\" = [1] }\n", "how"),
    ] {
        let said = fault(section);
        assert!(said.contains(part) && said.contains("line "), "{section}: {said}");
    }
}

#[test]
fn a_sweep_of_too_many_points_is_refused_before_any_is_made() {
    let axis = |name: &str| format!("\"{name}\" = {{ from = 1, to = 1000, steps = 1000 }}\n");
    let said = fault(&format!("[sweep.vary]\n{}{}{}", axis("a"), axis("b"), axis("c")));
    assert!(said.contains("10000000"), "{said}");
}

#[test]
fn a_range_between_two_units_of_one_quantity_has_the_same_points_as_one_in_one_unit() {
    let points = |from: &str, to: &str| {
        let range = format!("{{ from = \"{from}\", to = \"{to}\", steps = 4, scale = \"log\" }}");
        let sweep = sweep(&format!("[sweep.vary]\n\"a.x\" = {range}\n"));
        let base = |number| base_value(&sweep.point(number).expect("a point").values[0].1).expect("a quantity");
        (0..sweep.len()).map(base).collect::<Vec<f64>>()
    };
    for (from, to, same) in [
        ("50 Mbit/s", "1 Gbit/s", "1000 Mbit/s"),
        ("500 us", "2 s", "2000000 us"),
        ("512 MiB", "4 GiB", "4096 MiB"),
        ("30 /min", "2 /s", "120 /min"),
    ] {
        let (mixed, plain) = (points(from, to), points(from, same));
        assert!(mixed.iter().zip(&plain).all(|(a, b)| (a / b - 1.0).abs() < 1e-9), "{mixed:?} {plain:?}");
        assert_eq!(mixed.len(), 4);
    }
}

#[test]
fn quantities_compare_in_base_units() {
    let text = |text: &str| base_value(&Value::String(text.to_owned()));
    assert_eq!(text("10 Gbit/s"), Some(1.25e9));
    assert_eq!(text("83 °C"), Some(83.0));
    assert_eq!(text("2 GiB"), Some(f64::from(1_u32 << 31)));
    assert_eq!(text("llama"), None);
    assert_eq!(base_value(&Value::Integer(3)), Some(3.0));
}
