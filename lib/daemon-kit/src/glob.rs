// SPDX-License-Identifier: MIT OR Apache-2.0
//! `*` for any characters and `?` for one, as operators know them from a shell.

/// Whether `text` is what `*` and `?` make of `pattern`; all else stands for itself, and case matters. `?` is a byte, not a
/// character. Takes at most the product of both lengths in steps.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(one) if *one == b'?' || *one == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                // The last star takes one more.
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|one| *one == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|at| naive(rest, &text[at..])),
            [b, rest @ ..] => {
                text.first().is_some_and(|t| *b == b'?' || b == t) && naive(rest, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn globs_are_what_they_are_by_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let expected = naive(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(super::fits(&pattern, &text), expected);
        }
    }
}
