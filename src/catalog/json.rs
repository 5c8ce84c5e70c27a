//! One JSON text taken apart once, for schemas and guards alike: where each value lies, what it is, whose it is.
//!
//! Strings and numbers stay where they lie in the text: nothing is copied until somebody asks for the characters
//! of a string with escapes. So a guard can mask a match and leave every other byte as it was.

use std::borrow::Cow;

use memchr::memchr2;
use smallvec::SmallVec;

/// How deep arrays and objects may be nested in each other: those who walk a tree by recursion count on it.
pub const MAX_DEPTH: usize = 128;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    /// A number.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// Why a text cannot be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not one RFC 8259 text.
    NotJson,
    /// It is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// It has 4 GiB or more.
    TooLarge,
    /// The object at this JSON pointer has this member name twice: readers differ in which they take.
    Duplicate {
        /// The object.
        pointer: String,
        /// The name, shortened.
        name: String,
    },
}

/// A JSON text taken apart.
#[derive(Debug)]
pub struct Tree<'a> {
    text: &'a str,
    /// In the order of the text: a container stands before what it holds.
    nodes: Vec<Node>,
}

/// A value. Offsets of strings and names exclude their quotes.
#[derive(Debug)]
struct Node {
    kind: Kind,
    /// The string has an escape.
    escaped: bool,
    /// The member name has an escape.
    name_escaped: bool,
    start: u32,
    end: u32,
    /// The member name, where the parent is an object.
    name: (u32, u32),
    parent: u32,
    /// The next value of the same container.
    next: u32,
    /// Values that the container holds.
    count: u32,
}

/// No node.
const NONE: u32 = u32::MAX;

/// One value of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Ref<'a> {
    tree: &'a Tree<'a>,
    index: u32,
}

impl<'a> Tree<'a> {
    /// Takes a text apart that was found to be JSON: of other texts it refuses what it cannot read over, no more. Time
    /// and memory grow with the length alone: 32 bytes for each value.
    ///
    /// # Errors
    /// A [`Fault`].
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        if u32::try_from(text.len()).is_err() {
            return Err(Fault::TooLarge);
        }
        let mut tree = Self { text, nodes: Vec::with_capacity(16) };
        tree.read()?;
        Ok(tree)
    }

    /// The whole.
    pub fn root(&self) -> Ref<'_> {
        Ref { tree: self, index: 0 }
    }

    /// Every value, in the order of the text.
    pub fn all(&self) -> impl Iterator<Item = Ref<'_>> {
        (0..self.nodes.len() as u32).map(|index| Ref { tree: self, index })
    }

    /// Whether any string or member name is written with an escape.
    pub fn has_escapes(&self) -> bool {
        self.nodes.iter().any(|node| node.escaped || node.name_escaped)
    }

    fn read(&mut self) -> Result<(), Fault> {
        let bytes = self.text.as_bytes();
        // The containers that are open, each with the last value in it.
        let mut open: SmallVec<[(u32, u32); 16]> = SmallVec::new();
        let mut at = skip_space(bytes, 0);
        loop {
            let parent = open.last().map_or(NONE, |(container, _)| *container);
            let (mut name, mut name_escaped) = ((0, 0), false);
            if self.nodes.get(parent as usize).is_some_and(|node| node.kind == Kind::Object) {
                let (start, end, escaped) = string_at(bytes, at)?;
                (name, name_escaped) = ((start as u32, end as u32), escaped);
                at = skip_space(bytes, end + 1);
                if bytes.get(at) != Some(&b':') {
                    return Err(Fault::NotJson);
                }
                at = skip_space(bytes, at + 1);
            }
            let (kind, start, end, escaped) = value_at(bytes, at)?;
            let index = self.nodes.len() as u32;
            self.nodes.push(Node {
                kind,
                escaped,
                name_escaped,
                start: start as u32,
                end: end as u32,
                name,
                parent,
                next: NONE,
                count: 0,
            });
            if let Some((container, last)) = open.last_mut() {
                if let Some(previous) = self.nodes.get_mut(*last as usize) {
                    previous.next = index;
                }
                *last = index;
                self.nodes[*container as usize].count += 1;
            }
            at = if kind == Kind::String { end + 1 } else { end };
            if matches!(kind, Kind::Array | Kind::Object) {
                if open.len() == MAX_DEPTH {
                    return Err(Fault::TooDeep);
                }
                open.push((index, NONE));
                at = skip_space(bytes, at);
                let closing = if kind == Kind::Array { b']' } else { b'}' };
                if bytes.get(at) != Some(&closing) {
                    continue;
                }
            }
            // After a value: the ends of containers, then a comma or the end of the text.
            loop {
                at = skip_space(bytes, at);
                let Some((container, _)) = open.last() else {
                    return if at == bytes.len() { Ok(()) } else { Err(Fault::NotJson) };
                };
                let kind = self.nodes[*container as usize].kind;
                match bytes.get(at) {
                    Some(b',') => {
                        at = skip_space(bytes, at + 1);
                        break;
                    }
                    Some(b']') if kind == Kind::Array => {}
                    Some(b'}') if kind == Kind::Object => self.check_names(*container)?,
                    _ => return Err(Fault::NotJson),
                }
                at += 1;
                self.nodes[*container as usize].end = at as u32;
                open.pop();
            }
        }
    }

    /// No two members of an object have the same name.
    fn check_names(&self, object: u32) -> Result<(), Fault> {
        let object = Ref { tree: self, index: object };
        if object.len() < 2 {
            return Ok(());
        }
        let mut names: SmallVec<[Cow<'_, str>; 16]> = SmallVec::new();
        let mut same = None;
        if object.len() <= 16 {
            for member in object.children() {
                let name = member.name().unwrap_or_default();
                if names.contains(&name) {
                    same = Some(name);
                    break;
                }
                names.push(name);
            }
        } else {
            names.extend(object.children().filter_map(|member| member.name()));
            names.sort_unstable();
            same = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone());
        }
        match same {
            Some(name) => Err(Fault::Duplicate { pointer: object.pointer(), name: shorten(&name, SEGMENT) }),
            None => Ok(()),
        }
    }
}

impl<'a> Ref<'a> {
    fn node(self) -> &'a Node {
        &self.tree.nodes[self.index as usize]
    }

    /// Its number, in the order of the text.
    pub fn index(self) -> u32 {
        self.index
    }

    /// A number that no other tree has at the same time.
    pub fn address(self) -> usize {
        std::ptr::from_ref(self.tree).addr()
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// The bytes of the text that it takes, without the quotes of a string.
    pub fn range(self) -> std::ops::Range<usize> {
        self.node().start as usize..self.node().end as usize
    }

    /// As it stands in the text, without the quotes of a string.
    pub fn raw(self) -> &'a str {
        &self.tree.text[self.range()]
    }

    /// The characters of a string, unescaped.
    pub fn string(self) -> Cow<'a, str> {
        if self.node().escaped { unescape(self.raw()) } else { Cow::Borrowed(self.raw()) }
    }

    /// The member name, unescaped, where it is in an object.
    pub fn name(self) -> Option<Cow<'a, str>> {
        let node = self.node();
        if self.tree.nodes.get(node.parent as usize)?.kind != Kind::Object {
            return None;
        }
        let raw = &self.tree.text[node.name.0 as usize..node.name.1 as usize];
        Some(if node.name_escaped { unescape(raw) } else { Cow::Borrowed(raw) })
    }

    /// What holds it.
    pub fn parent(self) -> Option<Self> {
        let index = self.node().parent;
        (index != NONE).then_some(Self { index, ..self })
    }

    /// Whether more than `depth` arrays and objects hold it.
    pub fn is_deeper_than(self, depth: usize) -> bool {
        std::iter::successors(self.parent(), |value| value.parent()).nth(depth).is_some()
    }

    /// Values that it holds.
    pub fn len(self) -> usize {
        self.node().count as usize
    }

    /// Whether it holds nothing.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// What it holds, in order.
    pub fn children(self) -> Children<'a> {
        let next = if self.is_empty() { NONE } else { self.index + 1 };
        Children { tree: self.tree, next }
    }

    /// The member of this name.
    pub fn get(self, name: &str) -> Option<Self> {
        let text = self.tree.text.as_bytes();
        self.children().find(|child| {
            let node = child.node();
            if node.name_escaped {
                child.name().is_some_and(|other| other == name)
            } else {
                text.get(node.name.0 as usize..node.name.1 as usize) == Some(name.as_bytes())
            }
        })
    }

    /// Where it is, as a JSON pointer whose names are shortened; empty for the whole.
    pub fn pointer(self) -> String {
        let mut segments = Vec::new();
        let mut at = self;
        while let Some(parent) = at.parent() {
            segments.push(match at.name() {
                Some(name) => shorten(&name.replace('~', "~0").replace('/', "~1"), SEGMENT),
                None => parent.children().take_while(|child| child.index != at.index).count().to_string(),
            });
            at = parent;
        }
        segments.reverse();
        segments.iter().fold(String::new(), |pointer, segment| pointer + "/" + segment)
    }
}

/// What a container holds, in order.
#[derive(Clone, Debug)]
pub struct Children<'a> {
    tree: &'a Tree<'a>,
    next: u32,
}

impl<'a> Iterator for Children<'a> {
    type Item = Ref<'a>;

    fn next(&mut self) -> Option<Ref<'a>> {
        let found = Ref { tree: self.tree, index: self.next };
        self.next = self.tree.nodes.get(self.next as usize)?.next;
        Some(found)
    }
}

/// The first byte at or after `at` that is no white space.
fn skip_space(bytes: &[u8], at: usize) -> usize {
    let mut at = at;
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Kind, start, end and whether it has escapes, of the value that begins at `at`. A container ends after its
/// opening bracket here: its end is not known yet.
fn value_at(bytes: &[u8], at: usize) -> Result<(Kind, usize, usize, bool), Fault> {
    let word = |word: &[u8], kind| {
        if bytes[at..].starts_with(word) {
            Ok((kind, at, at + word.len(), false))
        } else {
            Err(Fault::NotJson)
        }
    };
    match bytes.get(at) {
        Some(b'{') => Ok((Kind::Object, at, at + 1, false)),
        Some(b'[') => Ok((Kind::Array, at, at + 1, false)),
        Some(b'"') => {
            let (start, end, escaped) = string_at(bytes, at)?;
            Ok((Kind::String, start, end, escaped))
        }
        Some(b'n') => word(b"null", Kind::Null),
        Some(b't') => word(b"true", Kind::True),
        Some(b'f') => word(b"false", Kind::False),
        Some(b'-' | b'0'..=b'9') => {
            let is_part = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
            Ok((Kind::Number, at, at + bytes[at..].iter().take_while(is_part).count(), false))
        }
        _ => Err(Fault::NotJson),
    }
}

/// Start, end (both without quotes) and whether it has escapes, of the string whose opening quote is at `at`.
fn string_at(bytes: &[u8], at: usize) -> Result<(usize, usize, bool), Fault> {
    if bytes.get(at) != Some(&b'"') {
        return Err(Fault::NotJson);
    }
    let (start, mut end, mut escaped) = (at + 1, at + 1, false);
    loop {
        end += memchr2(b'"', b'\\', bytes.get(end..).unwrap_or_default()).ok_or(Fault::NotJson)?;
        if bytes[end] == b'"' {
            return Ok((start, end, escaped));
        }
        escaped = true;
        end += 2;
    }
}

/// The characters of a raw string, each with the bytes that it takes there. Half of a surrogate pair becomes
/// U+FFFD, as most readers have it.
#[derive(Clone, Debug)]
pub struct Characters<'a> {
    rest: &'a str,
}

impl<'a> Characters<'a> {
    /// The characters of what stands between the quotes.
    pub fn of(raw: &'a str) -> Self {
        Self { rest: raw }
    }

    fn unit(text: &str) -> Option<u32> {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    }
}

impl<'a> Iterator for Characters<'a> {
    type Item = (char, &'a str);

    fn next(&mut self) -> Option<(char, &'a str)> {
        let first = self.rest.chars().next()?;
        let (character, taken) = if first != '\\' {
            (first, first.len_utf8())
        } else {
            match self.rest.as_bytes().get(1) {
                Some(b'u') => match Self::unit(self.rest) {
                    Some(high @ 0xd800..=0xdbff) => match self.rest.get(6..).and_then(Self::unit) {
                        Some(low @ 0xdc00..=0xdfff) => {
                            let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                            (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
                        }
                        _ => (char::REPLACEMENT_CHARACTER, 6),
                    },
                    Some(unit) => (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
                    None => (char::REPLACEMENT_CHARACTER, 2),
                },
                Some(b'n') => ('\n', 2),
                Some(b't') => ('\t', 2),
                Some(b'r') => ('\r', 2),
                Some(b'b') => ('\u{8}', 2),
                Some(b'f') => ('\u{c}', 2),
                Some(&byte) if byte.is_ascii() => (char::from(byte), 2),
                // A backslash before what is no escape: not JSON.
                _ => (char::REPLACEMENT_CHARACTER, 1),
            }
        };
        let (raw, rest) = self.rest.split_at_checked(taken)?;
        self.rest = rest;
        Some((character, raw))
    }
}

fn unescape(raw: &str) -> Cow<'_, str> {
    Cow::Owned(Characters::of(raw).map(|(character, _)| character).collect())
}

/// Characters of a member name that a message shows.
const SEGMENT: usize = 48;

/// The beginning of a text of strangers, on one line.
pub fn shorten(text: &str, characters: usize) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(characters).map(visible).collect();
    if text.chars().nth(characters).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_found_where_it_lies() {
        let text =
            " {\"a\" : [1, -2.5e+3 , \"x\\\"y\", {}, []],\"b\\u0063\":{\"d\":null,\"e\":true,\"f\":false}} ";
        let tree = Tree::parse(text).unwrap();
        let found: Vec<_> = tree.all().map(|value| (value.pointer(), value.raw())).collect();
        let expected = [
            ("", text.trim()),
            ("/a", "[1, -2.5e+3 , \"x\\\"y\", {}, []]"),
            ("/a/0", "1"),
            ("/a/1", "-2.5e+3"),
            ("/a/2", "x\\\"y"),
            ("/a/3", "{}"),
            ("/a/4", "[]"),
            ("/bc", "{\"d\":null,\"e\":true,\"f\":false}"),
            ("/bc/d", "null"),
            ("/bc/e", "true"),
            ("/bc/f", "false"),
        ];
        assert_eq!(found, expected.map(|(pointer, raw)| (pointer.to_owned(), raw)));
        assert_eq!(tree.root().get("bc").unwrap().len(), 3);
        assert_eq!(tree.root().get("a").unwrap().children().nth(2).unwrap().string(), "x\"y");
        assert!(tree.has_escapes());
        for scalar in ["1", "\"\"", "null", "1e400"] {
            assert_eq!(Tree::parse(scalar).unwrap().all().count(), 1);
        }
    }

    #[test]
    fn what_it_takes_is_what_serde_json_takes_as_one_text() {
        for bad in [
            "",
            "{",
            "[",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1 2]",
            "1 2",
            "\"",
            "\"\\",
            "nul",
            "]",
            "[}",
            "{]",
        ] {
            assert_eq!(Tree::parse(bad).unwrap_err(), Fault::NotJson, "{bad}");
        }
        let deep = |n| "[".repeat(n) + &"]".repeat(n);
        assert!(Tree::parse(&deep(MAX_DEPTH)).is_ok());
        assert_eq!(Tree::parse(&deep(MAX_DEPTH + 1)).unwrap_err(), Fault::TooDeep);
        assert_eq!(Tree::parse(&"[".repeat(1 << 20)).unwrap_err(), Fault::TooDeep);
    }

    #[test]
    fn a_name_may_stand_once_in_an_object_however_it_is_written() {
        let duplicate = |text: &str| match Tree::parse(text) {
            Err(Fault::Duplicate { pointer, name }) => (pointer, name),
            other => panic!("{other:?}"),
        };
        assert_eq!(duplicate(r#"{"a":1,"b":2,"a":3}"#), (String::new(), "a".into()));
        assert_eq!(duplicate(r#"[{"x":{"a":1,"\u0061":3}}]"#), ("/0/x".into(), "a".into()));
        let many: Vec<_> = (0..40).map(|n| format!("\"k{n}\":0")).collect();
        assert!(Tree::parse(&format!("{{{}}}", many.join(","))).is_ok());
        assert_eq!(duplicate(&format!("{{{},\"k7\":1}}", many.join(","))), (String::new(), "k7".into()));
        assert!(Tree::parse(r#"[{"a":1},{"a":1},{"b":{"a":1}}]"#).is_ok());
    }

    #[test]
    fn escapes_are_read_as_a_reader_would() {
        for (raw, expected) in [
            ("plain", "plain"),
            (r"\u0031\u00e9", "1é"),
            (r"a\n\t\r\b\f\/\\\q", "a\n\t\r\u{8}\u{c}/\\q"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ude00", "\u{fffd}"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\u12", "\u{fffd}12"),
            ("\\é", "\u{fffd}é"),
            ("\\", "\u{fffd}"),
        ] {
            assert_eq!(unescape(raw), expected, "{raw}");
            let pieces: String = Characters::of(raw).map(|(_, raw)| raw).collect();
            assert_eq!(pieces, raw);
        }
    }

    #[test]
    fn pointers_are_short_and_on_one_line() {
        let text = format!("{{\"{}\":{{\"a/b~c\\n\":1}}}}", "n".repeat(500));
        let tree = Tree::parse(&text).unwrap();
        let last = tree.all().last().unwrap();
        assert_eq!(last.pointer(), format!("/{}…/a~1b~0c\u{fffd}", "n".repeat(SEGMENT)));
    }
}
