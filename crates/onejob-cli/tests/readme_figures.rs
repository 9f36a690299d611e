//! All numbers of the README are those of the last full run of `benches/run`.
#![cfg(target_os = "linux")]

use std::{fs, path::Path};

use serde_json::Value;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn results() -> Value {
    serde_json::from_str(&file("benches/results/full.json")).expect("JSON")
}

/// The lines between the README's marks.
fn table() -> Vec<String> {
    let readme = file("README.md");
    let (_, rest) = readme.split_once("<!-- measured by benches/run").expect("the first mark");
    let (table, _) = rest.split_once("<!-- end of what was measured -->").expect("the last mark");
    table.lines().skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Three significant digits.
fn digits(value: f64) -> String {
    match value {
        _ if value >= 99.95 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn amount(value: f64, unit: &str) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    match (unit, units.into_iter().find(|(size, _)| value >= *size)) {
        ("ns", Some((size, name))) => format!("{} {name}", digits(value / size)),
        ("ns", None) => format!("{value:.0} ns"),
        ("KB", _) => format!("{value:.0} KB"),
        _ => format!("{value:.0}"),
    }
}

fn median(row: &Value, who: &Value) -> String {
    let cell = list(&row["cells"]).iter().find(|cell| cell["who"] == *who).expect("a cell");
    cell["median"].as_f64().map_or("–".to_owned(), |median| amount(median, text(&row["unit"])))
}

/// The expected cells of a goal, without the ratio.
fn cells(row: &Value, goal: &Value) -> Vec<String> {
    let [work, who, against, wanted] =
        [&row["work"], &goal["who"], &goal["against"], &goal["goal"]].map(|v| text(v).to_owned());
    let [ours, theirs] = ["who", "against"].map(|side| median(row, &goal[side]));
    vec![work, who, ours, against, theirs, wanted]
}

/// The table has each goal with the measured figures.
#[test]
fn every_goal_is_in_the_readme() {
    let results = results();
    let lines = table();
    let goals = list(&results["rows"])
        .iter()
        .flat_map(|row| list(&row["goals"]).iter().map(move |goal| (row, goal)));
    let goals: Vec<_> = goals.collect();
    assert!(goals.len() > 20, "{} goals", goals.len());
    // The line about the host, the head of the table, and the line below it.
    assert_eq!(lines.len(), goals.len() + 3, "a line for each goal: `benches/run report`");
    assert!(lines[0].contains(text(&results["host"]["kernel"])), "{}", lines[0]);
    assert!(lines[0].contains(text(&results["when"])), "{}", lines[0]);
    for (line, (row, goal)) in lines[3..].iter().zip(goals) {
        let said: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [work, who, ours, against, theirs, _, wanted, mark] = said[..] else {
            panic!("eight cells: {line}")
        };
        assert_eq!(
            [work, who, ours, against, theirs, wanted].as_slice(),
            cells(row, goal),
            "{line}"
        );
        let got = goal["got"].as_f64();
        let reached = got.is_some_and(|got| got <= goal["most"].as_f64().expect("a number"));
        assert_eq!(mark == "reached", reached, "{line}");
        assert_eq!(goal["reached"], reached, "{line}");
    }
}

/// The ratios are those of the results.
#[test]
fn ratios() {
    let (results, lines) = (results(), table());
    let goals = list(&results["rows"]).iter().flat_map(|row| list(&row["goals"]));
    for (line, goal) in lines[3..].iter().zip(goals) {
        let Some(got) = goal["got"].as_f64() else { continue };
        let said = line.split('|').nth(6).expect("a ratio").trim();
        if goal["added"] == true {
            assert_eq!(said.starts_with('−'), got < 0.0, "{line}");
            continue;
        }
        let expected = match got {
            0.0 => "0".to_owned(),
            _ if got >= 0.1 => format!("{}×", digits(got)),
            _ => format!("1/{:.0}", 1.0 / got),
        };
        assert_eq!(said.replace(',', ""), expected, "{line}");
    }
}
