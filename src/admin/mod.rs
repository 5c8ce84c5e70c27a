//! What operators and HTTP publishers see: routes, statistics, metrics, the page.

pub mod api;
pub mod diagnostics;
pub mod drain;
pub mod history;
pub mod metrics;
pub mod page;
pub mod report;
pub mod slow;
pub mod stats;
