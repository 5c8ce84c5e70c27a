//! A catalog as a TypeScript module, beside or in the package in `clients/typescript`.

use std::fmt::Write as _;

use serde_json::Value;

use super::shape::{Field, Shape};
use super::{camel, identifiers, pascal, sentence};
use crate::catalog::file::Catalog;

// What is written into a `String` cannot fail: hence the `let _`s.

/// `library` is what has the types that do not depend on the catalog.
pub(super) fn module(catalog: &Catalog, library: &str) -> String {
    let mut out = String::new();
    let names = identifiers(catalog, pascal);
    let events = format!("{}Events", pascal(&catalog.name));
    let _ = writeln!(
        out,
        "// Made by `fanwire generate typescript` from the catalog `{}`: change that, not this.",
        catalog.name
    );
    let _ = writeln!(
        out,
        "\nimport type {{ AnyEvent, CatalogEvent, Publisher, Target }} from {};",
        literal(library)
    );
    for (event, name) in catalog.events.iter().zip(&names) {
        out.push('\n');
        comment(&mut out, "", &sentence(&event.description));
        match Shape::of(&event.schema) {
            Shape::Object(fields) => {
                let _ = write!(out, "export interface {name}Data ");
                object(&mut out, "", &fields);
                out.push('\n');
            }
            other => {
                let _ = writeln!(out, "export type {name}Data = {};", text(&other, ""));
            }
        }
    }
    out.push('\n');
    comment(&mut out, "", &format!("{}: the data of each event.", catalog.description.trim_end_matches('.')));
    let _ = writeln!(out, "export interface {events} {{");
    for (event, name) in catalog.events.iter().zip(&names) {
        let _ = writeln!(out, "  {}: {name}Data;", literal(&event.name));
    }
    out.push_str("}\n\n");
    comment(&mut out, "", "The events of each category.");
    let _ = writeln!(out, "export const {}Categories = {{", camel(&catalog.name));
    for category in &catalog.categories {
        let all: Vec<_> = catalog.events_of(&category.name).map(|event| literal(&event.name)).collect();
        let _ = writeln!(out, "  {}: [{}],", literal(&category.name), all.join(", "));
    }
    out.push_str("} as const;\n");
    for (event, name) in catalog.events.iter().zip(&names) {
        let (event_name, category) = (literal(&event.name), literal(&event.category));
        out.push('\n');
        let _ = writeln!(
            out,
            "export function is{name}(event: AnyEvent): event is CatalogEvent<{events}, {event_name}> {{"
        );
        let _ = writeln!(out, "  return event.event === {event_name};\n}}\n");
        let what = event.description.trim_end_matches('.');
        comment(&mut out, "", &format!("Publishes `{}`: {}.", event.name, lower_first(what)));
        let _ = writeln!(
            out,
            "export function broadcast{name}(publisher: Publisher, target: Target, data: {name}Data): Promise<void> {{"
        );
        let _ = writeln!(out, "  return publisher.publish(target, {category}, {event_name}, data);\n}}");
    }
    out
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().to_string() + chars.as_str())
}

/// A string or other scalar as JavaScript has it: as JSON has it.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

fn comment(out: &mut String, indent: &str, text: &str) {
    if !text.is_empty() {
        let text = text.replace("*/", "* /").split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "{indent}/** {text} */");
    }
}

/// `{ … }` over several lines, without a line feed at its end.
fn object(out: &mut String, indent: &str, fields: &[Field]) {
    out.push_str("{\n");
    let inner = format!("{indent}  ");
    for field in fields {
        let bounds = if field.bounds.is_empty() { String::new() } else { format!(" ({})", field.bounds) };
        let about = format!("{}{bounds}", field.description.trim_end_matches('.'));
        comment(out, &inner, &sentence(&about));
        let optional = if field.is_required { "" } else { "?" };
        let _ = writeln!(out, "{inner}{}{optional}: {};", key(&field.name), text(&field.shape, &inner));
    }
    let _ = write!(out, "{indent}}}");
}

fn key(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_plain { name.to_owned() } else { literal(name) }
}

fn text(shape: &Shape, indent: &str) -> String {
    match shape {
        Shape::Any => "unknown".to_owned(),
        Shape::Null => "null".to_owned(),
        Shape::Boolean => "boolean".to_owned(),
        Shape::Integer | Shape::Number => "number".to_owned(),
        Shape::String => "string".to_owned(),
        Shape::OneOf(values) if values.iter().any(|value| value.is_object() || value.is_array()) => {
            "unknown".to_owned()
        }
        Shape::OneOf(values) if values.is_empty() => "never".to_owned(),
        Shape::OneOf(values) => values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "),
        Shape::Array(items) => {
            let items = text(items, indent);
            if items.contains(" | ") { format!("({items})[]") } else { format!("{items}[]") }
        }
        Shape::Object(fields) => {
            let mut out = String::new();
            object(&mut out, indent, fields);
            out
        }
        Shape::Map(values) => format!("Record<string, {}>", text(values, indent)),
        Shape::Union(all) => all.iter().map(|one| text(one, indent)).collect::<Vec<_>>().join(" | "),
    }
}
