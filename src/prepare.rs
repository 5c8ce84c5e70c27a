//! What settings come to before a node starts: `serve` and `check` find the same mistakes.

pub(crate) mod catalogs;

use crate::admin::api::own_paths;
use crate::catalog::file::Catalog;
use crate::catalog::rules::Rules;
use crate::config::{self, ConfigError, Problem, Settings};
use crate::dialect::envelope::Envelopes;
use crate::dialect::path::{Definition, Field, Streams};
use crate::session::policy::Policy;
use crate::topic::rules::{Rule as TopicRule, Rules as TopicRules};

/// Everything that is compiled from settings.
#[derive(Debug)]
pub struct Prepared {
    /// The paths that subscribe those who connect to them.
    pub streams: Streams,
    /// How events are written, for those streams too.
    pub envelopes: Envelopes,
    /// What publishers' events are held to.
    pub rules: Rules,
    /// What topics have by the beginning of their names.
    pub topic_rules: TopicRules,
    /// The catalogs that the rules are made of, in the order of the settings.
    pub catalogs: Vec<Catalog>,
}

/// Compiles what the settings say.
///
/// # Errors
/// Every mistake, with its line.
pub fn prepare(settings: &Settings) -> Result<Prepared, ConfigError> {
    let mut envelopes = Envelopes::built_in();
    let definitions = settings.streams.iter().map(|stream| Definition {
        path: &stream.path.value,
        topic: &stream.topic.value,
        envelope: &stream.envelope.value,
    });
    let streams = Streams::compile(definitions, &own_paths(settings.diagnostics), &mut envelopes);
    let topic_rules = TopicRules::new(settings.topics.iter().map(topic_rule).collect());
    let streams = streams.map_err(|mistakes| {
        let problems = mistakes.into_iter().map(|mistake| {
            let stream = &settings.streams[mistake.stream];
            let (name, place) = match mistake.field {
                Field::Path => ("path", &stream.path.place),
                Field::Topic => ("topic", &stream.topic.place),
                Field::Envelope => ("envelope", &stream.envelope.place),
            };
            Problem { place: place.clone(), message: format!("{name}: {}", mistake.message) }
        });
        problems.collect::<Vec<_>>()
    });
    match (streams, catalogs::rules(settings)) {
        (Ok(streams), Ok((rules, catalogs))) => {
            Ok(Prepared { streams, envelopes, rules, topic_rules, catalogs })
        }
        (Err(problems), Ok(_)) | (Ok(_), Err(problems)) => Err(ConfigError { problems }),
        (Err(streams), Err(rules)) => Err(ConfigError { problems: [streams, rules].concat() }),
    }
}

fn topic_rule(topic: &config::Topic) -> TopicRule {
    let policies = match &topic.policies {
        // The settings allow no other words than these.
        Some(names) => names.iter().filter_map(|name| Policy::parse(name).ok()).collect(),
        None => Policy::ALL.into(),
    };
    let (prefix, history) = (topic.prefix.value.clone(), topic.history.clone());
    TopicRule { prefix, history, policies, compress_above: topic.compress_above }
}
