//! What a client offers in `Sec-WebSocket-Extensions` (RFC 6455 section 9.1), and what a node that compresses answers
//! (RFC 7692 sections 5 and 7.1).

/// The one extension that there is here.
const DEFLATE: &str = "permessage-deflate";
/// The answer to an offer that is taken: neither side keeps anything from one message to the next.
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
/// The same to one that asks how far back the node looks (section 7.1.2.1): it is to be told.
const ANSWER_WITH_BITS: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15";

/// What is answered to the offers in these header lines: the first that can be taken decides. `None`: none can, and
/// the connection goes without.
///
/// An offer is not taken where it has a parameter that is unknown, there twice or wrong, or where it asks the node to
/// look back less than 32 KiB: all who take compressed events get the same bytes.
///
/// # Errors
/// A line is not of the header's grammar: the handshake must fail.
pub fn answer<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Option<&'static str>, &'static str> {
    let mut answer = None;
    for line in lines {
        let mut rest = Rest(line);
        loop {
            // An element of a list may be empty (RFC 9110 section 5.6.1).
            while rest.takes(',') {}
            if rest.is_empty() {
                break;
            }
            let offered = rest.offer()?;
            answer = answer.or(offered);
            if !rest.is_empty() && !rest.takes(',') {
                return Err("an extension is followed by neither `,` nor `;`");
            }
        }
    }
    Ok(answer)
}

/// What is left of a line.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    fn is_empty(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }

    fn takes(&mut self, mark: char) -> bool {
        self.skip_space();
        let rest = self.0.strip_prefix(mark);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn token(&mut self) -> Result<&'a str, &'static str> {
        self.skip_space();
        let (token, rest) = self.0.split_at(self.0.find(|c| !is_token(c)).unwrap_or(self.0.len()));
        self.0 = rest;
        if token.is_empty() { Err("a name or value is missing") } else { Ok(token) }
    }

    /// A parameter's value: a token, which may stand in quotes.
    fn value(&mut self) -> Result<String, &'static str> {
        if !self.takes('"') {
            return self.token().map(str::to_owned);
        }
        let (mut value, mut chars) = (String::new(), self.0.chars());
        loop {
            let c = match chars.next().ok_or("a quote does not end")? {
                '"' => break,
                '\\' => chars.next().ok_or("a quote does not end")?,
                c => c,
            };
            if !is_token(c) {
                return Err("what is quoted is not a token");
            }
            value.push(c);
        }
        self.0 = chars.as_str();
        if value.is_empty() { Err("a name or value is missing") } else { Ok(value) }
    }

    /// One extension with its parameters: the answer, where it can be taken.
    fn offer(&mut self) -> Result<Option<&'static str>, &'static str> {
        let mut can_be_taken = self.token()? == DEFLATE;
        let mut seen = [false; 4];
        while self.takes(';') {
            let name = self.token()?;
            let value = if self.takes('=') { Some(self.value()?) } else { None };
            let (place, is_right) = match (name, value.as_deref()) {
                ("server_no_context_takeover", value) => (0, value.is_none()),
                ("client_no_context_takeover", value) => (1, value.is_none()),
                ("server_max_window_bits", value) => (2, value == Some("15")),
                ("client_max_window_bits", value) => (3, value.is_none_or(is_window_bits)),
                _ => (0, false),
            };
            can_be_taken &= is_right && !std::mem::replace(&mut seen[place], true);
        }
        let answer = if seen[2] { ANSWER_WITH_BITS } else { ANSWER };
        Ok(can_be_taken.then_some(answer))
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// 8 to 15, without leading zeros.
fn is_window_bits(value: &str) -> bool {
    matches!(value, "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_offer_that_can_be_taken_is() {
        let (plain, bits) = (Some(ANSWER), Some(ANSWER_WITH_BITS));
        for (lines, expected) in [
            (&[][..], None),
            (&[""], None),
            (&[" , ,"], None),
            (&["permessage-deflate"], plain),
            (&["permessage-deflate; client_max_window_bits"], plain), // Chromium, npm ws, python websockets
            (&["permessage-deflate; server_no_context_takeover; client_no_context_takeover"], plain), // gorilla
            (&["permessage-deflate;client_max_window_bits=8\t; server_no_context_takeover"], plain),
            (&["permessage-deflate; client_max_window_bits = \"15\""], plain),
            (&[r#"permessage-deflate; client_max_window_bits="1\0""#], plain),
            (&["permessage-deflate; server_max_window_bits=15"], bits),
            (&["permessage-deflate; server_max_window_bits=\"15\"; client_max_window_bits=9"], bits),
            // What asks for less than there is, is unknown, twice or wrong.
            (&["permessage-deflate; server_max_window_bits=14"], None),
            (&["permessage-deflate; server_max_window_bits=8"], None),
            (&["permessage-deflate; server_max_window_bits"], None),
            (&["permessage-deflate; server_max_window_bits=16"], None),
            (&["permessage-deflate; server_max_window_bits=015"], None),
            (&["permessage-deflate; client_max_window_bits=7"], None),
            (&["permessage-deflate; client_max_window_bits=08"], None),
            (&["permessage-deflate; client_max_window_bits=x"], None),
            (&["permessage-deflate; server_no_context_takeover=1"], None),
            (&["permessage-deflate; client_no_context_takeover=\"true\""], None),
            (&["permessage-deflate; client_max_window_bits; client_max_window_bits=9"], None),
            (&["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], None),
            (&["permessage-deflate; mode=fast"], None),
            (&["permessage-deflate; SERVER_NO_CONTEXT_TAKEOVER"], None),
            (&["x-webkit-deflate-frame"], None),
            (&["permessage-bzip2; x=\"y\", permessage-deflate2"], None),
            // In order of preference, on one line or on several.
            (&["permessage-deflate; server_max_window_bits=10, permessage-deflate"], plain),
            (&["permessage-deflate; server_max_window_bits=15, permessage-deflate"], bits),
            (&["x; a=b; c,, permessage-deflate; q=1 ,permessage-deflate; server_max_window_bits=15"], bits),
            (&["permessage-deflate; server_max_window_bits=10", "foo", "permessage-deflate"], plain),
        ] {
            assert_eq!(answer(lines.iter().copied()), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_extensions_is_refused() {
        for line in [
            ";",
            "permessage-deflate;",
            "permessage-deflate; ;",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; client_max_window_bits=\"15",
            "permessage-deflate; client_max_window_bits=\"15\\",
            "permessage-deflate; client_max_window_bits=\"1 5\"",
            "permessage-deflate; =15",
            "permessage-deflate client_max_window_bits",
            "permessage-deflate, foo bar",
            "\"permessage-deflate\"",
            "permessage-deflate/1",
            "permessage-defläte",
        ] {
            assert!(answer([line].into_iter()).is_err(), "{line:?}");
            assert!(answer(["permessage-deflate", line].into_iter()).is_err(), "{line:?}");
        }
    }
}
