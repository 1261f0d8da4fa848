// SPDX-License-Identifier: MIT OR Apache-2.0
//! Puts what serde and the TOML parser report into the words of an operator.
//!
//! serde gives text only, so this reads that text; its forms are those of the provided methods
//! of `serde::de::Error`. A form it does not know passes unchanged.

/// The message, and a remedy that may be empty.
pub(super) fn explain(message: &str) -> (String, String) {
    if let Some((name, valid)) = unknown(message, "unknown field `") {
        return (format!("unknown key `{name}`"), suggest(name, &valid, "keys here"));
    }
    if let Some((name, valid)) = unknown(message, "unknown variant `") {
        return (format!("unknown value `{name}`"), suggest(name, &valid, "values"));
    }
    if let Some(name) = message.strip_prefix("missing field `").and_then(|m| m.strip_suffix('`')) {
        return (format!("key `{name}` is missing"), "add it".to_owned());
    }
    let mismatch =
        message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, expected)) = mismatch.and_then(|m| m.rsplit_once(", expected ")) {
        return (format!("expected {}, found {}", plain(expected), plain(found)), String::new());
    }
    (message.replace('\n', "; "), String::new())
}

/// The name refused and the names allowed, from ``unknown field `a`, expected `b` or `c` ``.
fn unknown<'a>(message: &'a str, prefix: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (name, rest) = message.strip_prefix(prefix)?.split_once('`')?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

fn suggest(name: &str, valid: &[&str], what: &str) -> String {
    if let Some(near) = nearest(name, valid) {
        return format!("did you mean `{near}`?");
    }
    if valid.is_empty() {
        return format!("there are no valid {what}");
    }
    let list: Vec<String> = valid.iter().map(|name| format!("`{name}`")).collect();
    format!("valid {what}: {}", list.join(", "))
}

/// The nearest of `valid`, if it is near enough to be what was meant: one slip, and one more for
/// every four characters.
#[must_use]
pub fn nearest<'a>(name: &str, valid: &[&'a str]) -> Option<&'a str> {
    let length = name.chars().count();
    valid
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= 1 + length / 4 && *distance < length)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// serde's names of types in words.
fn plain(name: &str) -> String {
    macro_rules! range {
        ($type:ty) => {
            format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX)
        };
    }
    match name {
        "u8" => range!(u8),
        "u16" => range!(u16),
        "u32" => range!(u32),
        "i8" => range!(i8),
        "i16" => range!(i16),
        "i32" => range!(i32),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i64" | "isize" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" | "sequence" => "a list".to_owned(),
        "a map" | "map" => "a table".to_owned(),
        _ if name.starts_with("struct ") => "a table".to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_absent() {
        let valid = ["nodes", "poll_interval", "id"];
        assert_eq!(nearest("node", &valid), Some("nodes"));
        assert_eq!(nearest("ndoes", &valid), Some("nodes"));
        assert_eq!(nearest("poll-intervall", &valid), Some("poll_interval"));
        assert_eq!(nearest("x", &valid), None);
        assert_eq!(nearest("", &valid), None);
        assert_eq!(nearest("colour", &valid), None);
    }

    #[test]
    fn all_forms_of_serde_are_read() {
        let remedy = |message| explain(message).1;
        assert_eq!(
            remedy("unknown field `x`, there are no fields"),
            "there are no valid keys here"
        );
        assert_eq!(remedy("unknown field `zzz`, expected `b`"), "valid keys here: `b`");
        assert_eq!(remedy("unknown field `zzz`, expected `b` or `c`"), "valid keys here: `b`, `c`");
        assert_eq!(
            remedy("unknown field `bb`, expected one of `b`, `c`, `d`"),
            "did you mean `b`?"
        );
        assert_eq!(explain("some\nthing"), ("some; thing".to_owned(), String::new()));
    }
}
