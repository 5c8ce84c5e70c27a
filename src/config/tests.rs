use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

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
    assert!(loaded.origins.iter().all(|origin| *origin == Origin::Default));
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
    assert!(settings.insecure);
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
                log_format = 'json'";
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
            (Group::Limits, "N") => COUNTS,
            (Group::Limits, "SIZE") => SIZES,
            (Group::Timeouts, _) => PERIODS,
            _ => continue,
        };
        cases.extend(bad.iter().map(|(value, expected)| (setting.key, *value, *expected)));
    }
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
const STREAM: &str = "[[stream]]\npath = '/s'\ntopic = 't'\nenvelope = '{data}'\n";

#[test]
fn streams_are_read_with_their_lines_and_defaults() {
    let text = "max_clients = 7\n\n[[stream]]\n\npath = '/runs/{runId}/stream'\ntopic = 'run:{runId}'\n\
                envelope = \"\"\"\n{data}\n\"\"\"\nqueue_events = 256\nwrite_timeout = '10s'\n\
                heartbeat_interval = '1s'\nheartbeat_timeout = '2s'\nmax_message_bytes = '1KiB'\n\
                [[stream]] # another\nenvelope = \"\"\"{data}\n\"\"\"\ntopic = 't'\npath = '/s'\n";
    let file = File::new(text);
    let loaded = load(Some(&file.0), &[], &[]).unwrap();
    let settings = &loaded.settings;
    let located = |value: &str, line: usize| (value.to_owned(), format!("{}:{line}", file.0.display()));
    let streams: Vec<_> = settings
        .streams
        .iter()
        .map(|stream| {
            [&stream.path, &stream.topic, &stream.envelope].map(|l| (l.value.clone(), l.place.clone()))
        })
        .collect();
    assert_eq!(
        streams,
        [
            [located("/runs/{runId}/stream", 5), located("run:{runId}", 6), located("{data}\n", 8)],
            [located("/s", 19), located("t", 18), located("{data}\n", 16)],
        ]
    );
    let first = StreamLimits {
        queue_events: Some(256),
        write_timeout: Some(Duration::from_secs(10)),
        heartbeat_interval: Duration::from_secs(1),
        heartbeat_timeout: Duration::from_secs(2),
        max_message_bytes: 1024,
    };
    let second = StreamLimits {
        queue_events: None,
        write_timeout: None,
        heartbeat_interval: Duration::from_secs(54),
        heartbeat_timeout: Duration::from_secs(60),
        max_message_bytes: 512,
    };
    assert_eq!(settings.limits.streams, [first, second]);
    assert_eq!(settings.limits.max_clients, 7);
    let crlf = load_toml(&text.replace('\n', "\r\n")).unwrap();
    assert!(crlf.streams[0].envelope.place.ends_with(".toml:8"));
    // The other way that TOML has to write the same.
    let inline = load_toml("stream = [\n{ path = '/s', topic = 't', envelope = '{data}' }]").unwrap();
    assert_eq!(inline.streams, load_toml(STREAM).unwrap().streams);
    assert!(inline.streams[0].topic.place.ends_with(".toml:2"));
    assert!(load_toml("stream = []").unwrap().streams.is_empty());
}

#[test]
fn what_is_wrong_in_tables_is_told_by_line() {
    let with = |key: &str| format!("{STREAM}{key}\n");
    for (text, expected) in [
        // The array.
        (
            "\n[stream]\npath = '/s'".to_owned(),
            "FILE:2: stream: must be written [[stream]], with double brackets",
        ),
        ("stream.path = '/s'".to_owned(), "FILE:1: stream: must be written [[stream]], with double brackets"),
        (
            "stream = 1".to_owned(),
            "FILE:1: stream: must be tables, each under its [[stream]], not a whole number",
        ),
        (
            "stream = [\n1]".to_owned(),
            "FILE:2: stream: must be tables, each under its [[stream]], not a whole number",
        ),
        ("[[streams]]\n".to_owned(), "FILE:1: unknown table `streams`; did you mean `[[stream]]`?"),
        ("[streem]\n".to_owned(), "FILE:1: unknown table `streem`; did you mean `[[stream]]`?"),
        (format!("{STREAM}[stream]\n"), "FILE:5: duplicate key"),
        (with("path = '/t'"), "FILE:5: duplicate key"),
        // Its keys.
        (with("pat = 1"), "FILE:5: unknown key `pat` in [[stream]]; did you mean `path`?"),
        (
            with("queue-events = 1"),
            "FILE:5: unknown key `queue-events` in [[stream]]; did you mean `queue_events`?",
        ),
        (with("xyzzy = 1"), "FILE:5: unknown key `xyzzy` in [[stream]]"),
        (with("[stream.more]\na = 1"), "FILE:5: unknown key `more` in [[stream]]"),
        (
            with("max_clients = 5"),
            "FILE:5: unknown key `max_clients` in [[stream]]: as a setting it must stand above the first table",
        ),
        (
            "\n[[stream]]\ntopic = 't'".to_owned(),
            "FILE:2: path: is missing; every [[stream]] needs one\n\
             FILE:2: envelope: is missing; every [[stream]] needs one",
        ),
        // Its values.
        (
            "[[stream]]\npath = 1\ntopic = 2\nenvelope = {}".to_owned(),
            "FILE:2: path: must be a string, not a whole number\n\
             FILE:3: topic: must be a string, not a whole number\n\
             FILE:4: envelope: must be a string, not a table",
        ),
        (
            "[[stream]]\npath = 's'\ntopic = ''\nenvelope = ''".to_owned(),
            "FILE:2: path: `s` must begin with /\n\
             FILE:3: topic: must not be empty\n\
             FILE:4: envelope: must not be empty",
        ),
        (
            STREAM.replace("'/s'", "'/s?a=b'"),
            "FILE:2: path: `/s?a=b` must not have `?`: it is a path, not an address",
        ),
        (
            STREAM.replace("'/s'", "'/s t'"),
            "FILE:2: path: `/s t` must not have ` `: it is a path, not an address",
        ),
        (STREAM.replace("'t'", "\"t\\n\""), "FILE:3: topic: `t\\n` has a control character"),
        (with("queue_events = 0"), "FILE:5: queue_events: must be at least 1, not 0"),
        (with("queue_events = '1'"), "FILE:5: queue_events: must be a whole number, not a string"),
        (
            with("write_timeout = 10"),
            "FILE:5: write_timeout: `10` has no unit: write \"10s\" for seconds or \"10ms\" for milliseconds",
        ),
        (with("write_timeout = '2h'"), "FILE:5: write_timeout: must be at most 60m, not 2h"),
        (with("heartbeat_interval = '0s'"), "FILE:5: heartbeat_interval: must be at least 1ms, not 0ms"),
        (with("heartbeat_timeout = '49h'"), "FILE:5: heartbeat_timeout: must be at most 48h, not 49h"),
        (with("max_message_bytes = 63"), "FILE:5: max_message_bytes: must be at least 64, not 63"),
        (
            with("max_message_bytes = '65MiB'"),
            "FILE:5: max_message_bytes: must be at most 64MiB, not 68157440",
        ),
        // What they are together.
        (
            with("heartbeat_timeout = '54s'"),
            "FILE:5: heartbeat_timeout (54s) must be longer than heartbeat_interval (54s)",
        ),
        (
            with("heartbeat_interval = '60s'"),
            "FILE:5: heartbeat_timeout (60s) must be longer than heartbeat_interval (60s)",
        ),
        (
            with("heartbeat_timeout = '1s'\nheartbeat_interval = '2s'"),
            "FILE:6: heartbeat_timeout (1s) must be longer than heartbeat_interval (2s)",
        ),
        (format!("{STREAM}{STREAM}"), "FILE:6: path: `/s` is the path at FILE:2 already"),
        // Everything, in the order of the file.
        (
            format!("shards = 0\n{STREAM}a = 1\n\n[[stream]]\npath = ''\nenvelope = '{{data}}'\n[b]\n"),
            "FILE:1: shards: must be at least 1, not 0\n\
             FILE:6: unknown key `a` in [[stream]]\n\
             FILE:8: topic: is missing; every [[stream]] needs one\n\
             FILE:9: path: must not be empty\n\
             FILE:11: unknown table `b`: there are [[stream]], [[guard]] and [[topic]], and every other setting is a top-level key",
        ),
    ] {
        assert_eq!(load_toml(&text).expect_err(&text), expected, "{text}");
    }
    for (key, max) in [("path", 1024), ("topic", 1024), ("envelope", 64 << 10)] {
        let value = |length: usize| format!("{key} = '/{}'", "x".repeat(length - 1));
        let text = |length: usize| {
            let other = |line: &str| if line.starts_with(key) { value(length) } else { line.to_owned() };
            STREAM.lines().map(other).collect::<Vec<_>>().join("\n")
        };
        assert!(load_toml(&text(max)).is_ok(), "{key}");
        let error = load_toml(&text(max + 1)).unwrap_err();
        assert!(
            error.ends_with(&format!("{key}: must have at most {max} bytes, not {}", max + 1)),
            "{error}"
        );
    }
}

#[test]
fn a_file_has_at_most_1000_of_a_table() {
    let streams = |count: usize| -> String {
        (0..count).map(|n| STREAM.replace("'/s'", &format!("'/s{n}'"))).collect()
    };
    assert_eq!(load_toml(&streams(1_000)).unwrap().streams.len(), 1_000);
    let error = load_toml(&streams(1_002)).unwrap_err();
    assert_eq!(error, "FILE:4001: stream: must be at most 1000 tables, not 1002");
}

#[test]
fn shown_tables_read_back_as_the_same() {
    let text = format!(
        "{STREAM}write_timeout = '1500ms'\n\n[[stream]]\npath = '/q\"{{a}}'\ntopic = \"a'b\"\nenvelope = '''\n\
         {{\"a\":\n'\\ ''}}'''\nqueue_events = 5\nheartbeat_timeout = '2m'\nmax_message_bytes = 1000\n\
         [[guard]]\nset = 's'\ntopics = 'a*'\n[[guard]]\nname = 'n'\npattern = '\\b\"'\naction = 'mask'\n\
         [[topic]]\nprefix = \"a'b\"\nhistory.bytes = 5000\n[[topic]]\nprefix = ''\n\
         policies = ['conflate', 'drop-oldest']\n"
    );
    let file = File::new(&text);
    let loaded = load(Some(&file.0), &[], &[]).unwrap();
    let shown = loaded.to_toml();
    assert_eq!(load_toml(&shown).unwrap(), loaded.settings, "{shown}");
    let path = file.0.display();
    for (start, end) in [
        ("[[stream]] ", format!(" # {path}:1")),
        ("path = \"/s\" ", format!(" # {path}:2")),
        ("# queue_events is not set ", " # default".to_owned()),
        ("heartbeat_interval = \"54s\" ", " # default".to_owned()),
        ("[[stream]] ", format!(" # {path}:7")),
        ("queue_events = 5 ", format!(" # {path}:13")),
        ("[[guard]] ", format!(" # {path}:16")),
        ("# name is not set ", " # default".to_owned()),
        ("topics = [\"a*\"] ", format!(" # {path}:18")),
        ("action = \"refuse\" ", " # default".to_owned()),
        ("action = \"mask\" ", format!(" # {path}:22")),
        ("[[topic]] ", format!(" # {path}:23")),
        ("prefix = \"a'b\" ", format!(" # {path}:24")),
        ("history = { events = 1000, bytes = 5000, age = \"10m\" } ", format!(" # {path}:25")),
        ("# policies is not set ", " # default".to_owned()),
        ("prefix = \"\" ", format!(" # {path}:27")),
        ("# history is not set ", " # default".to_owned()),
        ("policies = [\"conflate\", \"drop-oldest\"] ", format!(" # {path}:28")),
    ] {
        assert!(
            shown.lines().any(|line| line.starts_with(start) && line.ends_with(&end)),
            "{start}{end}\n{shown}"
        );
    }
}

#[test]
fn guards_are_read_with_their_lines_and_defaults() {
    let text = "[[guard]]\nname = 'ssn'\npattern = '\\d'\n[[stream]]\npath = '/s'\ntopic = 't'\n\
                envelope = '{data}'\n\n[[guard]]\naction = 'mask'\nset = 'us-health'\ntopics = ['run:*', 'audit', '*']\n\
                [[guard]]\nset = 'us-health'\ntopics = 'a'\naction = 'refuse'\n";
    let file = File::new(text);
    let settings = load(Some(&file.0), &[], &[]).unwrap().settings;
    let place = |line: usize| format!("{}:{line}", file.0.display());
    let at = |value: &str, line: usize| Located { value: value.to_owned(), place: place(line) };
    let expected = [
        Guard {
            name: Some(at("ssn", 2)),
            rule: GuardRule::Pattern(at("\\d", 3)),
            topics: Vec::new(),
            action: GuardAction::Refuse,
            place: place(1),
        },
        Guard {
            name: None,
            rule: GuardRule::Set(at("us-health", 11)),
            topics: vec!["run:*".to_owned(), "audit".to_owned(), "*".to_owned()],
            action: GuardAction::Mask,
            place: place(9),
        },
        Guard {
            name: None,
            rule: GuardRule::Set(at("us-health", 14)),
            topics: vec!["a".to_owned()],
            action: GuardAction::Refuse,
            place: place(13),
        },
    ];
    // Equality is for values; how it is shown has the places.
    assert_eq!(format!("{:#?}", settings.guards), format!("{expected:#?}"));
    assert_eq!(settings.streams.len(), 1);
}

#[test]
fn what_is_wrong_in_guards_is_told_by_line() {
    let guard = "[[guard]]\nname = 'n'\npattern = 'p'\n";
    let with = |key: &str| format!("{guard}{key}\n");
    for (text, expected) in [
        ("[guard]\nname = 'n'".to_owned(), "FILE:1: guard: must be written [[guard]], with double brackets"),
        ("[[guards]]".to_owned(), "FILE:1: unknown table `guards`; did you mean `[[guard]]`?"),
        (with("topic = 'a'"), "FILE:4: unknown key `topic` in [[guard]]; did you mean `topics`?"),
        ("\n[[guard]]".to_owned(), "FILE:2: [[guard]] must have a pattern or a set"),
        ("[[guard]]\nname = 'n'".to_owned(), "FILE:1: [[guard]] must have a pattern or a set"),
        (with("set = 's'"), "FILE:4: [[guard]] must have a pattern or a set, not both"),
        (
            "[[guard]]\npattern = 'p'".to_owned(),
            "FILE:1: name: is missing; every [[guard]] with a pattern needs one",
        ),
        (
            "[[guard]]\nname = 'n'\nset = 's'".to_owned(),
            "FILE:2: name: must not be given with a set, whose rules have names",
        ),
        (format!("{guard}{guard}"), "FILE:5: name: `n` is the name at FILE:2 already"),
        (guard.replace("'n'", "'a b'"), "FILE:2: name: `a b` must be letters, digits, `-`, `_` and `.`"),
        (guard.replace("'n'", "''"), "FILE:2: name: must not be empty"),
        (guard.replace("'p'", "''"), "FILE:3: pattern: must not be empty"),
        (guard.replace("'p'", "['p']"), "FILE:3: pattern: must be a string, not a list"),
        ("[[guard]]\nset = '/a'".to_owned(), "FILE:2: set: `/a` must be letters, digits, `-`, `_` and `.`"),
        (with("topics = []"), "FILE:4: topics: must name at least one topic"),
        (with("topics = ['a', '']"), "FILE:4: topics: must not be empty"),
        (with("topics = ['*a']"), "FILE:4: topics: `*a`: a `*` may stand only at the end"),
        (with("topics = ['a**']"), "FILE:4: topics: `a**`: a `*` may stand only at the end"),
        (with("topics = [\"a\\t\"]"), "FILE:4: topics: `a\\t` has a control character"),
        (with("topics = 1"), "FILE:4: topics: must be a topic or a list of topics, not a whole number"),
        (with("topics = [1]"), "FILE:4: topics: must be a list of strings; one of them is a whole number"),
        (with("action = 'drop'"), "FILE:4: action: `drop` is not one of refuse, mask"),
        (with("action = true"), "FILE:4: action: must be a string, not true or false"),
    ] {
        assert_eq!(load_toml(&text).expect_err(&text), expected, "{text}");
    }
    for (key, max) in [("name", 64), ("pattern", 16 << 10), ("topics", 255)] {
        let text = |length: usize| {
            let value = "x".repeat(length);
            match key {
                "name" => guard.replace("'n'", &format!("'{value}'")),
                "pattern" => guard.replace("'p'", &format!("'{value}'")),
                _ => with(&format!("topics = '{value}'")),
            }
        };
        assert!(load_toml(&text(max)).is_ok(), "{key}");
        let error = load_toml(&text(max + 1)).unwrap_err();
        assert!(
            error.ends_with(&format!("{key}: must have at most {max} bytes, not {}", max + 1)),
            "{error}"
        );
    }
}

/// A `[[topic]]` with what it must have, two lines long.
const TOPIC: &str = "[[topic]]\nprefix = 'run:'\n";

#[test]
fn topics_are_read_with_their_lines_and_defaults() {
    let text = "[[topic]]\nhistory = { events = 5, bytes = '1KiB', age = '100ms' }\nprefix = 'run:'\n\
                policies = ['replay', 'conflate']\n[[topic]]\nprefix = ''\n[[guard]]\nset = 's'\n\
                [[topic]]\nprefix = 'a'\nhistory = {}\npolicies = 'drop-newest'\n";
    let file = File::new(text);
    let settings = load(Some(&file.0), &[], &[]).unwrap().settings;
    let at = |value: &str, line: usize| Located {
        value: value.to_owned(),
        place: format!("{}:{line}", file.0.display()),
    };
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    let expected = [
        Topic {
            prefix: at("run:", 3),
            history: Some(HistoryLimits { events: 5, bytes: 1024, age: Duration::from_millis(100) }),
            policies: words(&["replay", "conflate"]),
        },
        Topic { prefix: at("", 6), history: None, policies: None },
        Topic {
            prefix: at("a", 10),
            history: Some(HistoryLimits { events: 1_000, bytes: 8 << 20, age: Duration::from_secs(600) }),
            policies: words(&["drop-newest"]),
        },
    ];
    // Equality is for values; how it is shown has the places.
    assert_eq!(format!("{:#?}", settings.topics), format!("{expected:#?}"));
    assert_eq!(settings.guards.len(), 1);

    let every = "policies = ['disconnect', 'drop-oldest', 'drop-newest', 'conflate', 'replay']\nhistory = {}";
    assert_eq!(load_toml(&format!("{TOPIC}{every}")).unwrap().topics[0].policies.as_ref().unwrap().len(), 5);
}

#[test]
fn history_may_be_written_in_every_way_that_toml_has() {
    let history = |events: usize, bytes: usize, age: Duration| Some(HistoryLimits { events, bytes, age });
    let age = Duration::from_secs(600);
    for (text, expected) in [
        ("", None),
        ("history = {}", history(1_000, 8 << 20, age)),
        ("[topic.history]", history(1_000, 8 << 20, age)),
        ("history = { events = 1 }", history(1, 8 << 20, age)),
        ("history = { bytes = 2048 }", history(1_000, 2048, age)),
        ("history = { age = '720h' }", history(1_000, 8 << 20, Duration::from_secs(30 * 24 * 3600))),
        (
            "history = {\nevents = 10_000_000, # many\nbytes = '1024GiB',\n}",
            history(10_000_000, 1 << 40, age),
        ),
        ("history.events = 2\nhistory.age = '1s'", history(2, 8 << 20, Duration::from_secs(1))),
        ("history.bytes = '1KiB'\npolicies = 'replay'", history(1_000, 1 << 10, age)),
        ("[topic.history]\nevents = 3\n[[topic]]\nprefix = 'b'", history(3, 8 << 20, age)),
    ] {
        let file = File::new(format!("{TOPIC}{text}\n"));
        let loaded = load(Some(&file.0), &[], &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(loaded.settings.topics[0].history, expected, "{text}");
        assert_eq!(load_toml(&loaded.to_toml()).unwrap(), loaded.settings, "{text}");
        let line = expected.map_or("default".to_owned(), |_| format!("{}:3", file.0.display()));
        let shown = loaded.to_toml();
        let shown = shown.lines().find(|line| line.contains("history") && !line.starts_with("max_")).unwrap();
        assert!(shown.ends_with(&format!(" # {line}")), "{text}: {shown}");
    }
    // Also where the whole array is one value.
    let inline = load_toml("topic = [{ prefix = '', history = { events = 4 } }]").unwrap();
    assert_eq!(inline.topics[0].history, history(4, 8 << 20, age));
}

#[test]
fn what_is_wrong_in_topics_is_told_by_line() {
    let with = |key: &str| format!("{TOPIC}{key}\n");
    let five = "disconnect, drop-oldest, drop-newest, conflate, replay";
    for (text, expected) in [
        // The array and its keys.
        ("[topic]\nprefix = ''".to_owned(), "FILE:1: topic: must be written [[topic]], with double brackets"),
        (
            "[topic.history]\nevents = 1".to_owned(),
            "FILE:1: topic: must be written [[topic]], with double brackets",
        ),
        ("[[topics]]".to_owned(), "FILE:1: unknown table `topics`; did you mean `[[topic]]`?"),
        (with("policy = 'replay'"), "FILE:3: unknown key `policy` in [[topic]]; did you mean `policies`?"),
        ("\n[[topic]]".to_owned(), "FILE:2: prefix: is missing; every [[topic]] needs one"),
        // The prefix.
        ("[[topic]]\nprefix = 1".to_owned(), "FILE:2: prefix: must be a string, not a whole number"),
        ("[[topic]]\nprefix = ['a']".to_owned(), "FILE:2: prefix: must be a string, not a list"),
        ("[[topic]]\nprefix = \"a\\tb\"".to_owned(), "FILE:2: prefix: `a\\tb` has a control character"),
        (
            "[[topic]]\nprefix = 'run:*'".to_owned(),
            "FILE:2: prefix: `run:*` must not end in `*`: it is for all names that begin with it anyway",
        ),
        (format!("{TOPIC}{TOPIC}"), "FILE:4: prefix: `run:` is the prefix at FILE:2 already"),
        (
            "[[topic]]\nprefix = ''\n[[topic]]\nhistory = {}\nprefix = ''".to_owned(),
            "FILE:5: prefix: `` is the prefix at FILE:2 already",
        ),
        // The policies.
        (with("policies = []"), "FILE:3: policies: must name at least one policy"),
        (
            with("policies = 1"),
            "FILE:3: policies: must be a policy or a list of policies, not a whole number",
        ),
        (
            with("policies = [1]"),
            "FILE:3: policies: must be a list of strings; one of them is a whole number",
        ),
        (with("policies = 'drop'"), &format!("FILE:3: policies: `drop` is not one of {five}")),
        (with("policies = ['conflate', '']"), &format!("FILE:3: policies: `` is not one of {five}")),
        (with("policies = 'Replay'"), &format!("FILE:3: policies: `Replay` is not one of {five}")),
        (
            with("policies = ['conflate', 'disconnect', 'conflate']"),
            "FILE:3: policies: `conflate` is there twice",
        ),
        (
            with("policies = ['conflate', 'replay']"),
            "FILE:3: policies: `replay` needs a history, which this [[topic]] does not have",
        ),
        // The history.
        (
            with("history = true"),
            "FILE:3: history: must be a table such as { events = 1000, bytes = \"8MiB\", age = \"10m\" }, \
             not true or false",
        ),
        (
            with("[[topic.history]]\nevents = 1"),
            "FILE:3: history: must be a table such as { events = 1000, bytes = \"8MiB\", age = \"10m\" }, \
             not a list",
        ),
        (with("history = { event = 1 }"), "FILE:3: unknown key `event` in history; did you mean `events`?"),
        (with("history = { xyzzy = 1 }"), "FILE:3: unknown key `xyzzy` in history"),
        (with("[topic.history]\n\nmore.a = 1"), "FILE:5: unknown key `more` in history"),
        (
            with("[topic.history]\nevents = 5\npolicies = 'replay'"),
            "FILE:5: unknown key `policies` in history: as a key of [[topic]] it must stand above history",
        ),
        (
            with("[topic.history]\nmax_clients = 5"),
            "FILE:4: unknown key `max_clients` in history: as a setting it must stand above the first table",
        ),
        (with("history = {}\n[topic.history]"), "FILE:4: duplicate key"),
        (with("history.events = 1\nhistory.events = 1"), "FILE:4: duplicate key"),
        (with("history = { events = 0 }"), "FILE:3: history.events: must be at least 1, not 0"),
        (
            with("history.events = 10_000_001"),
            "FILE:3: history.events: must be at most 10000000, not 10000001",
        ),
        (with("history = { events = '1' }"), "FILE:3: history.events: must be a whole number, not a string"),
        (
            with("history = { events.most = 1 }"),
            "FILE:3: history.events: must be a whole number, not a table",
        ),
        (with("history = { bytes = 1023 }"), "FILE:3: history.bytes: must be at least 1KiB, not 1023"),
        (
            with("history = { bytes = '1025GiB' }"),
            "FILE:3: history.bytes: must be at most 1024GiB, not 1100585369600",
        ),
        (
            with("history = { bytes = true }"),
            "FILE:3: history.bytes: must be a size such as 65536 or \"64KiB\", not true or false",
        ),
        (with("history = { age = '99ms' }"), "FILE:3: history.age: must be at least 100ms, not 99ms"),
        (with("history = { age = '721h' }"), "FILE:3: history.age: must be at most 720h, not 721h"),
        (
            with("history = { age = 10 }"),
            "FILE:3: history.age: `10` has no unit: write \"10s\" for seconds or \"10ms\" for milliseconds",
        ),
        // Everything, in the order of the file.
        (
            with("policies = 'all'\n[topic.history]\nevents = 0\nbyte = 1\nage = '1d'\n[[topic]]"),
            &format!(
                "FILE:3: policies: `all` is not one of {five}\n\
                 FILE:5: history.events: must be at least 1, not 0\n\
                 FILE:6: unknown key `byte` in history; did you mean `bytes`?\n\
                 FILE:7: history.age: `1d`: unknown unit `d`; use ms, s, m or h\n\
                 FILE:8: prefix: is missing; every [[topic]] needs one"
            ),
        ),
    ] {
        assert_eq!(load_toml(&text).expect_err(&text), expected, "{text}");
    }
    let long = |length: usize| format!("[[topic]]\nprefix = '{}'", "x".repeat(length));
    assert!(load_toml(&long(255)).is_ok());
    assert_eq!(load_toml(&long(256)).unwrap_err(), "FILE:2: prefix: must have at most 255 bytes, not 256");
}

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

#[test]
fn a_reload_changes_the_limits_of_streams_but_not_the_streams() {
    let other = STREAM.replace("/s", "/other");
    let guard = "[[guard]]\nname = 'n'\npattern = 'p'\n";
    let base = format!("catalog = 'runs'\n{STREAM}{other}{TOPIC}{guard}");
    let before = load_toml(&base).unwrap();
    for (text, restart) in [
        // The same on other lines.
        (format!("\n{base}"), &[][..]),
        (base.replace("path = '/s'", "path = '/s'\nqueue_events = 5"), &[]),
        (base.replace("/s'", "/s2'"), &["stream"]),
        (base.replace("'t'", "'u'"), &["stream"]),
        (base.replace("{data}", "{event}"), &["stream"]),
        (format!("{base}{}", STREAM.replace("/s", "/third")), &["stream"]),
        (base.replace(&other, ""), &["stream"]),
        (format!("catalog = 'runs'\n{other}{STREAM}{TOPIC}{guard}"), &["stream"]),
        (base.replace("'n'", "'m'"), &["guard"]),
        (base.replace("'p'", "'q'"), &["guard"]),
        (format!("{base}topics = 'a'"), &["guard"]),
        (format!("{base}action = 'mask'"), &["guard"]),
        (format!("{base}action = 'refuse'"), &[]),
        // Written in another way.
        (base.replace("'run:'", "\"run:\""), &[]),
        (base.replace("'run:'", "'run'"), &["topic"]),
        (base.replace("'run:'", "'run:'\nhistory = {}"), &["topic"]),
        (base.replace("'run:'", "'run:'\npolicies = 'conflate'"), &["topic"]),
        (base.replace(TOPIC, ""), &["topic"]),
        (base.replace("'runs'", "['runs', 'projects']"), &["catalog"]),
        (format!("catalog_strict = true\n{base}"), &["catalog_strict"]),
        (
            format!(
                "shards = 63\n{}",
                base.replace("/s'", "/s2'").replace("'n'", "'m'").replace("'run:'", "''")
            ),
            &["shards", "stream", "guard", "topic"],
        ),
    ] {
        let text = format!("max_clients = 5\nmax_history_bytes = '1MiB'\nlog_level = 'debug'\n{text}");
        let new = load_toml(&text).unwrap();
        assert_eq!(before.needs_restart(&new), restart, "{text}");
        let running = before.reloaded(new.clone());
        assert_eq!((running.limits.max_clients, running.limits.max_history_bytes), (5, 1 << 20));
        for setting in SETTINGS {
            assert!(
                (setting.same)(&running, if setting.reloads() { &new } else { &before }),
                "{}",
                setting.key
            );
        }
        assert!(TABLES.iter().all(|table| (table.same)(&running, &before)), "{text}");
        let with = if restart.contains(&"stream") { &before } else { &new };
        assert_eq!(running.limits.streams, with.limits.streams, "{text}");
        assert_eq!(running.limits.streams.len(), 2);
    }
    // Limits that were taken up stay, when streams change afterwards.
    let limits = |text: &str| text.replace("path = '/s'", "path = '/s'\nqueue_events = 5");
    let running = before.reloaded(load_toml(&limits(&base)).unwrap());
    let running = running.reloaded(load_toml(STREAM).unwrap());
    assert_eq!(running.limits.streams[0].queue_events, Some(5));
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
