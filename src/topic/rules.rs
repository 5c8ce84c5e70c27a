//! What topics have by the beginning of their names: history, and the policies that subscribers may choose.

use crate::config::HistoryLimits;
use crate::session::policy::Policy;

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

    /// Whether a subscriber of a topic may choose a policy.
    ///
    /// # Errors
    /// Why not.
    pub fn check_policy(&self, topic: &str, policy: Policy) -> Result<(), String> {
        let rule = self.of(topic);
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
        Ok(())
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
        assert_eq!(rules.check_policy("run:7", Policy::Replay), Ok(()));
        assert!(rules.check_policy("a", Policy::DropOldest).unwrap_err().contains("there are disconnect"));
        let none = Rules::default();
        assert_eq!((none.of("a"), none.check_policy("a", Policy::DropOldest)), (None, Ok(())));
        assert!(none.check_policy("a", Policy::Replay).unwrap_err().contains("has none"));
    }
}
