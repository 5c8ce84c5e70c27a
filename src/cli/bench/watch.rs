//! What goes on while it is measured: a progress bar for people, and whether they want it to end.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::load::Load;

/// From one look at the bar and at the signals to the next.
const SLICE: Duration = Duration::from_millis(100);

pub(super) struct Watch {
    is_stopped: Arc<AtomicBool>,
    is_terminal: bool,
}

impl Watch {
    /// From now on SIGINT and SIGTERM end the measuring, and not the program before it has cleared up.
    pub(super) fn new() -> io::Result<Self> {
        let is_stopped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&is_stopped))?;
        }
        Ok(Self { is_stopped, is_terminal: io::stderr().is_terminal() })
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Whether there is somebody to look at what is written to standard error.
    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// An error of the kind [`io::ErrorKind::Interrupted`] once it was asked to end.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.is_stopped() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// Sets all subscribers up.
    pub(super) fn connect(&self, load: &mut Load, subscribers: usize) -> io::Result<()> {
        let bar = self.bar(subscribers as u64, "{bar:30} {pos} of {len} connected");
        while !load.connect_for(SLICE)? {
            bar.set_position((load.ready() + load.refused()) as u64);
            self.check()?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Lets the load go on for a time, or until `is_over`.
    pub(super) fn go_on(
        &self,
        load: &mut Load,
        time: Duration,
        what: &str,
        mut is_over: impl FnMut(&Load) -> bool,
    ) -> io::Result<()> {
        let bar = self.bar(time.as_millis() as u64, "{bar:30} {msg}");
        bar.set_message(what.to_owned());
        let began = Instant::now();
        loop {
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() || is_over(load) {
                break;
            }
            load.go_on(left.min(SLICE))?;
            bar.set_position(began.elapsed().as_millis() as u64);
            self.check()?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn bar(&self, length: u64, template: &str) -> ProgressBar {
        if !self.is_terminal {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length).with_style(style)
    }
}
