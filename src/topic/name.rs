//! The rules for names: topics, patterns of them, events, keys, client ids.

/// Bytes that a topic or event name may have at most.
pub const MAX_NAME_BYTES: usize = 255;

/// Checks a topic or event name: 1 to 255 bytes of UTF-8 without control characters
/// (`docs/publish-socket.md`). `what` names it in the error.
pub fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("{what} name is empty"));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("{what} name has {} bytes, above {MAX_NAME_BYTES}", name.len()));
    }
    check_characters(what, name)
}

/// What the topics begin with that a prefix pattern matches; `None`: the name is none. Nobody subscribes to a single
/// topic whose name ends in `*`, so wherever subscriptions are named, such a name is a pattern.
pub fn pattern_prefix(name: &str) -> Option<&str> {
    name.strip_suffix('*')
}

/// Checks the name of a topic or of a prefix pattern: its only `*` is its last character.
pub fn check_topic_or_pattern(name: &str) -> Result<(), String> {
    check_name("topic", name)?;
    if name.find('*').is_some_and(|at| at + 1 < name.len()) {
        return Err(format!(
            "{name:?} has a `*` that is not its last character: only there it matches any rest"
        ));
    }
    Ok(())
}

/// Checks the key of an event: 0 to 255 bytes of UTF-8 without control characters.
pub fn check_key(key: &str) -> Result<(), String> {
    if key.len() > MAX_NAME_BYTES {
        return Err(format!("key has {} bytes, above {MAX_NAME_BYTES}", key.len()));
    }
    check_characters("key", key)
}

fn check_characters(what: &str, text: &str) -> Result<(), String> {
    // C0, DEL and C1 are `char::is_control`.
    if !is_printable_ascii(text) && text.chars().any(char::is_control) {
        return Err(format!("{what} {text:?} has a control character"));
    }
    Ok(())
}

/// Whether these are bytes from 0x20 to 0x7E alone, as in nearly every name. Eight at a time: every event's are looked at.
pub fn is_printable_ascii(text: &str) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    // The first bit of a byte is set by what is taken from one below 0x20 and added to one of 0x7F. What that borrows from
    // or carries to another byte comes from one that is found itself.
    let found = words
        .iter()
        .chain([&last])
        .map(|word| u64::from_ne_bytes(*word))
        .fold(0, |found, word| found | word | word.wrapping_sub(ONES * 0x20) | word.wrapping_add(ONES));
    found & (ONES * 0x80) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_the_rules() {
        let long = "x".repeat(255);
        for good in ["a", "error-recovery", "run:42", "Übergrößenträger", "日本", "a b", "{}", long.as_str()]
        {
            assert_eq!(check_name("topic", good), Ok(()), "{good}");
        }
        let too_long = "x".repeat(256);
        for bad in ["", "a\nb", "a\0", "\u{7f}", "\u{85}", "\u{9f}x", too_long.as_str()] {
            assert!(check_name("topic", bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_key(""), Ok(()));
        assert!(["a", "a*", "*"].iter().all(|name| check_topic_or_pattern(name).is_ok()));
        for bad in ["", "a*b", "**", "*a", "a**", "a\n*"] {
            assert!(check_topic_or_pattern(bad).is_err(), "{bad:?}");
        }
        assert_eq!(["run:*", "*", "a"].map(pattern_prefix), [Some("run:"), Some(""), None]);
        assert!(check_key("\t").is_err());
    }

    #[test]
    fn printable_ascii_is_found_wherever_another_byte_stands() {
        for length in 0..20 {
            let text = "~ 7aZ{}!".repeat(3)[..length].to_owned();
            assert!(is_printable_ascii(&text));
            for at in 0..length {
                for other in ('\0'..='\u{17f}').filter(|one| !(' '..='~').contains(one)) {
                    let text = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                    assert!(!is_printable_ascii(&text), "{text:?}");
                }
            }
        }
    }
}
