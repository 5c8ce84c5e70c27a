//! What the allocator keeps for later, given back to the system. The only place with `unsafe` code.
//!
//! Why it is needed: after 20,000 clients had come and gone, glibc's allocator kept four times the memory of before,
//! for minutes, in pages that nothing lay in (8.0 MB against 1.8; with this call 2.5), and its own thresholds changed
//! nothing, for it trims only the top of a heap. The call, on the other hand, does not trim the top of a thread's heap, so
//! that sometimes all that a client of 10,000 topics had taken stayed (2.1 MB of 11.3): both are needed.
//! `docs/benchmarks.md` (isolation) has the figures.

#![allow(unsafe_code, reason = "malloc_trim and mallopt have no safe counterpart in a library")]

/// Free bytes at the end of a heap above which they go back to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_AT_THE_END: i32 = 512 << 10;
/// What is larger is a mapping of its own, which grows without being copied, and goes when it is freed. Left alone the
/// allocator begins with 128 KiB and lets it grow; once told anything it does not. Above this are the tables of thousands of
/// connections: inside a heap each would leave a hole of half its size behind whenever it grows (70 bytes a connection of
/// 10,000). Below it are the buffers of frames, which come and go.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_MAPPING: i32 = 1 << 20;

/// Tells the allocator how much to keep. To be called once, before anything else runs.
pub(crate) fn configure() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two numbers, and reads and writes nothing of ours. Its manual wants no other threads meanwhile,
    // and there are none yet.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_THE_END);
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_MAPPING);
    }
}

/// The sizes of which glibc keeps freed pieces for the thread that freed them, and how many of each.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: (std::ops::RangeInclusive<usize>, usize) = (24..=1032, 7);

/// Gives back whole pages of the heap in which nothing lies. Takes a time that grows with the number of free pieces,
/// a millisecond for a few thousand clients, and holds up other threads that allocate meanwhile; so it is called
/// only after much has gone. Does nothing where the allocator is not glibc's.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        forget_kept();
        // SAFETY: `malloc_trim` takes a number, reads and writes nothing of ours, locks what it touches (it is marked
        // MT-Safe in its manual), and frees only pages that hold no allocation. There is nothing that a caller has to
        // keep to.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Makes the calling thread keep no freed pieces. There are a few hundred of them, and after a storm each lies in
/// another page, which cannot go: 0.9 MB of 2.2 (`malloc_trim` does not look at them). A thread gives up what it keeps
/// when it ends. So all pieces there may be are taken, and freed by a thread that does nothing else.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn forget_kept() {
    let (sizes, of_each) = KEPT;
    let pieces = sizes.step_by(16).flat_map(|size| (0..of_each).map(move |_| Vec::<u8>::with_capacity(size)));
    let pieces: Vec<Vec<u8>> = pieces.collect();
    let thread = std::thread::Builder::new().name("give-back".to_owned()).stack_size(64 << 10);
    if let Ok(thread) = thread.spawn(move || drop(pieces)) {
        drop(thread.join());
    }
}
