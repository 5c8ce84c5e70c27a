//! `fanwire bench` from outside: what it measures of a node and of other servers, what it says of it, and that nothing
//! lost goes unnoticed. How fast anything is does not matter here.

mod common;

#[path = "bench/peers.rs"]
mod peers;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use common::{Node, PATIENCE, TempDir, fanwire, in_repository, nodejs, python3, run, run_any, wait_until};
use fanwire::cli::load::STREAM;
use peers::{Broker, Fault, Speech};
use rustix::process::{Pid, Signal};
use serde_json::Value;

/// For a whole run, on a busy machine.
const LONG: Duration = Duration::from_secs(180);

/// Short stretches, and no warm-up.
const SHORT: [&str; 4] = ["--secs", "0.4", "--warm-up", "0"];

fn bench(arguments: &[&str]) -> (ExitStatus, String, String) {
    run_any(fanwire().arg("bench").args(arguments), LONG)
}

/// The figures of a run that must end well.
fn figures(arguments: &[&str]) -> Value {
    let (status, stdout, stderr) = bench(&[arguments, &["--json", "-"]].concat());
    assert!(status.success(), "{arguments:?}: {status}\n{stdout}\n{stderr}");
    parse(&stdout)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn count(figures: &Value, field: &str) -> u64 {
    figures[field].as_u64().unwrap_or_else(|| panic!("no {field} in {figures:#}"))
}

fn number(figures: &Value, pointer: &str) -> f64 {
    let figure = figures.pointer(pointer).and_then(Value::as_f64);
    figure.unwrap_or_else(|| panic!("no {pointer} in {figures:#}"))
}

/// Every event reached every subscriber of its topic once, and what is said of it adds up.
fn check_complete(figures: &Value, subscribers: u64) {
    for field in ["lost", "repeated", "reordered", "closed"] {
        assert_eq!(count(figures, field), 0, "{field} in {figures:#}");
    }
    let topics = count(figures, "topics");
    let published = count(figures, "published");
    assert!(published > 0, "{figures:#}");
    assert_eq!(subscribers % topics, 0, "the same number of each topic");
    assert_eq!(count(figures, "deliveries"), published * subscribers / topics, "{figures:#}");
    assert!(number(figures, "/deliveries_per_sec") > 0.0);
    let latency =
        ["p50", "p90", "p99", "p999", "max"].map(|name| number(figures, &format!("/latency_ms/{name}")));
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{latency:?}");
    let points: Vec<(f64, f64)> = serde_json::from_value(figures["latency_cdf"].clone()).unwrap();
    assert!(points.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1), "{points:?}");
    let last = points.last().unwrap();
    assert_eq!(last.1, 1.0, "the last point is everything");
    assert_eq!(last.0, latency[4], "the last point is the maximum");
    assert!(number(figures, "/generator/deliveries_per_read") > 0.0);
    assert!(number(figures, "/generator/lateness_ms") >= 0.0);
}

fn check_server_known(figures: &Value) {
    assert!(number(figures, "/server/cpu_percent") > 0.0, "{figures:#}");
    assert!(number(figures, "/server/rss_bytes") > 1e6, "{figures:#}");
    assert!(number(figures, "/foreign_cpu_percent") >= 0.0, "{figures:#}");
}

// Scenarios ---------------------------------------------------------------------------------------------------------

#[test]
fn a_fanout_is_complete_in_every_dialect() {
    for dialect in ["json", "path", "sse"] {
        let arguments = ["fanout", "--subscribers", "20", "--rate", "200", "--dialect", dialect];
        let figures = figures(&[&arguments[..], &SHORT].concat());
        check_complete(&figures, 20);
        check_server_known(&figures);
        assert!(number(&figures, "/server/cpu_us_per_delivery") > 0.0);
        assert_eq!(figures["scenario"], "fanout");
        assert_eq!(figures["peer"], "fanwire");
        assert_eq!(figures["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(number(&figures, "/rate"), 200.0);
        assert_eq!(number(&figures, "/secs"), 0.4);
        for none in ["handshakes_per_sec", "capacity_rate", "disturbance"] {
            assert!(figures[none].is_null(), "{none} in {figures:#}");
        }
    }
}

#[test]
fn many_topics_and_larger_events_are_complete() {
    let arguments = ["topics", "--topics", "10", "--subscribers", "30", "--rate", "500", "--bytes", "3000"];
    let figures = figures(&[&arguments[..], &SHORT].concat());
    assert_eq!(count(&figures, "topics"), 10);
    // Not the same number of events of each topic: what is published is not a multiple of them.
    for field in ["lost", "repeated", "reordered", "closed"] {
        assert_eq!(count(&figures, field), 0, "{field} in {figures:#}");
    }
    assert_eq!(count(&figures, "deliveries"), 3 * count(&figures, "published"), "{figures:#}");
}

#[test]
fn a_capacity_is_found() {
    let arguments = ["capacity", "--subscribers", "4", "--rate", "5000", "--secs", "0.2", "--warm-up", "0"];
    let figures = figures(&[&arguments[..], &["--p99", "5000"]].concat());
    check_complete(&figures, 4);
    check_server_known(&figures);
    assert!(number(&figures, "/capacity_rate") > 0.0);
    assert_eq!(figures["rate"], figures["capacity_rate"]);
    assert!(number(&figures, "/latency_ms/p99") < 5000.0);
}

#[test]
fn where_no_rate_passes_the_search_says_so() {
    let arguments = ["capacity", "--subscribers", "2", "--rate", "2", "--secs", "0.2", "--p99", "0.000001"];
    let (status, _, stderr) = bench(&arguments);
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("no rate passed, down to 1 events/s"), "{stderr}");
}

#[test]
fn idle_connections_are_counted_and_weighed() {
    let figures = figures(&["idle", "--subscribers", "400", "--topics", "40", "--secs", "0.2"]);
    check_server_known_but_idle(&figures);
    assert!(number(&figures, "/handshakes_per_sec") > 0.0);
    assert!(number(&figures, "/server/rss_bytes_per_connection") > 0.0);
    assert_eq!(count(&figures, "closed"), 0);
    for none in ["rate", "published", "deliveries", "latency_ms", "latency_cdf", "lost"] {
        assert!(figures[none].is_null(), "{none} in {figures:#}");
    }
}

fn check_server_known_but_idle(figures: &Value) {
    assert!(number(figures, "/server/cpu_percent") >= 0.0);
    assert!(number(figures, "/server/rss_bytes") > 1e6);
}

#[test]
fn a_storm_is_survived_and_counted() {
    let figures = figures(&["storm", "--subscribers", "10", "--storm", "50", "--secs", "1"]);
    check_complete(&figures, 10);
    assert!(number(&figures, "/handshakes_per_sec") > 0.0);
    assert!(number(&figures, "/disturbance/connections") > 0.0);
    assert_eq!(number(&figures, "/disturbance/refused"), 0.0);
    assert!(figures["server"]["cpu_us_per_delivery"].is_null(), "others were served as well");
}

/// Of large events what the kernel keeps is soon full: those who do not read are closed, and nobody else.
#[test]
fn slow_readers_are_closed_and_counted_and_harm_nobody() {
    let arguments = ["slow", "--subscribers", "10", "--slow", "5", "--rate", "150", "--bytes", "60000"];
    let figures = figures(&[&arguments[..], &["--secs", "1"]].concat());
    check_complete(&figures, 10);
    assert_eq!(number(&figures, "/disturbance/connections"), 5.0);
    assert_eq!(number(&figures, "/disturbance/closed"), 5.0, "{figures:#}");
}

#[test]
fn a_node_that_runs_is_measured_by_its_number() {
    let node = Node::start_with_file(STREAM, &[]);
    let (to, publish) = (format!("http://{}", node.http_addr()), node.publish_addr().to_string());
    let pid = node.pid().to_string();
    for dialect in ["json", "path"] {
        let arguments =
            ["fanout", "--to", &to, "--publish", &publish, "--dialect", dialect, "--subscribers", "5"];
        let unknown = figures(&[&arguments[..], &SHORT].concat());
        check_complete(&unknown, 5);
        for none in ["/server/cpu_percent", "/server/rss_bytes", "/version", "/foreign_cpu_percent"] {
            assert!(unknown.pointer(none).is_some_and(Value::is_null), "{none} in {unknown:#}");
        }
        let known = figures(&[&arguments[..], &SHORT, &["--pid", &pid, "--peer-version", "mine"]].concat());
        check_complete(&known, 5);
        check_server_known(&known);
        assert_eq!(known["version"], "mine");
    }
    assert_eq!(node.try_exit(), None, "it is not ours to end");
}

// What is written ---------------------------------------------------------------------------------------------------

/// The fields of a run are those of the document, in the example and in the table.
#[test]
fn the_fields_are_the_documented_ones() {
    let page = fs::read_to_string(in_repository("docs/bench.md")).unwrap();
    let names = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let example = parse(example);
    let figures = figures(&[&["fanout", "--subscribers", "2"][..], &SHORT].concat());
    assert_eq!(names(&figures), names(&example));
    for part in ["latency_ms", "server", "generator"] {
        assert_eq!(names(&figures[part]), names(&example[part]), "{part}");
    }
    let table = page.split("\n## JSON\n").nth(1).unwrap();
    for name in names(&figures) {
        assert!(table.contains(&format!("`{name}`")), "{name} is not in the table");
    }
    // As they stand in the agreement with those who script it.
    for field in [
        "scenario",
        "peer",
        "version",
        "subscribers",
        "topics",
        "rate",
        "secs",
        "published",
        "deliveries",
        "deliveries_per_sec",
        "lost",
        "repeated",
        "reordered",
        "closed",
        "latency_ms",
        "latency_cdf",
        "server",
        "generator",
        "foreign_cpu_percent",
        "handshakes_per_sec",
        "capacity_rate",
    ] {
        assert!(figures.get(field).is_some(), "{field}");
    }
}

#[test]
fn a_sweep_is_an_array_a_table_and_plots() {
    let dir = TempDir::new();
    let (json, plots) = (dir.path().join("figures.json"), dir.path().join("new/plots"));
    let paths = [json.to_str().unwrap(), plots.to_str().unwrap()];
    let arguments =
        ["fanout", "--subscribers", "2,6", "--rate", "200", "--json", paths[0], "--plot", paths[1]];
    let (status, stdout, stderr) = bench(&[&arguments[..], &SHORT].concat());
    assert!(status.success(), "{stdout}\n{stderr}");
    let runs = parse(&fs::read_to_string(&json).unwrap());
    let runs = runs.as_array().unwrap();
    assert_eq!(runs.len(), 2);
    check_complete(&runs[0], 2);
    check_complete(&runs[1], 6);
    let rows: Vec<&str> = stdout.lines().collect();
    assert!(
        rows[0].contains("deliveries/s")
            && rows[1].trim().starts_with('2')
            && rows[2].trim().starts_with('6')
    );
    check_svg(&plots, &["latency.svg", "deliveries.svg", "cpu.svg"]);
    let latency = fs::read_to_string(plots.join("latency.svg")).unwrap();
    assert!(latency.contains("2 subscribers") && latency.contains("6 subscribers"), "a legend");
}

#[test]
fn latency_budgets_are_a_run_each_and_what_they_save_is_drawn() {
    let dir = TempDir::new();
    let (json, plots) = (dir.path().join("figures.json"), dir.path().join("plots"));
    let paths = [json.to_str().unwrap(), plots.to_str().unwrap()];
    let arguments = ["fanout", "--subscribers", "2,6", "--rate", "200", "--latency-budget", "0ms,5ms"];
    let files = ["--json", paths[0], "--plot", paths[1]];
    let (status, stdout, stderr) = bench(&[&arguments[..], &files, &SHORT].concat());
    assert!(status.success(), "{stdout}\n{stderr}");
    let runs = parse(&fs::read_to_string(&json).unwrap());
    let runs: Vec<_> = runs.as_array().unwrap().iter().collect();
    let variant = |run: &&Value| (run["subscribers"].as_u64(), run["latency_budget_ms"].as_f64());
    let variants: Vec<_> = runs.iter().map(variant).collect();
    assert_eq!(variants, [(2, 0.0), (2, 5.0), (6, 0.0), (6, 5.0)].map(|(n, ms)| (Some(n), Some(ms))));
    // The node holds events back as it was told: the first of those that wait together waits that long.
    for run in runs {
        let least = run["latency_budget_ms"].as_f64().unwrap();
        assert!(run["latency_ms"]["max"].as_f64().unwrap() >= least, "{run}");
    }
    assert!(stdout.lines().next().is_some_and(|head| head.contains("budget ms")), "{stdout}");
    check_svg(&plots, &["latency.svg", "deliveries.svg", "cpu.svg", "budget.svg"]);
    let budget = fs::read_to_string(plots.join("budget.svg")).unwrap();
    for word in ["2 subscribers", "6 subscribers", "5 ms"] {
        assert!(budget.contains(word), "{word} in the plot");
    }
    let (status, _, stderr) = bench(&["--to", "127.0.0.1:1", "--latency-budget", "5ms"]);
    assert_eq!((status.code(), stderr.contains("--latency-budget")), (Some(2), true), "{stderr}");
}

#[test]
fn without_a_scenario_it_says_what_there_is_and_does_something_short() {
    let dir = TempDir::new();
    let plots = dir.path().to_str().unwrap();
    let (status, stdout, stderr) = bench(&[&SHORT[..], &["--subscribers", "3", "--plot", plots]].concat());
    assert!(status.success(), "{stdout}\n{stderr}");
    for scenario in ["fanout", "topics", "capacity", "idle", "storm", "slow"] {
        assert!(stdout.lines().any(|line| line.trim().starts_with(scenario)), "{scenario} in {stdout}");
    }
    assert!(stdout.contains("fanout: fanwire") && stdout.contains("3 subscribers over 1 topic"), "{stdout}");
    for word in ["published", "delivered", "lost", "latency", "server", "generator"] {
        assert!(stdout.lines().any(|line| line.trim().starts_with(word)), "{word} in {stdout}");
    }
    // Nobody looks: no bar is drawn.
    assert_eq!(stderr, "");
    check_svg(dir.path(), &["latency.svg"]);
}

fn check_svg(dir: &Path, names: &[&str]) {
    let found: BTreeSet<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, names.iter().map(|name| (*name).to_owned()).collect());
    let check = "import sys, xml.dom.minidom as dom\n\
                 for file in sys.argv[1:]:\n\
                 \x20   root = dom.parse(file).documentElement\n\
                 \x20   assert root.tagName == 'svg', root.tagName\n\
                 \x20   assert len(root.getElementsByTagName('polyline')) > 0, file\n\
                 \x20   assert len(root.getElementsByTagName('text')) > 4, file\n";
    run(Command::new(python3()).args(["-c", check]).args(names.iter().map(|name| dir.join(name))), PATIENCE);
}

// Servers that do not do as they should -----------------------------------------------------------------------------

/// What a faulty server did is counted to the delivery, named, and the end is 3.
#[test]
fn whatever_a_server_does_wrong_is_counted_and_named() {
    for (fault, field, word) in [
        (Fault::Drop, "lost", "lost"),
        (Fault::Repeat, "repeated", "repeated"),
        (Fault::Swap, "reordered", "out of order"),
        (Fault::OtherTopic, "reordered", "of another topic"),
    ] {
        let broker = Broker::start(Speech::Ws, Some(fault));
        let to = broker.addr.to_string();
        let arguments = ["fanout", "--peer", "ws", "--to", &to, "--subscribers", "4", "--rate", "300"];
        let arguments = [&arguments[..], &SHORT, &["--patience", "2", "--json", "-"]].concat();
        let (status, stdout, stderr) = bench(&arguments);
        assert_eq!(status.code(), Some(3), "{fault:?}: {stdout}\n{stderr}");
        let figures = parse(&stdout);
        assert!(broker.faults() > 0, "{fault:?}");
        assert_eq!(count(&figures, field), broker.faults(), "{fault:?}: {figures:#}");
        let line = stderr.lines().find(|line| line.starts_with("fanwire: fanout with 4 subscribers: "));
        assert!(line.is_some_and(|line| line.contains(word)), "{fault:?}: {stderr}");
        let missing = match fault {
            Fault::Drop | Fault::OtherTopic => broker.faults(),
            // What waits for the next one when there is none.
            Fault::Swap => broker.held(),
            _ => 0,
        };
        assert_eq!(count(&figures, "lost"), missing, "{fault:?}: {figures:#}");
        let expected = count(&figures, "published") * 4;
        assert_eq!(count(&figures, "deliveries") + missing, expected, "{fault:?}: {figures:#}");
    }
}

#[test]
fn a_server_that_closes_is_named() {
    let broker = Broker::start(Speech::Ws, Some(Fault::Close));
    let to = broker.addr.to_string();
    let arguments = ["fanout", "--peer", "ws", "--to", &to, "--subscribers", "4", "--rate", "300"];
    let arguments = [&arguments[..], &SHORT, &["--patience", "1", "--json", "-"]].concat();
    let (status, stdout, stderr) = bench(&arguments);
    assert_eq!(status.code(), Some(3), "{stdout}\n{stderr}");
    let figures = parse(&stdout);
    assert_eq!(count(&figures, "closed"), broker.faults());
    assert!(count(&figures, "lost") > 0, "{figures:#}");
    assert!(stderr.contains("connections closed by the server"), "{stderr}");
}

#[test]
fn a_publisher_that_is_refused_is_named() {
    let broker = Broker::start(Speech::Http, Some(Fault::Refuse));
    let to = broker.addr.to_string();
    let arguments = ["fanout", "--peer", "http", "--to", &to, "--subscribers", "2"];
    let (status, _, stderr) = bench(&[&arguments[..], &SHORT].concat());
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("the server refused an event: 413"), "{stderr}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let node = Node::start(&[]);
    let http = node.http_addr().to_string();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let publish = node.publish_addr().to_string();
    for (arguments, code, expected) in [
        (&["fanout", "--peer", "ws"][..], 1, "say with --to where the peer listens"),
        (&["fanout", "--to", &nobody, "--publish", &nobody], 1, "Connection refused"),
        (&["fanout", "--to", &http, "--publish", "unix:"], 1, "unix: needs a path"),
        (&["fanout", "--to", "https://x"], 1, "https is not spoken here"),
        (&["fanout", "--to", &http, "--publish", &publish, "--dialect", "path"], 1, "404"),
        (&["fanout", "--peer", "mqtt", "--dialect", "sse", "--to", &http], 1, "--dialect is of Fanwire"),
        (&["fanout", "--to", &http, "--server-cpu", "0"], 1, "--server-cpu is for a server"),
        (&["topics", "--subscribers", "5"], 1, "1000 topics for 5 subscribers: every topic needs one"),
        (&["fanout", "--generator-cpu", "1000"], 1, "processor [1000] cannot be had"),
        (&["fanout", "--", "--no-such-flag"], 1, "--no-such-flag"),
        (&["fanout", "--rate", "0"], 2, "must be a number above 0"),
        (&["fanout", "--subscribers", "0"], 2, "0 is not in 1"),
        (&["fanout", "--publish", "unix:/x"], 2, "--to"),
        (&["nothing"], 2, "possible values"),
    ] {
        let (status, stdout, stderr) = bench(arguments);
        assert_eq!(status.code(), Some(code), "{arguments:?}: {stdout}\n{stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_server_that_does_not_come_up_is_said() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (status, _, stderr) =
        bench(&["fanout", "--peer", "ws", "--to", &nobody, "--server", "sh -c 'exit 7'"]);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("the server ended with exit status: 7 before it listened"), "{stderr}");
}

// Peers -------------------------------------------------------------------------------------------------------------

/// Each protocol against a small speaker of it.
#[test]
fn every_peers_protocol_is_spoken() {
    for (name, speech) in [
        ("ws", Speech::Ws),
        ("socketio", Speech::SocketIo),
        ("nats", Speech::Nats),
        ("mqtt", Speech::Mqtt),
        ("http", Speech::Http),
    ] {
        let broker = Broker::start(speech, None);
        let to = broker.addr.to_string();
        let arguments = ["topics", "--topics", "3", "--subscribers", "6", "--rate", "300", "--peer", name];
        let figures = figures(&[&arguments[..], &["--to", &to], &SHORT].concat());
        assert_eq!(figures["peer"], name);
        for field in ["lost", "repeated", "reordered", "closed"] {
            assert_eq!(count(&figures, field), 0, "{name}: {field} in {figures:#}");
        }
        assert!(count(&figures, "published") > 0);
        assert_eq!(count(&figures, "deliveries"), 2 * count(&figures, "published"), "{name}: {figures:#}");
        let idle = bench(&["idle", "--peer", name, "--to", &to, "--subscribers", "3", "--secs", "0.1"]);
        assert!(idle.0.success(), "{name}: {idle:?}");
    }
}

/// A real server, npm `ws`, as a child of the tool: measured, and ended with it.
#[test]
fn a_server_of_npm_ws_is_started_measured_and_ended() {
    let packages = in_repository("tests/e2e/node_modules/ws");
    assert!(packages.is_dir(), "{} is missing: run `make install-deps`", packages.display());
    // Free a moment ago: a test that finds it taken fails and tells so.
    let to = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server =
        format!("{} {} {}", nodejs().display(), in_repository("tests/e2e/fanout.mjs").display(), to.port());
    let to = to.to_string();
    let arguments = ["fanout", "--peer", "ws", "--to", &to, "--server", &server, "--subscribers", "20"];
    let figures = figures(&[&arguments[..], &SHORT, &["--peer-version", "8"]].concat());
    check_complete(&figures, 20);
    check_server_known(&figures);
    assert!(number(&figures, "/server/cpu_us_per_delivery") > 0.0);
    assert_eq!((figures["peer"].as_str(), figures["version"].as_str()), (Some("ws"), Some("8")));
    assert!(std::net::TcpStream::connect(&to).is_err(), "the server is still there");
}

// The end -----------------------------------------------------------------------------------------------------------

#[test]
fn ctrl_c_ends_it_with_its_node() {
    let mut command = fanwire();
    let dir = TempDir::new();
    command.args(["bench", "fanout", "--subscribers", "3", "--secs", "600", "--json", "-"]);
    command.env("TMPDIR", dir.path());
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let node = wait_until(PATIENCE, || children(pid).first().copied()).expect("it starts a node");
    rustix::process::kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = wait_until(PATIENCE, || child.try_wait().unwrap()).expect("it ends");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted"), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(!Path::new(&format!("/proc/{node}")).exists(), "its node is still there");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves files behind");
}

/// What it has started, by the second field after the name in `/proc/*/stat`.
fn children(pid: u32) -> Vec<u32> {
    let is_child = |other: &u32| {
        let stat = fs::read_to_string(format!("/proc/{other}/stat")).unwrap_or_default();
        let parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        parent == Some(pid)
    };
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(is_child).collect()
}
