//! `data`, however it comes: its readers agree on what is in it, what is accepted goes on byte for byte, and what a
//! guard masks stays JSON.

use std::cell::OnceCell;

use fanwire::catalog::guard::{Action, Definition, Guards};
use fanwire::catalog::json::{Fault, Kind, Tree};
use fanwire::catalog::rules::{NONE, Rules};
use fanwire::publish::http::{Format, check};
use fanwire::publish::wire::Publish;
use serde_json::Value;
use serde_json::value::RawValue;

thread_local! {
    static MASKING: OnceCell<Rules> = const { OnceCell::new() };
}

/// Masks the letter `s` and what looks like a card's number.
fn masking() -> Rules {
    let patterns = ["[sS]", r"\d{4}[ -]?\d{4}"].map(|pattern| (String::new(), pattern.to_owned()));
    let definition =
        Definition { name: "g".into(), topics: vec![], patterns: patterns.into(), action: Action::Mask };
    let guards = Guards::new(&[definition]).expect("patterns that are right");
    Rules::new(&[], false, guards).expect("rules without a catalog")
}

pub fn fuzz(input: &[u8]) {
    bodies(input);
    let Ok(text) = std::str::from_utf8(input) else { return };
    let publish = Publish { topics: "t", event: "e", key: "", data: text, timestamp_ms: 0 };
    let is_accepted = publish.check().is_ok();
    let is_json = text.is_empty() || serde_json::from_str::<&RawValue>(text).is_ok();
    assert_eq!(is_accepted, is_json);
    match Tree::parse(text) {
        Ok(tree) if is_accepted => same_values(text, &tree),
        // Whoever takes a text apart has had it checked; one that is no JSON may come out as anything.
        Ok(tree) => tree.all().for_each(|value| drop((value.string(), value.name(), value.pointer()))),
        Err(Fault::NotJson) => assert!(!is_accepted || text.is_empty()),
        Err(_) => {}
    }
    if is_accepted {
        is_masked(&publish);
    }
}

/// Strings, numbers and structure as another reader sees them, where it reads the text at all: it has no place for
/// numbers of any size and no character for half a surrogate pair.
fn same_values(text: &str, tree: &Tree<'_>) {
    for value in tree.all() {
        assert_eq!(value.raw(), &text[value.range()]);
        if value.kind() == Kind::String {
            let quoted = format!("\"{}\"", value.raw());
            if let Ok(read) = serde_json::from_str::<String>(&quoted) {
                assert_eq!(value.string(), read);
            }
        }
    }
    let Ok(read) = serde_json::from_str::<Value>(text) else { return };
    let root = tree.root();
    let same = match &read {
        Value::Null => root.kind() == Kind::Null,
        Value::Bool(is) => root.kind() == if *is { Kind::True } else { Kind::False },
        Value::Number(_) => root.kind() == Kind::Number,
        Value::String(_) => root.kind() == Kind::String,
        Value::Array(values) => root.kind() == Kind::Array && root.len() == values.len(),
        Value::Object(members) => {
            root.kind() == Kind::Object
                && root.len() == members.len()
                && members.keys().all(|name| root.get(name).is_some())
        }
    };
    assert!(same, "{read:?}");
}

/// What a guard lets through is JSON without what it masks.
fn is_masked(publish: &Publish<'_>) {
    MASKING.with(|rules| match rules.get_or_init(masking).check(publish) {
        Ok(None) | Err(_) => {}
        Ok(Some(masked)) => {
            let again = Publish { data: &masked, ..*publish };
            again.check().expect("what is masked is JSON");
            let second = rules.get_or_init(masking).check(&again);
            assert!(matches!(second, Ok(None)), "nothing is left to mask: {masked}");
        }
    });
}

/// The input as the body of a publish request: all or nothing, and data byte for byte.
fn bodies(input: &[u8]) {
    for format in [Format::Json, Format::Ndjson] {
        match check(format, input, 200, &NONE) {
            Ok(mut batch) => {
                let text = std::str::from_utf8(input).expect("a body is UTF-8");
                let mut count = 0;
                while !batch.publish(input, 1, |publish| {
                    publish.check().expect("what is accepted is right");
                    assert!(text.contains(publish.data));
                    assert!(publish.data.len() <= 200);
                    count += 1;
                }) {}
                assert_eq!(batch.answer()["accepted"], count);
            }
            Err(refused) => {
                assert_eq!(refused.answer["accepted"], 0);
                assert!(refused.answer["errors"].as_array().is_some_and(|errors| !errors.is_empty()));
                assert!(refused.counts.iter().all(|(_, count)| *count > 0) && !refused.counts.is_empty());
            }
        }
    }
}
