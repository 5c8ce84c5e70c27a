//! WHAT MAY BE PUBLISHED: catalogs of events with their schemas, guards, and the rules that both make. Pure: text
//! and values in, verdicts out.
//!
//! `json` takes a text apart, `schema` and `guard` look at it, `file` reads a catalog, `rules` is what a publisher's
//! events are held to; `generate` writes types and pages from catalogs.

pub mod file;
pub mod generate;
pub mod guard;
pub mod json;
pub mod rules;
pub mod schema;
