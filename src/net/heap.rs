//! What the allocator keeps for later, given back to the system. The only place with `unsafe` code.
//!
//! Why it is needed: after 20,000 clients had come and gone, glibc's allocator kept four times the memory of before,
//! for minutes, in pages that nothing lay in (8.0 MB against 1.8; with this call 2.5), and its own thresholds changed
//! nothing, for it trims only the top of a heap. `docs/benchmarks.md` (isolation) has the figures.

#![allow(unsafe_code, reason = "malloc_trim has no safe counterpart in a library")]

/// Gives back whole pages of the heap in which nothing lies. Takes a time that grows with the number of free pieces,
/// a millisecond for a few thousand clients, and holds up other threads that allocate meanwhile; so it is called
/// only after much has gone. Does nothing where the allocator is not glibc's.
pub(super) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes a number, reads and writes nothing of ours, locks what it touches (it is marked
    // MT-Safe in its manual), and frees only pages that hold no allocation. There is nothing that a caller has to
    // keep to.
    unsafe {
        libc::malloc_trim(0);
    }
}
