//! Kinds of values: how each is read, from words (environment, flags) or from TOML, checked and shown.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use super::sources::did_you_mean;

/// How many words a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    One,
    /// A list: a repeated flag, a TOML array, commas in the environment.
    List,
    /// True or false; a flag without a value means true.
    Switch,
}

/// A value as it was found.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// From the environment or from flags; one word unless the setting is a [`Shape::List`].
    Words(&'a [String]),
    /// From the file.
    Toml(&'a DeValue<'a>),
}

impl Input<'_> {
    /// The one text that was given.
    fn text(&self, expected: &str) -> Result<&str, String> {
        match self {
            Self::Words(words) => Ok(words.first().map_or("", String::as_str)),
            Self::Toml(DeValue::String(text)) => Ok(text),
            Self::Toml(other) => Err(wrong_type(expected, other)),
        }
    }
}

/// How values of one kind are read and shown. Errors are sentences that go on after the setting's name.
pub(super) trait Kind {
    /// What the settings hold.
    type Value;

    /// Reads and checks a value.
    fn read(&self, input: Input<'_>) -> Result<Self::Value, String>;

    /// The value as it is written in TOML; `None` where it is not set.
    fn show(&self, value: &Self::Value) -> Option<String>;

    /// How many words it takes.
    fn shape(&self) -> Shape {
        Shape::One
    }

    /// Whether the value must not be shown.
    fn secret(&self) -> bool {
        false
    }
}

/// A whole number between two bounds.
pub(super) struct Count(pub u64, pub u64);

impl Kind for Count {
    type Value = usize;

    fn read(&self, input: Input<'_>) -> Result<usize, String> {
        let number = match input {
            Input::Toml(DeValue::Integer(integer)) => toml_integer(integer),
            Input::Toml(other) => return Err(wrong_type("a whole number", other)),
            Input::Words(_) => {
                let text = input.text("a whole number")?;
                whole_number(text).ok_or_else(|| format!("`{text}` is not a whole number"))?
            }
        };
        within(number, self.0, self.1, |bound| bound.to_string())
    }

    fn show(&self, value: &usize) -> Option<String> {
        Some(value.to_string())
    }
}

/// Bytes between two bounds: `65536`, `64KiB`, `1MiB`, `8MB`.
pub(super) struct Size(pub u64, pub u64);

impl Kind for Size {
    type Value = usize;

    fn read(&self, input: Input<'_>) -> Result<usize, String> {
        let number = match input {
            Input::Toml(DeValue::Integer(integer)) => toml_integer(integer),
            _ => bytes(input.text("a size such as 65536 or \"64KiB\"")?)?,
        };
        within(number, self.0, self.1, show_bytes)
    }

    fn show(&self, value: &usize) -> Option<String> {
        let shown = show_bytes(*value as u64);
        let plain = shown.bytes().all(|byte| byte.is_ascii_digit());
        Some(if plain { shown } else { quoted(&shown) })
    }
}

/// A duration between two bounds: `500ms`, `30s`, `2m`, `1h`.
pub(super) struct Period(pub Duration, pub Duration);

impl Kind for Period {
    type Value = Duration;

    fn read(&self, input: Input<'_>) -> Result<Duration, String> {
        let period = match input {
            Input::Toml(DeValue::Integer(integer)) => return Err(no_unit(integer.as_str())),
            Input::Toml(DeValue::Float(float)) => return Err(no_unit(float.as_str())),
            _ => duration(input.text("a duration such as \"30s\"")?)?,
        };
        if period < self.0 {
            Err(format!("must be at least {}, not {}", show_duration(self.0), show_duration(period)))
        } else if period > self.1 {
            Err(format!("must be at most {}, not {}", show_duration(self.1), show_duration(period)))
        } else {
            Ok(period)
        }
    }

    fn show(&self, value: &Duration) -> Option<String> {
        Some(quoted(&show_duration(*value)))
    }
}

/// True or false.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn read(&self, input: Input<'_>) -> Result<bool, String> {
        if let Input::Toml(DeValue::Boolean(value)) = input {
            return Ok(*value);
        }
        let expected = "true or false";
        if let Input::Toml(other) = input {
            return Err(wrong_type(expected, other));
        }
        match input.text(expected)? {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            text => Err(format!("`{text}` is not true or false")),
        }
    }

    fn show(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }

    fn shape(&self) -> Shape {
        Shape::Switch
    }
}

/// Something to show before being served: visible ASCII, so that it passes unchanged through an HTTP header.
pub(super) struct Token;

impl Kind for Token {
    type Value = String;

    fn read(&self, input: Input<'_>) -> Result<String, String> {
        /// What an HTTP request head surely has room for.
        const MAX: usize = 1024;
        let token = input.text("a string")?;
        // The messages must not show what was meant to be a secret.
        if token.is_empty() {
            return Err("must not be empty".to_owned());
        }
        if token.len() > MAX {
            return Err(format!("must have at most {MAX} bytes, not {}", token.len()));
        }
        if let Some(at) = token.bytes().position(|byte| !byte.is_ascii_graphic()) {
            return Err(format!("must be visible ASCII without spaces; byte {} is not", at + 1));
        }
        Ok(token.to_owned())
    }

    fn show(&self, _: &String) -> Option<String> {
        Some(quoted("(not shown)"))
    }

    fn secret(&self) -> bool {
        true
    }
}

/// The name of a congestion control, as in `/proc/sys/net/ipv4/tcp_available_congestion_control`.
pub(super) struct Congestion;

impl Kind for Congestion {
    type Value = String;

    fn read(&self, input: Input<'_>) -> Result<String, String> {
        let name = input.text("a string")?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        // 15: the kernel's TCP_CA_NAME_MAX, less the closing zero.
        if (1..=15).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(name.to_owned())
        } else {
            Err(format!(
                "`{}` is not the name of a congestion control, such as cubic or bbr",
                name.escape_debug()
            ))
        }
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// One of a set of words.
pub(super) struct Word<T>(pub fn(&str) -> Result<T, String>);

impl<T: Display> Kind for Word<T> {
    type Value = T;

    fn read(&self, input: Input<'_>) -> Result<T, String> {
        (self.0)(input.text("a string")?)
    }

    fn show(&self, value: &T) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

/// A text that is not empty, of at most this many bytes, and what else is asked of it.
pub(super) struct Text(pub usize, pub fn(&str) -> Result<(), String>);

impl Kind for Text {
    type Value = String;

    fn read(&self, input: Input<'_>) -> Result<String, String> {
        let text = input.text("a string")?;
        if text.is_empty() {
            return Err("must not be empty".to_owned());
        }
        if text.len() > self.0 {
            return Err(format!("must have at most {} bytes, not {}", self.0, text.len()));
        }
        (self.1)(text)?;
        Ok(text.to_owned())
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// Nothing more is asked of a [`Text`].
pub(super) fn any_text(_: &str) -> Result<(), String> {
    Ok(())
}

/// No control characters, which neither topics nor paths may have.
pub(super) fn one_line(text: &str) -> Result<(), String> {
    match text.chars().any(char::is_control) {
        true => Err(format!("`{}` has a control character", text.escape_debug())),
        false => Ok(()),
    }
}

/// What a list is of, in the messages about it.
#[derive(Clone, Copy)]
pub(super) struct Noun {
    pub article: &'static str,
    pub one: &'static str,
    pub many: &'static str,
}

/// What nodes listen on.
pub(super) const ADDRESSES: Noun = Noun { article: "an", one: "address", many: "addresses" };

/// A list of at least this many; a single string counts as a list of one.
pub(super) struct List<T>(pub usize, pub Noun, pub fn(&str) -> Result<T, String>);

impl<T: Display> Kind for List<T> {
    type Value = Vec<T>;

    fn read(&self, input: Input<'_>) -> Result<Vec<T>, String> {
        let Noun { article, one, many } = self.1;
        let list: Vec<T> = match input {
            Input::Words(words) => {
                words.iter().map(|word| (self.2)(word.trim())).collect::<Result<_, _>>()?
            }
            Input::Toml(DeValue::Array(array)) => array
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => (self.2)(text),
                    other => Err(wrong_type("a list of strings", other).replace(", not", "; one of them is")),
                })
                .collect::<Result<_, _>>()?,
            Input::Toml(_) => vec![(self.2)(input.text(&format!("{article} {one} or a list of {many}"))?)?],
        };
        if list.len() < self.0 {
            return Err(format!("must name at least one {one}"));
        }
        Ok(list)
    }

    fn show(&self, value: &Vec<T>) -> Option<String> {
        let items: Vec<String> = value.iter().map(|item| quoted(&item.to_string())).collect();
        Some(format!("[{}]", items.join(", ")))
    }

    fn shape(&self) -> Shape {
        Shape::List
    }
}

/// A value that may be left to the system.
pub(super) struct Maybe<K>(pub K);

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;

    fn read(&self, input: Input<'_>) -> Result<Self::Value, String> {
        self.0.read(input).map(Some)
    }

    fn show(&self, value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(|value| self.0.show(value))
    }

    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn secret(&self) -> bool {
        self.0.secret()
    }
}

/// Several values, each under a key of its own: `{ events = 1000, age = "10m" }`. What is left out has its default.
/// It has no words, so that only tables have it.
pub(super) struct Record<T: 'static>(pub &'static [Part<T>]);

/// One key of a [`Record`].
pub(super) struct Part<T> {
    pub(super) key: &'static str,
    pub(super) show: fn(&T) -> Option<String>,
    /// Reads, checks and stores its value.
    pub(super) set: fn(&mut T, Input<'_>) -> Result<(), String>,
}

/// `part!(key, Kind)`: the value is in the field `key`.
macro_rules! part {
    ($key:ident, $kind:expr) => {
        Part {
            key: stringify!($key),
            show: |value| $kind.show(&value.$key),
            set: |value, input| {
                value.$key = $kind.read(input)?;
                Ok(())
            },
        }
    };
}
pub(super) use part;

/// What is wrong with a value.
pub(super) enum Wrong {
    /// The value itself, as the sentence says.
    Value(String),
    /// What stands in it under this key, which is at this byte of the file.
    Under(&'static str, usize, String),
    /// This key, at this byte of the file, which it does not have; and which may be meant.
    Unknown(String, usize, String),
}

impl Wrong {
    pub(super) fn of_value(message: String) -> Vec<Self> {
        vec![Self::Value(message)]
    }
}

impl<T: Default> Record<T> {
    /// Reads and checks a value, and tells everything that is wrong with it.
    pub(super) fn read(&self, input: Input<'_>) -> Result<T, Vec<Wrong>> {
        let mut value = T::default();
        let table = match input {
            Input::Toml(DeValue::Table(table)) => table,
            Input::Toml(other) => {
                let expected = format!("a table such as {}", self.show(&value).unwrap_or_default());
                return Err(Wrong::of_value(wrong_type(&expected, other)));
            }
            Input::Words(_) => return Err(Wrong::of_value("must stand in the file".to_owned())),
        };
        let mut wrong = Vec::new();
        for (key, item) in table {
            let (name, at): (&str, usize) = (key.get_ref(), key.span().start);
            let Some(part) = self.0.iter().find(|part| part.key == name) else {
                let hint = did_you_mean(name, self.0.iter().map(|part| part.key), str::to_owned);
                wrong.push(Wrong::Unknown(name.to_owned(), at, hint));
                continue;
            };
            if let Err(message) = (part.set)(&mut value, Input::Toml(item.get_ref())) {
                wrong.push(Wrong::Under(part.key, at, message));
            }
        }
        if wrong.is_empty() { Ok(value) } else { Err(wrong) }
    }

    /// The value as it is written in TOML.
    pub(super) fn show(&self, value: &T) -> Option<String> {
        let part = |part: &Part<T>| (part.show)(value).map(|shown| format!("{} = {shown}", part.key));
        let parts: Vec<String> = self.0.iter().filter_map(part).collect();
        Some(format!("{{ {} }}", parts.join(", ")))
    }
}

/// `IP:PORT`.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    SocketAddr::from_str(text).map_err(|_| {
        let example = match text.rsplit_once(':') {
            Some(("" | "*", port)) if port.parse::<u16>().is_ok() => format!("0.0.0.0:{port}"),
            Some(("localhost", port)) if port.parse::<u16>().is_ok() => format!("127.0.0.1:{port}"),
            _ => "127.0.0.1:8080".to_owned(),
        };
        format!("`{text}` is not an address: write IP:PORT, such as {example}")
    })
}

/// Digits, with `_` between them where that helps reading. Whatever is too large for any bound stays too large.
fn whole_number(text: &str) -> Option<i128> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let starts_and_ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
    let bytes = digits.as_bytes();
    if !starts_and_ends(bytes.first()) || !starts_and_ends(bytes.last()) {
        return None;
    }
    let mut number: i128 = 0;
    for &byte in bytes.iter().filter(|&&byte| byte != b'_') {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.saturating_mul(10).saturating_add(i128::from(byte - b'0'));
    }
    Some(if negative { -number } else { number })
}

fn toml_integer(integer: &toml::de::DeInteger<'_>) -> i128 {
    // The TOML parser has checked the digits: what fails is out of range, and so above every bound.
    i128::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i128::MAX)
}

fn within(number: i128, min: u64, max: u64, show: impl Fn(u64) -> String) -> Result<usize, String> {
    if number < i128::from(min) {
        Err(format!("must be at least {}, not {number}", show(min)))
    } else if number > i128::from(max) {
        let given = if number == i128::MAX { "more".to_owned() } else { number.to_string() };
        Err(format!("must be at most {}, not {given}", show(max)))
    } else {
        usize::try_from(number).map_err(|_| format!("{number} is more than this machine can address"))
    }
}

const BYTE_UNITS: [(&str, i128); 7] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

fn bytes(text: &str) -> Result<i128, String> {
    let (digits, unit) = split_unit(text);
    let Some(number) = whole_number(digits) else {
        return Err(format!(
            "`{text}` is not a size: write a whole number of bytes, or one with a unit, such as 64KiB"
        ));
    };
    if unit.is_empty() {
        return Ok(number);
    }
    match BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((_, factor)) => Ok(number.saturating_mul(*factor)),
        None => Err(format!("`{text}`: unknown unit `{unit}`; use B, KB, MB, GB, KiB, MiB or GiB")),
    }
}

/// A time with its unit: 500ms, 30s, 2m, 1h.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = split_unit(text);
    let Some(number) = whole_number(digits) else {
        return Err(format!(
            "`{text}` is not a duration: write a whole number with a unit, such as 30s or 500ms"
        ));
    };
    if number < 0 {
        return Err(format!("must not be negative, as `{text}` is"));
    }
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(no_unit(digits)),
        _ => return Err(format!("`{text}`: unknown unit `{unit}`; use ms, s, m or h")),
    };
    // Whatever does not fit is above every bound.
    Ok(Duration::from_millis(u64::try_from(number.saturating_mul(millis)).unwrap_or(u64::MAX)))
}

fn no_unit(number: &str) -> String {
    format!("`{number}` has no unit: write \"{number}s\" for seconds or \"{number}ms\" for milliseconds")
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let unit_at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    (number.trim_end(), unit)
}

fn show_bytes(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        // From two minutes on in minutes, from two hours on in hours: "60s" reads better than "1m".
        let least = if unit == "s" { length } else { 2 * length };
        if millis >= least && millis.is_multiple_of(length) {
            return format!("{}{unit}", millis / length);
        }
    }
    format!("{millis}ms")
}

pub(super) fn wrong_type(expected: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("must be {expected}, not {found}")
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
