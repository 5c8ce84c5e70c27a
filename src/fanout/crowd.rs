//! Whether most of the clients that are served refuse what they are sent.
//!
//! One client that refuses is slow. Where most do, each time that their sockets are full, it comes faster than they take:
//! whoever publishes it is too fast, and none of them is slow.
//!
//! Clients are counted once in a second, so that few who refuse often are not many. Those that are sent no events do not
//! count, nor do those that take nothing at all any more: nothing is written to them.

/// For how long clients are counted once, in nanoseconds.
const WINDOW: u64 = 1_000_000_000;
/// Fewer are no crowd: a few that go slow together could be one user's.
const FEW: u32 = 16;

/// The count, as far as one connection is part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// The last window in which it was sent events; 0: none.
    served: u8,
    /// The last one in which it refused them; 0: none.
    refused: u8,
}

/// How many were sent events lately, and how many of those refused.
#[derive(Debug)]
pub(super) struct Crowd {
    /// The window under way, 1 to 255: after four minutes a number comes again, and who was last counted in that window
    /// is left out once.
    window: u8,
    /// When it began, in nanoseconds.
    began: u64,
    served: u32,
    refused: u32,
    /// Whether most did in the window before.
    was_most: bool,
}

impl Default for Crowd {
    fn default() -> Self {
        Self { window: 1, began: 0, served: 0, refused: 0, was_most: false }
    }
}

impl Crowd {
    /// A turn begins.
    pub(super) fn begin_turn(&mut self, now: u64) {
        let passed = now.saturating_sub(self.began);
        if passed < WINDOW {
            return;
        }
        // What was counted longer ago says nothing of now.
        self.was_most = self.is_most_of_window() && passed < 2 * WINDOW;
        self.began = now;
        self.window = self.window.checked_add(1).unwrap_or(1);
        (self.served, self.refused) = (0, 0);
    }

    /// A client is sent events.
    pub(super) fn note_served(&mut self, counted: &mut Counted) {
        self.served += u32::from(counted.served != self.window);
        counted.served = self.window;
    }

    /// A client refused.
    pub(super) fn note_refused(&mut self, counted: &mut Counted) {
        self.refused += u32::from(counted.refused != self.window);
        counted.refused = self.window;
    }

    /// Whether most refuse.
    pub(super) fn is_most(&self) -> bool {
        self.was_most || self.is_most_of_window()
    }

    fn is_most_of_window(&self) -> bool {
        self.refused >= FEW && 32 * self.refused > self.served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows in each of which so many are served and so many of them refuse, three times each.
    fn count(crowd: &mut Crowd, all: &mut [Counted], windows: &[(usize, usize)]) -> Vec<bool> {
        let mut now = crowd.began;
        let mut window = |(served, refusing): &(usize, usize)| {
            now += WINDOW;
            crowd.begin_turn(now);
            for _ in 0..3 {
                all[..*served].iter_mut().for_each(|one| crowd.note_served(one));
                all[..*refusing].iter_mut().for_each(|one| crowd.note_refused(one));
            }
            crowd.is_most()
        };
        windows.iter().map(&mut window).collect()
    }

    #[test]
    fn more_than_half_of_those_who_are_served_are_most() {
        let (mut crowd, mut all) = (Crowd::default(), vec![Counted::default(); 1000]);
        let windows = [(1000, 500), (1000, 501), (1000, 500), (1000, 500), (16, 16), (0, 0), (0, 0)];
        let is_most = count(&mut crowd, &mut all, &windows);
        assert_eq!(is_most, [false, true, true, false, true, true, false]);
    }

    #[test]
    fn few_are_never_most() {
        let (mut crowd, mut all) = (Crowd::default(), vec![Counted::default(); 15]);
        assert_eq!(count(&mut crowd, &mut all, &[(15, 15); 600]), [false; 600]);
    }

    #[test]
    fn what_was_long_ago_says_nothing() {
        let (mut crowd, mut all) = (Crowd::default(), vec![Counted::default(); 20]);
        assert_eq!(count(&mut crowd, &mut all, &[(20, 20)]), [true]);
        crowd.begin_turn(crowd.began + WINDOW - 1);
        assert!(crowd.is_most());
        crowd.begin_turn(crowd.began + 2 * WINDOW);
        assert!(!crowd.is_most());
    }
}
