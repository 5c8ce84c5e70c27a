//! When a table has more room than it will need, to be given back.

/// Room that a table may keep whatever it holds, in entries.
const FLOOR: usize = 64;
/// Above that, how many times what it holds it may have room for.
const TIMES: usize = 4;

/// Whether a table with room for `capacity` entries holds so few that it should keep room for twice them only. It
/// then has to lose as many again before this is so once more: shrinking costs no more than what was taken out.
pub fn is_loose(capacity: usize, len: usize) -> bool {
    capacity > FLOOR && capacity / TIMES > len
}
