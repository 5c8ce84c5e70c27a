//! A catalog as a Python module, beside `clients/python/fanwire_events.py`. Python 3.8 and later.

use std::fmt::Write as _;

use serde_json::Value;

use super::shape::{Field, Shape};
use super::{identifiers, pascal, sentence, snake, unique};
use crate::catalog::file::Catalog;

/// Words that no member of a class may be named.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in", "is",
    "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

pub(super) fn module(catalog: &Catalog) -> String {
    let names: Vec<_> = identifiers(catalog, pascal).into_iter().map(|name| format!("{name}Data")).collect();
    // Those of nested classes must be others.
    let mut taken = names.clone();
    let mut body = String::new();
    for (event, name) in catalog.events.iter().zip(&names) {
        match Shape::of(&event.schema) {
            Shape::Object(fields) => {
                class(&mut body, name, &sentence(&event.description), &fields, &mut taken);
            }
            other => {
                let mut before = String::new();
                let shape = text(&other, name, &mut before, &mut taken);
                let about = line(&sentence(&event.description));
                let _ = write!(body, "{before}\n\n# {about}\n{name} = {shape}\n");
            }
        }
    }
    let _ = write!(body, "\n\nCATEGORIES: Dict[str, Tuple[str, ...]] = {{\n");
    for category in &catalog.categories {
        let all: Vec<_> = catalog.events_of(&category.name).map(|event| literal(&event.name)).collect();
        let _ = writeln!(body, "    {}: ({},),", literal(&category.name), all.join(", "));
    }
    body.push_str("}\n\"\"\"The events of each category.\"\"\"\n");
    for ((event, name), function) in catalog.events.iter().zip(&names).zip(identifiers(catalog, snake)) {
        let _ = write!(
            body,
            "\n\ndef broadcast_{function}(publisher: Publisher, target: Target, data: {name}) -> None:\n    \
             \"\"\"Publishes {}.\"\"\"\n    publisher.publish(target, {}, {}, data)\n",
            docstring(&format!("`{}`: {}", event.name, event.description.trim_end_matches('.'))),
            literal(&event.category),
            literal(&event.name)
        );
    }
    let used: Vec<_> =
        ["Any", "Dict", "List", "Literal", "NoReturn", "Optional", "Tuple", "TypedDict", "Union"]
            .into_iter()
            .filter(|name| body.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *name))
            .collect();
    let mut out = String::new();
    let _ = write!(
        out,
        "# Made by `fanwire generate python` from the catalog `{}`: change that, not this.\n\"\"\"{}\"\"\"\n\n\
         from __future__ import annotations\n\nfrom typing import TYPE_CHECKING, {}\n\n\
         from fanwire_events import Publisher, Target\n\n\
         if TYPE_CHECKING:\n    from typing_extensions import NotRequired, Required\n",
        catalog.name,
        docstring(&sentence(&catalog.description)),
        used.join(", ")
    );
    out + &body
}

/// A string as Python has it: JSON's escapes are Python's, but for surrogate pairs, which are not written.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn docstring(text: &str) -> String {
    line(text).replace('\\', "\\\\").replace('"', "'")
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !name.starts_with("__")
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !KEYWORDS.contains(&name)
}

/// A `TypedDict`, after those that it is made of.
fn class(out: &mut String, name: &str, about: &str, fields: &[Field], taken: &mut Vec<String>) {
    let mut before = String::new();
    let mut members = Vec::new();
    for field in fields {
        let nested = format!("{name}{}", pascal(&field.name));
        let shape = text(&field.shape, &nested, &mut before, taken);
        let need = if field.is_required { "Required" } else { "NotRequired" };
        let bounds = if field.bounds.is_empty() { String::new() } else { format!(" ({})", field.bounds) };
        let about = docstring(&sentence(&format!("{}{bounds}", field.description.trim_end_matches('.'))));
        members.push((field.name.as_str(), format!("{need}[{shape}]"), about));
    }
    out.push_str(&before);
    if members.iter().all(|(name, ..)| is_identifier(name)) {
        let _ = write!(
            out,
            "\n\nclass {name}(TypedDict, total=False):\n    \"\"\"{}\"\"\"\n\n",
            docstring(about)
        );
        for (member, shape, about) in members {
            let _ = writeln!(out, "    {member}: {shape}");
            if !about.is_empty() {
                let _ = writeln!(out, "    \"\"\"{about}\"\"\"");
            }
        }
        return;
    }
    // Names that no class can have. The types are text: they are for checkers, which read it.
    let _ = write!(out, "\n\n# {}\n{name} = TypedDict(\n    {},\n    {{\n", line(about), literal(name));
    for (member, shape, about) in members {
        let about = if about.is_empty() { String::new() } else { format!("  # {about}") };
        let _ = writeln!(out, "        {}: {},{about}", literal(member), literal(&shape));
    }
    out.push_str("    },\n    total=False,\n)\n");
}

/// A type. What has members of its own becomes a class, of this name or one like it, which `before` gets.
fn text(shape: &Shape, name: &str, before: &mut String, taken: &mut Vec<String>) -> String {
    match shape {
        Shape::Any => "Any".to_owned(),
        Shape::Null => "None".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::Integer => "int".to_owned(),
        Shape::Number => "float".to_owned(),
        Shape::String => "str".to_owned(),
        // `Never`, by the name that Python 3.8 has for it.
        Shape::OneOf(values) if values.is_empty() => "NoReturn".to_owned(),
        Shape::OneOf(values) => {
            let word = |value: &Value| match value {
                Value::Null => Some("None".to_owned()),
                Value::Bool(true) => Some("True".to_owned()),
                Value::Bool(false) => Some("False".to_owned()),
                Value::String(text) => Some(literal(text)),
                Value::Number(number) if !number.is_f64() => Some(number.to_string()),
                _ => None,
            };
            let words: Option<Vec<_>> = values.iter().map(word).collect();
            words.map_or_else(|| "Any".to_owned(), |words| format!("Literal[{}]", words.join(", ")))
        }
        Shape::Array(items) => format!("List[{}]", text(items, &format!("{name}Item"), before, taken)),
        Shape::Object(fields) => {
            let name = unique(name.to_owned(), taken);
            class(before, &name, "", fields, taken);
            name
        }
        Shape::Map(values) => format!("Dict[str, {}]", text(values, &format!("{name}Value"), before, taken)),
        Shape::Union(all) => {
            let others: Vec<_> = all.iter().filter(|one| **one != Shape::Null).collect();
            let mut names = Vec::new();
            for (number, one) in others.iter().enumerate() {
                let name = if others.len() > 1 { format!("{name}{}", number + 1) } else { name.to_owned() };
                names.push(text(one, &name, before, taken));
            }
            let union =
                if names.len() == 1 { names.remove(0) } else { format!("Union[{}]", names.join(", ")) };
            if others.len() < all.len() { format!("Optional[{union}]") } else { union }
        }
    }
}
