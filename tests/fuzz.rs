//! The fuzz targets without a fuzzer: every input of the corpus, and inputs made of them by chance.
//!
//! `FANWIRE_FUZZ_RUNS=n` makes so many inputs for each target, `FANWIRE_FUZZ_SEED=n` begins with that seed (one input
//! each, so a seed and one run is a replay), `FANWIRE_FUZZ_TARGET=name` takes one target. See `docs/testing.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/tables.rs"]
mod tables;
#[path = "../fuzz/src/lib.rs"]
mod targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mutate::Maker;
use targets::TARGETS;

/// Inputs for each target of a plain `cargo test`: a few seconds.
const RUNS: u64 = 1000;
/// No input takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The corpus of a target: names and inputs.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = place().join("corpus").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Ends the process where one input goes on for ever: nothing else would say which.
struct Watch(Arc<Mutex<(Instant, String)>>);

impl Watch {
    fn start() -> Self {
        let now = Arc::new(Mutex::new((Instant::now(), String::new())));
        let watched = Arc::downgrade(&now);
        std::thread::spawn(move || {
            while let Some(now) = watched.upgrade() {
                let (since, what) = now.lock().unwrap().clone();
                if since.elapsed() > PATIENCE {
                    eprintln!("this input hangs: {what}");
                    std::process::abort();
                }
                drop(now);
                std::thread::park_timeout(Duration::from_millis(200));
            }
        });
        Self(now)
    }

    fn begin(&self, what: impl FnOnce() -> String) {
        *self.0.lock().unwrap() = (Instant::now(), what());
    }
}

/// Runs one input; answers what is wrong.
fn run(target: targets::Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| targets::run(target.0, input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        text.unwrap_or_default()
    })
}

#[test]
fn every_input_of_the_corpus_is_taken() {
    let watch = Watch::start();
    for target in TARGETS {
        let inputs = corpus(target.0);
        assert!(!inputs.is_empty(), "{} has no corpus", target.0);
        for (path, input) in inputs {
            watch.begin(|| path.display().to_string());
            run(target, &input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
}

#[test]
fn whatever_is_made_of_the_corpus_is_taken() {
    let (first, runs) = (number("FANWIRE_FUZZ_SEED"), number("FANWIRE_FUZZ_RUNS"));
    let seeds =
        first.unwrap_or(0)..first.unwrap_or(0) + runs.unwrap_or(if first.is_some() { 1 } else { RUNS });
    let only = std::env::var("FANWIRE_FUZZ_TARGET").ok();
    let chosen: Vec<_> =
        TARGETS.into_iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)).collect();
    assert!(!chosen.is_empty(), "there is no target {only:?}");
    let watch = Watch::start();
    for target in chosen {
        let name = target.0;
        let dictionary = place().join("dictionaries").join(format!("{name}.dict"));
        let maker = Maker::new(
            corpus(name).into_iter().map(|(_, input)| input).collect(),
            &fs::read_to_string(dictionary).unwrap_or_default(),
        );
        println!("{name}: {} inputs from seed {}", seeds.end - seeds.start, seeds.start);
        for seed in seeds.clone() {
            let input = maker.make(seed);
            watch.begin(|| format!("{name}, seed {seed}"));
            if let Err(error) = run(target, &input) {
                let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{seed}"));
                fs::write(&kept, &input).unwrap();
                panic!("{name}, seed {seed} (kept as {}): {error}\n{}", kept.display(), input.escape_ascii());
            }
        }
    }
}

#[test]
fn cargo_fuzz_has_the_same_targets() {
    let names = |dir: &str| {
        let entries = fs::read_dir(place().join(dir)).unwrap();
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut names: Vec<String> = entries.map(|entry| stem(entry.unwrap().path())).collect();
        names.sort();
        names
    };
    let mut known: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.sort();
    assert_eq!((names("fuzz_targets"), names("corpus")), (known.clone(), known.clone()));
    let manifest = fs::read_to_string(place().join("Cargo.toml")).unwrap();
    let documents = fs::read_to_string(place().join("../docs/testing.md")).unwrap();
    for name in known {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no program");
        assert!(documents.contains(&format!("| `{name}` |")), "docs/testing.md does not tell of {name}");
        let program = fs::read_to_string(place().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("run(\"{name}\", input)")), "{program}");
    }
}
