//! A JSON Schema as a type: what languages can say about data. What they cannot say is left to the node's check.

use serde_json::{Map, Value};

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Anything.
    Any,
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// A string.
    String,
    /// One of these values.
    OneOf(Vec<Value>),
    /// A list.
    Array(Box<Shape>),
    /// An object with members that are known, and maybe others.
    Object(Vec<Field>),
    /// An object whose members all have one type.
    Map(Box<Shape>),
    /// One of several.
    Union(Vec<Shape>),
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub shape: Shape,
    /// Whether it must be there.
    pub is_required: bool,
    /// What it is.
    pub description: String,
    /// What is asked of it beyond its type.
    pub bounds: String,
}

/// How far nested objects are followed.
const MAX_DEPTH: usize = 16;

/// How many schemas become parts of one type. Those that refer to each other, each to several, make more of every level.
const MAX_PARTS: usize = 10_000;

/// A way through a schema.
struct Walk<'a> {
    root: &'a Value,
    /// The references that were followed to here. One of them again would have no end.
    open: Vec<&'a str>,
    /// How many more parts there may be.
    left: usize,
}

impl Shape {
    /// The type that a schema describes. Where it refers to itself, anything.
    pub(super) fn of(schema: &Value) -> Self {
        Self::at(schema, &mut Walk { root: schema, open: vec!["#"], left: MAX_PARTS }, 0)
    }

    fn at<'a>(schema: &'a Value, walk: &mut Walk<'a>, depth: usize) -> Self {
        let Some(schema) = schema.as_object().filter(|_| depth < MAX_DEPTH && walk.left > 0) else {
            return Self::Any;
        };
        walk.left -= 1;
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| walk.root.pointer(pointer));
            let Some(target) = target.filter(|_| !walk.open.contains(&reference)) else { return Self::Any };
            walk.open.push(reference);
            let shape = Self::at(target, walk, depth + 1);
            walk.open.pop();
            return shape;
        }
        if let Some(value) = schema.get("const") {
            return Self::OneOf(vec![value.clone()]);
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return Self::OneOf(values.clone());
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(all) = schema.get(key).and_then(Value::as_array) {
                return Self::union(all.iter().map(|one| Self::at(one, walk, depth + 1)).collect());
            }
        }
        match schema.get("type") {
            Some(Value::String(name)) => Self::named(name, schema, walk, depth),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                Self::union(names.map(|name| Self::named(name, schema, walk, depth)).collect())
            }
            _ if schema.contains_key("properties") => Self::named("object", schema, walk, depth),
            _ => Self::Any,
        }
    }

    fn union(shapes: Vec<Self>) -> Self {
        let mut all: Vec<Self> = Vec::new();
        for shape in shapes {
            let parts = if let Self::Union(parts) = shape { parts } else { vec![shape] };
            for part in parts {
                if !all.contains(&part) {
                    all.push(part);
                }
            }
        }
        match all.len() {
            _ if all.contains(&Self::Any) => Self::Any,
            1 => all.remove(0),
            _ => Self::Union(all),
        }
    }

    fn named<'a>(name: &str, schema: &'a Map<String, Value>, walk: &mut Walk<'a>, depth: usize) -> Self {
        match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "string" => Self::String,
            "array" => {
                let items = schema.get("items").map_or(Self::Any, |items| Self::at(items, walk, depth + 1));
                Self::Array(Box::new(items))
            }
            "object" => match schema.get("properties").and_then(Value::as_object) {
                Some(properties) if !properties.is_empty() => {
                    Self::Object(fields(properties, schema, walk, depth))
                }
                _ => {
                    let others = schema.get("additionalProperties").filter(|others| others.is_object());
                    Self::Map(Box::new(others.map_or(Self::Any, |others| Self::at(others, walk, depth + 1))))
                }
            },
            _ => Self::Any,
        }
    }
}

/// Members in the order of `required`, then the others by name: JSON objects have no order of their own.
fn fields<'a>(
    properties: &'a Map<String, Value>,
    schema: &'a Map<String, Value>,
    walk: &mut Walk<'a>,
    depth: usize,
) -> Vec<Field> {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let rest = properties.keys().map(String::as_str).filter(|name| !required.contains(name));
    let names = required.iter().copied().chain(rest);
    let field = |name: &str| {
        let property = properties.get(name).unwrap_or(&Value::Bool(true));
        Field {
            name: name.to_owned(),
            shape: Shape::at(property, walk, depth + 1),
            is_required: required.contains(&name),
            description: property.get("description").and_then(Value::as_str).unwrap_or_default().to_owned(),
            bounds: bounds(property),
        }
    };
    names.map(field).collect()
}

/// What a schema asks of a value beyond its type, in words.
fn bounds(schema: &Value) -> String {
    let get = |key: &str| schema.get(key).map(ToString::to_string);
    let mut all = Vec::new();
    match (get("minimum"), get("maximum")) {
        (Some(least), Some(most)) => all.push(format!("{least} to {most}")),
        (Some(least), None) => all.push(format!("at least {least}")),
        (None, Some(most)) => all.push(format!("at most {most}")),
        (None, None) => {}
    }
    if let Some(limit) = get("exclusiveMinimum") {
        all.push(format!("more than {limit}"));
    }
    if let Some(limit) = get("exclusiveMaximum") {
        all.push(format!("less than {limit}"));
    }
    match (get("minLength").as_deref(), get("maxLength")) {
        (Some("1"), None) => all.push("not empty".to_owned()),
        (Some(least), None) => all.push(format!("{least} or more characters")),
        (Some(least), Some(most)) => all.push(format!("{least} to {most} characters")),
        (None, Some(most)) => all.push(format!("at most {most} characters")),
        (None, None) => {}
    }
    if let Some(format) = schema.get("format").and_then(Value::as_str) {
        all.push(format.to_owned());
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_become_types() {
        for (schema, expected) in [
            (json!(true), Shape::Any),
            (json!({}), Shape::Any),
            (json!({"type": ["string", "null"]}), Shape::Union(vec![Shape::String, Shape::Null])),
            (json!({"enum": ["a", 1]}), Shape::OneOf(vec![json!("a"), json!(1)])),
            (json!({"type": "array", "items": {"type": "integer"}}), Shape::Array(Box::new(Shape::Integer))),
            (json!({"type": "object"}), Shape::Map(Box::new(Shape::Any))),
            (
                json!({"type": "object", "additionalProperties": {"type": "number"}}),
                Shape::Map(Box::new(Shape::Number)),
            ),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"type": "null"}]}}}),
                Shape::Null,
            ),
            (json!({"anyOf": [{"type": "null"}, {}]}), Shape::Any),
        ] {
            assert_eq!(Shape::of(&schema), expected, "{schema}");
        }
        // It ends.
        Shape::of(&json!({"$ref": "#"}));
        let field = |schema: &Value| match Shape::of(schema) {
            Shape::Object(fields) => fields[0].shape.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(field(&json!({"properties": {"a": {"$ref": "#"}}})), Shape::Any);
        let names = || (0..40).map(|n| n.to_string());
        let to_all: Map<String, Value> =
            names().map(|n| (n.clone(), json!({"$ref": format!("#/$defs/{n}")}))).collect();
        let itself: Map<String, Value> = names().map(|n| (n, json!({"$ref": "#/$defs/a"}))).collect();
        let several =
            json!({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"properties": itself}}});
        let Shape::Object(inner) = field(&several) else { panic!() };
        assert!(inner.iter().all(|field| field.shape == Shape::Any));
        let each: Map<String, Value> = names().map(|n| (n, json!({"properties": to_all}))).collect();
        Shape::of(&json!({"properties": to_all, "$defs": each}));
        // Twice beside each other is no circle.
        let string = json!({"$ref": "#/$defs/s"});
        let twice = json!({"properties": {"a": string, "b": string}, "$defs": {"s": {"type": "string"}}});
        let Shape::Object(fields) = Shape::of(&twice) else { panic!() };
        assert!(fields.iter().all(|field| field.shape == Shape::String));
        let object = json!({"type": "object", "required": ["z", "b"], "properties":
            {"a": {}, "b": {"minimum": 0, "maximum": 9, "description": "d"}, "z": {"minLength": 1}}});
        let Shape::Object(fields) = Shape::of(&object) else { panic!() };
        let found: Vec<_> =
            fields.iter().map(|f| (f.name.as_str(), f.is_required, f.bounds.as_str())).collect();
        assert_eq!(found, [("z", true, "not empty"), ("b", true, "0 to 9"), ("a", false, "")]);
    }
}
