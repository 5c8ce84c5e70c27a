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
}

/// Every rule; the one with the longest fitting prefix counts.
#[derive(Debug, Default)]
pub struct Rules {
    /// Longest first.
    rules: Vec<Rule>,
}

impl Rules {
    /// The rules in any order.
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| std::cmp::Reverse(rule.prefix.len()));
        Self { rules }
    }

    /// The rule for a topic; `None`: it has no history, and every policy that needs none may be chosen.
    pub fn of(&self, topic: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| topic.starts_with(&rule.prefix))
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
    fn a_policy_is_chosen_from_those_of_the_topic() {
        use Policy::{Conflate, Disconnect, DropOldest, Replay};
        let history = HistoryLimits { events: 1, bytes: 1, age: Duration::from_secs(1) };
        let rule = |prefix: &str, history: Option<&HistoryLimits>, policies: &[Policy]| Rule {
            prefix: prefix.into(),
            history: history.cloned(),
            policies: policies.into(),
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
