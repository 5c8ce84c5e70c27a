//! One HTTP exchange: what comes before a session, and all there is of a plain request. Pure: bytes in.

use crate::config::Limits;
use crate::proto::http1::{BodyLength, Chunked, HeadScan, HttpError, Request, parse_head};

/// The inbound half of an HTTP connection, one request at a time.
#[derive(Debug, Default)]
pub struct Exchange {
    input: Vec<u8>,
    scan: HeadScan,
    pending: Option<Pending>,
}

/// A request whose head is whole.
#[derive(Debug)]
struct Pending {
    head: Vec<u8>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Whole(Vec<u8>),
    Length { body: Vec<u8>, length: usize },
    Chunked(Box<Chunked>),
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its head is not whole.
    Head,
    /// Its head has just become whole; its body is still to come.
    Body,
    /// Its body is not whole.
    More,
    /// It is whole: [`Exchange::request`].
    Whole,
}

impl Exchange {
    /// Adds what was read.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Whether a request has begun.
    pub fn has_begun(&self) -> bool {
        self.pending.is_some() || !self.input.is_empty()
    }

    /// Bytes that the body under way may come to take.
    pub fn reserved_bytes(&self, limits: &Limits) -> usize {
        match self.pending.as_ref().map(|pending| &pending.body) {
            Some(Body::Whole(body)) => body.len(),
            Some(Body::Length { length, .. }) => *length,
            Some(Body::Chunked(_)) => limits.max_body_bytes,
            None => 0,
        }
    }

    /// Looks at what was added.
    ///
    /// # Errors
    /// The answer to a bad request; the connection must then close.
    pub fn advance(&mut self, limits: &Limits) -> Result<Step, HttpError> {
        let Some(pending) = &mut self.pending else {
            let parsed = parse_head(&self.input, limits.max_header_bytes, &mut self.scan)?;
            let Some((body_length, length)) = parsed.map(|(request, length)| (request.body, length)) else {
                return Ok(Step::Head);
            };
            let rest = self.input.split_off(length);
            let head = std::mem::replace(&mut self.input, rest);
            let body = match body_length {
                BodyLength::None => Body::Whole(Vec::new()),
                BodyLength::Length(length) => {
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    if length > limits.max_body_bytes {
                        return Err(too_large(limits));
                    }
                    Body::Length { body: Vec::new(), length }
                }
                BodyLength::Chunked => Body::Chunked(Box::new(Chunked::new(limits.max_body_bytes))),
            };
            let is_whole = matches!(body, Body::Whole(_));
            self.pending = Some(Pending { head, body });
            return Ok(if is_whole { Step::Whole } else { Step::Body });
        };
        match &mut pending.body {
            Body::Whole(_) => return Ok(Step::Whole),
            Body::Length { body, length } => {
                let wanted = (*length - body.len()).min(self.input.len());
                body.extend(self.input.drain(..wanted));
                if body.len() < *length {
                    return Ok(Step::More);
                }
                pending.body = Body::Whole(std::mem::take(body));
            }
            Body::Chunked(chunked) => {
                let (taken, is_done) = chunked.push(&self.input)?;
                self.input.drain(..taken);
                if !is_done {
                    return Ok(Step::More);
                }
                let chunked = std::mem::replace(&mut **chunked, Chunked::new(0));
                pending.body = Body::Whole(chunked.into_body());
            }
        }
        Ok(Step::Whole)
    }

    /// The request whose head is whole, and its body as far as it is here.
    pub fn request(&self) -> Option<(Request<'_>, &[u8])> {
        let pending = self.pending.as_ref()?;
        // It was parsed before: a second time gives the same.
        let (request, _) = parse_head(&pending.head, pending.head.len(), &mut HeadScan::default()).ok()??;
        let body = match &pending.body {
            Body::Whole(body) => &body[..],
            _ => &[],
        };
        Some((request, body))
    }

    /// The request is answered: the next one may begin.
    pub fn finish(&mut self) {
        self.pending = None;
    }

    /// What came behind the request: a new protocol's first bytes.
    pub fn into_rest(self) -> Vec<u8> {
        self.input
    }
}

fn too_large(limits: &Limits) -> HttpError {
    HttpError::new(
        413,
        format!("the body is above the limit of {} bytes (max_body_bytes)", limits.max_body_bytes),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(input: &[u8], pieces: usize) -> Result<Vec<(String, Vec<u8>)>, HttpError> {
        let limits = Limits { max_body_bytes: 20, ..Limits::default() };
        let mut exchange = Exchange::default();
        let mut requests = Vec::new();
        for piece in input.chunks(pieces) {
            exchange.extend(piece);
            loop {
                match exchange.advance(&limits)? {
                    Step::Whole => {
                        let (request, body) = exchange.request().unwrap();
                        requests.push((request.path.to_owned(), body.to_vec()));
                        drop(request);
                        exchange.finish();
                    }
                    Step::Body => {}
                    Step::Head | Step::More => break,
                }
            }
        }
        Ok(requests)
    }

    #[test]
    fn requests_in_a_row_come_apart_the_same_at_every_split() {
        let input = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
            POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /d HTTP/1.1\r\nHost: x\r\n\r\n";
        let expected: Vec<(String, Vec<u8>)> = [("/a", ""), ("/b", "hello"), ("/c", "abc"), ("/d", "")]
            .map(|(path, body)| (path.to_owned(), body.as_bytes().to_vec()))
            .into();
        for pieces in [1, 2, 3, 7, 50, 1000] {
            assert_eq!(run(input, pieces).unwrap(), expected, "in pieces of {pieces}");
        }
    }

    #[test]
    fn bodies_above_the_limit_are_refused_before_they_come() {
        for head in ["Content-Length: 21\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n15\r\n"] {
            let input = format!("POST /b HTTP/1.1\r\nHost: x\r\n{head}");
            assert_eq!(run(input.as_bytes(), 7).unwrap_err().status, 413, "{head}");
        }
    }
}
