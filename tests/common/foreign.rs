//! WebSocket clients in other languages, driven over the lines of `tests/e2e/client.mjs`.

use std::process::Command;

use serde_json::{Value, json};

use super::{Dialogue, in_repository, node_script, python_script};

/// A client in another language: `client.mjs` (npm `ws`), `client.py` (Python's `websockets`) or `gorilla` (Go).
pub struct Foreign(Dialogue);

impl Foreign {
    /// Starts one and waits until it is connected.
    pub fn connect(script: &str, url: &str) -> Self {
        let mut command = match script {
            "gorilla" => gorilla(),
            _ if script.ends_with(".py") => python_script(script),
            _ => node_script(script),
        };
        let mut client = Self(Dialogue::start(command.arg(url)));
        assert_eq!(client.next(), json!({"open": true}));
        client
    }

    pub fn tell(&mut self, line: &Value) {
        self.0.tell(&line.to_string());
    }

    pub fn send(&mut self, message: &Value) {
        self.tell(&json!({"send": message.to_string()}));
    }

    /// The next thing that it saw.
    pub fn next(&mut self) -> Value {
        let line = self.0.next_line().expect("the client has ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// The next message, as it was sent.
    pub fn next_text(&mut self) -> String {
        let seen = self.next();
        seen["text"].as_str().unwrap_or_else(|| panic!("no text message, but {seen}")).to_owned()
    }

    pub fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next_text()).unwrap()
    }

    /// Code and reason of the close that comes next.
    pub fn closed(&mut self) -> (u64, String) {
        let seen = self.next();
        let closed = &seen["closed"];
        let code = closed["code"].as_u64().unwrap_or_else(|| panic!("not closed, but {seen}"));
        (code, closed["reason"].as_str().unwrap_or_default().to_owned())
    }
}

/// The client in Go, which `make install-deps` builds.
fn gorilla() -> Command {
    let program = in_repository("tests/e2e/.bin/gorilla");
    assert!(program.is_file(), "{} is missing: run `make install-deps`", program.display());
    Command::new(program)
}
