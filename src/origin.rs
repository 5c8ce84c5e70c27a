//! Which pages may ask: the `Origin` that browsers send (RFC 6454; Fetch, "Origin header"), held to a list.
//!
//! Origins are compared as a whole, by scheme, host and port: nothing here looks for a beginning, an end or a pattern.

use std::fmt;
use std::str::FromStr;

/// Where a page comes from, as browsers write it: `https://app.example` or `https://app.example:8443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin {
    /// In lower case.
    scheme: String,
    /// In lower case.
    host: String,
    /// `None`: the scheme's own.
    port: Option<u16>,
}

impl FromStr for WebOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{}` {what}", text.escape_debug());
        let Some((scheme, authority)) = text.split_once("://") else {
            return Err(wrong("is not an origin: write SCHEME://HOST or SCHEME://HOST:PORT"));
        };
        let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(in_scheme) {
            return Err(wrong("has no scheme such as https in front"));
        }
        if authority.contains(['/', '?', '#', '@']) {
            return Err(wrong("has more than scheme, host and port: no slash at the end, no path, no user"));
        }
        // The colons of an IPv6 address stand in brackets.
        let end_of_host = authority.find(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match authority[end_of_host..].find(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(end_of_host + colon);
                (host, Some(&port[1..]))
            }
            None => (authority, None),
        };
        let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => {
                let in_address = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
                address.contains(':') && address.bytes().all(in_address)
            }
            None => {
                let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                !host.is_empty() && host.bytes().all(in_name)
            }
        };
        if !is_host {
            return Err(wrong(
                "has no host that browsers would send: names are ASCII, others in punycode (xn--…)",
            ));
        }
        let scheme = scheme.to_ascii_lowercase();
        let port = match port {
            None => None,
            Some(digits) => {
                let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
                let port = digits.parse::<u16>().ok().filter(|_| is_number);
                Some(port.ok_or_else(|| wrong("has no port from 1 to 65535 behind its host"))?)
            }
        };
        let own = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let port = port.filter(|port| Some(*port) != own);
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port })
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl WebOrigin {
    /// Whether the name means the same machine to everybody: an address or `localhost`. The owner of any other name
    /// can let it mean the node, and then the browser takes his pages for the node's (DNS rebinding).
    fn is_pinned(&self) -> bool {
        // A host whose last part is a number is an IPv4 address (WHATWG URL, "ends in a number").
        let last = self.host.rsplit('.').next().unwrap_or_default();
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        self.host == "localhost" || self.host.starts_with('[') || is_number
    }
}

/// What the list of allowed origins is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    /// `*`: every page.
    Any,
    /// `null`: pages without an origin of their own, such as files and sandboxed frames.
    Null,
    /// Pages of this one.
    One(WebOrigin),
}

impl FromStr for AllowedOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "*" => Ok(Self::Any),
            "null" => Ok(Self::Null),
            _ if text.contains('*') => Err(format!(
                "`{}` is a pattern, and origins are compared as a whole: write each, or * alone",
                text.escape_debug()
            )),
            _ => text.parse().map(Self::One),
        }
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Null => f.write_str("null"),
            Self::One(origin) => origin.fmt(f),
        }
    }
}

/// What a page asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Events: WebSocket, a path stream, Server-Sent Events.
    Listen,
    /// To publish, or to see what operators see: `*` does not allow it.
    Operate,
}

/// Which pages may ask.
#[derive(Clone, Debug)]
pub struct Origins {
    allowed: Vec<AllowedOrigin>,
    is_required: bool,
    /// Whether operators and publishers show a token.
    is_guarded: bool,
}

impl Default for Origins {
    /// Every page may listen, and only the node's own may do more.
    fn default() -> Self {
        Self::new(vec![AllowedOrigin::Any], false)
    }
}

impl Origins {
    /// Pages of the origins in `allowed`. `is_required`: who names none may not listen either.
    pub fn new(allowed: Vec<AllowedOrigin>, is_required: bool) -> Self {
        Self { allowed, is_required, is_guarded: false }
    }

    /// The same where operators and publishers show a token. Then a page under any name that the node has may ask for
    /// what is theirs: one whose owner pointed his name to the node (DNS rebinding) does not have it.
    pub fn guarded(self, is_guarded: bool) -> Self {
        Self { is_guarded, ..self }
    }

    fn has_any(&self) -> bool {
        self.allowed.contains(&AllowedOrigin::Any)
    }

    /// Whether a request may have what it wishes. `origin` and `host` are its headers of those names.
    ///
    /// # Errors
    /// What to tell who may not.
    pub fn check(&self, wish: Wish, origin: Option<&str>, host: Option<&str>) -> Result<(), String> {
        let Some(origin) = origin else {
            // Only browsers name one: whoever publishes or looks after the node is mostly none.
            return match wish {
                Wish::Listen if self.is_required => {
                    Err("this node serves only who names an Origin (require_origin)".to_owned())
                }
                _ => Ok(()),
            };
        };
        if (wish == Wish::Listen && self.has_any()) || self.is_listed_or_own(origin, host) {
            return Ok(());
        }
        let what = if wish == Wish::Listen { "listen" } else { "ask for this" };
        Err(format!("a page of {origin:?} may not {what} here (allowed_origins)"))
    }

    /// What `Access-Control-Allow-Origin` says in an answer to who may listen; `None`: no page may read it.
    pub fn readers<'a>(&self, origin: Option<&'a str>, host: Option<&str>) -> Option<&'a str> {
        if self.has_any() {
            return Some("*");
        }
        origin.filter(|origin| self.is_listed_or_own(origin, host))
    }

    fn is_listed_or_own(&self, text: &str, host: Option<&str>) -> bool {
        if text == "null" {
            return self.allowed.contains(&AllowedOrigin::Null);
        }
        let Ok(origin) = text.parse::<WebOrigin>() else { return false };
        // The node's own page comes from the host that it asks.
        let is_own =
            text.split_once("://").zip(host).is_some_and(|((_, site), host)| site.eq_ignore_ascii_case(host));
        (is_own && ((self.has_any() && self.is_guarded) || origin.is_pinned()))
            || self.allowed.iter().any(|allowed| matches!(allowed, AllowedOrigin::One(one) if *one == origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str], is_required: bool) -> Origins {
        Origins::new(list.iter().map(|text| text.parse().unwrap()).collect(), is_required)
    }

    #[test]
    fn origins_are_read_and_written_as_browsers_write_them() {
        for (text, shown) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443", "https://app.example"),
            ("http://app.example:80", "http://app.example"),
            ("http://app.example:443", "http://app.example:443"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://[::FFFF:7f00:1]", "http://[::ffff:7f00:1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
            ("*", "*"),
            ("null", "null"),
        ] {
            let parsed: AllowedOrigin = text.parse().unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(shown.parse(), Ok(parsed));
        }
        for bad in [
            "",
            "app.example",
            "//app.example",
            "://app.example",
            "https:app.example",
            "https://",
            "https://:443",
            "https://app.example/",
            "https://app.example/path",
            "https://app.example?x",
            "https://app.example#x",
            "https://user@app.example",
            "https://app.example:",
            "https://app.example:0",
            "https://app.example:0443",
            "https://app.example:65536",
            "https://app.example:+443",
            "https://app.example:443:443",
            "https://[::1",
            "https://::1",
            "https://[app]",
            "https://bücher.example",
            "https://app%2eexample",
            "https://app.example https://b.example",
            "https://app.example,https://b.example",
            "https://*.app.example",
            "https://app.example\n",
            "1https://app.example",
            "NULL",
            "**",
        ] {
            assert!(bad.parse::<AllowedOrigin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_the_nodes_own_only_where_nobody_else_can_take_it() {
        let own = |list: &[&str], is_guarded: bool, origin: &str, host: &str| {
            let origins = origins(list, false).guarded(is_guarded);
            origins.check(Wish::Operate, Some(origin), Some(host)).is_ok()
        };
        for (origin, host, with_a_token, with_a_list) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", true, true),
            ("http://localhost:8080", "LOCALHOST:8080", true, true),
            ("http://[::1]:8080", "[::1]:8080", true, true),
            // A name of whoever owns it, which may lead here: the page is his, not ours.
            ("http://node.example", "node.example", true, false),
            ("http://evil1.example:8080", "evil1.example:8080", true, false),
            ("http://127.0.0.1.example", "127.0.0.1.example", true, false),
            ("http://127.0.0.1:8080", "127.0.0.1:8081", false, false),
            ("http://127.0.0.1:8080", "", false, false),
            ("null", "null", false, false),
            ("http://app.example", "node.example", false, true),
        ] {
            assert_eq!(own(&["*"], true, origin, host), with_a_token, "{origin} at {host}");
            assert_eq!(own(&["http://app.example"], true, origin, host), with_a_list, "{origin} at {host}");
            // Without a token a page whose name was pointed here could do all that the node's own can.
            let is_pinned = with_a_token && with_a_list;
            assert_eq!(own(&["*"], false, origin, host), is_pinned, "{origin} at {host}");
        }
    }

    #[test]
    fn who_names_no_origin_is_no_page() {
        for list in [&["*"][..], &["https://a.example"], &[]] {
            assert!(origins(list, false).check(Wish::Listen, None, None).is_ok());
            assert!(origins(list, true).check(Wish::Operate, None, None).is_ok());
            assert!(origins(list, true).check(Wish::Listen, None, None).is_err());
        }
    }

    #[test]
    fn answers_are_for_those_who_may_ask() {
        let a = Some("https://a.example");
        assert_eq!(origins(&["*"], false).readers(a, None), Some("*"));
        assert_eq!(origins(&["*"], false).readers(None, None), Some("*"));
        assert_eq!(origins(&["https://A.example:443"], false).readers(a, None), a);
        assert_eq!(origins(&["https://b.example"], false).readers(a, None), None);
        assert_eq!(origins(&["https://a.example"], false).readers(None, None), None);
        assert_eq!(origins(&["null"], false).readers(Some("null"), None), Some("null"));
        assert_eq!(origins(&[], false).readers(Some("null"), None), None);
    }
}
