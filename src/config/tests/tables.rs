//! Arrays of tables: what is read, refused, shown and reloaded of them.

use super::*;

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
                [[topic]]\nprefix = 'a'\nhistory = {}\npolicies = 'drop-newest'\ncompress_above = '1KiB'\n";
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
            compress_above: None,
        },
        Topic { prefix: at("", 6), history: None, policies: None, compress_above: None },
        Topic {
            prefix: at("a", 10),
            history: Some(HistoryLimits { events: 1_000, bytes: 8 << 20, age: Duration::from_secs(600) }),
            policies: words(&["drop-newest"]),
            compress_above: Some(1024),
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
