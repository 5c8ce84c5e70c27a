//! A file in memory, in which chunks that many are owed stand a second time: `send` copies bytes once for each socket,
//! `sendfile` hands the same pages to all of them.
//!
//! A socket keeps the pages that it was handed until the far end has taken them. So what is in the file is never written
//! over: a place that is used again gets new pages, and the old ones go with the last socket that has them.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Places in the file, one for a chunk. Where there are more, the one that came first makes way.
const PLACES: usize = 16;

/// Bytes of a place. A chunk with more is not copied.
const PLACE_BYTES: usize = 512 << 10;

/// The file, and what of each place is in use.
#[derive(Debug)]
pub struct Pages {
    /// `None`: the system has no such file, or something went wrong with it. Everything is then sent from where it is.
    file: Option<OwnedFd>,
    places: [Place; PLACES],
    /// The place that makes way next.
    next: usize,
    /// Of all places.
    bytes: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    is_taken: bool,
    /// How often it was taken: tells whose it is.
    generation: u32,
    /// Bytes written.
    bytes: usize,
}

/// Where a chunk stands in the file.
#[derive(Clone, Copy, Debug, Default)]
pub enum Copied {
    /// Nowhere.
    #[default]
    No,
    /// In this place, unless another has taken it since. It gets no second one.
    To {
        /// Its number.
        place: usize,
        /// How often it had been taken then.
        generation: u32,
    },
}

impl Default for Pages {
    /// A file with nothing in it. It takes no memory, and is opened at once so that the number of a shard's files never
    /// changes by itself.
    fn default() -> Self {
        Self::over(open().ok())
    }
}

impl Pages {
    fn over(file: Option<OwnedFd>) -> Self {
        Self { file, places: Default::default(), next: 0, bytes: 0 }
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies what is new of a chunk's bytes, which only ever grow.
    pub fn copy(&mut self, copied: &mut Copied, bytes: &[u8]) {
        if bytes.len() > PLACE_BYTES {
            return;
        }
        if let Copied::No = *copied {
            let Some(place) = self.take() else { return };
            *copied = Copied::To { place, generation: self.places[place].generation };
        }
        let Some(place) = self.own(*copied) else { return };
        let before = self.places[place].bytes;
        if let (Some(file), Some(new @ [_, ..])) = (&self.file, bytes.get(before..)) {
            match write(file.as_fd(), offset(place, before), new) {
                Ok(()) => {
                    self.places[place].bytes = bytes.len();
                    self.bytes += new.len();
                }
                Err(_) => self.give_up(),
            }
        }
    }

    /// Where in the file these bytes of a chunk are.
    pub fn locate(&self, copied: Copied, bytes: &Range<usize>) -> Option<(BorrowedFd<'_>, u64)> {
        let place = self.own(copied).filter(|place| bytes.end <= self.places[*place].bytes)?;
        Some((self.file.as_ref()?.as_fd(), offset(place, bytes.start)))
    }

    /// A chunk goes.
    pub fn release(&mut self, copied: &mut Copied) {
        if let Some(place) = self.own(std::mem::take(copied)) {
            self.clear(place);
        }
    }

    /// Gives all of the memory back. What chunks stood there go out from where they are.
    pub fn give_back(&mut self) {
        for place in 0..PLACES {
            if self.places[place].is_taken {
                self.clear(place);
            }
        }
    }

    /// The place, where it is still this chunk's.
    fn own(&self, copied: Copied) -> Option<usize> {
        let Copied::To { place, generation } = copied else { return None };
        let Place { is_taken, generation: latest, .. } = self.places[place];
        (is_taken && generation == latest).then_some(place)
    }

    /// An empty place.
    fn take(&mut self) -> Option<usize> {
        self.file.as_ref()?;
        let free = self.places.iter().position(|place| !place.is_taken);
        let place = free.unwrap_or_else(|| {
            let oldest = self.next;
            self.next = (oldest + 1) % PLACES;
            self.clear(oldest);
            oldest
        });
        let Place { is_taken, generation, .. } = &mut self.places[place];
        (*is_taken, *generation) = (true, generation.wrapping_add(1));
        Some(place)
    }

    /// Takes a place's pages out of the file. Were they still there, whoever writes to the place next would write into
    /// what sockets have yet to send.
    fn clear(&mut self, place: usize) {
        let Place { is_taken, bytes, .. } = &mut self.places[place];
        self.bytes -= std::mem::take(bytes);
        *is_taken = false;
        if self.file.as_ref().is_some_and(|file| discard(file.as_fd(), offset(place, 0)).is_err()) {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        *self = Self::over(None);
    }
}

const fn offset(place: usize, byte: usize) -> u64 {
    (place * PLACE_BYTES + byte) as u64
}

#[cfg(target_os = "linux")]
fn open() -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create("fanwire", rustix::fs::MemfdFlags::CLOEXEC)?)
}

#[cfg(target_os = "linux")]
fn discard(file: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, offset, PLACE_BYTES as u64)?)
}

#[cfg(not(target_os = "linux"))]
fn open() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn discard(_: BorrowedFd<'_>, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn write(file: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn read(pages: &Pages, copied: Copied, bytes: Range<usize>) -> Option<Vec<u8>> {
        let (file, offset) = pages.locate(copied, &bytes)?;
        let mut out = vec![0; bytes.len()];
        assert_eq!(rustix::io::pread(file, &mut out[..], offset), Ok(bytes.len()));
        Some(out)
    }

    #[test]
    fn what_is_there_grows_with_the_chunk_and_goes_with_it() {
        let (mut pages, mut copied) = (Pages::default(), Copied::No);
        assert_eq!(read(&pages, copied, 0..1), None);
        pages.copy(&mut copied, b"abc");
        assert_eq!(read(&pages, copied, 1..3).unwrap(), b"bc");
        assert_eq!(read(&pages, copied, 1..4), None, "it has not come yet");
        pages.copy(&mut copied, b"abcdef");
        assert_eq!(read(&pages, copied, 1..6).unwrap(), b"bcdef");
        assert_eq!(pages.bytes(), 6);
        let before = copied;
        pages.release(&mut copied);
        assert_eq!((pages.bytes(), read(&pages, before, 0..1)), (0, None));
        pages.copy(&mut copied, b"xyz");
        assert_eq!(
            (read(&pages, before, 0..1), read(&pages, copied, 0..3).unwrap()),
            (None, b"xyz".to_vec())
        );
    }

    #[test]
    fn the_first_makes_way_and_comes_in_no_second_time() {
        let mut pages = Pages::default();
        let mut all = [Copied::No; PLACES + 1];
        for (number, copied) in (0_u8..).zip(&mut all) {
            pages.copy(copied, &[number; 10]);
        }
        for (number, copied) in (0_u8..).zip(&all).skip(1) {
            assert_eq!(read(&pages, *copied, 0..10).unwrap(), [number; 10]);
        }
        assert_eq!(read(&pages, all[0], 0..10), None);
        pages.copy(&mut all[0], &[0; 20]);
        assert_eq!((read(&pages, all[0], 0..10), pages.bytes()), (None, 10 * PLACES));
        pages.release(&mut all[0]);
        assert_eq!(pages.bytes(), 10 * PLACES, "it had none to give back");
        pages.copy(&mut all[0], &vec![0; PLACE_BYTES + 1]);
        assert!(matches!(all[0], Copied::No), "more than a place has");
    }

    #[test]
    fn memory_is_given_back_and_the_next_chunk_has_a_place_again() {
        let (mut pages, mut first, mut next) = (Pages::default(), Copied::No, Copied::No);
        pages.copy(&mut first, b"abc");
        pages.give_back();
        pages.copy(&mut first, b"abcd");
        assert_eq!((pages.bytes(), read(&pages, first, 0..3)), (0, None));
        pages.copy(&mut next, b"xy");
        assert_eq!(read(&pages, next, 0..2).unwrap(), b"xy");
    }

    #[test]
    fn what_a_socket_has_stays_as_it_was() {
        let (mut pages, mut copied) = (Pages::default(), Copied::No);
        let (mut near, far) = UnixStream::pair().unwrap();
        let old = vec![b'o'; 32 << 10];
        pages.copy(&mut copied, &old);
        let (file, mut offset) = pages.locate(copied, &(0..old.len())).unwrap();
        assert_eq!(rustix::fs::sendfile(&far, file, Some(&mut offset), old.len()), Ok(old.len()));
        pages.release(&mut copied);
        pages.copy(&mut copied, &vec![b'n'; 64 << 10]);
        let mut got = vec![0; old.len()];
        near.read_exact(&mut got).unwrap();
        assert!(got == old, "other bytes came than were sent");
    }

    #[test]
    fn without_a_file_there_is_nothing_to_locate() {
        let (mut pages, mut copied) = (Pages::default(), Copied::No);
        pages.copy(&mut copied, b"abc");
        pages.give_up();
        assert_eq!((pages.bytes(), read(&pages, copied, 0..3)), (0, None));
        pages.copy(&mut copied, b"abcdef");
        let mut other = Copied::No;
        pages.copy(&mut other, b"abc");
        assert!(matches!(other, Copied::No));
        pages.release(&mut copied);
    }
}
