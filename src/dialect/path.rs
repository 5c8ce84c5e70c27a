//! Path streams (`docs/path-streams.md`): a client subscribes by connecting to a path, and what it gets has
//! the shape of a configured envelope.
//!
//! The paths are compiled here, and looked up when somebody connects. What the stream's clients send means
//! nothing; events are written by the envelope.

use std::borrow::Cow;
use std::sync::Arc;

use crate::dialect::command::check_topic;
use crate::dialect::envelope::{Envelope, Envelopes, Values, write_json_escaped};
use crate::dialect::template::{self, Source, Template};
use crate::proto::http1::decode_path_segment;
use crate::proto::websocket::{Opcode, write_frame};

/// A stream as it was configured.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a> {
    /// The path, with its variables: `/runs/{runId}/stream`.
    pub path: &'a str,
    /// The topic, with variables of the path: `run:{runId}`.
    pub topic: &'a str,
    /// The template.
    pub envelope: &'a str,
}

/// What of a definition is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The path.
    Path,
    /// The topic.
    Topic,
    /// The envelope.
    Envelope,
}

/// One mistake in the definitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The place of the stream in the list.
    pub stream: usize,
    /// What is wrong.
    pub field: Field,
    /// Why, and what was expected.
    pub message: String,
}

/// The streams of a node, in the order of the settings: the first whose path fits serves a request.
#[derive(Debug, Default)]
pub struct Streams(Vec<Stream>);

#[derive(Debug)]
struct Stream {
    path: Vec<Piece>,
    topic: Vec<Piece>,
    sources: Vec<Source>,
    envelopes: Numbers,
}

/// A segment of a path, or a part of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// The variable with this number.
    Variable(usize),
}

/// The numbers of a stream's envelopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// A WebSocket message for each event.
    pub message: u16,
    /// Lines that share messages: `?batch=ndjson`.
    pub lines: u16,
    /// Server-Sent Events.
    pub event_stream: u16,
}

/// What a request's path subscribes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The place of the stream in the settings.
    pub stream: u16,
    /// Its envelopes.
    pub envelopes: Numbers,
    /// The topic, checked.
    pub topic: String,
    /// What the envelope takes from the path.
    pub values: Option<Values>,
}

/// Bytes of a path that is configured at most.
const MAX_PATH_BYTES: usize = 1024;

impl Streams {
    /// Compiles the definitions and adds their envelopes. `own` are paths that the node serves itself, which no
    /// stream may take.
    ///
    /// # Errors
    /// Every mistake.
    pub fn compile<'a>(
        definitions: impl IntoIterator<Item = Definition<'a>>,
        own: &[&str],
        envelopes: &mut Envelopes,
    ) -> Result<Self, Vec<Mistake>> {
        let (mut streams, mut mistakes) = (Vec::<Stream>::new(), Vec::new());
        for (number, definition) in definitions.into_iter().enumerate() {
            let mut fault = |field, message| mistakes.push(Mistake { stream: number, field, message });
            let mut variables = Vec::new();
            let path = match parse_path(definition.path, &mut variables) {
                Ok(path) => path,
                Err(message) => {
                    // Without its variables nothing can be said of the rest.
                    fault(Field::Path, message);
                    continue;
                }
            };
            if let Some(taken) = own.iter().find(|own| fits(&path, &segments_of(own))) {
                fault(Field::Path, format!("it would take {taken}, which the node serves itself"));
            }
            let is_same = |(one, other): (&Piece, &Piece)| match (one, other) {
                (Piece::Literal(one), Piece::Literal(other)) => one == other,
                (Piece::Variable(_), Piece::Variable(_)) => true,
                _ => false,
            };
            let is_like =
                |other: &Stream| other.path.len() == path.len() && other.path.iter().zip(&path).all(is_same);
            if let Some(earlier) = streams.iter().position(is_like) {
                fault(Field::Path, format!("stream {} has this path already", earlier + 1));
            }
            let topic = parse_topic(definition.topic, &variables);
            let template = template::compile(definition.envelope, &variables);
            if let (Ok(topic), Ok(template)) = (&topic, &template) {
                let touch = |pair: &[Piece]| matches!(pair, [Piece::Variable(_), Piece::Variable(_)]);
                if takes_several(topic, &template.used) && topic.windows(2).any(touch) {
                    fault(
                        Field::Topic,
                        "two variables touch: which is which could not be told; write something between them"
                            .to_owned(),
                    );
                }
                for source in &template.used {
                    if let Source::Variable(variable) = source
                        && !topic.contains(&Piece::Variable(*variable))
                    {
                        let name = &variables[*variable];
                        fault(
                            Field::Envelope,
                            format!(
                                "{{{name}}} is in the envelope and not in the topic: each event would be \
                                 written anew for every {name}; put it into the topic too"
                            ),
                        );
                    }
                }
            }
            if let Err(message) = &topic {
                fault(Field::Topic, message.clone());
            }
            if let Err(message) = &template {
                fault(Field::Envelope, message.clone());
            }
            let (Ok(topic), Ok(Template { parts, used })) = (topic, template) else { continue };
            let envelopes = Numbers {
                message: envelopes.add(Envelope::web_socket(parts.clone())),
                lines: envelopes.add(Envelope::lines(parts.clone())),
                event_stream: envelopes.add(Envelope::event_stream(parts)),
            };
            streams.push(Stream { path, topic, sources: used, envelopes });
        }
        if mistakes.is_empty() { Ok(Self(streams)) } else { Err(mistakes) }
    }

    /// The stream that a raw path asks for; `None` where it is none's.
    ///
    /// # Errors
    /// What is wrong with a variable of it.
    pub fn find(&self, path: &str) -> Option<Result<Found, String>> {
        let segments = segments_of(path);
        let number = self.0.iter().position(|stream| fits(&stream.path, &segments))?;
        Some(self.0[number].open(number, &segments))
    }
}

impl Stream {
    fn open(&self, number: usize, segments: &[&str]) -> Result<Found, String> {
        let mut values = Vec::new();
        for (piece, segment) in self.path.iter().zip(segments) {
            if let Piece::Variable(_) = piece {
                let value = decode_path_segment(segment).map_err(|error| error.message)?;
                if value.is_empty() {
                    return Err("a variable of the path is empty".to_owned());
                }
                values.push(value);
            }
        }
        let topic: String = self
            .topic
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text,
                Piece::Variable(variable) => &*values[*variable],
            })
            .collect();
        check_topic(&topic)?;
        self.check_values(&values)?;
        let escaped = |source: &Source| {
            let mut text = Vec::new();
            match source {
                Source::Variable(variable) => write_json_escaped(&mut text, &values[*variable]),
                Source::Topic => write_json_escaped(&mut text, &topic),
            }
            // Escaping leaves UTF-8 as it is and adds ASCII.
            String::from_utf8(text).unwrap_or_default().into_boxed_str()
        };
        let values = (!self.sources.is_empty()).then(|| Arc::new(self.sources.iter().map(escaped).collect()));
        Ok(Found { stream: number as u16, envelopes: self.envelopes, topic, values })
    }
}

impl Stream {
    /// The values must follow from the topic, so that all of its subscribers get the same bytes: where the topic
    /// has several, each ends where what stands behind it first occurs.
    fn check_values(&self, values: &[Cow<'_, str>]) -> Result<(), String> {
        if !takes_several(&self.topic, &self.sources) {
            return Ok(());
        }
        for pair in self.topic.windows(2) {
            if let [Piece::Variable(variable), Piece::Literal(next)] = pair {
                let value = &*values[*variable];
                if format!("{value}{next}").find(&**next) != Some(value.len()) {
                    return Err(format!("{value:?} holds {next:?}, which ends it in the topic"));
                }
            }
        }
        Ok(())
    }
}

/// Whether an envelope takes variables of a topic that has several.
fn takes_several(topic: &[Piece], sources: &[Source]) -> bool {
    let variables = topic.iter().filter(|piece| matches!(piece, Piece::Variable(_))).count();
    variables > 1 && sources.iter().any(|source| matches!(source, Source::Variable(_)))
}

/// What stands between the `/` of a raw path.
fn segments_of(path: &str) -> Vec<&str> {
    path.strip_prefix('/').map(|inside| inside.split('/').collect()).unwrap_or_default()
}

/// Whether a request for these segments is one for a path.
fn fits(path: &[Piece], segments: &[&str]) -> bool {
    let fits = |(piece, segment): (&Piece, &&str)| match piece {
        Piece::Literal(text) => decode_path_segment(segment).is_ok_and(|decoded| decoded == **text),
        Piece::Variable(_) => true,
    };
    path.len() == segments.len() && path.iter().zip(segments).all(fits)
}

/// Takes a path apart, and its variables out of it.
fn parse_path(path: &str, variables: &mut Vec<String>) -> Result<Vec<Piece>, String> {
    let Some(inside) = path.strip_prefix('/') else {
        return Err(format!("{path:?} should begin with `/`, as in /runs/{{runId}}/stream"));
    };
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("it has {} bytes, above {MAX_PATH_BYTES}", path.len()));
    }
    if let Some(bad) = path.chars().find(|c| c.is_control() || c.is_whitespace() || matches!(c, '?' | '#')) {
        return Err(format!("{bad:?} cannot stand in a path"));
    }
    let mut pieces = Vec::new();
    for segment in inside.split('/') {
        match template::placeholder(segment) {
            Some((name, length)) if length == segment.len() => {
                if template::is_slot(name) {
                    return Err(format!("{{{name}}} is a slot of envelopes: call the variable otherwise"));
                }
                if variables.iter().any(|variable| variable == name) {
                    return Err(format!("{{{name}}} is there twice"));
                }
                pieces.push(Piece::Variable(variables.len()));
                variables.push(name.to_owned());
            }
            _ if segment.contains(['{', '}']) => {
                return Err(format!(
                    "{segment:?}: a variable is a whole segment between two `/`, a name of letters, digits and _ in \
                     braces, as {{runId}}"
                ));
            }
            _ if segment.is_empty() => return Err("a segment is empty".to_owned()),
            _ => {
                let decoded = decode_path_segment(segment)
                    .map_err(|error| format!("{segment:?}: {}", error.message))?;
                pieces.push(Piece::Literal(decoded.into_owned()));
            }
        }
    }
    // Values are numbered in a byte.
    if variables.len() > 16 {
        return Err("it has more than 16 variables".to_owned());
    }
    Ok(pieces)
}

fn parse_topic(topic: &str, variables: &[String]) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut literal, mut at) = (Vec::new(), String::new(), 0);
    while let Some(c) = topic[at..].chars().next() {
        let Some((name, length)) = template::placeholder(&topic[at..]) else {
            if matches!(c, '{' | '}') {
                return Err(format!("`{c}` stands alone: variables are written {{name}}"));
            }
            literal.push(c);
            at += c.len_utf8();
            continue;
        };
        let Some(number) = variables.iter().position(|variable| variable == name) else {
            let known: Vec<String> = variables.iter().map(|name| format!("{{{name}}}")).collect();
            let known = if known.is_empty() { "no variables".to_owned() } else { known.join(", ") };
            return Err(format!("there is no {{{name}}}; the path has {known}"));
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Variable(number));
        at += length;
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    // With the shortest values that a request can bring.
    let example: String =
        pieces.iter().map(|piece| if let Piece::Literal(text) = piece { text } else { "x" }).collect();
    check_topic(&example)?;
    Ok(pieces)
}

/// Appends the heartbeat: a WebSocket ping.
pub fn write_heartbeat(out: &mut Vec<u8>) {
    write_frame(out, Opcode::Ping, b"");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Definition<'static> = Definition {
        path: "/api/v2/workflows/runs/{runId}/stream",
        topic: "run:{runId}",
        envelope: r#"{"runId":"{runId}","type":{event},"payload":{data}}"#,
    };

    fn compile(definitions: &[Definition<'_>]) -> Result<Streams, Vec<Mistake>> {
        let own = ["/ws", "/api/publish"];
        Streams::compile(definitions.iter().copied(), &own, &mut Envelopes::built_in())
    }

    #[test]
    fn a_path_gives_topic_and_values() {
        let wide = Definition {
            path: "/of/{tenant}/{runId}",
            topic: "{tenant}/{runId}!",
            envelope: r#"[{topic},"{runId}"]"#,
        };
        let plain = Definition { path: "/feed", topic: "news", envelope: "{data}" };
        let streams = compile(&[SEED, wide, plain]).unwrap();
        let found = |path: &str| streams.find(path).map(|found| found.unwrap());
        let run = found("/api/v2/workflows/runs/550e8400-e29b/stream").unwrap();
        assert_eq!((run.stream, &*run.topic), (0, "run:550e8400-e29b"));
        assert_eq!(run.values.unwrap()[..], ["550e8400-e29b".into()]);
        assert_eq!(run.envelopes, Numbers { message: 2, lines: 3, event_stream: 4 });
        let other = found("/of/a%20b/%22%5C%2Fx%2541").unwrap();
        assert_eq!((other.stream, &*other.topic), (1, r#"a b/"\/x%41!"#));
        assert_eq!(other.values.unwrap()[..], [r#"a b/\"\\/x%41!"#.into(), r#"\"\\/x%41"#.into()]);
        let plain = found("/%66eed").unwrap();
        assert_eq!((&*plain.topic, plain.values, plain.envelopes.message), ("news", None, 8));
        for none in ["/", "", "/feed/x/y", "/FEED", "*", "/api/v2/workflows/runs/x", "/fe%zzd"] {
            assert!(streams.find(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_variable_that_makes_no_topic_is_refused() {
        let streams = compile(&[SEED]).unwrap();
        let long = "x".repeat(252);
        for bad in ["", "%", "%zz", "%ff", "a%00", "%0a", "%C2%85", "*", "ab*", "%2A", &long] {
            let found = streams.find(&format!("/api/v2/workflows/runs/{bad}/stream")).unwrap();
            assert!(found.is_err(), "{bad:?}: {found:?}");
        }
        for good in ["a*b", "%252A", "%20", "ü", &long[1..]] {
            assert!(
                streams.find(&format!("/api/v2/workflows/runs/{good}/stream")).unwrap().is_ok(),
                "{good}"
            );
        }
    }

    #[test]
    fn values_follow_from_the_topic() {
        let shared = Definition { path: "/x/{a}/{b}", topic: "{a}::{b}", envelope: r#"["{a}","{b}"]"# };
        let streams = compile(&[shared]).unwrap();
        for (path, is_served) in [
            ("/x/1/2", true),
            ("/x/1:2/3", true),
            ("/x/1/2::3", true),
            ("/x/1::2/3", false),
            ("/x/1:/2", false),
            ("/x/::/2", false),
        ] {
            assert_eq!(streams.find(path).unwrap().is_ok(), is_served, "{path}");
        }
        // Where nothing but the topic is written, any will do.
        let plain = compile(&[Definition { envelope: "{topic}", ..shared }]).unwrap();
        assert!(plain.find("/x/1::2/3").unwrap().is_ok());
    }

    #[test]
    fn definitions_that_cannot_be_served_are_refused_with_the_reason() {
        let path = |path| Definition { path, ..SEED };
        let topic = |topic| Definition { topic, ..SEED };
        for (definition, field, expected) in [
            (path("runs/{runId}"), Field::Path, "should begin with `/`"),
            (path("/runs//{runId}"), Field::Path, "a segment is empty"),
            (path("/runs/{runId}/"), Field::Path, "a segment is empty"),
            (path("/runs/{runId"), Field::Path, "a variable is a whole segment"),
            (path("/runs/run-{runId}"), Field::Path, "a variable is a whole segment"),
            (path("/runs/{}"), Field::Path, "a variable is a whole segment"),
            (path("/runs/{1a}"), Field::Path, "a variable is a whole segment"),
            (path("/{runId}/{runId}"), Field::Path, "{runId} is there twice"),
            (path("/{runId}/{data}"), Field::Path, "{data} is a slot of envelopes"),
            (path("/a b/{runId}"), Field::Path, "' ' cannot stand in a path"),
            (path("/a?b={runId}"), Field::Path, "'?' cannot stand in a path"),
            (path("/%zz/{runId}"), Field::Path, "without two hexadecimal digits"),
            (path("/runs"), Field::Topic, "there is no {runId}; the path has no variables"),
            (topic(""), Field::Topic, "topic name is empty"),
            (topic("run:{id}"), Field::Topic, "there is no {id}; the path has {runId}"),
            (topic("run:{runId"), Field::Topic, "`{` stands alone"),
            (topic("run:{runId}*"), Field::Topic, "pattern"),
            (topic("run:\n{runId}"), Field::Topic, "control character"),
            (
                Definition { path: "/x/{runId}/{b}", topic: "{runId}{b}", ..SEED },
                Field::Topic,
                "two variables touch",
            ),
            (topic("all"), Field::Envelope, "{runId} is in the envelope and not in the topic"),
            (Definition { envelope: "{x}", ..SEED }, Field::Envelope, "there is no {x}"),
        ] {
            let mistakes = compile(&[definition]).unwrap_err();
            let found = mistakes.iter().find(|mistake| mistake.field == field);
            assert!(
                found.is_some_and(|mistake| mistake.message.contains(expected)),
                "{definition:?}\n{mistakes:?}"
            );
        }
        for path in ["/ws", "/%77s", "/{any}", "/api/{any}"] {
            let own = Definition { path, topic: "a", envelope: "{data}" };
            let mistakes = compile(&[own]).unwrap_err();
            assert!(mistakes[0].message.contains("which the node serves itself"), "{path}: {mistakes:?}");
        }
        let twice = compile(&[SEED, path("/api/v2/workflows/runs/{id}/stream")]).unwrap_err();
        assert!(twice.iter().any(|mistake| mistake.stream == 1 && mistake.message.contains("stream 1 has")));
    }
}
