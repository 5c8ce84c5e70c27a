//! A shard's clients that are behind.

use crate::admin::slow::{LISTED_TOPICS, Rank, SlowClient, Slowest};
use crate::clock::Now;
use crate::fanout::connection::{Connection, Role};
use crate::fanout::shard::Shard;
use crate::session::session::{Session, Trouble};
use crate::transport::{KernelFigures, Transport};

/// With nothing queued and nothing left out, a client is behind where the kernel has more than so many bytes that
/// it could not send.
const MANY_UNSENT_BYTES: u32 = 64 << 10;

/// A client that may be behind.
struct Candidate<'a, T> {
    connection: &'a Connection<T>,
    session: &'a Session,
    trouble: &'a Trouble,
    rank: Rank,
    /// Whether the node itself knows that it is behind.
    is_behind: bool,
}

impl<T: Transport> Shard<T> {
    /// The clients furthest behind, at most `limit`.
    ///
    /// Only a refused write makes a client slow. So whoever's socket always took everything is passed over at the
    /// price of one look, and the kernel is asked for the others, at most twice `limit`.
    pub(super) fn slowest(&self, limit: usize, now: Now) -> Slowest {
        let (mut behind, drained): (Vec<_>, Vec<_>) = self
            .connections
            .iter()
            .filter_map(|(_, connection)| self.candidate(connection, now))
            .partition(|candidate| candidate.is_behind);
        let is_cut = behind.len() > limit;
        keep_first(&mut behind, limit, |candidate| std::cmp::Reverse(candidate.rank));
        // Their queues are empty: the kernel may hold what they do not read. The latest refusals tell who.
        let mut drained = drained;
        keep_first(&mut drained, limit, |candidate| std::cmp::Reverse(candidate.trouble.refused));
        behind.append(&mut drained);
        let streams: Vec<&T> = behind.iter().map(|candidate| &candidate.connection.stream).collect();
        let figures = T::kernel_figures(&streams);
        let clients = behind.into_iter().zip(figures).filter_map(|(candidate, kernel)| {
            let is_unsent = kernel.is_some_and(|kernel| kernel.unsent_bytes > MANY_UNSENT_BYTES);
            (candidate.is_behind || is_unsent).then(|| self.describe(&candidate, kernel))
        });
        Slowest::of(clients.collect(), is_cut, limit)
    }

    fn candidate<'a>(&self, connection: &'a Connection<T>, now: Now) -> Option<Candidate<'a, T>> {
        let Role::Client(session) = &connection.role else { return None };
        let trouble = session.trouble.as_deref()?;
        let outbox = &connection.outbox;
        // What waits for a turn, and not for the client, is no sign of a slow one.
        let is_stuck = connection.is_stalled && !outbox.is_empty();
        let oldest = outbox.oldest(&self.chunks).map_or(0, |oldest| now.mono.saturating_sub(oldest));
        Some(Candidate {
            connection,
            session,
            trouble,
            rank: Rank {
                queued_bytes: outbox.owed_bytes(),
                oldest_ms: oldest / 1_000_000,
                kernel_bytes: 0,
                dropped: trouble.dropped.iter().map(|(_, count)| count).sum(),
            },
            is_behind: is_stuck || !trouble.dropped.is_empty(),
        })
    }

    fn describe(&self, candidate: &Candidate<'_, T>, kernel: Option<KernelFigures>) -> SlowClient {
        let Candidate { connection, session, trouble, rank, .. } = candidate;
        let topics = session.subscriptions.iter().take(LISTED_TOPICS);
        SlowClient {
            client_id: session.name(),
            address: session.address.to_string().into(),
            dialect: session.dialect.name(),
            topics: topics.map(|s| self.subscribers.get(s.topic).topic.name().clone()).collect(),
            has_more_topics: session.subscriptions.len() > LISTED_TOPICS,
            queued_events: connection.outbox.events(),
            rank: Rank { kernel_bytes: kernel.map_or(0, |kernel| kernel.unsent_bytes), ..*rank },
            kernel,
            dropped: trouble.dropped.iter().map(|(reason, count)| (reason.name(), *count)).collect(),
        }
    }
}

/// Keeps the `count` with the smallest keys, in no order.
fn keep_first<C, K: Ord>(all: &mut Vec<C>, count: usize, key: impl Fn(&C) -> K) {
    if all.len() > count {
        all.select_nth_unstable_by_key(count, key);
        all.truncate(count);
    }
}
