//! The page at `/`, in Chromium: its buttons, its figures, and what hostile events can do to it (nothing).

mod common;

use std::fs;
use std::time::Duration;

use common::{Node, in_repository, node_script, run};

/// A browser on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn buttons_publish_and_figures_move() {
    let node = Node::start(&["--shards", "2"]);
    let artefacts = in_repository("artefacts");
    fs::create_dir_all(&artefacts).unwrap();
    let picture = artefacts.join("page.png");
    // What is there afterwards is of this run.
    let _ = fs::remove_file(&picture);
    let url = format!("http://{}/", node.http_addr());
    run(node_script("page.mjs").args([&url, "tour"]).arg(&picture), PATIENCE);
    assert!(fs::metadata(&picture).unwrap().len() > 20_000, "the picture is empty");
    let stats = node.wait_stats("the page gone", |stats| stats["connections"] == 0);
    assert_eq!(stats["deliveries"], stats["dispatched"], "nothing was dropped");
}

#[test]
fn nothing_in_an_event_is_executed() {
    let node = Node::start(&[]);
    run(node_script("page.mjs").args([&format!("http://{}/", node.http_addr()), "hostile"]), PATIENCE);
}

#[test]
fn the_page_asks_for_the_token() {
    let node = Node::start(&["--operator-token", "open-sesame"]);
    let url = format!("http://{}/", node.http_addr());
    run(node_script("page.mjs").args([&url, "token", "open-sesame"]), PATIENCE);
}
