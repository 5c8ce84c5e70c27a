//! The channel into a shard: bounded by credit, with the bell that wakes it.
//!
//! `send` never blocks and never fails. What bounds a link is that publishers are not read while it holds
//! more than its credit, so what is over the bound is one read (or a piece of one request) per shard at most. A shard that stopped
//! reading leaves its mark; the link's owner rings it when half the credit is free again.

use std::sync::OnceLock;

use channel::{Receiver, Sender, unbounded};
#[cfg(fanwire_loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(fanwire_loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(not(fanwire_loom))]
use crossbeam_channel as channel;

/// What wakes a sleeping shard: a poll's waker, or nothing in the simulation.
pub trait Wake: Send + Sync {
    /// Makes the shard's poll return. Called at most once until the shard drains its link.
    fn wake(&self);
}

/// The channel into one shard.
pub struct Link<M> {
    sender: Sender<(M, usize)>,
    receiver: Receiver<(M, usize)>,
    /// Costs of the messages not yet drained.
    in_flight: AtomicUsize,
    /// Whether the shard has been woken for what is in the channel.
    rung: AtomicBool,
    /// One bit for each shard that stopped reading publishers because this link was full.
    waiting: AtomicU64,
    waker: OnceLock<Box<dyn Wake>>,
}

impl<M> Link<M> {
    /// An empty link whose shard has no poll yet.
    pub fn new() -> Self {
        let (sender, receiver) = unbounded();
        Self {
            sender,
            receiver,
            in_flight: AtomicUsize::new(0),
            rung: AtomicBool::new(false),
            waiting: AtomicU64::new(0),
            waker: OnceLock::new(),
        }
    }

    /// Gives the link the waker of its shard's poll; later calls change nothing.
    pub fn set_waker(&self, waker: Box<dyn Wake>) {
        // A second call would be a mistake of ours and is harmless.
        drop(self.waker.set(waker));
    }

    /// Sends one message that counts for `cost` bytes, and rings the bell.
    pub fn send(&self, message: M, cost: usize) {
        self.send_to_self(message, cost);
        self.ring();
    }

    /// Only for the link's shard, while it is awake: it drains the link before it sleeps, so nobody rings.
    pub fn send_to_self(&self, message: M, cost: usize) {
        self.in_flight.fetch_add(cost, Ordering::Relaxed);
        // The link owns both ends, so the channel cannot be closed.
        drop(self.sender.send((message, cost)));
    }

    /// Wakes the shard, once until it drains.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// Only for the link's shard: says that it is awake and looks, before it drains. Answers whether it was
    /// rung.
    pub fn answer_bell(&self) -> bool {
        self.rung.load(Ordering::Relaxed) && self.rung.swap(false, Ordering::AcqRel)
    }

    /// Only for the link's shard: the next message.
    pub fn receive(&self) -> Option<M> {
        let (message, cost) = self.receiver.try_recv().ok()?;
        self.in_flight.fetch_sub(cost, Ordering::Relaxed);
        Some(message)
    }

    /// Whether nothing is in the channel.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Bytes in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether a publisher may be read. Where not, `shard` will be rung when there is credit again.
    pub fn has_credit(&self, credit: usize, shard: usize) -> bool {
        if self.in_flight() < credit {
            return true;
        }
        self.waiting.fetch_or(1 << shard, Ordering::AcqRel);
        // The link may have been drained between the look and the mark. With the fence in `freed`, either the
        // link's shard sees the mark, or the credit that it gave back is seen here.
        fence(Ordering::SeqCst);
        self.in_flight() < credit
    }

    /// Only for the link's shard, after draining: the shards to ring because half the credit is free.
    pub fn freed(&self, credit: usize) -> u64 {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 || self.in_flight() > credit / 2 {
            return 0;
        }
        self.waiting.swap(0, Ordering::AcqRel)
    }
}

impl<M> Default for Link<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M> std::fmt::Debug for Link<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

/// A channel that loom sees through, with the calls of crossbeam's that are used here.
#[cfg(fanwire_loom)]
mod channel {
    use std::collections::VecDeque;

    use loom::sync::{Arc, Mutex};

    pub(super) struct Sender<M>(Arc<Mutex<VecDeque<M>>>);
    pub(super) struct Receiver<M>(Arc<Mutex<VecDeque<M>>>);

    pub(super) fn unbounded<M>() -> (Sender<M>, Receiver<M>) {
        let queue = Arc::new(Mutex::new(VecDeque::new()));
        (Sender(Arc::clone(&queue)), Receiver(queue))
    }

    impl<M> Sender<M> {
        pub(super) fn send(&self, message: M) -> Result<(), ()> {
            self.0.lock().map_err(drop)?.push_back(message);
            Ok(())
        }
    }

    impl<M> Receiver<M> {
        pub(super) fn try_recv(&self) -> Result<M, ()> {
            self.0.lock().map_err(drop)?.pop_front().ok_or(())
        }

        pub(super) fn is_empty(&self) -> bool {
            self.0.lock().is_ok_and(|queue| queue.is_empty())
        }
    }
}

/// Every interleaving of two threads, by loom: `make loom`.
#[cfg(all(test, fanwire_loom))]
mod model {
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    use super::*;

    /// A poll: it sleeps until it is woken, and a wake before the sleep is not lost.
    #[derive(Clone)]
    struct Poll(Arc<(Mutex<bool>, Condvar)>);

    impl Poll {
        fn new() -> Self {
            Self(Arc::new((Mutex::new(false), Condvar::new())))
        }

        fn sleep(&self) {
            let mut woken = self.0.0.lock().unwrap();
            while !*woken {
                woken = self.0.1.wait(woken).unwrap();
            }
            *woken = false;
        }
    }

    impl Wake for Poll {
        fn wake(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }
    }

    #[test]
    fn no_message_is_left_behind_by_a_shard_that_sleeps() {
        loom::model(|| {
            let (link, poll) = (Arc::new(Link::new()), Poll::new());
            link.set_waker(Box::new(poll.clone()));
            let sender = {
                let link = Arc::clone(&link);
                thread::spawn(move || (0..2).for_each(|n| link.send(n, 1)))
            };
            let mut received = Vec::new();
            loop {
                link.answer_bell();
                while let Some(n) = link.receive() {
                    received.push(n);
                }
                if received.len() == 2 {
                    break;
                }
                if link.is_empty() {
                    poll.sleep();
                }
            }
            assert_eq!(received, [0, 1]);
            sender.join().unwrap();
        });
    }

    #[test]
    fn a_shard_without_credit_reads_again_or_is_rung() {
        loom::model(|| {
            const CREDIT: usize = 2;
            let (link, own) = (Arc::new(Link::new()), Arc::new(Link::<()>::new()));
            let poll = Poll::new();
            own.set_waker(Box::new(poll.clone()));
            link.send((), CREDIT);
            let owner = {
                let (link, own) = (Arc::clone(&link), Arc::clone(&own));
                thread::spawn(move || {
                    while link.receive().is_some() {}
                    if link.freed(CREDIT) != 0 {
                        own.ring();
                    }
                })
            };
            while !link.has_credit(CREDIT, 0) {
                poll.sleep();
                own.answer_bell();
            }
            owner.join().unwrap();
        });
    }
}

#[cfg(all(test, not(fanwire_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_bell_rings_once_until_it_is_answered() {
        let link = Link::new();
        let wakes = Count::default();
        link.set_waker(Box::new(wakes.clone()));
        link.send("a", 10);
        link.send("b", 10);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        link.answer_bell();
        assert_eq!([link.receive(), link.receive(), link.receive()], [Some("a"), Some("b"), None]);
        link.send("c", 1);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn credit_is_refused_above_the_bound_and_given_back_at_half() {
        let link = Link::new();
        assert!(link.has_credit(100, 3));
        link.send((), 60);
        assert!(link.has_credit(100, 3));
        link.send((), 60);
        assert!(!link.has_credit(100, 3));
        link.receive();
        assert_eq!(link.freed(100), 0, "60 of 100 are still in flight");
        link.receive();
        assert_eq!(link.freed(100), 1 << 3);
        assert_eq!(link.freed(100), 0, "rung once");
    }
}
