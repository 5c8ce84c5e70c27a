//! `fanwire generate`: types, helpers and pages from catalogs.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{Failure, Outcome, print};
use crate::catalog::file::SHIPPED;
use crate::catalog::generate::{Output, generate};
use crate::config::{ConfigError, Problem};
use crate::prepare::catalogs;

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// A TypeScript module for each catalog, beside the npm package fanwire-client; without --catalog, within it
    Typescript,
    /// A Python module for each catalog, beside clients/python/fanwire_events.py
    Python,
    /// A page that shows every event with its fields and an example
    Reference,
}

#[derive(Args)]
pub(super) struct Arguments {
    /// What to make
    what: What,
    /// From this catalog: the name of a shipped one, or a file; repeatable [default: the shipped ones]
    #[arg(long, value_name = "NAME|FILE")]
    catalog: Vec<String>,
    /// Write into this directory, which is made if it is not there [default: standard output, for one file]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let shipped = || SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names: Vec<String> = if arguments.catalog.is_empty() { shipped() } else { arguments.catalog.clone() };
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for name in &names {
        let source = match name.parse() {
            Ok(source) => source,
            Err(message) => {
                problems.push(Problem { place: "--catalog".to_owned(), message });
                continue;
            }
        };
        match catalogs::load(&source, "--catalog") {
            Ok(catalog) => loaded.push(catalog),
            Err(found) => problems.extend(found),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::Config(ConfigError { problems }));
    }
    let files = generate(
        match arguments.what {
            // Those that come with the node are in the package.
            What::Typescript if arguments.catalog.is_empty() => Output::TypescriptPackage,
            What::Typescript => Output::Typescript,
            What::Python => Output::Python,
            What::Reference => Output::Reference,
        },
        &loaded,
    );
    for (index, (name, _)) in files.iter().enumerate() {
        if files[..index].iter().any(|(other, _)| other == name) {
            return Err(Failure::Message(format!("two of the catalogs would make {name}")));
        }
    }
    let Some(dir) = &arguments.out else {
        let [(_, text)] = &files[..] else {
            let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!("this makes {}: say where with --out DIR", names.join(", "));
            return Err(Failure::Message(message));
        };
        print(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for (name, text) in &files {
        let path = dir.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        print(format!("{}\n", path.display()).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}
