//! The TypeScript client in `clients/typescript`: its types, the client in Node.js, and the React hook in Chromium, with
//! a real node that goes and comes back.

mod common;

use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Dialogue, Node, Signal, in_repository, nodejs, run, tool};
use socket2::{Domain, Socket, Type};

/// A compiler, or a browser, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// A command of npm in the client's directory.
fn npm(script: &str) {
    let directory = in_repository("clients/typescript");
    let installed = directory.join("node_modules/typescript");
    assert!(installed.is_dir(), "{} is missing: run `make install-deps`", installed.display());
    run(Command::new(tool("npm")).args(["run", "--silent", script]).current_dir(directory), PATIENCE);
}

/// What the scripts import is what would be published.
fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| npm("build"));
}

/// Runs a script of the client's tests, and does with the node what it asks for.
fn play(script: &str, flags: &[&str]) {
    build();
    // Bound, never listening: nobody else is given the port while the node is away, and whoever connects is refused.
    let kept = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    kept.set_reuse_address(true).unwrap();
    kept.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let address = kept.local_addr().unwrap().as_socket().unwrap().to_string();
    let flags: Vec<_> = ["--listen", &address].into_iter().chain(flags.iter().copied()).collect();

    let mut node = Some(Node::start(&flags));
    let script = in_repository("clients/typescript/test").join(script);
    let mut actor = Dialogue::start(Command::new(nodejs()).arg(script).arg(&address));
    let deadline = Instant::now() + PATIENCE;
    let mut passed = false;
    while let Some(line) = actor.next_line() {
        assert!(Instant::now() < deadline, "it has not ended within {PATIENCE:?}");
        match line.as_str() {
            // Dropping a node is SIGKILL.
            "kill" => drop(node.take().expect("a node to kill")),
            "terminate" => {
                let node = node.take().expect("a node to end");
                node.signal(Signal::TERM);
                assert!(node.wait_exit(common::PATIENCE).success());
            }
            "start" => assert!(node.replace(Node::start(&flags)).is_none(), "there is a node"),
            "passed" => passed = true,
            _ => continue,
        }
        if !passed {
            actor.tell("done");
        }
    }
    assert!(passed, "the script ended before it was through");
    assert!(actor.wait_exit().success());
}

#[test]
fn types_are_as_they_should_be() {
    build();
    npm("check");
}

#[test]
fn the_client_does_what_it_should_when_the_other_end_misbehaves() {
    build();
    let script = in_repository("clients/typescript/test/unit.test.mjs");
    run(Command::new(nodejs()).arg("--test").arg(script), PATIENCE);
}

#[test]
fn the_client_in_nodejs() {
    play("node.mjs", &["--queue-events", "10"]);
}

#[test]
fn the_client_at_a_nodes_limits() {
    play("limits.mjs", &["--max-topics", "3"]);
}

#[test]
fn the_hook_in_a_browser() {
    play("browser.mjs", &[]);
}
