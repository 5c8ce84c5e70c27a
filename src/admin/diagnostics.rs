//! `/diagnostics/http` of `--diagnostics`: says how a request was read, for test suites of HTTP/1.1.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::admin::api::Reply;
use crate::proto::http1::Request;

/// Where it is.
pub const PATH: &str = "/diagnostics/http";

/// What the parser made of a request.
pub fn reply(request: &Request<'_>, body: &[u8]) -> Reply {
    let headers: Vec<_> = request.headers.iter().map(|(name, value)| json!([name, value])).collect();
    let (encoding, shown) = match plain(body) {
        Some(text) => ("text", text.to_owned()),
        None => ("base64", BASE64.encode(body)),
    };
    let value = json!({
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "version": format!("1.{}", request.version_minor),
        "headers": headers,
        "bodyLength": body.len(),
        "body": { encoding: Value::from(shown) },
    });
    Reply::json(200, &value)
}

/// A body that JSON writes in no more than twice its bytes, so that the answer has a bound.
fn plain(body: &[u8]) -> Option<&str> {
    let is_plain = |byte: &u8| *byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r');
    if body.iter().all(is_plain) { std::str::from_utf8(body).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_text_where_that_is_short() {
        for (body, expected) in [
            (&b""[..], json!({"text": ""})),
            ("\tGrüße\r\n".as_bytes(), json!({"text": "\tGrüße\r\n"})),
            (b"\"\\", json!({"text": "\"\\"})),
            (b"a\0b", json!({"base64": "YQBi"})),
            (b"\xff", json!({"base64": "/w=="})),
        ] {
            let head = b"PUT /diagnostics/http?a=1 HTTP/1.1\r\nHost: n\r\n\r\n";
            let parsed = crate::proto::http1::parse_head(head, 8192, &mut Default::default());
            let (request, _) = parsed.unwrap().unwrap();
            let answer: Value = serde_json::from_slice(&reply(&request, body).body).unwrap();
            assert_eq!(answer["body"], expected, "{body:?}");
            assert_eq!(answer["bodyLength"], body.len());
        }
    }
}
