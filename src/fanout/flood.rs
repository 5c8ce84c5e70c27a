//! How many clients refuse, and whether events come faster than those take that read well.
//!
//! Whose socket refuses is behind, and mostly slow. But whoever takes again a moment later reads; where several of those
//! refuse, it is the publisher who is too fast, and none of them is slow.
//!
//! A client counts once in a second, so that few who refuse often are not several.

/// Whoever takes again so soon after a refusal reads well, in nanoseconds: in floods of 1,600,000 events a second to 10
/// clients, those that took again had done so within 12 milliseconds.
pub(super) const PROMPT: u64 = 20_000_000;
/// For how long a client counts once, in nanoseconds.
const WINDOW: u64 = 1_000_000_000;
/// So many that refused and took again are several …
pub(super) const SEVERAL: u32 = 16;
/// … where they are not less than one in so many of those that events were written to: a few on topics of their own are
/// not to hold up thousands.
const ONE_IN: u32 = 64;

/// In which window a connection was counted last; 0: in none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    written: u8,
    refused: u8,
    took_again: u8,
}

/// How many clients events were written to lately, how many of those refused, and how many of them took again soon.
#[derive(Debug)]
pub(super) struct Flood {
    /// The window under way, 1 to 255: a number comes again after four minutes at the earliest, and whoever was counted
    /// last in that window is then passed over once.
    window: u8,
    /// When it began, in nanoseconds.
    began: u64,
    written: u32,
    refused: u32,
    took_again: u32,
    /// What was found in the window before.
    before: Found,
}

#[derive(Clone, Copy, Debug, Default)]
struct Found {
    have_several_refused: bool,
    is_flood: bool,
}

impl Default for Flood {
    fn default() -> Self {
        Self { window: 1, began: 0, written: 0, refused: 0, took_again: 0, before: Found::default() }
    }
}

impl Flood {
    /// A turn begins at `now`, in nanoseconds.
    pub(super) fn begin_turn(&mut self, now: u64) {
        let passed = now.saturating_sub(self.began);
        if passed < WINDOW {
            return;
        }
        // What was counted longer ago says nothing of now.
        self.before = if passed < 2 * WINDOW { self.in_window() } else { Found::default() };
        self.began = now;
        self.window = self.window.checked_add(1).unwrap_or(1);
        (self.written, self.refused, self.took_again) = (0, 0, 0);
    }

    /// Events are about to be written to a client.
    pub(super) fn note_written(&mut self, counted: &mut Counted) {
        self.written += u32::from(counted.written != self.window);
        counted.written = self.window;
    }

    /// A client's socket refused.
    pub(super) fn note_refused(&mut self, counted: &mut Counted) {
        self.refused += u32::from(counted.refused != self.window);
        counted.refused = self.window;
    }

    /// A client whose socket refused so many nanoseconds ago took something again.
    pub(super) fn note_took_again(&mut self, counted: &mut Counted, after: u64) {
        if after < PROMPT {
            self.took_again += u32::from(counted.took_again != self.window);
            counted.took_again = self.window;
        }
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.before.is_flood || self.in_window().is_flood
    }

    /// Whether several have refused lately, be it that they are slow.
    pub(super) fn have_several_refused(&self) -> bool {
        self.before.have_several_refused || self.in_window().have_several_refused
    }

    fn in_window(&self) -> Found {
        let are_several = |clients| clients >= SEVERAL && clients >= self.written / ONE_IN;
        Found { have_several_refused: are_several(self.refused), is_flood: are_several(self.took_again) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows in each of which events are written to so many, and so many of them refuse and take again, three times each;
    /// answers for each whether there is a flood at its end.
    fn windows(flood: &mut Flood, all: &mut [Counted], windows: &[(usize, usize)]) -> Vec<bool> {
        let mut now = flood.began;
        let mut window = |(written, take_again): &(usize, usize)| {
            now += WINDOW;
            flood.begin_turn(now);
            for _ in 0..3 {
                all[..*written].iter_mut().for_each(|one| flood.note_written(one));
                for one in &mut all[..*take_again] {
                    flood.note_refused(one);
                    flood.note_took_again(one, PROMPT - 1);
                }
            }
            assert_eq!(flood.have_several_refused(), flood.is_there());
            flood.is_there()
        };
        windows.iter().map(&mut window).collect()
    }

    #[test]
    fn several_who_take_again_are_one_in_sixty_four_and_no_few() {
        let (mut flood, mut all) = (Flood::default(), vec![Counted::default(); 6400]);
        let counts = [(6400, 99), (6400, 100), (6400, 99), (6400, 99), (100, 15), (100, 16), (0, 0), (0, 0)];
        let is_there = windows(&mut flood, &mut all, &counts);
        assert_eq!(is_there, [false, true, true, false, false, true, true, false]);
    }

    #[test]
    fn few_are_never_several_however_often_they_refuse() {
        let (mut flood, mut all) = (Flood::default(), vec![Counted::default(); 15]);
        assert_eq!(windows(&mut flood, &mut all, &[(15, 15); 600]), [false; 600]);
    }

    #[test]
    fn who_takes_again_late_or_long_ago_does_not_count() {
        let (mut flood, mut all) = (Flood::default(), vec![Counted::default(); 20]);
        for one in &mut all {
            flood.note_refused(one);
            flood.note_took_again(one, PROMPT);
        }
        assert!(flood.have_several_refused() && !flood.is_there());
        assert_eq!(windows(&mut flood, &mut all, &[(20, 20)]), [true]);
        flood.begin_turn(flood.began + WINDOW - 1);
        assert!(flood.is_there());
        flood.begin_turn(flood.began + 2 * WINDOW);
        assert!(!flood.is_there());
    }
}
