//! The TypeScript client in `clients/typescript`: its types, the client in Node.js, and the React hook in Chromium, with
//! a real node that goes and comes back.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Dialogue, Node, Signal, TempDir, fanwire, in_repository, nodejs, run, tool};
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

const CATALOG: &str = r#"
name = "shop"
description = "What happens in the shop"
category = [{name = "order", description = "Orders"}]
event = [
  {name = "e-mail", category = "order", description = "Sent", schema = '''{"properties":
    {"to": {"type": "string"}, "none": {"enum": []}, "a_b": {"properties": {"p": {}}}, "aB": {"properties": {"q": {}}}},
    "required": ["to"]}'''},
  {name = "email", category = "order", description = "Sent as well", schema = '{"enum": []}'},
]
"#;

const USE: &str = r#"
import { connect, httpPublisher } from "fanwire-client";
import { createEventHook } from "fanwire-client/react";
import { broadcastEMail, isEMail, shopCategories, type ShopEvents } from "./shop.js";

export const useShop = createEventHook<ShopEvents, typeof shopCategories>(shopCategories);
const client = connect<ShopEvents>();
client.on("e-mail", (event) => event.data.to.trim());
client.onEvent((event) => isEMail(event) && event.data.to.trim());
void broadcastEMail(httpPublisher({ url: "http://127.0.0.1:8080" }), "all", { to: "ada" });
// @ts-expect-error not the data of this event
void broadcastEMail(httpPublisher({ url: "http://127.0.0.1:8080" }), "all", { to: 7 });
"#;

#[test]
fn what_is_made_from_a_users_catalog_goes_with_the_package() {
    build();
    let dir = TempDir::new();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("shop.toml"), CATALOG).unwrap();
    let mut generate = fanwire();
    generate.args(["generate", "typescript", "--out", "src", "--catalog", "shop.toml", "--catalog", "runs"]);
    run(generate.current_dir(dir.path()), PATIENCE);
    fs::write(path("src/use.ts"), USE).unwrap();
    fs::write(path("package.json"), r#"{"type":"module"}"#).unwrap();
    // As it is installed.
    let package = in_repository("clients/typescript");
    fs::create_dir(path("node_modules")).unwrap();
    symlink(&package, path("node_modules/fanwire-client")).unwrap();
    let mut tsc = Command::new(nodejs());
    tsc.arg(package.join("node_modules/typescript/bin/tsc"));
    tsc.args(["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022"]);
    run(tsc.args(["src/use.ts", "src/shop.ts", "src/runs.ts"]).current_dir(dir.path()), PATIENCE);
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
