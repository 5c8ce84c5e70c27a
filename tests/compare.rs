//! The page that compares Fanwire with other servers says what was measured, and the comparison does what it says.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{PATIENCE, TempDir, in_repository, python3, run};
use serde_json::Value;

const PAGE: &str = "docs/compare.md";
const RESULTS: &str = "docs/compare/results.json";

fn python(script: &str) -> Command {
    let mut command = Command::new(python3());
    command.arg("-B").arg(in_repository("benches/compare").join(script));
    command
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The page and its plots, by their names below `dir`.
fn page_and_plots(dir: &Path) -> BTreeMap<String, String> {
    let plots = fs::read_dir(dir.join("compare")).unwrap().map(|entry| entry.unwrap().path());
    let plots = plots.filter(|path| path.extension().is_some_and(|extension| extension == "svg"));
    let files = plots.chain([dir.join("compare.md")]);
    files.map(|path| (path.strip_prefix(dir).unwrap().display().to_string(), read(&path))).collect()
}

#[test]
fn the_page_and_its_plots_are_what_the_results_give() {
    let dir = TempDir::new();
    run(python("page.py").arg(in_repository(RESULTS)).arg(dir.path()), PATIENCE);
    let (written, kept) = (page_and_plots(dir.path()), page_and_plots(&in_repository("docs")));
    assert!(written.len() > 1, "{:?}", written.keys());
    assert_eq!(written.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
    for (name, text) in &written {
        assert!(
            kept[name] == *text,
            "docs/{name} was not made from {RESULTS}: benches/compare/page.py {RESULTS} docs"
        );
    }
}

/// The page's medians once more, by other hands.
#[test]
fn the_tables_have_the_medians_of_the_runs() {
    let results: Value = serde_json::from_str(&read(&in_repository(RESULTS))).unwrap();
    let page = read(&in_repository(PAGE));
    let table =
        page.split("\n## A steady stream\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let mut prices: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in results["runs"].as_array().unwrap().iter().filter(|run| run["scenario"] == "steady") {
        let price = run["report"]["server"]["cpu_us_per_delivery"].as_f64();
        let server = if run["server"] == "fanwire" { "Fanwire" } else { "Bun" };
        if run["server"] == "fanwire" || run["server"] == "bun" {
            prices.entry(server).or_default().push(price.expect("it was measured"));
        }
    }
    assert_eq!(prices.len(), 2);
    for (server, prices) in &mut prices {
        prices.sort_by(f64::total_cmp);
        let middle = prices.len() / 2;
        let median =
            if prices.len() % 2 == 1 { prices[middle] } else { (prices[middle - 1] + prices[middle]) / 2.0 };
        let row = table.lines().find(|line| line.starts_with(&format!("| {server} | "))).unwrap();
        let cell = row.split(" | ").nth(1).unwrap();
        let shown: f64 = cell.split(' ').next().unwrap().parse().unwrap();
        assert!((shown - median).abs() <= median * 0.005, "{server}: {median} is shown as {cell}");
    }
}

#[test]
fn the_comparison_takes_turns_repeats_resumes_and_says_where_fanwire_is_behind() {
    run(&mut python("selftest.py"), PATIENCE);
}
