//! An event stream as a browser reads it (WHATWG HTML, "Interpreting an event stream"), but strict: what a browser
//! passes over in silence is a failure here. Simple, and nobody's but the simulation's.

use std::collections::VecDeque;

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Event {
        name: String,
        data: String,
    },
    /// What follows the colon.
    Comment(String),
    Retry(u64),
}

/// Takes a stream's bytes apart.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed now belongs to it.
    is_after_return: bool,
    name: Option<String>,
    data: Option<String>,
    items: VecDeque<Item>,
}

impl Parser {
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let was_after_return = std::mem::replace(&mut self.is_after_return, *byte == b'\r');
            match byte {
                b'\n' if was_after_return => {}
                b'\n' | b'\r' => self.end_line(),
                byte => self.line.push(*byte),
            }
        }
    }

    /// Whether an event or a line has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        !self.line.is_empty() || self.name.is_some() || self.data.is_some()
    }

    pub fn next(&mut self) -> Option<Item> {
        self.items.pop_front()
    }

    fn end_line(&mut self) {
        let line = String::from_utf8(std::mem::take(&mut self.line)).expect("a line is UTF-8");
        let is_between = self.name.is_none() && self.data.is_none();
        if line.is_empty() {
            match (self.name.take(), self.data.take()) {
                (None, None) => {} // The end of a comment or of a `retry`.
                (Some(name), Some(data)) => self.items.push_back(Item::Event { name, data }),
                halves => panic!("half an event: {halves:?}"),
            }
            return;
        }
        let Some((field, value)) = line.split_once(':') else { panic!("a line without a colon: {line:?}") };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => {
                assert!(is_between, "the comment {value:?} stands inside an event");
                self.items.push_back(Item::Comment(value.to_owned()));
            }
            "event" => {
                assert!(is_between, "a second name or a name behind data: {value:?}");
                self.name = Some(value.to_owned());
            }
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            "retry" => {
                assert!(is_between, "a retry stands inside an event");
                self.items.push_back(Item::Retry(value.parse().expect("digits")));
            }
            other => panic!("the field {other:?}"),
        }
    }
}

#[test]
fn the_parser_reads_as_a_browser_does() {
    let text = ": hi\n\nevent: a\ndata: 1\ndata:  2\r\n\r\nevent:b\rdata:{\"x\":\r\ndata: 3}\r\rretry: 500\n\n:bye\n\n";
    for size in 1..text.len() {
        let mut parser = Parser::default();
        text.as_bytes().chunks(size).for_each(|piece| parser.push(piece));
        let event = |name: &str, data: &str| Item::Event { name: name.into(), data: data.into() };
        let expected = [
            Item::Comment("hi".into()),
            event("a", "1\n 2"),
            event("b", "{\"x\":\n3}"),
            Item::Retry(500),
            Item::Comment("bye".into()),
        ];
        let items: Vec<Item> = std::iter::from_fn(|| parser.next()).collect();
        assert_eq!(items, expected, "in pieces of {size}");
        assert!(!parser.is_partial());
    }
}
