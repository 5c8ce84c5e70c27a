//! `fanwire top`: a node's figures and its slow clients, drawn again and again.

mod table;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::termios::tcgetwinsize;
use signal_hook::consts::{SIGINT, SIGTERM, SIGWINCH};
use signal_hook::iterator::Signals;

use super::http::{self, NoAnswer};
use super::subscribe::host_and_port;
use super::{Failure, Outcome, print};
use table::{Frame, Size, Slow, Stats, printable};

/// The first table has rates, so it comes after at most this long.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The node: http://HOST:PORT or HOST:PORT; its `admin` listener, where it has one
    #[arg(long, value_name = "URL", env = "FANWIRE_HTTP", default_value = "http://127.0.0.1:8080")]
    to: String,
    /// What the node asks operators for
    #[arg(long, env = "FANWIRE_OPERATOR_TOKEN", hide_env_values = true, value_parser = token)]
    token: Option<String>,
    /// Time from one table to the next, such as 500ms or 2s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// End after this many tables, and with 1 where the last could not be had
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Slow clients shown at most
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = crate::config::duration(text)?;
    if interval < Duration::from_millis(100) {
        return Err("must be at least 100ms".to_owned());
    }
    Ok(interval)
}

pub(super) fn token(text: &str) -> Result<String, String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.is_empty() {
        return Ok(text.to_owned());
    }
    Err("a token is visible ASCII without spaces".to_owned())
}

/// What the drawing waits for.
enum Happened {
    Answered(Result<Box<(Stats, Slow)>, NoAnswer>),
    Resized,
    Stopped,
}

/// The other screen of a terminal, without a cursor; the first one is back when this is dropped.
struct Screen;

impl Screen {
    fn open() -> Result<Self, Failure> {
        print(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Who closed the terminal needs it back no more.
        let _ = print(b"\x1b[?25h\x1b[?1049l");
    }
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let host = host_and_port(&arguments.to)?;
    let (sender, happened) = crossbeam_channel::bounded(1);
    let screen = if io::stdout().is_terminal() { Some(watch_signals(&sender)?) } else { None };
    ask_again_and_again(&host, arguments, sender);
    let mut frame = Frame::new(&host);
    let (mut tables, mut last_trouble) = (0, String::new());
    for happened in happened {
        match happened {
            Happened::Stopped => break,
            Happened::Resized => {}
            Happened::Answered(Ok(answers)) => {
                let (stats, slow) = *answers;
                last_trouble.clear();
                // Without a screen to wait at, the first table is one with rates.
                let is_first = frame.is_empty();
                frame.take(stats, slow);
                if is_first && screen.is_none() {
                    continue;
                }
                tables += 1;
            }
            Happened::Answered(Err(NoAnswer::Ever(message) | NoAnswer::Not(message))) => {
                return Err(Failure::Message(shown(&message)));
            }
            Happened::Answered(Err(NoAnswer::Now(message))) => {
                tables += 1;
                let message = shown(&message);
                if screen.is_none() && message != last_trouble {
                    let after = if arguments.count == Some(tables) { "" } else { "; trying again" };
                    eprintln!("fanwire: {message}{after}");
                }
                last_trouble.clone_from(&message);
                frame.fail(message);
            }
        }
        if screen.is_some() {
            draw(&frame)?;
        } else if last_trouble.is_empty() {
            print(frame.lines(Size::default()).join("\n").as_bytes())?;
            print(if arguments.count == Some(tables) { b"\n" } else { b"\n\n" })?;
        }
        if arguments.count.is_some_and(|count| tables >= count) {
            break;
        }
    }
    Ok(if last_trouble.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A message with nothing in it that could steer a terminal: an address may come from anywhere.
pub(super) fn shown(message: &str) -> String {
    printable(message).into_owned()
}

fn draw(frame: &Frame) -> Result<(), Failure> {
    let size = tcgetwinsize(io::stdout()).map_or_else(
        |_| Size::default(),
        |size| Size {
            // The last column stays free: erasing what is behind a line that fills it would take its last letter.
            columns: usize::from(size.ws_col).checked_sub(1),
            rows: Some(usize::from(size.ws_row)).filter(|rows| *rows > 0),
        },
    );
    // Over what is there, line by line, so that nothing flickers.
    let lines = frame.lines(size).join("\x1b[K\n");
    print(format!("\x1b[H{lines}\x1b[K\x1b[J").as_bytes())
}

/// Opens the screen, and sees to it that whatever ends the program goes past its end.
fn watch_signals(sender: &Sender<Happened>) -> Result<Screen, Failure> {
    let signals = Signals::new([SIGINT, SIGTERM, SIGWINCH]);
    let mut signals = signals.map_err(|error| format!("signals cannot be watched: {error}"))?;
    let sender = sender.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            let happened = if signal == SIGWINCH { Happened::Resized } else { Happened::Stopped };
            if sender.send(happened).is_err() {
                return;
            }
        }
    });
    Screen::open()
}

/// Asks at once and then at every interval, until nobody listens.
fn ask_again_and_again(host: &str, arguments: &Arguments, sender: Sender<Happened>) {
    let (host, token) = (host.to_owned(), arguments.token.clone());
    let (interval, limit) = (arguments.interval, arguments.limit);
    thread::spawn(move || {
        let mut next = Instant::now();
        let mut wait = interval.min(FIRST_INTERVAL);
        loop {
            let slow = format!("/api/slow?limit={limit}");
            let answer = http::get(&host, "/api/v1/websocket/stats", token.as_deref())
                .and_then(|stats| Ok(Box::new((stats, http::get(&host, &slow, token.as_deref())?))));
            if sender.send(Happened::Answered(answer)).is_err() {
                return;
            }
            // A node that answers late is not asked twice at once.
            next = (next + wait).max(Instant::now());
            wait = interval;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
}
