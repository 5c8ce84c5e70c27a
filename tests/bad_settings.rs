//! A node does not start with settings that are wrong: one clear line for each mistake, wherever it was made.

mod common;

use std::fs;
use std::thread;

use common::{PATIENCE, TempDir, fanwire, run_any};
use fanwire::config::{Group, SETTINGS};

/// Where a mistake stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    File,
    Environment,
    Flag,
}

/// One mistake: its place, the key, the value, and what the line says besides the key.
type Case = (Place, String, String, &'static str);

/// Mistakes in the value of every setting that has bounds, each in one of the three places by turns.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |key: &str, value: &str, says: &'static str| {
        let place = [Place::File, Place::Environment, Place::Flag][cases.len() % 3];
        cases.push((place, key.to_owned(), value.to_owned(), says));
    };
    for setting in SETTINGS {
        let key = setting.key;
        let mistakes: &[(&str, &str)] = match (setting.group, setting.metavar) {
            (Group::Limits, "N") => &[
                ("0", "must be at least 1, not 0"),
                ("-1", "must be at least "),
                ("9223372036854775807", "must be at most "),
                ("many", "a whole number"),
            ],
            (Group::Limits, "SIZE") => &[
                ("0", "must be at least "),
                ("1024GiB1", "unknown unit"),
                ("99999999999999GiB", "must be at most "),
                ("", "is not a size"),
            ],
            (Group::Timeouts, _) => &[
                ("0s", "must be at least "),
                ("-1s", "must not be negative"),
                ("30", "has no unit"),
                ("9999999999h", "must be at most "),
            ],
            _ => &[],
        };
        // Of these 0 is a value: none, or off.
        let may_be_none = [
            "handshakes_per_second",
            "max_patterns_per_client",
            "min_pattern_prefix",
            "latency_budget",
            "drain_delay",
            "drain_spread",
        ]
        .contains(&key);
        let mistakes = mistakes.iter().skip(usize::from(may_be_none));
        mistakes.for_each(|(value, says)| add(key, value, says));
    }
    for (key, value, says) in [
        ("shards", "0", "must be at least 1"),
        ("shards", "65", "must be at most 64"),
        ("shards", "4294967297", "must be at most 64"),
        ("listen", "nowhere", "is not an address"),
        ("listen", "127.0.0.1:65536", "is not an address"),
        ("listen", "0.0.0.0:0", "no operator_token is set"),
        ("publish", "/run/a.sock", "unix:PATH"),
        ("publish", "unix:", "names no path"),
        ("publish", "0.0.0.0:0", "no publish_token is set"),
        ("log_level", "loud", "is not one of"),
        ("log_format", "xml", "is not one of"),
        ("catalog", "/no/such/catalog.toml", "No such file"),
        ("catalog", "no-such-catalog", "no-such-catalog"),
        ("operator_token", "two words", "visible ASCII"),
        ("diagnostics", "2", "true or false"),
        ("insecure", "-1", "true or false"),
    ] {
        for place in [Place::File, Place::Environment, Place::Flag] {
            cases.push((place, key.to_owned(), value.to_owned(), says));
        }
    }
    // Whole files.
    for (file, says) in [
        ("max_client = 9", "unknown key `max_client`; did you mean `max_clients`?"),
        ("max_clients = 9\nmax_clients = 9", ":2: duplicate key"),
        ("max_clients = ", ":1: "),
        ("[limits]\nmax_clients = 9", "unknown table `limits`"),
        ("[[topics]]\nprefix = ''", "unknown table `topics`"),
        ("[[topic]]\nhistory = {}", ":1: "),
        ("[[topic]]\nprefix = ''\nhistory = { events = 0 }", ":3: "),
        ("[[topic]]\nprefix = ''\nhistory = { event = 9 }", ":3: "),
        ("[[topic]]\nprefix = ''\npolicies = ['forget']", ":3: "),
        ("[[topic]]\nprefix = 'a'\n[[topic]]\nprefix = 'a'", ":4: "),
        ("[[stream]]\npath = '/ws'\ntopic = 't'\nenvelope = '{data}'", "/ws"),
        ("[[stream]]\npath = 'x'\ntopic = 't'\nenvelope = '{data}'", ":2: "),
        ("[[stream]]\npath = '/x'\ntopic = '{y}'\nenvelope = '{data}'", "y"),
        ("[[stream]]\npath = '/x'\ntopic = 't'\nenvelope = '{nothing}'", "nothing"),
        ("[[guard]]\nset = 'no-such-set'", "no-such-set"),
        ("[[guard]]\nname = 'g'\npattern = '('", ":3: "),
        ("heartbeat_interval = '9s'\nheartbeat_timeout = '9s'", "heartbeat_timeout (9s) must be longer"),
        ("queue_bytes = '2MiB'\nmax_outbox_bytes = '1MiB'", "must not be above max_outbox_bytes"),
        ("listen = ['127.0.0.1:1', '127.0.0.1:1']", "is twice in listen"),
        ("catalog_strict = true", "catalog"),
        ("\u{1b}[31m = 1", ":1: "),
    ] {
        cases.push((Place::File, String::new(), file.to_owned(), says));
    }
    cases
}

#[test]
fn every_mistake_ends_the_start_with_one_clear_line() {
    let cases = cases();
    assert!(cases.len() >= 100, "{}", cases.len());
    let wrong: Vec<String> = thread::scope(|scope| {
        let parts = cases.chunks(cases.len().div_ceil(4));
        let parts: Vec<_> =
            parts.map(|part| scope.spawn(|| part.iter().filter_map(check).collect::<Vec<_>>())).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Starts a node with one mistake; answers what is wrong with how it ends.
fn check((place, key, value, says): &Case) -> Option<String> {
    let dir = TempDir::new();
    let mut command = fanwire();
    command.current_dir(dir.path()).arg("serve");
    let variable = format!("FANWIRE_{}", key.to_uppercase());
    let names = match place {
        Place::File => {
            let text = if key.is_empty() { format!("{value}\n") } else { format!("\n{key} = '{value}'\n") };
            let plain = value.parse::<i64>().is_ok();
            fs::write(dir.path().join("bad.toml"), if plain { text.replace('\'', "") } else { text })
                .unwrap();
            command.args(["--config", "bad.toml"]);
            "bad.toml:".to_owned()
        }
        Place::Environment => {
            command.env(&variable, value);
            variable
        }
        Place::Flag => {
            let flag = format!("--{}", key.replace('_', "-"));
            command.arg(format!("{flag}={value}"));
            flag
        }
    };
    if key != "listen" && !value.contains("listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    if key != "publish" {
        command.args(["--publish", "127.0.0.1:0"]);
    }
    let (status, stdout, stderr) = run_any(&mut command, PATIENCE);
    let mut wrong = Vec::new();
    if (status.code(), stdout.as_str()) != (Some(1), "") {
        wrong.push("it is not the end with 1".to_owned());
    }
    if stderr.lines().count() != 1 || stderr.trim_end().contains(char::is_control) {
        wrong.push("it is not one line".to_owned());
    }
    let is_in_file = *place == Place::File;
    let parts: [&str; 3] = [says, names.as_str(), if is_in_file { key.as_str() } else { "" }];
    wrong.extend(
        parts.iter().filter(|part| !stderr.contains(**part)).map(|part| format!("{part:?} is not in it")),
    );
    (!wrong.is_empty()).then(|| format!("{place:?} {key} {value:?}: {status}, {wrong:?}\n{stdout}{stderr}"))
}

#[test]
fn a_flag_that_there_is_not_ends_the_start_with_a_clear_first_line() {
    for (flags, says) in [
        (&["--max-client", "9"][..], "error: unexpected argument '--max-client' found"),
        (&["--shards"], "error: a value is required for '--shards <N>'"),
        (&["stray"], "error: unexpected argument 'stray' found"),
        (&["--shards=1", "--shards=2"], "error: the argument '--shards <N>' cannot be used multiple times"),
    ] {
        let (status, stdout, stderr) = run_any(fanwire().arg("serve").args(flags), PATIENCE);
        assert_eq!((status.code(), stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.starts_with(says), "{stderr}");
    }
}

#[test]
fn a_congestion_control_that_the_kernel_does_not_have_is_named() {
    let flags =
        ["serve", "--listen", "127.0.0.1:0", "--publish", "127.0.0.1:0", "--tcp-congestion", "no-such-one"];
    let (status, stdout, stderr) = run_any(fanwire().args(flags), PATIENCE);
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.starts_with("fanwire: tcp_congestion \"no-such-one\": this kernel has none"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
