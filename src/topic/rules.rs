//! What topics have by the beginning of their names: history, and the policies that subscribers may choose.

use crate::config::HistoryLimits;
use crate::session::policy::Policy;
use crate::topic::name::pattern_prefix;

/// What topics have whose names begin alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What their names begin with.
    pub prefix: String,
    /// What they keep of their past; `None`: nothing.
    pub history: Option<HistoryLimits>,
    /// What their subscribers may choose.
    pub policies: Vec<Policy>,
    /// From so many bytes of its frame's payload on an event is compressed for those who take that; `None`: never.
    pub compress_above: Option<usize>,
}

/// Every rule; the one with the longest fitting prefix counts.
#[derive(Debug, Default)]
pub struct Rules {
    /// Longest first.
    rules: Vec<Rule>,
    compress_any: bool,
}

impl Rules {
    /// The rules in any order.
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        let compress_any = rules.iter().any(|rule| rule.compress_above.is_some());
        Self { rules, compress_any }
    }

    /// The rule for a topic; `None`: it has no history, and every policy that needs none may be chosen.
    pub fn of(&self, topic: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| topic.starts_with(&rule.prefix))
    }

    /// Whether there is a topic whose events may be compressed.
    pub fn compress_any(&self) -> bool {
        self.compress_any
    }

    /// From how many bytes on events of a topic are compressed; `None`: never.
    pub fn compress_above(&self, topic: &str) -> Option<usize> {
        self.of(topic)?.compress_above
    }

    /// Whether events of a topic may be compressed, or of any topic that a pattern may match.
    pub fn may_compress(&self, name: &str) -> bool {
        let Some(prefix) = pattern_prefix(name) else { return self.compress_above(name).is_some() };
        let mut within = self.rules.iter().filter(|rule| rule.prefix.starts_with(prefix));
        self.compress_above(prefix).is_some() || within.any(|rule| rule.compress_above.is_some())
    }

    /// The policy of a subscriber of a topic who chooses this one, or none: then it is `disconnect`, or the first
    /// that its rule names where that one is not among them. Of a pattern it is one that all topics allow which it
    /// may match.
    ///
    /// # Errors
    /// Why he may not choose it.
    pub fn policy(&self, topic: &str, chosen: Option<Policy>) -> Result<Policy, String> {
        if let Some(prefix) = pattern_prefix(topic) {
            return self.policy_of_pattern(topic, prefix, chosen);
        }
        let rule = self.of(topic);
        let policy = chosen.unwrap_or_else(|| {
            let allowed = rule.map(|rule| &rule.policies[..]).unwrap_or_default();
            let first = allowed.first().filter(|_| !allowed.contains(&Policy::default()));
            first.copied().unwrap_or_default()
        });
        if let Some(rule) = rule
            && !rule.policies.contains(&policy)
        {
            let allowed: Vec<&str> = rule.policies.iter().map(|policy| policy.name()).collect();
            return Err(format!(
                "policy {} is not allowed on {topic:?}; there are {}",
                policy.name(),
                allowed.join(", ")
            ));
        }
        if policy == Policy::Replay && rule.is_none_or(|rule| rule.history.is_none()) {
            return Err(format!("policy replay needs history, and {topic:?} has none"));
        }
        Ok(policy)
    }

    /// A pattern has no history of its own, so its policy is never `replay`.
    fn policy_of_pattern(
        &self,
        pattern: &str,
        prefix: &str,
        chosen: Option<Policy>,
    ) -> Result<Policy, String> {
        if chosen == Some(Policy::Replay) {
            return Err(format!("policy replay needs history, and {pattern:?}, a pattern, has none"));
        }
        let whole = self.of(prefix);
        let is_within = |rule: &&Rule| rule.prefix.len() > prefix.len() && rule.prefix.starts_with(prefix);
        let refusing = |policy: &Policy| {
            let all = whole.into_iter().chain(self.rules.iter().filter(is_within));
            all.into_iter().find(|rule| !rule.policies.contains(policy))
        };
        if let Some(policy) = chosen {
            let Some(rule) = refusing(&policy) else { return Ok(policy) };
            let (name, other) = (policy.name(), &rule.prefix);
            return Err(format!(
                "policy {name} is not allowed on all that {pattern:?} matches: not on topics that begin with {other:?}"
            ));
        }
        let others = whole.map_or(&Policy::ALL[..], |rule| &rule.policies);
        let all = std::iter::once(&Policy::Disconnect).chain(others);
        let mut allowed = all.filter(|policy| **policy != Policy::Replay && refusing(policy).is_none());
        allowed
            .next()
            .copied()
            .ok_or_else(|| format!("no policy is allowed on all that {pattern:?}, a pattern, matches"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_longest_prefix_wins() {
        let history = HistoryLimits { events: 1, bytes: 1, age: Duration::from_secs(1) };
        let rule = |prefix: &str, has_history: bool, policies: &[Policy]| Rule {
            prefix: prefix.into(),
            history: has_history.then(|| history.clone()),
            policies: policies.into(),
            compress_above: None,
        };
        let rules = Rules::new(vec![
            rule("", false, &[Policy::Disconnect]),
            rule("run:", true, &Policy::ALL),
            rule("run:x", true, &[Policy::Replay]),
        ]);
        for (topic, prefix) in
            [("a", ""), ("run", ""), ("run:", "run:"), ("run:7", "run:"), ("run:xy", "run:x")]
        {
            assert_eq!(rules.of(topic).unwrap().prefix, prefix, "{topic}");
        }
    }

    #[test]
    fn compression_is_by_the_longest_prefix_and_a_pattern_has_it_where_any_of_its_topics_may() {
        let rule = |prefix: &str, compress_above| Rule {
            prefix: prefix.into(),
            history: None,
            policies: Policy::ALL.into(),
            compress_above,
        };
        let rules = Rules::new(vec![rule("run:", Some(100)), rule("run:x", None), rule("run:xy", Some(7))]);
        for (topic, above) in
            [("a", None), ("run", None), ("run:1", Some(100)), ("run:x", None), ("run:xyz", Some(7))]
        {
            assert_eq!((rules.compress_above(topic), rules.may_compress(topic)), (above, above.is_some()));
        }
        for (pattern, may) in
            [("*", true), ("r*", true), ("run:1*", true), ("run:x*", true), ("run:xa*", false), ("s*", false)]
        {
            assert_eq!(rules.may_compress(pattern), may, "{pattern}");
        }
        assert!(rules.compress_any());
        assert!(!Rules::new(vec![rule("", None)]).compress_any() && !Rules::default().compress_any());
    }

    #[test]
    fn a_policy_is_chosen_from_those_of_the_topic() {
        use Policy::{Conflate, Disconnect, DropOldest, Replay};
        let history = HistoryLimits { events: 1, bytes: 1, age: Duration::from_secs(1) };
        let rule = |prefix: &str, history: Option<&HistoryLimits>, policies: &[Policy]| Rule {
            prefix: prefix.into(),
            history: history.cloned(),
            policies: policies.into(),
            compress_above: None,
        };
        let rules = Rules::new(vec![
            rule("all", Some(&history), &Policy::ALL),
            rule("few", Some(&history), &[Replay, Conflate]),
            rule("none", None, &Policy::ALL),
            rule("replayed", Some(&history), &[Replay]),
        ]);
        for (topic, chosen, expected) in [
            ("all", None, Ok(Disconnect)),
            ("all", Some(Replay), Ok(Replay)),
            ("few", None, Ok(Replay)),
            ("few", Some(Conflate), Ok(Conflate)),
            (
                "few",
                Some(DropOldest),
                Err("drop-oldest is not allowed on \"few\"; there are replay, conflate"),
            ),
            ("few", Some(Disconnect), Err("there are replay, conflate")),
            ("none", Some(Replay), Err("has none")),
            ("other", None, Ok(Disconnect)),
            ("other", Some(Conflate), Ok(Conflate)),
            ("other", Some(Replay), Err("has none")),
            // Patterns: all that they match has to allow it.
            ("all*", None, Ok(Disconnect)),
            ("all:1*", Some(DropOldest), Ok(DropOldest)),
            ("all*", Some(Replay), Err("a pattern, has none")),
            ("few*", None, Ok(Conflate)),
            ("few:1*", Some(Disconnect), Err("not on topics that begin with \"few\"")),
            ("f*", None, Ok(Conflate)),
            ("f*", Some(DropOldest), Err("not on topics that begin with \"few\"")),
            ("*", Some(Conflate), Err("not on topics that begin with \"replayed\"")),
            ("*", None, Err("no policy is allowed on all that \"*\"")),
            ("rep*", None, Err("no policy")),
            ("replayed:*", None, Err("no policy")),
            ("other*", Some(DropOldest), Ok(DropOldest)),
        ] {
            match (rules.policy(topic, chosen), expected) {
                (Ok(policy), Ok(expected)) => assert_eq!(policy, expected, "{topic} {chosen:?}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{topic} {chosen:?}: {error}"),
                other => panic!("{topic} {chosen:?}: {other:?}"),
            }
        }
    }
}
