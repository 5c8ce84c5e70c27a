//! `fanwire serve`: settings, logs, and then the node.

use super::flags::Flags;
use super::{Outcome, log};

pub(super) fn run(flags: Flags) -> Outcome {
    let sources = flags.into_sources();
    let settings = sources.load()?.settings;
    let level = log::start(settings.log_level, settings.log_format);
    let started = settings.clone();
    let reload = move || {
        let new = sources.load()?.settings;
        level.set(new.log_level);
        for key in started.needs_restart(&new) {
            tracing::warn!(key, "the new value takes effect at the next start");
        }
        Ok(new)
    };
    Ok(crate::node::run(settings, Default::default(), reload))
}
