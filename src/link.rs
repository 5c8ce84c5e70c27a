//! The channel into a shard: bounded by credit, with the bell that wakes it.
//!
//! `send` never blocks and never fails. What bounds a link is that publishers are not read while it holds
//! more than its credit, so what is over the bound is one read (or a piece of one request) per shard at most. A shard that stopped
//! reading leaves its mark; the link's owner rings it when half the credit is free again.
//!
//! The shard takes everything that is there at once, into its [`Inbox`]: a message costs the lock that it was put in under,
//! and nothing that other processors have to hear of when it is taken out. Where each event is a round of its own, a
//! channel with a locked instruction or more for each of send, receive and account was a tenth of what an event cost.

use std::collections::VecDeque;
use std::sync::OnceLock;

#[cfg(fanwire_loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(fanwire_loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use lock::Mutex;

use crate::slack::is_loose;

/// What wakes a sleeping shard: a poll's waker, or nothing in the simulation.
pub trait Wake: Send + Sync {
    /// Makes the shard's poll return. Called at most once until the shard drains its link.
    fn wake(&self);
}

/// Messages in the order they were sent, each with what it counts for.
type Queue<M> = VecDeque<(M, usize)>;

/// The channel into one shard.
pub struct Link<M> {
    queue: Mutex<Queue<M>>,
    /// What was sent so far counts for, going round. Written under the queue's lock only.
    sent: AtomicUsize,
    /// What of that the shard is through with. Written by the shard only.
    done: AtomicUsize,
    /// Whether the shard has been woken for what is in the channel.
    rung: AtomicBool,
    /// One bit for each shard that stopped reading publishers because this link was full.
    waiting: AtomicU64,
    waker: OnceLock<Box<dyn Wake>>,
}

/// What a link's shard has taken out of it and not come to yet.
#[derive(Debug)]
pub struct Inbox<M> {
    taken: Queue<M>,
    /// What the messages that it came to count for, until the link is told.
    done: usize,
}

impl<M> Default for Inbox<M> {
    fn default() -> Self {
        Self { taken: VecDeque::new(), done: 0 }
    }
}

impl<M> Link<M> {
    /// An empty link whose shard has no poll yet.
    pub fn new() -> Self {
        Self {
            queue: Mutex::new(VecDeque::new()),
            sent: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
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

    /// Sends one message that counts for `cost` bytes, at least 1, and rings the bell.
    pub fn send(&self, message: M, cost: usize) {
        self.send_to_self(message, cost);
        self.ring();
    }

    /// Only for the link's shard, while it is awake: it drains the link before it sleeps, so nobody rings.
    pub fn send_to_self(&self, message: M, cost: usize) {
        let cost = cost.max(1);
        let mut queue = lock::lock(&self.queue);
        let sent = self.sent.load(Ordering::Relaxed);
        self.sent.store(sent.wrapping_add(cost), Ordering::Relaxed);
        queue.push_back((message, cost));
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

    /// Only for the link's shard: the next message. [`Link::settle`] must follow the last one.
    pub fn receive(&self, inbox: &mut Inbox<M>) -> Option<M> {
        if inbox.taken.is_empty() {
            self.settle(inbox);
            std::mem::swap(&mut *lock::lock(&self.queue), &mut inbox.taken);
        }
        let (message, cost) = inbox.taken.pop_front()?;
        inbox.done += cost;
        Some(message)
    }

    /// Only for the link's shard: gives back the credit of the messages it has come to.
    pub fn settle(&self, inbox: &mut Inbox<M>) {
        if inbox.done > 0 {
            let done = self.done.load(Ordering::Relaxed);
            // Whoever sees it sees also what was sent before.
            self.done.store(done.wrapping_add(std::mem::take(&mut inbox.done)), Ordering::Release);
        }
    }

    /// Only for the link's shard: gives back memory for many more messages than there are.
    pub fn tidy(&self, inbox: &mut Inbox<M>) {
        for queue in [&mut *lock::lock(&self.queue), &mut inbox.taken] {
            if is_loose(queue.capacity(), queue.len()) {
                queue.shrink_to(2 * queue.len());
            }
        }
    }

    /// Whether there is no message that its shard has not come to.
    pub fn is_empty(&self) -> bool {
        self.in_flight() == 0
    }

    /// Bytes that messages count for which the shard has not come to.
    pub fn in_flight(&self) -> usize {
        // In this order: what is done was sent before, so there is never less than nothing.
        let done = self.done.load(Ordering::Acquire);
        self.sent.load(Ordering::Relaxed).wrapping_sub(done)
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

/// The lock, which loom sees through.
mod lock {
    #[cfg(fanwire_loom)]
    pub(super) use loom::sync::{Mutex, MutexGuard};
    #[cfg(not(fanwire_loom))]
    pub(super) use parking_lot::{Mutex, MutexGuard};

    #[cfg(fanwire_loom)]
    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }

    #[cfg(not(fanwire_loom))]
    pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock()
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
            let (mut received, mut inbox) = (Vec::new(), Inbox::default());
            loop {
                link.answer_bell();
                while let Some(n) = link.receive(&mut inbox) {
                    received.push(n);
                }
                link.settle(&mut inbox);
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
                    let mut inbox = Inbox::default();
                    while link.receive(&mut inbox).is_some() {}
                    link.settle(&mut inbox);
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
        let mut inbox = Inbox::default();
        let mut receive = || link.receive(&mut inbox);
        assert_eq!([receive(), receive(), receive()], [Some("a"), Some("b"), None]);
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
        let mut inbox = Inbox::default();
        let mut come_to_one = || {
            link.receive(&mut inbox);
            link.settle(&mut inbox);
        };
        come_to_one();
        assert_eq!(link.freed(100), 0, "60 of 100 are still in flight");
        assert!(!link.is_empty());
        come_to_one();
        assert!(link.is_empty());
        assert_eq!(link.freed(100), 1 << 3);
        assert_eq!(link.freed(100), 0, "rung once");
    }
}
