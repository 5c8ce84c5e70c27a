//! Catalogs as a page of Markdown.

use std::fmt::Write as _;

use serde_json::Value;

use super::sentence;
use super::shape::{Field, Shape};
use crate::catalog::file::Catalog;

pub(super) fn page(catalogs: &[Catalog]) -> String {
    let mut out = String::from(
        "<!-- Made by `fanwire generate reference`: change the catalogs, not this. -->\n\n# Events of the catalogs\n\n",
    );
    out.push_str(
        "The `data` of every event. It may have more members than these, where no word says otherwise.\n",
    );
    for catalog in catalogs {
        let _ = write!(out, "\n## {}\n\n{}\n\n", cell(&catalog.name), cell(&sentence(&catalog.description)));
        out.push_str("| category | events |\n| --- | --- |\n");
        for category in &catalog.categories {
            let names: Vec<_> = catalog.events_of(&category.name).map(|event| code(&event.name)).collect();
            let _ = writeln!(out, "| {} | {} |", code(&category.name), names.join(", "));
        }
        for category in &catalog.categories {
            let _ = write!(out, "\n### {}: {}\n\n", cell(&catalog.name), cell(&category.name));
            let _ = writeln!(out, "{}", cell(&sentence(&category.description)));
            for event in catalog.events_of(&category.name) {
                let _ = write!(
                    out,
                    "\n#### {}\n\n{}\n\n",
                    cell(&event.name),
                    cell(&sentence(&event.description))
                );
                match Shape::of(&event.schema) {
                    Shape::Object(fields) => {
                        out.push_str("| field | type | required | meaning |\n| --- | --- | --- | --- |\n");
                        rows(&mut out, "", &fields);
                        if event.schema.get("additionalProperties") == Some(&Value::Bool(false)) {
                            out.push_str("\nNo other members are allowed.\n");
                        }
                    }
                    other => {
                        let _ = writeln!(out, "`data` is {}.", name(&other));
                    }
                }
                if let Some(example) = &event.example {
                    let text = serde_json::to_string_pretty(example).unwrap_or_default();
                    let _ = write!(out, "\n```json\n{text}\n```\n");
                }
            }
        }
    }
    out
}

fn rows(out: &mut String, prefix: &str, fields: &[Field]) {
    for field in fields {
        let path = format!("{prefix}{}", field.name);
        let bounds = if field.bounds.is_empty() { String::new() } else { format!(" ({})", field.bounds) };
        let meaning = format!("{}{bounds}", field.description.trim_end_matches('.'));
        let required = if field.is_required { "yes" } else { "" };
        let _ = writeln!(
            out,
            "| {} | {} | {required} | {} |",
            code(&path),
            cell(&name(&field.shape)),
            cell(&meaning)
        );
        match &field.shape {
            Shape::Object(fields) => rows(out, &format!("{path}."), fields),
            Shape::Array(items) => {
                if let Shape::Object(fields) = &**items {
                    rows(out, &format!("{path}[]."), fields);
                }
            }
            _ => {}
        }
    }
}

fn name(shape: &Shape) -> String {
    match shape {
        Shape::Any => "anything".to_owned(),
        Shape::Null => "null".to_owned(),
        Shape::Boolean => "boolean".to_owned(),
        Shape::Integer => "integer".to_owned(),
        Shape::Number => "number".to_owned(),
        Shape::String => "string".to_owned(),
        Shape::OneOf(values) => {
            values.iter().map(|value| code(&value.to_string())).collect::<Vec<_>>().join(", ")
        }
        Shape::Array(items) => format!("array of {}", name(items)),
        Shape::Object(_) => "object".to_owned(),
        Shape::Map(values) if **values == Shape::Any => "object".to_owned(),
        Shape::Map(values) => format!("object of {}", name(values)),
        Shape::Union(all) => all.iter().map(name).collect::<Vec<_>>().join(" or "),
    }
}

/// Text that ends no cell of a table and begins no markup.
fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('\\', "\\\\").replace('|', "\\|").replace('<', "&lt;").replace("](", "] (")
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('`', "'").replace('|', "\\|"))
}
