//! What a session has had of a topic before it asked for the topic's history: events of several topics that came
//! through another one. They are not to come again.
//!
//! It is noted once, when the history is asked for, as one bit for each event: so it is exact, and takes no more than
//! a thousandth of what the history itself does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all sessions of a shard hold of these notes.
pub type Account = Arc<AtomicUsize>;

/// Events of one topic, by their offsets.
#[derive(Debug)]
pub struct Brought {
    /// The first of them.
    first: u64,
    /// A bit for each offset from the first on.
    bits: Box<[u64]>,
    account: Account,
}

impl Brought {
    /// Notes these offsets, which rise. `None` where there are none.
    pub fn note(offsets: impl IntoIterator<Item = u64>, account: &Account) -> Option<Self> {
        let mut offsets = offsets.into_iter().peekable();
        let first = *offsets.peek()?;
        let mut bits: Vec<u64> = Vec::new();
        for offset in offsets {
            let (word, bit) = place(offset - first);
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            bits[word] |= 1 << bit;
        }
        let noted = Self { first, bits: bits.into(), account: Arc::clone(account) };
        noted.account.fetch_add(noted.bytes(), Ordering::Relaxed);
        Some(noted)
    }

    /// Whether the event at an offset is one of them.
    pub fn has(&self, offset: u64) -> bool {
        let Some(distance) = offset.checked_sub(self.first) else { return false };
        let (word, bit) = place(distance);
        self.bits.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.bits)
    }
}

impl Drop for Brought {
    fn drop(&mut self) {
        self.account.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

fn place(distance: u64) -> (usize, u32) {
    ((distance / 64) as usize, (distance % 64) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_what_was_noted_is_there_and_what_it_takes_is_counted_while_it_lives() {
        let account = Account::default();
        assert!(Brought::note([], &account).is_none());
        let offsets = [7, 8, 70, 71, 134, 135, 1000];
        let noted = Brought::note(offsets, &account).unwrap();
        let found: Vec<u64> = (0..2000).filter(|offset| noted.has(*offset)).collect();
        assert_eq!(found, offsets);
        assert!(!noted.has(u64::MAX));
        let (held, bits) = (account.load(Ordering::Relaxed), 1000 - 7 + 1);
        assert!((bits / 8..bits / 8 + 64).contains(&held), "{held}");
        let other = Brought::note([u64::MAX], &account).unwrap();
        assert!(other.has(u64::MAX) && !other.has(0));
        drop((noted, other));
        assert_eq!(account.load(Ordering::Relaxed), 0);
    }
}
