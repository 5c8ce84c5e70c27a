//! Ways to cut an input into pieces.

/// A seed that depends on every byte, so that a change anywhere cuts elsewhere (FNV-1a).
pub fn seed(input: &[u8]) -> u64 {
    input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Cuts of an input that must make no difference: byte by byte, once, and into a few pieces. Every cut is tried of
/// short inputs.
pub fn cuts(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut random = fastrand::Rng::with_seed(seed(input));
    let mut all: Vec<Vec<&[u8]>> = vec![input.chunks(1).collect()];
    let once = |at: usize| {
        let (head, tail) = input.split_at(at);
        vec![head, tail]
    };
    if input.len() <= 24 {
        all.extend((0..=input.len()).map(once));
        return all;
    }
    all.extend((0..3).map(|_| once(random.usize(..=input.len()))));
    let (mut pieces, mut rest) = (Vec::new(), input);
    let most = (input.len() / 3).max(1);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(random.usize(1..=most).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    all.push(pieces);
    all
}
