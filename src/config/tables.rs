//! Arrays of tables, such as `[[stream]]`: for each, one list of its keys; what is read, checked and shown by it.
//!
//! A table is a type that implements [`Row`]: its keys are a list of [`Field`]s, each with a kind of `value`, as
//! settings have them. [`TABLES`] names all tables; nothing else knows them.

use toml::de::{DeTable, DeValue};

use super::guard::GuardRow;
use super::sources::{Source, ValueOrigin, did_you_mean};
use super::stream::StreamRow;
use super::topic::TopicRow;
use super::value::{Input, Wrong, wrong_type};
use super::{SETTINGS, Settings};

/// Every array of tables, in the order of `fanwire check` and of the documents.
pub const TABLES: &[Table] = &[Table::of::<StreamRow>(), Table::of::<GuardRow>(), Table::of::<TopicRow>()];

/// An array of tables: written `[[name]]`, once for each of them. Only the file has them.
#[derive(Debug)]
pub struct Table {
    /// What stands between the brackets.
    pub name: &'static str,
    /// Most of them in a file.
    pub max: usize,
    /// The keys of one of them.
    pub keys: fn() -> Vec<Key>,
    /// The values of each, in the order of its keys, as written in TOML; `None` where one is not set.
    pub show: fn(&Settings) -> Vec<Vec<Option<String>>>,
    /// Whether both have the same, but for what a running node takes up.
    pub same: fn(&Settings, &Settings) -> bool,
    /// Reads, checks and stores all of them.
    pub(super) set: fn(&mut Settings, &DeValue<'_>, &mut Reading<'_>),
}

/// A key of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Whether each table must have it.
    pub is_required: bool,
    /// The value where it is left out, as written in TOML; `None` where that is none.
    pub default: Option<String>,
}

/// Where one table of an array stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOrigin {
    /// Its header.
    pub header: ValueOrigin,
    /// Its values, in the order of its keys.
    pub values: Vec<ValueOrigin>,
}

/// One table of an array while it is read: each key that may be missing is an `Option`.
pub(super) trait Row: Default + 'static {
    /// What stands between the brackets.
    const NAME: &'static str;

    /// Its keys.
    const FIELDS: &'static [Field<Self>];

    /// Most of them in a file.
    const MAX: usize = 1_000;

    /// Told where its header is, for what is wrong with all of it.
    fn stands_at(&mut self, _place: String) {}

    /// What its values get wrong together, or with the tables before it: the keys it is about, and a sentence.
    /// Asked only where every single value is good.
    fn check(&self, earlier: &[Self]) -> Vec<(&'static [&'static str], String)>;

    /// What the settings have.
    fn rows(settings: &Settings) -> Vec<Self>;

    /// Puts them into the settings. All of them were checked.
    fn store(rows: Vec<Self>, settings: &mut Settings);

    /// Whether both settings have the same, but for what a running node takes up.
    fn same(one: &Settings, other: &Settings) -> bool;
}

/// One key of a table of type `R`.
pub(super) struct Field<R> {
    pub(super) key: &'static str,
    pub(super) is_required: bool,
    pub(super) show: fn(&R) -> Option<String>,
    /// Reads, checks and stores a value that stands at a place.
    pub(super) set: fn(&mut R, Input<'_>, &str) -> Result<(), Vec<Wrong>>,
}

/// `field!(required key, Kind)`, `field!(placed key, Kind)`: the value is in the row's field `key`, an `Option` of a
/// [`Located`](super::Located). `field!((owner) key, Kind)`: it is in the field `key` of the row's field `owner`, or
/// with `()` of the row, without its place. `field!(record key, RECORD)`: the same for an `Option` of what a
/// [`Record`](super::value::Record) holds.
macro_rules! field {
    (required $key:ident, $kind:expr) => {
        field!(@placed true, $key, $kind)
    };
    (placed $key:ident, $kind:expr) => {
        field!(@placed false, $key, $kind)
    };
    (record $key:ident, $record:expr) => {
        $crate::config::tables::Field {
            key: stringify!($key),
            is_required: false,
            show: |row| row.$key.as_ref().and_then(|value| $record.show(value)),
            set: |row, input, _| {
                row.$key = Some($record.read(input)?);
                Ok(())
            },
        }
    };
    (@placed $is_required:literal, $key:ident, $kind:expr) => {
        $crate::config::tables::Field {
            key: stringify!($key),
            is_required: $is_required,
            show: |row| row.$key.as_ref().and_then(|located| $kind.show(&located.value)),
            set: |row, input, place| {
                let value = $kind.read(input).map_err($crate::config::value::Wrong::of_value)?;
                row.$key = Some($crate::config::Located { value, place: place.to_owned() });
                Ok(())
            },
        }
    };
    (($($owner:ident)?) $key:ident, $kind:expr) => {
        $crate::config::tables::Field {
            key: stringify!($key),
            is_required: false,
            show: |row| $kind.show(&row.$($owner.)?$key),
            set: |row, input, _| {
                row.$($owner.)?$key = $kind.read(input).map_err($crate::config::value::Wrong::of_value)?;
                Ok(())
            },
        }
    };
}
pub(super) use field;

impl Table {
    const fn of<R: Row>() -> Self {
        Self { name: R::NAME, max: R::MAX, keys: keys::<R>, show: show::<R>, same: R::same, set: set::<R> }
    }
}

fn keys<R: Row>() -> Vec<Key> {
    let defaults = R::default();
    let key = |field: &Field<R>| Key {
        name: field.key,
        is_required: field.is_required,
        default: (field.show)(&defaults),
    };
    R::FIELDS.iter().map(key).collect()
}

fn show<R: Row>(settings: &Settings) -> Vec<Vec<Option<String>>> {
    R::rows(settings).iter().map(|row| R::FIELDS.iter().map(|field| (field.show)(row)).collect()).collect()
}

/// What reading an array of tables needs, and what it finds.
pub(super) struct Reading<'a> {
    pub(super) source: &'a Source<'a>,
    /// The line of each problem, and what is wrong.
    pub(super) problems: Vec<(usize, String)>,
    /// Where each table stands.
    pub(super) origins: Vec<TableOrigin>,
}

fn set<R: Row>(settings: &mut Settings, value: &DeValue<'_>, reading: &mut Reading<'_>) {
    let DeValue::Array(array) = value else { return };
    let mut rows: Vec<R> = Vec::new();
    for (index, item) in array.iter().enumerate() {
        let line = reading.source.line(item.span().start);
        let name = R::NAME;
        if index == R::MAX {
            let message = format!("{name}: must be at most {} tables, not {}", R::MAX, array.len());
            reading.problems.push((line, message));
            break;
        }
        let DeValue::Table(table) = item.get_ref() else {
            let message = wrong_type(&format!("tables, each under its [[{name}]]"), item.get_ref());
            reading.problems.push((line, format!("{name}: {message}")));
            continue;
        };
        rows.extend(read(table, line, &rows, reading));
    }
    R::store(rows, settings);
}

/// One table, whose header is on this line; `None` where something is wrong with it.
fn read<R: Row>(table: &DeTable<'_>, header: usize, earlier: &[R], reading: &mut Reading<'_>) -> Option<R> {
    let source = reading.source;
    let mut row = R::default();
    row.stands_at(source.place(header));
    let mut lines: Vec<Option<usize>> = vec![None; R::FIELDS.len()];
    let mut wrong = Vec::new();
    for (key, value) in table {
        let line = source.line(key.span().start);
        let name: &str = key.get_ref();
        let Some(index) = R::FIELDS.iter().position(|field| field.key == name) else {
            let table = format!("[[{}]]", R::NAME);
            let hint = did_you_mean(name, R::FIELDS.iter().map(|field| field.key), str::to_owned);
            wrong.push((line, unknown_key::<R>(name, &table, &hint)));
            continue;
        };
        lines[index] = Some(line);
        let place = source.place(source.first_line(value.span().start));
        let result = (R::FIELDS[index].set)(&mut row, Input::Toml(value.get_ref()), &place);
        wrong.extend(result.err().into_iter().flatten().map(|found| match found {
            Wrong::Value(message) => (line, format!("{name}: {message}")),
            Wrong::Under(key, at, message) => (source.line(at), format!("{name}.{key}: {message}")),
            Wrong::Unknown(key, at, hint) => (source.line(at), unknown_key::<R>(&key, name, &hint)),
        }));
    }
    for (field, line) in R::FIELDS.iter().zip(&lines) {
        if field.is_required && line.is_none() {
            wrong.push((header, format!("{}: is missing; every [[{}]] needs one", field.key, R::NAME)));
        }
    }
    if wrong.is_empty() {
        for (keys, message) in row.check(earlier) {
            let about = R::FIELDS.iter().zip(&lines).filter(|(field, _)| keys.contains(&field.key));
            // Where nothing was written, it is the whole table that is wrong.
            let line = about.filter_map(|(_, line)| *line).max().unwrap_or(header);
            wrong.push((line, message));
        }
    }
    let is_good = wrong.is_empty();
    reading.problems.extend(wrong);
    let origin = |line: &Option<usize>| line.map_or(ValueOrigin::Default, |line| source.origin(line));
    reading
        .origins
        .push(TableOrigin { header: source.origin(header), values: lines.iter().map(origin).collect() });
    is_good.then_some(row)
}

/// What is wrong with a key that is unknown in a table, or in the value of one of its keys.
fn unknown_key<R: Row>(name: &str, within: &str, hint: &str) -> String {
    if SETTINGS.iter().any(|setting| setting.key == name) {
        // In TOML, whatever stands below a table's header belongs to that table.
        return format!("unknown key `{name}` in {within}: as a setting it must stand above the first table");
    }
    if R::FIELDS.iter().any(|field| field.key == name) {
        // Likewise for a header such as `[topic.history]`.
        return format!(
            "unknown key `{name}` in {within}: as a key of [[{}]] it must stand above {within}",
            R::NAME
        );
    }
    format!("unknown key `{name}` in {within}{hint}")
}

/// What is wrong with the value of a table's name, where it is no array of tables.
pub(super) fn not_an_array(name: &str, value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Array(_) => None,
        DeValue::Table(_) => Some(format!("{name}: must be written [[{name}]], with double brackets")),
        other => {
            Some(format!("{name}: {}", wrong_type(&format!("tables, each under its [[{name}]]"), other)))
        }
    }
}
