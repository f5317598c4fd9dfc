use super::*;

fn table() -> Table {
    let text =
        |values: &[&str]| Column::Texts(values.iter().map(|v| (!v.is_empty()).then(|| (*v).to_owned())).collect());
    let columns = [
        ("scenario", text(&["a", "a", "a", "b", "b", ""])),
        ("status", text(&["optimal", "optimal", "infeasible", "feasible", "optimal", "optimal"])),
        ("price", Column::Numbers(vec![Some(10.0), Some(20.0), Some(5.0), Some(7.0), Some(9.0), None])),
        ("rate", Column::Numbers(vec![Some(1.0), Some(3.0), None, Some(2.0), Some(2.5), Some(4.0)])),
        ("vary.x", Column::Numbers(vec![Some(2.0), Some(3.0), Some(1.0), Some(1.0), Some(2.0), Some(1.0)])),
    ];
    Table::new(columns.map(|(name, column)| (name.to_owned(), column)).to_vec()).expect("columns fit")
}

fn ask(text: &str) -> Vec<String> {
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let answer = query.answer(&table()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let row = |row: usize| {
        let cell = |(_, column): &(String, Column)| match column.value(row) {
            Value::Null => "-".to_owned(),
            Value::Truth(truth) => truth.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Text(text) => text,
        };
        answer.columns().iter().map(cell).collect::<Vec<_>>().join(" ")
    };
    (0..answer.rows()).map(row).collect()
}

fn refused(text: &str) -> String {
    Query::parse(text).and_then(|query| query.answer(&table())).expect_err(text).to_string()
}

#[test]
fn the_cheapest_of_each_group_that_keeps_a_condition_is_found() {
    let text = "select scenario, argmin(rate, price) as rate, min(price) from results \
                where status in ('optimal', 'feasible') and scenario is not null group by scenario order by scenario desc";
    assert_eq!(ask(text), ["b 2 7", "a 1 10"]);
}

#[test]
fn neighbours_show_where_an_answer_changes() {
    let over = "lag(status) over (partition by scenario order by \"vary.x\")";
    let text = format!("select scenario, \"vary.x\", {over} as before, status from results qualify status <> before");
    assert_eq!(ask(&text), ["a 2 infeasible optimal", "b 2 feasible optimal"]);
    let gain = "(rate - lag(rate) over (partition by scenario order by price)) / \
                (price - lag(price) over (partition by scenario order by price))";
    assert_eq!(
        ask(&format!("select scenario, {gain} as gain where rate > 0 qualify gain is not null")),
        ["a 0.2", "b 0.25"]
    );
}

#[test]
fn the_unknown_is_neither_kept_nor_refused_and_sorts_last() {
    assert_eq!(ask("select price where price > 8 order by price"), ["9", "10", "20"]);
    assert_eq!(ask("select price where not price > 8 order by price"), ["5", "7"]);
    assert_eq!(ask("select price order by price desc limit 2"), ["20", "10"]);
    assert_eq!(ask("select price order by price desc")[5], "-");
    assert_eq!(ask("select count(*), count(price), share(price > 8) where price is null or rate is null"), ["2 1 0"]);
    assert_eq!(ask("select coalesce(price, -1) where price is null"), ["-1"]);
    assert_eq!(ask("select rate / (price - price) limit 1"), ["-"], "nothing is divided by zero");
    assert_eq!(ask("select price where price > 8 or null order by 1"), ["10", "20", "9"]);
    assert_eq!(ask("select count(*) where price not in (10, null)"), ["0"]);
}

#[test]
fn groups_are_summed_up_by_rank_mean_and_share() {
    assert_eq!(
        ask("select median(price), quantile(price, 0.9), mean(rate), stddev(rate) where rate <= 3"),
        ["9 20 2.125 0.8539125638299665"]
    );
    assert_eq!(ask("select status, count(*) as n group by status having n > 1 order by n"), ["optimal 4"]);
    assert_eq!(ask("select sum(price), min(price), count(*) where price > 1000"), ["- - 0"]);
    assert_eq!(ask("select round(share(status = 'optimal'), 3), max(scenario)"), ["0.667 b"]);
}

#[test]
fn expressions_bind_as_in_arithmetic() {
    assert_eq!(ask("select 1 + 2 * 3 - 4 / 2 limit 1"), ["5"]);
    assert_eq!(ask("select not 1 > 2 and 2 > 1 limit 1"), ["true"]);
    assert_eq!(ask("select -(2 - 5) % 2 limit 1"), ["1"]);
    assert_eq!(
        ask("select case when rate > 2 then 'fast' else 'slow' end as c where scenario = 'b' order by c"),
        ["fast", "slow"]
    );
    assert_eq!(ask("select count(*) where status like '%feas_ble' and status not like 'in%'"), ["1"]);
    assert_eq!(ask("select count(*) where price between 7 and 10 and scenario = 'a'"), ["1"]);
    assert_eq!(ask("select quantity('10 Gbit/s') / quantity('1 MB/s') limit 1"), ["1250"]);
    assert_eq!(ask("select distinct scenario order by scenario"), ["a", "b", "-"]);
    assert_eq!(ask("select if(rate is null, 'no', upper(status)) -- said\n where price < 8;"), ["no", "FEASIBLE"]);
    assert_eq!(ask("select * limit 1"), ["a optimal 10 1 2"]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, part) in [
        ("select pirce", "no column \"pirce\""),
        ("select price where status", "not a condition"),
        ("select price where price = 'a'", "set against"),
        ("select price, count(*)", "differs within a group"),
        ("select price where count(*) > 1", "works on a group"),
        ("select count(sum(price))", "not inside another"),
        ("select lag(price)", "OVER"),
        ("select price where lag(price) over (order by price) > 1", "neighbours"),
        ("select", "expected"),
        ("select price from", "name of a table"),
        ("select price limit 1.5", "whole number"),
        ("select price price", "nothing more"),
        ("select frobnicate(price)", "no function"),
        ("select abs(price, price)", "2 arguments"),
        ("select sum(status)", "takes a number"),
        ("select 'open", "does not end"),
        ("select price ? 2", "means nothing"),
        ("select price, price", "one name"),
        ("update results", "SELECT"),
    ] {
        let said = refused(text);
        assert!(said.contains(part), "{text}: {said}");
    }
    let deep = format!("select {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(refused(&deep).contains("deep"));
    assert!(refused(&format!("select {}1", "- ".repeat(300))).contains("deep"));
    assert!(refused(&format!("select 1{}", " + 1".repeat(1000))).contains("follow one another"));
}
