//! Where settings come from: the file, the environment, the flags; and what is wrong there.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::tables::{Reading, not_an_array};
use super::value::{Input, Shape};
use super::{PublishAddress, SETTINGS, Settings, TABLES, TableOrigin};

/// What every environment variable of ours begins with.
const PREFIX: &str = "FANWIRE_";

/// Variables of ours that are no settings: the file, and the client commands' default address.
const OTHER_VARIABLES: [&str; 2] = ["FANWIRE_CONFIG", "FANWIRE_HTTP"];

/// Variables of the project's own simulation, tests, benches and fuzz targets.
const TEST_PREFIXES: [&str; 4] = ["FANWIRE_SIM_", "FANWIRE_TEST_", "FANWIRE_BENCH_", "FANWIRE_FUZZ_"];

/// The environment variable of the setting with this key.
pub fn environment_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

/// Where a setting's value came from. Later variants go before earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueOrigin {
    /// Nobody said anything.
    Default,
    /// A line of the file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl ValueOrigin {
    fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(..) => 1,
            Self::Environment(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for ValueOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `FILE:LINE`, an environment variable or a flag.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

/// Everything that is wrong with the settings, one line each; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order found.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}: {}", problem.place, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// What settings are made from. Kept by the node, so that a reload reads the same sources again.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<(&'static str, Vec<String>)>,
}

/// Settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the node is told.
    pub settings: Settings,
    /// Where each value came from, in the order of [`SETTINGS`].
    pub origins: Vec<ValueOrigin>,
    /// Where each table of each array stands, in the order of [`TABLES`].
    pub tables: Vec<Vec<TableOrigin>>,
}

impl Sources {
    /// The given file (or the one that `FANWIRE_CONFIG` in `environment` names), variables and flags (each a key
    /// and its words).
    pub fn new(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<(&'static str, Vec<String>)>,
    ) -> Self {
        let ours = |(name, _): &(OsString, OsString)| name.to_string_lossy().starts_with(PREFIX);
        let environment: Vec<_> = environment.into_iter().filter(ours).collect();
        let named =
            || environment.iter().find(|(name, _)| name == "FANWIRE_CONFIG").map(|(_, value)| value.into());
        Self { file: file.or_else(named), environment, flags }
    }

    /// Reads everything: at the start, and again at each reload.
    ///
    /// # Errors
    /// Everything that is wrong in any source, also in a value that another source overrides.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut loading = Loading::new();
        if let Some(path) = &self.file {
            loading.file(path);
        }
        loading.environment(&self.environment);
        for (key, words) in &self.flags {
            let Some(index) = SETTINGS.iter().position(|setting| setting.key == *key) else { continue };
            let flag = SETTINGS[index].flag();
            loading.set(index, Input::Words(words), ValueOrigin::Flag(flag.clone()), &flag);
        }
        loading.finish()
    }

    /// Reads the bytes of a file and nothing else. `path` is what the file is called where something is wrong.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Loaded, ConfigError> {
        let mut loading = Loading::new();
        loading.bytes(path, bytes);
        loading.finish()
    }
}

/// The file, in whose text lines are found.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    /// Where each line but the first begins.
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, line_starts: text.match_indices('\n').map(|(at, _)| at + 1).collect() }
    }

    /// The line, counted from 1, that this byte is on.
    pub(super) fn line(&self, offset: usize) -> usize {
        1 + self.line_starts.partition_point(|&start| start <= offset)
    }

    /// The line on which the text of the value at this byte begins: a newline after the opening quotes of a
    /// multi-line string is none of it.
    pub(super) fn first_line(&self, offset: usize) -> usize {
        let value = self.text.get(offset..).unwrap_or_default();
        let text = value.strip_prefix("\"\"\"").or_else(|| value.strip_prefix("'''"));
        let begins_below = text.is_some_and(|text| text.starts_with('\n') || text.starts_with("\r\n"));
        self.line(offset) + usize::from(begins_below)
    }

    pub(super) fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    pub(super) fn origin(&self, line: usize) -> ValueOrigin {
        ValueOrigin::File(self.path.to_owned(), line)
    }
}

struct Loading {
    settings: Settings,
    origins: Vec<ValueOrigin>,
    tables: Vec<Vec<TableOrigin>>,
    problems: Vec<Problem>,
}

impl Loading {
    fn new() -> Self {
        Self {
            settings: Settings::default(),
            origins: vec![ValueOrigin::Default; SETTINGS.len()],
            tables: vec![Vec::new(); TABLES.len()],
            problems: Vec::new(),
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        // Values that were refused have left their defaults behind: what they would mean together is not known.
        if self.problems.is_empty() {
            self.check_together();
        }
        match self.problems.is_empty() {
            true => Ok(Loaded { settings: self.settings, origins: self.origins, tables: self.tables }),
            false => Err(ConfigError { problems: self.problems }),
        }
    }

    fn problem(&mut self, place: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { place: place.into(), message: message.into() });
    }

    fn set(&mut self, index: usize, input: Input<'_>, origin: ValueOrigin, place: &str) {
        match (SETTINGS[index].set)(&mut self.settings, input, &origin) {
            Ok(()) => self.origins[index] = origin,
            Err(message) => self.problem(place, message),
        }
    }

    fn file(&mut self, path: &Path) {
        match std::fs::read(path) {
            Ok(bytes) => self.bytes(path, &bytes),
            Err(error) => self.problem(path.display().to_string(), error.to_string()),
        }
    }

    fn bytes(&mut self, path: &Path, bytes: &[u8]) {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = &bytes[..error.valid_up_to()];
                let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
                return self.problem(format!("{}:{line}", path.display()), "is not UTF-8");
            }
        };
        let source = Source::new(path, text);
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let line = source.line(error.span().map_or(0, |span| span.start));
                return self.problem(source.place(line), error.message());
            }
        };
        let mut problems = Vec::new();
        for (key, value) in &table {
            let line = source.line(key.span().start);
            let name: &str = key.get_ref();
            let value = value.get_ref();
            if let Some(index) = SETTINGS.iter().position(|setting| setting.key == name) {
                let origin = source.origin(line);
                match (SETTINGS[index].set)(&mut self.settings, Input::Toml(value), &origin) {
                    Ok(()) => self.origins[index] = origin,
                    Err(message) => problems.push((line, format!("{name}: {message}"))),
                }
            } else if let Some(index) = TABLES.iter().position(|table| table.name == name) {
                if let Some(message) = not_an_array(name, value) {
                    problems.push((line, message));
                    continue;
                }
                let mut reading = Reading { source: &source, problems: Vec::new(), origins: Vec::new() };
                (TABLES[index].set)(&mut self.settings, value, &mut reading);
                problems.append(&mut reading.problems);
                self.tables[index] = reading.origins;
            } else {
                problems.push((line, unknown(name, value)));
            }
        }
        // In the order of the file, which the order of its values need not be.
        problems.sort_by_key(|(line, _)| *line);
        for (line, message) in problems {
            self.problem(source.place(line), message);
        }
    }

    fn environment(&mut self, variables: &[(OsString, OsString)]) {
        let names: Vec<String> = SETTINGS.iter().map(|setting| environment_name(setting.key)).collect();
        let mut unknown = Vec::new();
        for (name, value) in variables {
            let name = name.to_string_lossy();
            let Some(index) = names.iter().position(|known| *known == name) else {
                if !belongs_to_others(&name) {
                    unknown.push(name.into_owned());
                }
                continue;
            };
            let Some(value) = value.to_str() else {
                self.problem(name, "is not UTF-8");
                continue;
            };
            let words: Vec<String> = match (SETTINGS[index].shape)() {
                // Nothing at all is the empty list.
                Shape::List if value.trim().is_empty() => Vec::new(),
                Shape::List => value.split(',').map(str::to_owned).collect(),
                Shape::One | Shape::Switch => vec![value.to_owned()],
            };
            self.set(index, Input::Words(&words), ValueOrigin::Environment(name.to_string()), &name);
        }
        unknown.sort();
        for name in unknown {
            // Without the prefix, which is the same in all: what stands first counts most.
            let others = OTHER_VARIABLES.iter().map(|other| &other[PREFIX.len()..]);
            let keys = SETTINGS.iter().map(|setting| setting.key).chain(others);
            let hint = did_you_mean(name.trim_start_matches(PREFIX), keys, environment_name);
            self.problem(name, format!("no such setting{hint}"));
        }
    }

    /// What only several settings together can get wrong.
    fn check_together(&mut self) {
        let limits = &self.settings.limits;
        let mut found: Vec<(Vec<&str>, String)> = Vec::new();
        if limits.heartbeat_timeout <= limits.heartbeat_interval {
            let message = format!(
                "heartbeat_timeout ({:?}) must be longer than heartbeat_interval ({:?})",
                limits.heartbeat_timeout, limits.heartbeat_interval
            );
            found.push((vec!["heartbeat_timeout", "heartbeat_interval"], message));
        }
        if limits.queue_bytes > limits.max_outbox_bytes {
            let message = format!(
                "queue_bytes ({}), for one client, must not be above max_outbox_bytes ({}), for all together",
                limits.queue_bytes, limits.max_outbox_bytes
            );
            found.push((vec!["queue_bytes", "max_outbox_bytes"], message));
        }
        if self.settings.catalog_strict && self.settings.catalog.is_empty() {
            let message = "catalog_strict without a catalog would refuse every event: set catalog as well";
            found.push((vec!["catalog_strict", "catalog"], message.to_owned()));
        }
        found.extend(same_address_twice(&self.settings));
        if !self.settings.insecure {
            found.extend(open_to_others(&self.settings));
        }
        if self.settings.diagnostics {
            found.extend(diagnostics_for_others(&self.settings));
        }
        for (keys, message) in found {
            let place = self.latest(&keys);
            self.problem(place, message);
        }
    }

    /// The place that spoke last about any of these settings.
    fn latest(&self, keys: &[&str]) -> String {
        let origins = SETTINGS.iter().zip(&self.origins);
        let about = origins.filter(|(setting, _)| keys.contains(&setting.key)).map(|(_, origin)| origin);
        about.max_by_key(|origin| origin.rank()).map_or_else(String::new, ValueOrigin::to_string)
    }
}

/// Variables with our prefix that we don't read: those of our tests, and those that Kubernetes sets in every
/// container for a service whose name begins with "fanwire", as in `FANWIRE_SERVICE_HOST` and
/// `FANWIRE_PORT_8080_TCP_ADDR`. Refusing those would keep a node from starting because of its own service.
fn belongs_to_others(name: &str) -> bool {
    let service_port = name
        .match_indices("_PORT_")
        .any(|(at, found)| name[at + found.len()..].starts_with(|c: char| c.is_ascii_digit()));
    OTHER_VARIABLES.contains(&name)
        || TEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || service_port
}

/// What is wrong with a key that is neither a setting nor a table.
fn unknown(name: &str, value: &DeValue<'_>) -> String {
    let in_brackets = |name: &str| format!("[[{name}]]");
    let tables = || TABLES.iter().map(|table| table.name);
    let is_table = match value {
        DeValue::Table(_) => true,
        DeValue::Array(array) => array.iter().any(|item| matches!(item.get_ref(), DeValue::Table(_))),
        _ => false,
    };
    if is_table {
        let hint = match did_you_mean(name, tables(), in_brackets) {
            hint if hint.is_empty() => {
                let known: Vec<String> = tables().map(in_brackets).collect();
                let (last, others) = known.split_last().map_or(("", &known[..]), |(last, rest)| (last, rest));
                let others = others.join(", ");
                format!(": there are {others} and {last}, and every other setting is a top-level key")
            }
            hint => hint,
        };
        return format!("unknown table `{name}`{hint}");
    }
    let hint = did_you_mean(name, SETTINGS.iter().map(|setting| setting.key), str::to_owned);
    format!("unknown key `{name}`{hint}")
}

pub(super) fn did_you_mean<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
    write: fn(&str) -> String,
) -> String {
    /// Below this, the nearest name is no help.
    const ALIKE: f64 = 0.85;
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    known
        .map(|other| (strsim::jaro_winkler(&name, &plain(other)), other))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map_or_else(String::new, |(_, other)| format!("; did you mean `{}`?", write(other)))
}

fn same_address_twice(settings: &Settings) -> Vec<(Vec<&'static str>, String)> {
    let http = |key, list: &[SocketAddr]| -> Vec<_> {
        list.iter().map(|address| (key, PublishAddress::Tcp(*address))).collect()
    };
    let mut all = http("listen", &settings.listen);
    all.extend(settings.publish.iter().map(|address| ("publish", address.clone())));
    all.extend(http("admin", &settings.admin));
    let mut found = Vec::new();
    for (index, (key, address)) in all.iter().enumerate() {
        // Port 0 is another port each time.
        if matches!(address, PublishAddress::Tcp(address) if address.port() == 0) {
            continue;
        }
        if let Some((other, _)) = all[..index].iter().find(|(_, earlier)| earlier == address) {
            let whose =
                if other == key { format!("twice in {key}") } else { format!("in {other} and in {key}") };
            found.push((vec![*other, *key], format!("{address} is {whose}")));
        }
    }
    found
}

/// An echo takes whatever anybody sends, and 16 MiB of it at once: no token or trust makes that fit for a network.
fn diagnostics_for_others(settings: &Settings) -> Vec<(Vec<&'static str>, String)> {
    let listen = settings.listen.iter().map(|address| ("listen", address));
    let all = listen.chain(settings.admin.iter().map(|address| ("admin", address)));
    let open = all.filter(|(_, address)| !is_loopback(address));
    let message = |key, address: &SocketAddr| {
        format!(
            "diagnostics is for loopback addresses only, also with insecure, and {key} {address} can be reached from \
             other machines: use 127.0.0.1:{}, or leave diagnostics out",
            address.port()
        )
    };
    open.map(|(key, address)| (vec!["diagnostics", key], message(key, address))).collect()
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn open_to_others(settings: &Settings) -> Vec<(Vec<&'static str>, String)> {
    let mut found = Vec::new();
    let mut check =
        |key: &'static str, address: SocketAddr, token: &Option<String>, token_key: &'static str| {
            if token.is_some() || is_loopback(&address) {
                return;
            }
            let variable = environment_name(token_key);
            found.push((
                vec![key],
                format!(
                    "{key} {address} can be reached from other machines, and no {token_key} is set: \
                 set {token_key} (or {variable}), use a loopback address such as 127.0.0.1:{}, \
                 or pass --insecure where the network itself is trusted",
                    address.port()
                ),
            ));
        };
    for address in &settings.listen {
        check("listen", *address, &settings.operator_token, "operator_token");
    }
    for address in &settings.admin {
        check("admin", *address, &settings.operator_token, "operator_token");
    }
    for address in &settings.publish {
        if let PublishAddress::Tcp(address) = address {
            check("publish", *address, &settings.publish_token, "publish_token");
        }
    }
    found
}

impl Loaded {
    /// The settings as TOML, each with where it came from. Tokens are not shown.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut group = None;
        for (setting, origin) in SETTINGS.iter().zip(&self.origins) {
            if group != Some(setting.group) {
                let gap = if group.is_some() { "\n" } else { "" };
                let _ = writeln!(out, "{gap}# {}", setting.group.name());
                group = Some(setting.group);
            }
            let value = (setting.show)(&self.settings);
            let line = match value {
                Some(_) if (setting.secret)() => format!("# {} is set, and not shown", setting.key),
                value => assignment(setting.key, value),
            };
            let _ = writeln!(out, "{line:<40} # {origin}");
        }
        // After everything else: what stands below the header of a table belongs to it.
        for (table, origins) in TABLES.iter().zip(&self.tables) {
            let keys = (table.keys)();
            for (values, origin) in (table.show)(&self.settings).into_iter().zip(origins) {
                let _ = writeln!(out, "\n{:<40} # {}", format!("[[{}]]", table.name), origin.header);
                for ((key, value), origin) in keys.iter().zip(values).zip(&origin.values) {
                    let _ = writeln!(out, "{:<40} # {origin}", assignment(key.name, value));
                }
            }
        }
        out
    }
}

fn assignment(key: &str, value: Option<String>) -> String {
    value.map_or_else(|| format!("# {key} is not set"), |value| format!("{key} = {value}"))
}
