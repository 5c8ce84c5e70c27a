//! `fanwire serve`: settings, logs, and then the node.

use super::flags::Flags;
use super::{Outcome, log};
use crate::prepare::prepare;

pub(super) fn run(flags: Flags) -> Outcome {
    let sources = flags.into_sources();
    let settings = sources.load()?.settings;
    let prepared = prepare(&settings)?;
    crate::node::prepare_process();
    let (level, logs) = log::start(settings.log_level, settings.log_format)
        .map_err(|error| format!("the thread that writes the log: {error}"))?;
    for catalog in &prepared.catalogs {
        tracing::info!(catalog = %catalog.name, events = catalog.events.len(), "catalog loaded");
    }
    let started = settings.clone();
    let reload = move || {
        let new = sources.load()?.settings;
        // What only the next start would take up is refused now all the same, as long as somebody looks.
        prepare(&new)?;
        level.set(new.log_level);
        for key in started.needs_restart(&new) {
            tracing::warn!(key, "the new value takes effect at the next start");
        }
        Ok(new)
    };
    let code = crate::node::run(settings, prepared, reload, &logs);
    logs.wait_written(log::PATIENCE);
    Ok(code)
}
