//! How a whole shard goes: its part in the stages of a shutdown.

use crate::clock::Now;
use crate::error::CloseReason;
use crate::fanout::connection::Role;
use crate::fanout::lifecycle::shutting_down;
use crate::fanout::shard::Shard;
use crate::fanout::shared::State;
use crate::fanout::stages::{Order, Stage};
use crate::receipt::Key;
use crate::transport::Transport;

/// How far the shard's shutdown is.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// The stage under way.
    order: Option<Order>,
    /// Whether the node has been told that this shard is through with the stage.
    is_reported: bool,
    /// The clients that there were when the shutdown began …
    clients: Vec<Key>,
    /// … and how many of them have been let go.
    let_go: usize,
    /// When the next line of the log is due, in nanoseconds.
    next_line: u64,
}

/// Nanoseconds from one line of the log to the next.
const LINES: u64 = 1_000_000_000;
/// Nanoseconds from one look at who is to be let go to the next, at least: where there are many, a few go at once.
const LOOKS: u64 = 10_000_000;

impl Drain {
    fn is_in(&self, stage: Stage) -> bool {
        self.order.is_some_and(|order| order.stage == stage)
    }

    /// Whether publishers are read no more.
    pub(super) fn is_ending(&self) -> bool {
        self.order.is_some_and(|order| order.stage > Stage::Spread)
    }

    /// When everything is dropped, in nanoseconds.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.order.filter(|order| order.stage > Stage::Spread).map(|order| order.until)
    }

    /// When clients that still do not take what they are owed are closed, in nanoseconds.
    fn patience(&self) -> Option<u64> {
        let order = self.order.filter(|order| order.stage > Stage::Spread)?;
        Some(order.until - (order.until - order.from) / 10)
    }

    /// How many of the clients are to have been let go at `now`, in nanoseconds: all evenly over the time.
    fn due(&self, order: Order, now: u64) -> usize {
        if now >= order.until {
            return self.clients.len();
        }
        let (passed, all) = (now.saturating_sub(order.from), order.until.saturating_sub(order.from).max(1));
        (self.clients.len() as u128 * u128::from(passed) / u128::from(all)) as usize
    }

    /// When the next one is due, in nanoseconds.
    fn next_due(&self, order: Order, now: u64) -> u64 {
        let all = u128::from(order.until.saturating_sub(order.from));
        match self.clients.len() {
            len if self.let_go >= len => order.until,
            len => {
                let passed = (all * (self.let_go as u128 + 1)).div_ceil(len as u128) as u64;
                order.from.saturating_add(passed).max(now + LOOKS).min(order.until)
            }
        }
    }
}

impl<T: Transport> Shard<T> {
    /// Begins a stage of the shutdown.
    pub(super) fn begin_stage(&mut self, order: Order, now: Now) {
        if self.drain.order.is_none() {
            self.drain.next_line = now.mono + LINES;
        }
        self.drain.order = Some(order);
        self.drain.is_reported = false;
        match order.stage {
            Stage::Spread => {
                let clients = self.numbers(|role| matches!(role, Role::Client(_))).into_iter();
                let key = |number| Key { number, generation: self.connections[number as usize].generation };
                self.drain.clients = clients.map(key).collect();
                self.let_due_go(now);
            }
            Stage::Quiesce => {
                // What is published in part is published whole before it is too late.
                for number in self.numbers(|role| matches!(role, Role::Http(http) if http.batch.is_some())) {
                    self.publish_batch(number, usize::MAX, now);
                }
                self.report(now);
            }
            Stage::Deliver => {
                for number in self.numbers(|role| matches!(role, Role::Client(_))) {
                    self.let_client_go(number, now);
                }
                self.check_delivered(now);
            }
            Stage::Farewell => {
                for number in self.numbers(|role| matches!(role, Role::Publisher(_))) {
                    self.dismiss_publisher(number, &shutting_down(), now);
                }
                self.drain.is_reported = true;
            }
        }
    }

    /// The shutdown is taken back: who has not been closed stays.
    pub(super) fn undo_drain(&mut self) {
        self.drain = Drain::default();
        for (_, connection) in &mut self.connections {
            if let Role::Client(session) = &mut connection.role {
                session.leaving = false;
            }
        }
    }

    /// Does what the time asks for in a shutdown.
    pub(super) fn drain_by_time(&mut self, now: Now) {
        self.let_due_go(now);
        if self.drain.patience().is_some_and(|patience| now.mono >= patience) {
            // It does not wait for ever: first the clients that take nothing go, then everything.
            for number in self.numbers(|role| matches!(role, Role::Client(_))) {
                self.close_client(number, CloseReason::ShuttingDown, "", now);
            }
        }
        if self.is_overdue(now) {
            for number in self.numbers(|role| !matches!(role, Role::Client(_))) {
                self.remove(number);
            }
        }
        self.log_progress(now);
    }

    /// Lets those clients go whose time has come, and reports the end of that.
    fn let_due_go(&mut self, now: Now) {
        let Some(order) = self.drain.order.filter(|order| order.stage == Stage::Spread) else { return };
        if self.drain.is_reported || !self.is_draining() {
            return;
        }
        let due = self.drain.due(order, now.mono);
        while self.drain.let_go < due {
            let key = self.drain.clients[self.drain.let_go];
            self.drain.let_go += 1;
            let connection = self.connections.get(key.number as usize);
            if connection.is_some_and(|connection| connection.generation == key.generation) {
                self.let_client_go(key.number, now);
            }
        }
        // Load balancers are given their time in any case.
        let is_over = now.mono >= order.until || (now.mono >= order.from && self.counts.clients == 0);
        if is_over {
            self.report(now);
        }
    }

    /// A client goes as soon as it has what it is owed.
    fn let_client_go(&mut self, number: u32, now: Now) {
        let connection = &mut self.connections[number as usize];
        let Role::Client(session) = &mut connection.role else { return };
        session.leaving = true;
        if connection.has_all() {
            self.close_client(number, CloseReason::ShuttingDown, "", now);
        }
    }

    /// Reports the end of the delivery once no session is left, and no receipt waits.
    pub(super) fn check_delivered(&mut self, now: Now) {
        let is_over = self.counts.clients == 0 && self.unflushed.is_empty();
        if self.drain.is_in(Stage::Deliver) && !self.drain.is_reported && is_over {
            self.report(now);
        }
    }

    fn report(&mut self, now: Now) {
        self.drain.is_reported = true;
        if let Some(order) = self.drain.order {
            self.shared.end(order, now);
        }
    }

    /// A line a second, of the whole node: one shard writes it.
    fn log_progress(&mut self, now: Now) {
        let Some(order) = self.drain.order.filter(|_| self.writes_lines()) else { return };
        if now.mono < self.drain.next_line || !self.is_draining() {
            return;
        }
        self.drain.next_line = now.mono + LINES;
        let clients = self.shared.clients.load(std::sync::atomic::Ordering::Relaxed);
        let seconds = order.until.saturating_sub(now.mono) as f64 / 1e9;
        tracing::info!(stage = order.stage.name(), clients, of = order.clients, seconds, "shutting down");
    }

    /// Nobody is left when the last stage begins.
    fn writes_lines(&self) -> bool {
        self.id == 0 && self.drain.order.is_some() && !self.drain.is_in(Stage::Farewell)
    }

    /// Whether the node is shutting down. Where this is over before the shard has heard of it, nobody is let go.
    pub(super) fn is_draining(&self) -> bool {
        self.shared.state() == State::Draining
    }

    /// When the shutdown wants the next turn, in nanoseconds.
    pub(super) fn next_of_drain(&self, now: Now) -> Option<u64> {
        let order = self.drain.order?;
        let is_spreading = order.stage == Stage::Spread && !self.drain.is_reported;
        let due = is_spreading.then(|| match now.mono < order.from {
            true => order.from,
            false => self.drain.next_due(order, now.mono),
        });
        due.into_iter().chain(self.writes_lines().then_some(self.drain.next_line)).min()
    }

    /// Whether publishers are read no more because of a shutdown.
    pub fn is_ending(&self) -> bool {
        self.drain.is_ending()
    }

    /// When a shutdown that is ending must be looked at again, in nanoseconds.
    pub fn drain_deadline(&self) -> Option<u64> {
        self.drain.patience()
    }

    /// Whether the shutdown is over for this shard: publishers are told, and nobody is left but idle HTTP
    /// connections.
    pub fn is_finished(&self) -> bool {
        let is_over = self.drain.is_in(Stage::Farewell);
        is_over
            && self.counts.clients + self.counts.publishers + self.counts.closing == 0
            && !self.connections.iter().any(|(_, connection)| connection.is_being_answered())
    }

    /// Whether the time for the shutdown is up.
    pub fn is_overdue(&self, now: Now) -> bool {
        self.drain.deadline().is_some_and(|deadline| now.mono >= deadline)
    }
}
