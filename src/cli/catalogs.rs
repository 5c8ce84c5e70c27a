//! Catalogs from where they are named: shipped with the node, or in a file.

use std::fs;
use std::path::Path;

use crate::catalog::file::{Catalog, MAX_FILE_BYTES, SHIPPED};
use crate::config::Problem;

/// The catalog of this name or file. A name that is shipped is never a file; `./runs` is.
///
/// # Errors
/// Everything that is wrong with it, each with its FILE:LINE, or the name itself where there is no such catalog.
pub(super) fn load(name: &str) -> Result<Catalog, Vec<Problem>> {
    let problem = |place: String, message: String| vec![Problem { place, message }];
    let shipped = SHIPPED.iter().find(|(shipped, _)| *shipped == name);
    let text = match shipped {
        Some((_, text)) => (*text).to_owned(),
        None => {
            let path = Path::new(name);
            let unreadable = |message: String| problem(name.to_owned(), message);
            let hint = || {
                let names = SHIPPED.map(|(shipped, _)| shipped).join(", ");
                format!("a catalog is a TOML file, or one of {names}")
            };
            let length =
                fs::metadata(path).map_err(|error| unreadable(format!("{error}; {}", hint())))?.len();
            if length > MAX_FILE_BYTES as u64 {
                return Err(unreadable(format!(
                    "has {length} bytes; a catalog has at most {MAX_FILE_BYTES}"
                )));
            }
            fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?
        }
    };
    Catalog::parse(&text).map_err(|flaws| {
        let problem = |flaw: crate::catalog::file::Flaw| Problem {
            place: format!("{name}:{}", flaw.line),
            message: flaw.message,
        };
        flaws.into_iter().map(problem).collect()
    })
}
