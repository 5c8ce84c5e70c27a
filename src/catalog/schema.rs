//! A JSON Schema, compiled once, and what it says to a text that [`Tree`] took apart.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object};
use jsonschema::{JsonType, PatternOptions, ValidationError, Validator};
use serde_json::{Number, Value};

use crate::catalog::json::{Children, Kind, Ref, Tree, shorten};

/// Bytes that one compiled pattern of a schema may take.
const PATTERN_BYTES: usize = 1 << 20;
/// Violations that a message tells.
const TOLD: usize = 3;
/// Bytes of a text up to which more than the first violation is looked for: each holds a copy of what it is about.
const SEVERAL_BYTES: usize = 64 << 10;
/// Characters that a message shows of what the schema expects.
const SHOWN: usize = 120;

/// How deep data may be for its violations to be looked for with a schema that refers to itself: whoever collects
/// them goes every way through the alternatives, and their number grows by a power with the depth.
const SELF_DEPTH: usize = 5;

/// A compiled schema.
pub struct Schema {
    validator: Validator<Document>,
    /// Whether it may refer to itself.
    is_recursive: bool,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema")
    }
}

impl Schema {
    /// Compiles a schema: draft 2020-12, or the one that its `$schema` names. `format` is checked, patterns are
    /// those of the `regex` crate (linear time), references stay inside the schema.
    ///
    /// # Errors
    /// What is wrong, beginning with the JSON pointer inside the schema where there is one.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let options = jsonschema::options_for::<Document>()
            .offline()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex().size_limit(PATTERN_BYTES));
        let validator = options.build(schema).map_err(|error| describe_bad_schema(&error))?;
        Ok(Self { validator, is_recursive: is_recursive(schema) })
    }

    /// What the schema has against a text: a few violations, each a JSON pointer and what was expected there.
    /// Values of the text are not repeated.
    pub fn violation(&self, tree: &Tree<'_>) -> Option<String> {
        let root = Item::At(tree.root());
        if self.validator.is_valid(root.clone()) {
            return None;
        }
        if self.is_recursive && tree.all().any(|value| value.is_deeper_than(SELF_DEPTH)) {
            return Some("data as a whole: breaks the schema, which refers to itself".to_owned());
        }
        if tree.root().range().len() > SEVERAL_BYTES {
            return self.validator.validate(root).err().map(|error| describe(&error));
        }
        let mut message = String::new();
        let mut errors = self.validator.iter_errors(root);
        for error in errors.by_ref().take(TOLD) {
            let separator = if message.is_empty() { "" } else { "; " };
            // What is written into a `String` cannot fail.
            let _ = write!(message, "{separator}{}", describe(&error));
        }
        match errors.count() {
            0 => {}
            more => {
                let _ = write!(message, "; and {more} more");
            }
        }
        if message.is_empty() { Some("data breaks the schema".to_owned()) } else { Some(message) }
    }
}

/// Whether a schema may refer to itself. Where that cannot be told, it may.
fn is_recursive(schema: &Value) -> bool {
    /// `open` has the references that led here, `done` those that lead to no circle.
    fn search<'a>(
        at: &'a Value,
        root: &'a Value,
        open: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> bool {
        match at {
            Value::Array(items) => items.iter().any(|item| search(item, root, open, done)),
            Value::Object(members) => members.iter().any(|(name, value)| match (name.as_str(), value) {
                ("$dynamicRef" | "$recursiveRef", _) => true,
                ("$ref", Value::String(reference)) => {
                    let reference = reference.as_str();
                    if done.contains(reference) {
                        return false;
                    }
                    let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
                    let Some(target) = target.filter(|_| !open.contains(&reference)) else { return true };
                    open.push(reference);
                    let found = search(target, root, open, done);
                    open.pop();
                    done.insert(reference);
                    found
                }
                _ => search(value, root, open, done),
            }),
            _ => false,
        }
    }
    search(schema, schema, &mut vec!["#"], &mut BTreeSet::new())
}

/// The pointer and what is wrong inside a schema.
fn describe_bad_schema(error: &ValidationError<'_>) -> String {
    let pointer = shorten_pointer(error.instance_path().as_str());
    let place = if pointer.is_empty() { String::new() } else { format!("{pointer}: ") };
    let what = match error.kind() {
        ValidationErrorKind::Referencing(cause) => {
            let cause = cause.to_string();
            if cause.contains("not present in a registry") {
                let uri = cause.split('\'').nth(1).unwrap_or_default();
                format!(
                    "refers to {}, and references must stay inside the schema, as in #/$defs/name",
                    shorten(uri, SHOWN)
                )
            } else {
                shorten(&cause, 2 * SHOWN)
            }
        }
        _ => shorten(&error.to_string(), 2 * SHOWN),
    };
    format!("{place}{what}")
}

/// A violation: the pointer and what was expected, never what was found beyond its type.
fn describe(error: &ValidationError<'_>) -> String {
    let mut pointer = shorten_pointer(error.instance_path().as_str());
    let what = expectation(error, &mut pointer);
    if pointer.is_empty() { format!("data as a whole: {what}") } else { format!("{pointer}: {what}") }
}

/// What was expected. `pointer` is led on to the member that is missing, or should be.
fn expectation(error: &ValidationError<'_>, pointer: &mut String) -> String {
    let mut member = |name: &str| {
        *pointer += "/";
        *pointer += &shorten(&name.replace('~', "~0").replace('/', "~1"), 48);
    };
    let json = |value: &Value| shorten(&value.to_string(), SHOWN);
    match error.kind() {
        ValidationErrorKind::Type { kind } => {
            let expected = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(several) => {
                    several.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or ")
                }
            };
            format!("expected {expected}, found {}", JsonType::from(&**error.instance()))
        }
        ValidationErrorKind::Required { property } => {
            member(property.as_str().unwrap_or_default());
            "is missing".to_owned()
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            member(unexpected.first().map_or("", String::as_str));
            "is not a member that the schema knows".to_owned()
        }
        ValidationErrorKind::Minimum { limit } => format!("expected at least {}", json(limit)),
        ValidationErrorKind::Maximum { limit } => format!("expected at most {}", json(limit)),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("expected more than {}", json(limit)),
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("expected less than {}", json(limit)),
        ValidationErrorKind::MultipleOf { multiple_of } => format!("expected a multiple of {multiple_of}"),
        ValidationErrorKind::MinLength { limit } => format!("expected at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("expected at most {limit} characters"),
        ValidationErrorKind::Pattern { pattern } => {
            format!("expected text that matches {}", shorten(pattern, SHOWN))
        }
        ValidationErrorKind::Format { format } => format!("expected the format {}", shorten(format, SHOWN)),
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
            let all = options.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            format!("expected one of {}", shorten(&all, SHOWN))
        }
        ValidationErrorKind::Constant { expected_value } => format!("expected {}", json(expected_value)),
        ValidationErrorKind::MinItems { limit } => format!("expected at least {limit} items"),
        ValidationErrorKind::MaxItems { limit } => format!("expected at most {limit} items"),
        ValidationErrorKind::AdditionalItems { limit } => format!("expected at most {limit} items"),
        ValidationErrorKind::UnevaluatedItems { .. } => "has items that the schema does not know".to_owned(),
        ValidationErrorKind::UniqueItems => "expected items that differ from each other".to_owned(),
        ValidationErrorKind::Contains => "has no item of the kind that `contains` asks for".to_owned(),
        ValidationErrorKind::MinProperties { limit } => format!("expected at least {limit} members"),
        ValidationErrorKind::MaxProperties { limit } => format!("expected at most {limit} members"),
        ValidationErrorKind::PropertyNames { error } => {
            format!("a member name: {}", expectation(error, &mut String::new()))
        }
        ValidationErrorKind::AnyOf { .. } => "fits none of the alternatives of `anyOf`".to_owned(),
        ValidationErrorKind::OneOfNotValid { .. } => "fits none of the alternatives of `oneOf`".to_owned(),
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            "fits several of the alternatives of `oneOf`".to_owned()
        }
        ValidationErrorKind::Not { .. } => "is what `not` excludes".to_owned(),
        ValidationErrorKind::FalseSchema => "is not allowed here".to_owned(),
        other => format!("breaks `{}`", other.keyword()),
    }
}

/// A pointer whose names are shortened.
fn shorten_pointer(pointer: &str) -> String {
    let segments: Vec<_> = pointer.split('/').map(|segment| shorten(segment, 48)).collect();
    shorten(&segments.join("/"), 2 * SHOWN)
}

/// Values as the validator reads them: in place.
struct Document;

/// A value of a tree, or a member name on its own (for `propertyNames`).
#[derive(Clone)]
enum Item<'a> {
    At(Ref<'a>),
    Name(&'a str),
}

impl Json for Document {
    type Node<'a> = Item<'a>;
    type PreparedKey = String;
    type StringBuffer = ();
    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(_: &mut (), string: &str, f: impl FnOnce(Item<'_>) -> T) -> T {
        f(Item::Name(string))
    }
}

impl<'a> Node<'a, Document> for Item<'a> {
    type Object = Ref<'a>;
    type Array = Ref<'a>;
    type Number = Decimal<'a>;

    fn as_object(&self) -> Option<Ref<'a>> {
        match self {
            Self::At(at) if at.kind() == Kind::Object => Some(*at),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<Ref<'a>> {
        match self {
            Self::At(at) if at.kind() == Kind::Array => Some(*at),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::At(at) if at.kind() == Kind::String => Some(at.string()),
            Self::At(_) => None,
            Self::Name(name) => Some(Cow::Borrowed(name)),
        }
    }

    fn as_number(&self) -> Option<Decimal<'a>> {
        match self {
            Self::At(at) if at.kind() == Kind::Number => Some(Decimal(at.raw())),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Self::At(at) if at.kind() == Kind::True => Some(true),
            Self::At(at) if at.kind() == Kind::False => Some(false),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::At(at) if at.kind() == Kind::Null)
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::At(at) if at.kind() == Kind::Number)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Self::Name(_) => JsonType::String,
            Self::At(at) => match at.kind() {
                Kind::Null => JsonType::Null,
                Kind::False | Kind::True => JsonType::Boolean,
                Kind::Number => JsonType::Number,
                Kind::String => JsonType::String,
                Kind::Array => JsonType::Array,
                Kind::Object => JsonType::Object,
            },
        }
    }

    fn equals_value(&self, expected: &Value) -> bool {
        match expected {
            Value::String(expected) => self.as_string().is_some_and(|string| string == *expected),
            _ => jsonschema::json::cmp::equal(&self.to_value(), expected),
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self {
            Self::Name(name) => Value::from(*name),
            Self::At(at) => match at.kind() {
                Kind::Null => Value::Null,
                Kind::False => Value::Bool(false),
                Kind::True => Value::Bool(true),
                Kind::Number => Value::Number(Decimal(at.raw()).to_number().into_owned()),
                Kind::String => Value::String(at.string().into_owned()),
                // By recursion, which the depth of a tree bounds.
                Kind::Array => at.children().map(|item| Self::At(item).to_value().into_owned()).collect(),
                Kind::Object => {
                    let member = |item: Ref<'a>| {
                        (item.name().unwrap_or_default().into_owned(), Self::At(item).to_value().into_owned())
                    };
                    Value::Object(at.children().map(member).collect())
                }
            },
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        match self {
            Self::At(at) => Some(NodeIdentity::tagged(at.address(), at.index())),
            Self::Name(_) => None,
        }
    }
}

impl<'a> Object<'a, Document> for Ref<'a> {
    type Node = Item<'a>;
    type MemberName = Cow<'a, str>;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        Ref::len(*self)
    }

    fn get(&self, key: &String) -> Option<Item<'a>> {
        Ref::get(*self, key).map(Item::At)
    }

    fn members(&self) -> Members<'a> {
        Members(self.children())
    }
}

impl<'a> Array<'a, Document> for Ref<'a> {
    type Node = Item<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        Ref::len(*self)
    }

    fn elements(&self) -> Elements<'a> {
        Elements(self.children())
    }
}

struct Members<'a>(Children<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, Item<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|member| (member.name().unwrap_or_default(), Item::At(member)))
    }
}

struct Elements<'a>(Children<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Item::At)
    }
}

/// A number as it is written. What no f64 holds counts as the largest one of its sign: an upper bound still
/// refuses it.
struct Decimal<'a>(&'a str);

impl JsonNumber for Decimal<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        self.0.parse::<f64>().ok().map(|number| number.clamp(f64::MIN, f64::MAX))
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn to_number(&self) -> Cow<'_, Number> {
        let whole = self.as_u64().map(Number::from).or_else(|| self.as_i64().map(Number::from));
        let number = whole.or_else(|| self.as_f64().and_then(Number::from_f64));
        Cow::Owned(number.unwrap_or_else(|| Number::from(0)))
    }

    fn is_integer(&self) -> bool {
        if self.0.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return true;
        }
        self.as_f64().is_some_and(|number| number.fract() == 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn violation(schema: &Value, data: &str) -> Option<String> {
        Schema::compile(schema).unwrap().violation(&Tree::parse(data).unwrap())
    }

    #[test]
    fn values_read_in_place_behave_as_serde_jsons() {
        let document = jsonschema::json::conformance::document();
        // The document has an escape-free text and one where every character is an escape.
        let text = document.to_string();
        let tree = Tree::parse(&text).unwrap();
        jsonschema::json::conformance::assert_conformance::<Document>(&Item::At(tree.root()));
    }

    #[test]
    fn numbers_are_judged_as_the_document_says() {
        let schema = json!({"type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_992_u64});
        for data in ["1e-400", "-1e-400", "100.000000000000000001", "9007199254740992"] {
            assert_eq!(violation(&schema, data), None, "{data}");
        }
        for data in ["9007199254740993", "1e999", "1.5"] {
            assert!(violation(&schema, data).is_some(), "{data}");
        }
    }

    #[test]
    fn a_violation_names_place_and_expectation_and_no_value() {
        let schema = json!({
            "type": "object",
            "required": ["id", "progress"],
            "properties": {
                "id": {"type": "string", "minLength": 2, "maxLength": 3},
                "progress": {"type": "number", "minimum": 0, "maximum": 100},
                "level": {"enum": ["debug", "info"]},
                "at": {"type": ["string", "null"], "format": "date-time"},
                "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true, "maxItems": 2},
                "code": {"pattern": "^[A-Z]+$"},
                "deep": {"additionalProperties": false, "properties": {"a": {}}},
                "n": {"type": "integer", "multipleOf": 3},
                "one": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "names": {"propertyNames": {"maxLength": 3}},
            }
        });
        let ok = r#"{"id":"ab","progress":50,"level":"info","at":null,"tags":["a","b"],"code":"AB","deep":{"a":1},
            "n":9,"one":null,"more":1,"names":{"abc":1}}"#;
        assert_eq!(violation(&schema, ok), None);
        let with = |member: &str| format!(r#"{{"id":"ab","progress":1,{member}}}"#);
        for (data, expected) in [
            (with(r#""level":"secret""#), r#"/level: expected one of "debug", "info""#),
            (with(r#""at":"yesterday""#), "/at: expected the format date-time"),
            (with(r#""tags":["a",7]"#), "/tags/1: expected string, found number"),
            (with(r#""tags":["a","a"]"#), "/tags: expected items that differ from each other"),
            (with(r#""tags":["a","b","c"]"#), "/tags: expected at most 2 items"),
            (with(r#""code":"secret""#), "/code: expected text that matches ^[A-Z]+$"),
            (with(r#""deep":{"b":1}"#), "/deep/b: is not a member that the schema knows"),
            (with(r#""n":10"#), "/n: expected a multiple of 3"),
            (with(r#""n":1.5"#), "/n: expected integer, found number; /n: expected a multiple of 3"),
            (with(r#""one":7"#), "/one: fits none of the alternatives of `anyOf`"),
            (with(r#""names":{"abcd":1}"#), "/names: a member name: expected at most 3 characters"),
            (r#"{"id":"ab","progress":101}"#.into(), "/progress: expected at most 100"),
            (r#"{"id":"ab","progress":-1e400}"#.into(), "/progress: expected at least 0"),
            (r#"{"id":"ab","progress":1e400}"#.into(), "/progress: expected at most 100"),
            (r#"{"id":"secret","progress":1}"#.into(), "/id: expected at most 3 characters"),
            (r#"{"id":"ab"}"#.into(), "/progress: is missing"),
            (r#"["secret"]"#.into(), "data as a whole: expected object, found array"),
        ] {
            assert_eq!(violation(&schema, &data).as_deref(), Some(expected), "{data}");
        }
        let all = violation(&schema, r#"{"id":1,"progress":"","level":1,"n":"","tags":0}"#).unwrap();
        assert!(all.ends_with("; and 2 more") && all.matches(": expected").count() == 3, "{all}");
    }

    #[test]
    fn numbers_of_any_size_are_numbers() {
        let whole = json!({"type": "integer"});
        for number in ["0", "-0", "1.0", "1e3", "1e400", "-1e400", "12345678901234567890123", "1e-400"] {
            assert_eq!(violation(&whole, number), None, "{number}");
        }
        assert!(violation(&whole, "1.5").is_some());
        assert_eq!(violation(&json!({"const": 1.0}), "1"), None);
        assert_eq!(violation(&json!({"enum": [{"a": [1e3]}]}), "{\"a\":[1000]}"), None);
        assert!(violation(&json!({"uniqueItems": true}), "[1e400, 1e401]").is_some());
    }

    #[test]
    fn a_bad_schema_is_refused_with_the_place_in_it() {
        for (schema, expected) in [
            (json!({"properties": {"a": {"type": "strin"}}}), "/properties/a/type: "),
            (json!({"properties": {"a": {"pattern": "("}}}), "/properties/a/pattern: "),
            (json!({"properties": {"a": {"pattern": "(?=look)"}}}), "/properties/a/pattern: "),
            (json!({"format": "date_time"}), "date_time"),
            (json!({"required": "a"}), "/required: "),
            (json!({"$ref": "#/$defs/missing"}), "/$defs/missing"),
            (json!({"$ref": "https://example.com/x.json"}), "must stay inside the schema"),
            (json!({"properties": {"a": {"$ref": "file:///etc/passwd"}}}), "must stay inside the schema"),
            (json!({"$ref": "other.json"}), "must stay inside the schema"),
            (json!({"$schema": "https://example.com/mine"}), "example.com/mine"),
            (json!({"pattern": "(a{1000}){1000}"}), "pattern"),
        ] {
            let error = Schema::compile(&schema).expect_err(&schema.to_string());
            assert!(error.contains(expected), "{schema}: {error}");
        }
        let own = json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}});
        assert_eq!(violation(&own, "\"x\""), None);
    }

    #[test]
    fn alternatives_that_refer_to_themselves_cost_no_more_than_the_text() {
        let schema = json!({"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [
            {"type": "array", "items": {"$ref": "#/$defs/n"}},
            {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 9},
            {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 1}]}}});
        let data = "[".repeat(100) + "1" + &"]".repeat(100);
        assert!(violation(&schema, &data).unwrap().contains("which refers to itself"));
        assert!(violation(&schema, "[[1]]").unwrap().contains("fits none of the alternatives"));
        let all = json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "allOf": [
            {"items": {"$ref": "#/$defs/n"}}, {"items": {"$ref": "#/$defs/n"}}]}}});
        assert!(violation(&all, &data).is_some());
        for (schema, expected) in [
            (
                json!({"$ref": "#/$defs/a", "properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {}}}),
                false,
            ),
            (json!({"items": {"$ref": "#"}}), true),
            (json!({"properties": {"a": {"items": {"$ref": "#/properties/a"}}}}), true),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}}),
                true,
            ),
            (json!({"$ref": "#name"}), true),
        ] {
            assert_eq!(is_recursive(&schema), expected, "{schema}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends_where_the_text_does() {
        let schema = json!({"$ref": "#/$defs/node", "$defs": {"node":
            {"type": "array", "items": {"$ref": "#/$defs/node"}}}});
        let deep = "[".repeat(128) + &"]".repeat(128);
        assert_eq!(violation(&schema, &deep), None);
        assert!(violation(&json!({"$ref": "#"}), "1").is_none());
    }
}
