//! The page at `/`, in Chromium: its buttons, its figures, and what hostile events can do to it (nothing).

mod common;

use std::fs;
use std::time::Duration;

use common::{Node, PATIENCE as QUICK, WebSocket, http, in_repository, node_script, run, wait_until};
use serde_json::json;

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
fn slow_clients_are_listed_while_there_are_some() {
    let node = Node::start(&["--send-buffer", "16384"]);
    let url = format!("http://{}/", node.http_addr());
    run(node_script("page.mjs").args([&url, "nobody"]), PATIENCE);
    let name = "<img src=x onerror=\"window.owned=1\">";
    let mut client = WebSocket::connect_narrow(node.http_addr(), "/ws");
    let subscribe = json!({"type":"subscribe","topics":["t"],"policy":"drop-oldest","clientId":name});
    client.send_json(&subscribe);
    client.next_json(QUICK);
    let data = json!("x".repeat(10_000));
    wait_until(QUICK, || {
        node.publish(&["t"], "e", &data);
        (node.stats()["dropped"]["drop_oldest"].as_u64() > Some(0)).then_some(())
    })
    .expect("nothing is dropped");
    run(node_script("page.mjs").args([&url, "slow", name]), PATIENCE);
}

#[test]
fn names_of_slow_clients_are_text_whatever_is_in_them() {
    let names = [
        "<script>window.owned=1</script>",
        "<img src=x onerror=window.owned=1>",
        "\"><svg onload=window.owned=1>",
        "</td></tr></tbody></table><iframe srcdoc='<script>parent.owned=1</script>'></iframe>",
        "');window.owned=1;//",
        "javascript:window.owned=1",
        "__proto__",
        "\u{202e}gnp.exe\u{2066}\u{1b}[31m",
    ];
    let node = Node::start(&["--send-buffer", "16384"]);
    let url = format!("http://{}/", node.http_addr());
    let mut clients = Vec::new();
    for name in names {
        let mut client = WebSocket::connect_narrow(node.http_addr(), "/ws");
        // A topic may have no control characters; a client's name may.
        let topic = name.replace('\u{1b}', "");
        client.send_json(
            &json!({"type":"subscribe","topics":["t",topic],"policy":"drop-oldest","clientId":name}),
        );
        assert_eq!(client.next_json(QUICK)["type"], "subscription-ack");
        clients.push(client);
    }
    let data = json!("x".repeat(10_000));
    wait_until(QUICK, || {
        node.publish(&["t"], "e", &data);
        let (_, _, slow) = http(node.http_addr(), "GET", "/api/slow", &[], b"");
        let slow: serde_json::Value = serde_json::from_slice(&slow).unwrap();
        let clients = slow["clients"].as_array().unwrap();
        let behind = clients.iter().filter(|client| client["dropped"]["drop_oldest"].as_u64() > Some(0));
        (behind.count() == names.len()).then_some(())
    })
    .expect("all of them are slow");
    run(node_script("page.mjs").args([&url, "names", &json!(names).to_string()]), PATIENCE);
}

#[test]
fn the_page_asks_for_the_token() {
    let node = Node::start(&["--operator-token", "open-sesame"]);
    let url = format!("http://{}/", node.http_addr());
    run(node_script("page.mjs").args([&url, "token", "open-sesame"]), PATIENCE);
}
