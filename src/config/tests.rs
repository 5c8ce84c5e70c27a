use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

mod tables;

/// A file that goes away with the test.
struct File(PathBuf);

impl File {
    fn new(text: impl AsRef<[u8]>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fanwire-config-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn load(
    file: Option<&Path>,
    variables: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Loaded, ConfigError> {
    let flags = flags.iter().map(|(key, word)| (*key, vec![(*word).to_owned()])).collect();
    Sources::new(file.map(Path::to_owned), environment(variables), flags).load()
}

fn load_toml(text: &str) -> Result<Settings, String> {
    let file = File::new(text);
    let path = file.0.display().to_string();
    load(Some(&file.0), &[], &[])
        .map(|loaded| loaded.settings)
        .map_err(|error| error.to_string().replace(&path, "FILE"))
}

#[test]
fn with_nothing_said_everything_is_the_default() {
    let loaded = load(None, &[], &[]).unwrap();
    assert_eq!(loaded.settings, Settings::default());
    assert_eq!(loaded.settings.limits, Limits::default());
    assert!(loaded.origins.iter().all(|origin| *origin == ValueOrigin::Default));
    assert!((1..=MAX_SHARDS).contains(&loaded.settings.shards));
}

#[test]
fn flags_go_before_environment_before_file_before_defaults() {
    let file =
        File::new("max_clients = 1\nqueue_events = 1\nmax_topics = 1\nlisten = ['127.0.0.1:1', '[::1]:1']\n");
    let variables = [
        ("FANWIRE_MAX_CLIENTS", "2"),
        ("FANWIRE_QUEUE_EVENTS", "2"),
        ("FANWIRE_LISTEN", "127.0.0.1:2, [::1]:2"),
    ];
    let loaded = load(Some(&file.0), &variables, &[("max_clients", "3")]).unwrap();
    let limits = &loaded.settings.limits;
    assert_eq!(
        (limits.max_clients, limits.queue_events, limits.max_topics, limits.max_publishers),
        (3, 2, 1, 1024)
    );
    // A list is replaced, never added to.
    assert_eq!(loaded.settings.listen, ["127.0.0.1:2".parse().unwrap(), "[::1]:2".parse().unwrap()]);
    let origin = |key| {
        let index = SETTINGS.iter().position(|setting| setting.key == key).unwrap();
        loaded.origins[index].to_string()
    };
    assert_eq!(origin("max_clients"), "--max-clients");
    assert_eq!(origin("queue_events"), "FANWIRE_QUEUE_EVENTS");
    assert_eq!(origin("max_topics"), format!("{}:3", file.0.display()));
    assert_eq!(origin("max_publishers"), "default");
}

#[test]
fn every_kind_of_value_is_read() {
    let settings = load_toml(
        r#"
        listen = "127.0.0.1:9000"
        publish = ["127.0.0.1:9001", "unix:/run/fanwire.sock"]
        admin = ["[::1]:9002"]
        shards = 3
        insecure = true
        publish_token = "p"
        operator_token = "o!~"
        allowed_origins = ["https://App.Example:443", "null"]
        require_origin = true
        tcp_congestion = "cubic"
        send_buffer = "128 KiB"
        log_level = "debug"
        log_format = "json"
        max_clients = 1_000_000
        max_header_bytes = 0x4000
        max_body_bytes = "8MB"
        queue_bytes = "1mib"
        heartbeat_interval = "1500ms"
        heartbeat_timeout = "2m"
        drain_timeout = "1h"
        "#,
    )
    .unwrap();
    assert_eq!(settings.listen, ["127.0.0.1:9000".parse().unwrap()]);
    assert_eq!(settings.publish[1], PublishAddress::Unix("/run/fanwire.sock".into()));
    assert_eq!(settings.publish[1].to_string(), "unix:/run/fanwire.sock");
    assert_eq!(settings.shards, 3);
    assert!(settings.insecure && settings.require_origin);
    let origins: Vec<String> = settings.allowed_origins.iter().map(ToString::to_string).collect();
    assert_eq!(origins, ["https://app.example", "null"]);
    assert_eq!(settings.send_buffer, Some(128 << 10));
    assert_eq!((settings.log_level, settings.log_format), (LogLevel::Debug, LogFormat::Json));
    let limits = settings.limits;
    assert_eq!(
        (limits.max_clients, limits.max_header_bytes, limits.max_body_bytes),
        (1_000_000, 0x4000, 8_000_000)
    );
    assert_eq!(limits.heartbeat_interval, Duration::from_millis(1500));
    assert_eq!(limits.heartbeat_timeout, Duration::from_secs(120));
    assert_eq!(limits.drain_timeout, Duration::from_secs(3600));
    assert_eq!(limits.queue_bytes, 1 << 20);
}

#[test]
fn bad_files_are_named_by_line() {
    for (text, expected) in [
        ("max_clients = 1\nmax_client = 2", "FILE:2: unknown key `max_client`; did you mean `max_clients`?"),
        ("\n\nmax-clients = 2", "FILE:3: unknown key `max-clients`; did you mean `max_clients`?"),
        ("heartbeat = '1s'", "FILE:1: unknown key `heartbeat`; did you mean `heartbeat_timeout`?"),
        ("Shards = 1", "FILE:1: unknown key `Shards`; did you mean `shards`?"),
        ("xyzzy = 1", "FILE:1: unknown key `xyzzy`"),
        (
            "[limits]\nmax_clients = 1",
            "FILE:1: unknown table `limits`: there are [[stream]], [[guard]] and [[topic]], and every other setting is a top-level key",
        ),
        ("shards = 1\nshards = 2", "FILE:2: duplicate key"),
        ("shards = 1\nshards =\n", "FILE:2: "),
        ("shards = 1\n\nwhat is this", "FILE:3: "),
        ("log_level = \"info", "FILE:1: "),
        ("shards = 1\nmax_clients = 0\n", "FILE:2: max_clients: must be at least 1, not 0"),
        ("shards = 1 # \u{fc}\nlisten = [\n'nowhere']", "FILE:2: listen: `nowhere` is not an address"),
        (
            "heartbeat_timeout = '10s'",
            "FILE:1: heartbeat_timeout (10s) must be longer than heartbeat_interval (30s)",
        ),
        ("heartbeat_timeout = '10s'\nheartbeat_interval = '10s'", "must be longer"),
        ("max_outbox_bytes = '1MiB'\nqueue_bytes = '2MiB'", "must not be above max_outbox_bytes"),
        ("listen = ['127.0.0.1:1', '127.0.0.1:1']", "FILE:1: 127.0.0.1:1 is twice in listen"),
        ("listen = '127.0.0.1:1'\npublish = '127.0.0.1:1'", "127.0.0.1:1 is in listen and in publish"),
        ("publish = ['unix:/a', 'unix:/a']", "unix:/a is twice in publish"),
    ] {
        let error = load_toml(text).unwrap_err();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = load_toml("max_clients = 0\nfoo = 1\nshards = 65\n").unwrap_err();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(
        lines,
        [
            "FILE:1: max_clients: must be at least 1, not 0",
            "FILE:2: unknown key `foo`",
            "FILE:3: shards: must be at most 64, not 65",
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = load(Some(Path::new("/nowhere/fanwire.toml")), &[], &[]).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/fanwire.toml: No such file"), "{error}");
    let file = File::new(b"shards = 1\n# \xff\n");
    let error = load(Some(&file.0), &[], &[]).unwrap_err().to_string();
    assert!(error.ends_with(".toml:2: is not UTF-8"), "{error}");
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = File::new("shards = 7");
    let other = File::new("shards = 8");
    let variables = [("FANWIRE_CONFIG", file.0.to_str().unwrap())];
    assert_eq!(load(None, &variables, &[]).unwrap().settings.shards, 7);
    assert_eq!(load(Some(&other.0), &variables, &[]).unwrap().settings.shards, 8);
}

#[test]
fn the_environment_is_held_to_known_names() {
    for (name, expected) in [
        ("FANWIRE_MAX_CLIENT", "FANWIRE_MAX_CLIENT: no such setting; did you mean `FANWIRE_MAX_CLIENTS`?"),
        ("FANWIRE_SHARD", "did you mean `FANWIRE_SHARDS`?"),
        ("FANWIRE_LOGLEVEL", "did you mean `FANWIRE_LOG_LEVEL`?"),
        ("FANWIRE_XYZZY", "FANWIRE_XYZZY: no such setting"),
        ("FANWIRE_max_clients", "did you mean `FANWIRE_MAX_CLIENTS`?"),
        ("FANWIRE_", "FANWIRE_: no such setting"),
    ] {
        let error = load(None, &[(name, "1")], &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let others = [
        ("FANWIRE_SIM_SEED", "1"),
        ("FANWIRE_HTTP", "127.0.0.1:1"),
        ("FANWIRE_SERVICE_HOST", "10.0.0.1"),
        ("FANWIRE_SERVICE_PORT_HTTP", "1"),
        ("FANWIRE_PORT", "tcp://10.0.0.1:8080"),
        ("FANWIRE_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("FANWIRE_EDGE_SERVICE_HOST", "10.0.0.1"),
        ("FANWIRELESS", "1"),
        ("PATH", "/bin"),
    ];
    assert_eq!(load(None, &others, &[]).unwrap().settings, Settings::default());
    let error = load(None, &[("FANWIRE_MAX_CLIENTS", "none")], &[]).unwrap_err().to_string();
    assert_eq!(error, "FANWIRE_MAX_CLIENTS: `none` is not a whole number");
    let error = load(None, &[], &[("max_clients", "-1")]).unwrap_err().to_string();
    assert_eq!(error, "--max-clients: must be at least 1, not -1");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_an_error() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![0xff]);
    let error = Sources::new(None, [("FANWIRE_SHARDS".into(), value)], Vec::new()).load().unwrap_err();
    assert_eq!(error.to_string(), "FANWIRE_SHARDS: is not UTF-8");
}

#[test]
fn off_loopback_needs_tokens() {
    for (toml, refused) in [
        ("listen = '0.0.0.0:8080'", Some("operator_token")),
        ("listen = ['127.0.0.1:8080', '[::]:8080']", Some("listen [::]:8080 can be reached")),
        ("admin = '192.0.2.1:9000'", Some("admin 192.0.2.1:9000")),
        ("publish = '0.0.0.0:8081'", Some("publish_token")),
        ("publish = '0.0.0.0:8081'\noperator_token = 'x'", Some("publish_token")),
        ("listen = '0.0.0.0:8080'\npublish_token = 'x'", Some("operator_token")),
        ("listen = '0.0.0.0:8080'\noperator_token = 'x'", None),
        ("publish = '0.0.0.0:8081'\npublish_token = 'x'", None),
        ("listen = '0.0.0.0:8080'\npublish = '0.0.0.0:8081'\ninsecure = true", None),
        ("listen = '127.9.9.9:8080'\npublish = '[::1]:8081'", None),
        ("listen = '[::ffff:127.0.0.1]:8080'\npublish = 'unix:/run/fanwire.sock'", None),
    ] {
        match (load_toml(toml), refused) {
            (Ok(_), None) => {}
            (Err(error), Some(expected)) => {
                assert!(error.contains(expected), "{toml}: {error}");
                for way_out in ["FANWIRE_", "loopback", "--insecure"] {
                    assert!(error.contains(way_out), "{error}");
                }
            }
            (result, _) => panic!("{toml}: {result:?}"),
        }
    }
}

#[test]
fn diagnostics_are_for_loopback_only() {
    for (toml, refused) in [
        ("", None),
        ("listen = ['127.0.0.1:8080', '[::1]:8080']\nadmin = '127.1.2.3:9000'", None),
        ("publish = ['0.0.0.0:8081', 'unix:/run/fanwire.sock']\ninsecure = true", None),
        ("listen = ['127.0.0.1:8080', '0.0.0.0:8080']\ninsecure = true", Some("listen 0.0.0.0:8080")),
        ("listen = '[::]:8080'\noperator_token = 'x'", Some("listen [::]:8080")),
        ("admin = '192.0.2.1:9000'\noperator_token = 'x'", Some("admin 192.0.2.1:9000")),
    ] {
        assert!(load_toml(toml).is_ok(), "{toml}");
        match (load_toml(&format!("{toml}\ndiagnostics = true")), refused) {
            (Ok(settings), None) => assert!(settings.diagnostics),
            (Err(error), Some(expected)) => {
                assert!(error.contains(expected) && error.contains("loopback addresses only"), "{error}");
            }
            (result, _) => panic!("{toml}: {result:?}"),
        }
    }
}

#[test]
fn tokens_are_never_shown() {
    let file = File::new("publish_token = 'hunter2'\noperator_token = 'hunter2'");
    let loaded = load(Some(&file.0), &[], &[]).unwrap();
    assert!(!format!("{loaded:?}").contains("hunter2"));
    assert!(!loaded.to_toml().contains("hunter2"));
    assert!(loaded.to_toml().contains("# publish_token is set, and not shown"));
    assert!(!load_toml("publish_token = 'hunter2 '").unwrap_err().contains("hunter2"));
}

#[test]
fn shown_settings_read_back_as_the_same() {
    let text = "max_clients = 7\nqueue_bytes = 1000\nsend_buffer = '64KiB'\nheartbeat_interval = '1234ms'\n\
                tcp_congestion = 'bbr'\npublish = ['unix:/a \"b\"', '127.0.0.1:0']\ninsecure = true\n\
                log_format = 'json'\nallowed_origins = ['https://a.example', 'null']";
    let file = File::new(text);
    let loaded = load(Some(&file.0), &[], &[]).unwrap();
    assert_eq!(load_toml(&loaded.to_toml()).unwrap(), loaded.settings);
    let default = load(None, &[], &[]).unwrap();
    assert_eq!(load_toml(&default.to_toml()).unwrap(), Settings::default());
}

#[test]
fn a_reload_reads_the_file_again_and_tells_what_needs_a_restart() {
    let file = File::new("max_clients = 1");
    let sources = Sources::new(Some(file.0.clone()), Vec::new(), Vec::new());
    let before = sources.load().unwrap().settings;
    std::fs::write(&file.0, "max_clients = 2\nlog_level = 'debug'\nlog_format = 'json'\nshards = 64\n")
        .unwrap();
    let after = sources.load().unwrap().settings;
    assert_eq!(after.limits.max_clients, 2);
    let expected: &[&str] = if before.shards == 64 { &["log_format"] } else { &["shards", "log_format"] };
    assert_eq!(before.needs_restart(&after), expected);
    std::fs::write(&file.0, "max_clients = 0").unwrap();
    assert!(sources.load().is_err());
}

/// What is wrong for every setting of a kind, with a piece of the message.
#[test]
fn bad_values_are_refused_with_a_reason() {
    const COUNTS: &[(&str, &str)] = &[
        ("0", "must be at least 1, not 0"),
        ("-1", "must be at least 1, not -1"),
        ("9223372036854775807", "must be at most"),
        ("1.5", "must be a whole number, not a number with a fraction"),
        ("'10'", "must be a whole number, not a string"),
        ("true", "must be a whole number, not true or false"),
        ("[1]", "must be a whole number, not a list"),
        ("{}", "must be a whole number, not a table"),
        ("2026-01-01", "must be a whole number, not a date"),
    ];
    const MAY_BE_ZERO: [&str; 5] = [
        "handshakes_per_second",
        "max_patterns_per_client",
        "min_pattern_prefix",
        "drain_delay",
        "drain_spread",
    ];
    const SIZES: &[(&str, &str)] = &[
        ("0", "must be at least"),
        ("-1", "must be at least"),
        ("'-64KiB'", "must be at least"),
        ("9223372036854775807", "must be at most"),
        ("'99999999999999999999999999GiB'", "must be at most"),
        ("'64K'", "unknown unit `K`"),
        ("'1.5MiB'", "is not a size"),
        ("''", "is not a size"),
        ("'MiB'", "is not a size"),
        ("'1 0'", "is not a size"),
        ("1.5", "must be a size such as 65536 or \"64KiB\", not a number with a fraction"),
        ("false", "must be a size"),
        ("['1KiB']", "not a list"),
    ];
    const PERIODS: &[(&str, &str)] = &[
        ("30", "`30` has no unit: write \"30s\" for seconds or \"30ms\" for milliseconds"),
        ("0", "has no unit"),
        ("1.5", "has no unit"),
        ("'30'", "has no unit"),
        ("'0s'", "must be at least"),
        ("'-1s'", "must not be negative"),
        ("'1d'", "unknown unit `d`; use ms, s, m or h"),
        ("'1.5s'", "is not a duration"),
        ("'1h30m'", "unknown unit"),
        ("'s'", "is not a duration"),
        ("''", "is not a duration"),
        ("'99999999999999999999999h'", "must be at most"),
        ("true", "must be a duration such as \"30s\", not true or false"),
    ];
    const OTHERS: &[(&str, &str, &str)] = &[
        ("max_publish_bytes", "'2GiB'", "must be at most 256MiB, not 2147483648"),
        ("max_message_bytes", "'65MiB'", "must be at most 64MiB"),
        ("max_header_bytes", "'65KiB'", "must be at most 64KiB"),
        ("max_patterns_per_client", "-1", "must be at least 0, not -1"),
        ("min_pattern_prefix", "-1", "must be at least 0, not -1"),
        ("handshakes_per_second", "-1", "must be at least 0, not -1"),
        ("min_pattern_prefix", "255", "must be at most 254, not 255"),
        ("link_bytes", "'63KiB'", "must be at least 64KiB"),
        ("max_outbox_bytes", "'1MB'", "must be at least 1MiB"),
        ("max_history_bytes", "'1MB'", "must be at least 1MiB, not 1000000"),
        ("max_history_bytes", "'1025GiB'", "must be at most 1024GiB, not 1100585369600"),
        ("event_stream_keep_alive", "'9ms'", "must be at least 10ms, not 9ms"),
        ("event_stream_keep_alive", "'2h'", "must be at most 60m, not 2h"),
        ("send_buffer", "1", "must be at least 4KiB"),
        ("send_buffer", "'abc'", "is not a size"),
        ("shards", "0", "must be at least 1"),
        ("shards", "65", "must be at most 64"),
        ("shards", "'auto'", "must be a whole number"),
        ("listen", "[]", "must name at least one address"),
        ("listen", "8080", "must be an address or a list of addresses, not a whole number"),
        ("listen", "[8080]", "must be a list of strings; one of them is a whole number"),
        ("listen", "':8080'", "such as 0.0.0.0:8080"),
        ("listen", "'localhost:8080'", "such as 127.0.0.1:8080"),
        ("listen", "'127.0.0.1'", "is not an address"),
        ("listen", "'127.0.0.1:99999'", "is not an address"),
        ("listen", "'unix:/a'", "is not an address"),
        ("listen", "''", "is not an address"),
        ("admin", "'here'", "is not an address"),
        ("publish", "'unix:'", "names no path"),
        ("publish", "'/run/a.sock'", "or unix:PATH"),
        ("insecure", "'true'", "must be true or false, not a string"),
        ("insecure", "1", "must be true or false, not a whole number"),
        ("publish_token", "''", "must not be empty"),
        ("publish_token", "'a b'", "must be visible ASCII without spaces; byte 2 is not"),
        ("allowed_origins", "'app.example'", "write SCHEME://HOST or SCHEME://HOST:PORT"),
        ("allowed_origins", "['https://*.app.example']", "is a pattern"),
        ("allowed_origins", "'https://app.example/'", "no slash at the end"),
        ("allowed_origins", "5", "must be an origin or a list of origins"),
        ("require_origin", "'yes'", "must be true or false"),
        ("max_messages_per_second", "0", "must be at least 1"),
        ("message_timeout", "'2h'", "must be at most 60m"),
        ("operator_token", "\"a\\nb\"", "must be visible ASCII"),
        ("operator_token", "'ü'", "must be visible ASCII"),
        ("operator_token", "5", "must be a string, not a whole number"),
        ("tcp_congestion", "''", "is not the name of a congestion control"),
        ("tcp_congestion", "'a name that is too long'", "is not the name"),
        ("log_level", "'loud'", "`loud` is not one of error, warn, info, debug, trace"),
        ("log_level", "'INFO'", "is not one of"),
        ("log_level", "3", "must be a string"),
        ("log_format", "'xml'", "`xml` is not one of text, json"),
    ];
    let mut cases: Vec<(&str, &str, &str)> = OTHERS.to_vec();
    for setting in SETTINGS {
        let bad = match (setting.group, setting.metavar) {
            (Group::Limits, "N") if MAY_BE_ZERO.contains(&setting.key) => &COUNTS[2..],
            (Group::Limits, "N") => COUNTS,
            (Group::Limits, "SIZE") => SIZES,
            (Group::Timeouts, _) => PERIODS,
            _ => continue,
        };
        let is_taken = |value: &str| value == "'0s'" && MAY_BE_ZERO.contains(&setting.key);
        let bad = bad.iter().filter(|(value, _)| !is_taken(value));
        cases.extend(bad.map(|(value, expected)| (setting.key, *value, *expected)));
    }
    let zero =
        load_toml("handshakes_per_second = 0\ndrain_spread = '0s'\ndrain_delay = '0s'").unwrap().limits;
    assert_eq!(
        (zero.handshakes_per_second, zero.drain_spread, zero.drain_delay),
        (0, Duration::ZERO, Duration::ZERO)
    );
    assert!(cases.len() > 200, "{}", cases.len());
    for (key, value, expected) in cases {
        let error = load_toml(&format!("# one\n{key} = {value}\n")).expect_err(&format!("{key} = {value}"));
        assert!(error.contains(expected), "{key} = {value}: {error}");
        assert!(error.starts_with(&format!("FILE:2: {key}: ")), "{error}");
    }
    let long = format!("unix:/{}", "a".repeat(107));
    assert!(long.parse::<PublishAddress>().unwrap_err().contains("at most 107 bytes"));
    assert!("unix:a\0b".parse::<PublishAddress>().is_err());
}

#[test]
fn switches_in_words() {
    for (word, expected) in
        [("true", true), ("1", true), ("yes", true), ("false", false), ("0", false), ("no", false)]
    {
        assert_eq!(load(None, &[("FANWIRE_INSECURE", word)], &[]).unwrap().settings.insecure, expected);
    }
    assert!(load(None, &[("FANWIRE_INSECURE", "")], &[]).is_err());
    // Nothing is the empty list, which only `listen` refuses.
    assert!(load(None, &[("FANWIRE_PUBLISH", "")], &[]).unwrap().settings.publish.is_empty());
    assert!(load(None, &[("FANWIRE_LISTEN", "")], &[]).is_err());
}

// Arrays of tables -----------------------------------------------------------------------------------------------

/// A `[[stream]]` with what it must have, four lines long.
#[test]
fn catalogs_are_kept_with_where_they_were_named() {
    let dir = std::env::temp_dir();
    let file = File::new("\ncatalog = ['runs', 'mine.toml', './sub/more', '/etc/all']");
    let named = |loaded: &Loaded| -> Vec<(CatalogSource, String)> {
        let pair = |catalog: &Located<CatalogSource>| (catalog.value.clone(), catalog.place.clone());
        loaded.settings.catalog.iter().map(pair).collect()
    };
    let shipped = |name: &str| CatalogSource::Shipped(name.to_owned());
    let path = |path: &Path| CatalogSource::File(path.to_owned());
    let place = format!("{}:2", file.0.display());
    let expected = [
        shipped("runs"),
        path(&dir.join("mine.toml")),
        path(&dir.join("./sub/more")),
        path(Path::new("/etc/all")),
    ];
    let loaded = load(Some(&file.0), &[], &[]).unwrap();
    assert_eq!(named(&loaded), expected.map(|source| (source, place.clone())));
    assert_eq!(load_toml(&loaded.to_toml()).unwrap(), loaded.settings);

    // Elsewhere a path begins in the working directory.
    let loaded = load(Some(&file.0), &[("FANWIRE_CATALOG", "runs, a.toml")], &[]).unwrap();
    let variable = || "FANWIRE_CATALOG".to_owned();
    assert_eq!(named(&loaded), [(shipped("runs"), variable()), (path(Path::new("a.toml")), variable())]);
    // What is shown means the same from everywhere.
    let shown = std::path::absolute("a.toml").unwrap();
    assert!(loaded.to_toml().contains(&format!("catalog = [\"runs\", \"{}\"] ", shown.display())));
    let loaded = load(None, &[], &[("catalog", "../a")]).unwrap();
    assert_eq!(named(&loaded), [(path(Path::new("../a")), "--catalog".to_owned())]);

    for (text, expected) in [
        ("catalog = 'a b'", "catalog: `a b` is neither the name of a catalog nor the path of a TOML file"),
        ("catalog = ''", "catalog: `` is neither"),
        ("catalog = ['runs', 5]", "catalog: must be a list of strings; one of them is a whole number"),
        ("catalog = 5", "catalog: must be a catalog or a list of catalogs, not a whole number"),
        ("catalog_strict = 1", "catalog_strict: must be true or false, not a whole number"),
        ("catalog_strict = true", "catalog_strict without a catalog would refuse every event"),
    ] {
        let error = load_toml(text).unwrap_err();
        assert!(error.starts_with(&format!("FILE:1: {expected}")), "{error}");
    }
    assert!(load_toml("catalog_strict = true\ncatalog = 'runs'").unwrap().catalog_strict);
}

/// `docs/fanwire.toml`: `#key = value` is the default, `# Example: key = value` has no fixed default. Tables last.
#[test]
fn the_documented_file_names_every_key_with_its_default() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/fanwire.toml")).unwrap();
    assert_eq!(load_toml(&text).unwrap(), Settings::default(), "as it is, it changes nothing");
    let (text, tables) = text.split_once("\n# Tables ---").unwrap();
    let setting_line = |line: &str| {
        let key = line.split(" = ").next().unwrap_or("");
        line.contains(" = ") && !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let uncommented = |prefix: &str| -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix(prefix)).filter(|line| setting_line(line)).collect()
    };
    let (defaults, examples) = (uncommented("#"), uncommented("# Example: "));
    assert_eq!(
        load_toml(&defaults.join("\n")).unwrap(),
        Settings::default(),
        "with every default uncommented"
    );
    load_toml(&examples.join("\n")).unwrap();
    let keys: Vec<&str> =
        defaults.iter().chain(&examples).map(|line| line.split(" = ").next().unwrap_or("")).collect();
    for setting in SETTINGS {
        let count = keys.iter().filter(|key| **key == setting.key).count();
        assert_eq!(count, 1, "{} must occur exactly once in docs/fanwire.toml", setting.key);
        let is_default = defaults.iter().any(|line| line.starts_with(&format!("{} = ", setting.key)));
        assert_eq!(is_default, setting.default_note.is_empty(), "{}", setting.key);
    }
    assert_eq!(keys.len(), SETTINGS.len());

    // Tables: the same two prefixes, in the order of a file that loads.
    let lines: Vec<(bool, &str)> = tables
        .lines()
        .filter_map(|line| match line.strip_prefix("# Example: ") {
            Some(line) => Some((false, line)),
            None => line.strip_prefix('#').filter(|line| setting_line(line)).map(|line| (true, line)),
        })
        .collect();
    let example: Vec<&str> = lines.iter().map(|(_, line)| *line).collect();
    let settings = load_toml(&example.join("\n")).unwrap();
    assert!(TABLES.iter().all(|table| !(table.show)(&settings).is_empty()), "every table is there");
    let mut known = Vec::new();
    for table in TABLES {
        known.push(format!("[[{}]]", table.name));
        for key in (table.keys)() {
            let line = match &key.default {
                Some(value) => (true, format!("{} = {value}", key.name)),
                None => {
                    let start = format!("{} = ", key.name);
                    let line = example.iter().find(|line| line.starts_with(&start));
                    (false, (*line.unwrap_or_else(|| panic!("{}: {}", table.name, key.name))).to_owned())
                }
            };
            assert!(lines.contains(&(line.0, line.1.as_str())), "{}: {line:?}", table.name);
            known.push(line.1);
        }
    }
    assert!(example.iter().all(|line| known.iter().any(|known| known == line)), "{example:?}");
}
