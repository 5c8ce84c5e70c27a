//! The page: three files in the binary, served under a strict content security policy.

use crate::admin::api::Reply;

/// No script but our own, no style but our own, nothing from elsewhere: event data can hold anything.
const POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The files: path, `Content-Type`, content.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/favicon.svg", "image/svg+xml", include_str!("page/favicon.svg")),
];

/// Where the files are.
pub fn paths() -> impl Iterator<Item = &'static str> {
    FILES.into_iter().map(|(path, ..)| path)
}

/// The file at a path, if the page has one there.
pub fn find(path: &str) -> Option<Reply> {
    let (_, content_type, body) = FILES.into_iter().find(|(own, ..)| *own == path)?;
    let headers = vec![
        ("Content-Security-Policy", POLICY.to_owned()),
        ("Cache-Control", "no-cache".to_owned()),
        ("Referrer-Policy", "no-referrer".to_owned()),
    ];
    Some(Reply { status: 200, content_type, headers, body: body.as_bytes().to_vec() })
}
