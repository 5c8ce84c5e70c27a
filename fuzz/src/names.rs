//! Names, positions and queries: the first line is a name, an id of an event stream, a policy; the whole is a query.

use fanwire::admin::history;
use fanwire::dialect::command::{
    Ask, check_client_id, check_topic, checked_filter, checked_topics, from_query,
};
use fanwire::dialect::envelope::{read_epoch, write_epoch};
use fanwire::dialect::sse;
use fanwire::proto::http1::{decode_path_segment, query_pairs};
use fanwire::session::policy::Policy;
use fanwire::topic::name::{check_key, check_name, check_topic_or_pattern};

pub fn fuzz(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    name(text);
    id(text);
    query(text);
}

/// As the document says it: 1 to 255 bytes without control characters.
fn name(text: &str) {
    let is_clean = !text.chars().any(char::is_control);
    let is_name = (1..=255).contains(&text.len()) && is_clean;
    assert_eq!(check_name("topic", text).is_ok(), is_name);
    assert!(check_topic_or_pattern(text).is_err() || is_name);
    assert_eq!(check_key(text).is_ok(), text.len() <= 255 && is_clean);
    if check_topic(text).is_ok() {
        assert!(is_name);
    }
    assert_eq!(check_client_id(text).is_ok(), (1..=128).contains(&text.chars().count()));
    let list: Vec<String> = text.split(',').map(str::to_owned).collect();
    if let Ok(topics) = checked_topics(list.clone(), check_topic) {
        assert!(topics.len() <= list.len() && topics.iter().all(|topic| list.contains(topic)));
    }
    if let Ok(names) = checked_filter("event", list) {
        assert!(names.is_sorted());
    }
    if let Ok(policy) = Policy::parse(text) {
        assert_eq!(policy.name(), text);
    }
}

/// One position is written in one way, and only so is it read.
fn id(text: &str) {
    if let Some(position) = sse::read_id(text) {
        let mut out = Vec::new();
        sse::write_position(&mut out, position);
        assert_eq!(out, format!("id: {text}\n\n").into_bytes());
    }
    if let Some(epoch) = read_epoch(text) {
        assert_eq!(write_epoch(epoch), text);
    }
}

fn query(text: &str) {
    if let Ok(decoded) = decode_path_segment(text)
        && !text.contains('%')
    {
        assert_eq!(decoded, text);
    }
    let pairs: Result<Vec<_>, _> = query_pairs(text).collect();
    for ask in [Ask::Whole, Ask::Options] {
        match from_query(text, ask) {
            Ok(subscribe) => {
                assert!(pairs.is_ok());
                assert!(ask == Ask::Whole || subscribe.topics.is_empty());
                super::command::check_subscribe(&subscribe, check_topic);
            }
            Err(error) => assert_eq!(error.status, 400),
        }
    }
    match history::Since::read(text) {
        Ok(_) => assert!(pairs.is_ok()),
        Err(error) => assert_eq!(error.status, 400),
    }
}
