//! WebSocket frames by table: every header that can be written, and characters cut at every place.

use super::targets::run;

/// Lengths at the edges of their forms and of what a machine can count.
const LENGTHS: [u64; 10] = [0, 125, 126, 65_535, 65_536, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX];

#[test]
fn every_header_is_read_as_a_slow_decoder_does() {
    let mut count = 0;
    for first in 0..=u8::MAX {
        for second in 0..=u8::MAX {
            let forms: Vec<Vec<u8>> = match second & 0x7f {
                126 => LENGTHS[..4].iter().map(|length| (*length as u16).to_be_bytes().to_vec()).collect(),
                127 => LENGTHS.iter().map(|length| length.to_be_bytes().to_vec()).collect(),
                _ => vec![Vec::new()],
            };
            for length in forms {
                // A payload that is text, and behind it a whole frame, where the length is one that comes.
                let mut input = [&[first, second][..], &length, &[0; 4]].concat();
                input.resize(input.len() + usize::from(second & 0x7f).min(125), b'x');
                input.extend([0x80, 0x80, 0, 0, 0, 0]);
                super::targets::agree_on_websocket(&input);
                count += 1;
            }
        }
    }
    assert_eq!(count, 256 * 2 * (126 + 4 + 10));
}

/// A frame with its first byte as given, masked with nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[test]
fn text_is_checked_whatever_it_is_cut_into() {
    let mut texts: Vec<Vec<u8>> = Vec::new();
    // The first and last character of each length, and those beside the surrogates and at the end.
    for c in [
        '\0',
        '\u{7f}',
        '\u{80}',
        '\u{7ff}',
        '\u{800}',
        '\u{d7ff}',
        '\u{e000}',
        '\u{ffff}',
        '\u{10000}',
        '\u{10ffff}',
    ] {
        texts.push(format!("a{c}b").into_bytes());
        texts.push(format!("{c}{c}").into_bytes());
    }
    // Every first byte of a sequence with every kind of second one, cut off after each of its bytes.
    for first in 0x80..=u8::MAX {
        for second in [0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0] {
            texts.push(vec![first, second]);
            texts.push(vec![first, second, 0x80]);
            texts.push(vec![b'a', first, second, 0x80, 0xbf]);
        }
    }
    for text in texts {
        let is_text = std::str::from_utf8(&text).is_ok();
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            // In two fragments, with a ping between them; every cut of the bytes is the target's to try.
            let input = [frame(0x01, head), frame(0x89, b"\xff"), frame(0x80, tail)].concat();
            run("websocket", &input);
            assert_eq!(
                super::targets::ends_of_websocket(&input),
                (!is_text).then_some(1007),
                "{text:x?} at {cut}"
            );
        }
        assert_eq!(
            super::targets::ends_of_websocket(&frame(0x81, &text)),
            (!is_text).then_some(1007),
            "{text:x?}"
        );
    }
}
