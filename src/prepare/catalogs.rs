//! What the settings say about catalogs and guards, made into rules.

use std::fs;

use crate::catalog::file::{Catalog, Flaw, MAX_FILE_BYTES, SHIPPED};
use crate::catalog::guard::{Action, Definition, Guards, SHIPPED_SETS};
use crate::catalog::rules::{Clash, Rules};
use crate::config::{CatalogSource, Guard, GuardAction, GuardRule, Problem, Settings};

/// The rules that the settings ask for, and the catalogs that they are made of, in their order.
///
/// # Errors
/// Everything that is wrong with the catalogs and guards, each with its place.
pub(super) fn rules(settings: &Settings) -> Result<(Rules, Vec<Catalog>), Vec<Problem>> {
    let (mut catalogs, mut problems) = (Vec::new(), Vec::new());
    for source in &settings.catalog {
        match load(&source.value, &source.place) {
            Ok(catalog) => catalogs.push(catalog),
            Err(found) => problems.extend(found),
        }
    }
    let guards = guards(&settings.guards).unwrap_or_else(|found| {
        problems.extend(found);
        Guards::default()
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    match Rules::new(&catalogs, settings.catalog_strict, guards) {
        Ok(rules) => Ok((rules, catalogs)),
        Err(clashes) => {
            let problem = |clash: Clash| Problem {
                place: format!("{}:{}", settings.catalog[clash.catalog].value, clash.line),
                message: clash.message,
            };
            Err(clashes.into_iter().map(problem).collect())
        }
    }
}

/// Reads a catalog; `place` is where it was asked for.
///
/// # Errors
/// Everything that is wrong with it, each with its FILE:LINE; at `place` where there is no such catalog.
pub(crate) fn load(source: &CatalogSource, place: &str) -> Result<Catalog, Vec<Problem>> {
    let problem = |message: String| vec![Problem { place: place.to_owned(), message }];
    let text = match source {
        CatalogSource::Shipped(name) => {
            let names = SHIPPED.map(|(name, _)| name).join(", ");
            let found = SHIPPED.iter().find(|(shipped, _)| shipped == name);
            let unknown = || {
                problem(format!(
                    "there is no catalog `{name}`: there are {names}; a file is written with a / or .toml"
                ))
            };
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(unknown)?
        }
        CatalogSource::File(path) => {
            let unreadable = |error: std::io::Error| problem(format!("catalog {}: {error}", path.display()));
            let length = fs::metadata(path).map_err(unreadable)?.len();
            if length > MAX_FILE_BYTES as u64 {
                let message = format!(
                    "catalog {}: {length} bytes, above the limit of {MAX_FILE_BYTES}",
                    path.display()
                );
                return Err(problem(message));
            }
            fs::read_to_string(path).map_err(unreadable)?
        }
    };
    Catalog::parse(&text).map_err(|flaws| {
        let problem =
            |flaw: Flaw| Problem { place: format!("{source}:{}", flaw.line), message: flaw.message };
        flaws.into_iter().map(problem).collect()
    })
}

fn guards(guards: &[Guard]) -> Result<Guards, Vec<Problem>> {
    let (mut definitions, mut places, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for guard in guards {
        let (name, patterns, place) = match &guard.rule {
            GuardRule::Pattern(pattern) => {
                let name = guard.name.as_ref().map_or("", |name| name.value.as_str());
                (name, vec![(String::new(), pattern.value.clone())], &pattern.place)
            }
            GuardRule::Set(set) => {
                let Some((_, members)) = SHIPPED_SETS.iter().find(|(name, _)| *name == set.value) else {
                    let names = SHIPPED_SETS.map(|(name, _)| name).join(", ");
                    let message = format!("there is no set `{}`: there is {names}", set.value);
                    problems.push(Problem { place: set.place.clone(), message });
                    continue;
                };
                let members = members.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
                (set.value.as_str(), members.collect(), &set.place)
            }
        };
        definitions.push(Definition {
            name: name.to_owned(),
            topics: guard.topics.clone(),
            patterns,
            action: match guard.action {
                GuardAction::Refuse => Action::Refuse,
                GuardAction::Mask => Action::Mask,
            },
        });
        places.push(place.clone());
    }
    match Guards::new(&definitions) {
        Ok(guards) if problems.is_empty() => Ok(guards),
        Ok(_) => Err(problems),
        Err(errors) => {
            let problem =
                |(guard, message): (usize, String)| Problem { place: places[guard].clone(), message };
            problems.extend(errors.into_iter().map(problem));
            Err(problems)
        }
    }
}
