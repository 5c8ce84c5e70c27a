//! What checking an event costs: `cargo bench --bench catalog`. `docs/catalogs.md` has the figures.

#![allow(missing_docs, reason = "criterion_group! makes a public function without")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanwire::catalog::file::{Catalog, SHIPPED};
use fanwire::catalog::guard::{Action, Definition, Guards, SHIPPED_SETS};
use fanwire::catalog::json::Tree;
use fanwire::catalog::rules::{NONE, Rules};
use fanwire::publish::wire::Publish;
use serde::de::IgnoredAny;
use serde_json::Value;

/// A usual event's data: 250 bytes.
const USUAL: &str = r#"{"runId":"7d7a2c1e-0d8f-4a52-9d0e-3f6a1f0c9b11","projectId":"project-7","stageId":"load","stageName":"Load the rows","progress":37.5,"message":"loading rows of the first table, then of the second","itemsDone":1500,"itemsTotal":4000,"node":"worker-1"}"#;

fn shipped() -> Vec<Catalog> {
    let parse = |text| Catalog::parse(text).expect("the shipped catalogs are good");
    SHIPPED.iter().map(|(_, text)| parse(text)).collect()
}

fn us_health(action: Action) -> Guards {
    let patterns = SHIPPED_SETS[0].1.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let definition = Definition {
        name: "us-health".to_owned(),
        topics: vec!["run:*".to_owned()],
        patterns: patterns.collect(),
        action,
    };
    Guards::new(&[definition]).expect("the shipped set is good")
}

fn rules(catalogs: &[Catalog], strict: bool, guards: Guards) -> Rules {
    Rules::new(catalogs, strict, guards).expect("nothing clashes")
}

fn check(c: &mut Criterion) {
    assert_eq!(USUAL.len(), 250);
    let catalogs = shipped();
    let schemas = rules(&catalogs, false, Guards::default());
    let strict = rules(&catalogs, true, Guards::default());
    let refuse = rules(&[], false, us_health(Action::Refuse));
    let mask = rules(&[], false, us_health(Action::Mask));
    let both = rules(&catalogs, false, us_health(Action::Refuse));
    let known =
        Publish { topics: "stage\nrun:42", event: "stage-progress", key: "", data: USUAL, timestamp_ms: 0 };
    let unknown = Publish { event: "something-else", ..known };
    let bad = USUAL.replace("37.5", "137");
    let escaped = USUAL.replace("loading rows", r"loading\nrows");
    let found = USUAL.replace("of the first table", "for 123-45-6789 ...");
    let with = |data| Publish { data, ..known };
    let mut group = c.benchmark_group("check an event of 250 bytes");
    group.throughput(Throughput::Elements(1));
    for (name, rules, publish, refused) in [
        ("nothing configured", &NONE, known, false),
        ("catalogs, and it is in none", &schemas, unknown, false),
        ("catalogs, strict, and it is in none", &strict, unknown, true),
        ("its schema", &schemas, known, false),
        ("its schema, which it breaks", &schemas, with(&bad), true),
        ("us-health, other topics", &refuse, Publish { topics: "stage", ..known }, false),
        ("us-health", &refuse, known, false),
        ("us-health, with an escape", &refuse, with(&escaped), false),
        ("us-health, refuses", &refuse, with(&found), true),
        ("us-health, masks", &mask, with(&found), false),
        ("its schema and us-health", &both, known, false),
    ] {
        assert_eq!(rules.check(&publish).is_err(), refused, "{name}");
        group.bench_function(name, |b| b.iter(|| black_box(rules).check(black_box(&publish))));
    }
    group.finish();

    // What else is done to the same bytes, or would be.
    let mut group = c.benchmark_group("read 250 bytes");
    group.bench_function("is it JSON (every event, before any rule)", |b| {
        b.iter(|| serde_json::from_str::<IgnoredAny>(black_box(USUAL)));
    });
    group.bench_function("taken apart in place", |b| b.iter(|| Tree::parse(black_box(USUAL)).map(drop)));
    group.bench_function("into serde_json::Value", |b| {
        b.iter(|| serde_json::from_str::<Value>(black_box(USUAL)));
    });
    let schema =
        &catalogs[1].events.iter().find(|event| event.name == "stage-progress").expect("there").schema;
    let validator = jsonschema::options().should_validate_formats(true).build(schema).expect("a schema");
    group.bench_function("into serde_json::Value, and its schema", |b| {
        b.iter(|| {
            serde_json::from_str::<Value>(black_box(USUAL)).is_ok_and(|value| validator.is_valid(&value))
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = check
}
criterion_main!(benches);
