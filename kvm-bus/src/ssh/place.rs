// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an SSH client wants to be: `ssh console-blade3@rmm`, `ssh rmm@rmm screen blade3`, or a menu.

use crate::attach::What;

/// Longest name taken.
const LONGEST: usize = 64;

/// A place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A console or a screen.
    At(What, Option<String>),
    /// To be asked.
    Menu,
}

impl Place {
    /// By the user's name: `console-BLADE`, `screen-BLADE`, `screen`, else a menu.
    pub(super) fn of_user(user: &str) -> Self {
        let (what, blade) = user.split_once('-').unwrap_or((user, ""));
        Self::of(what, blade).unwrap_or(Self::Menu)
    }

    /// By a command: the same words with a blank between.
    pub(super) fn of_words(words: &str) -> Option<Self> {
        let words = words.trim();
        let (what, blade) = words.split_once(' ').unwrap_or((words, ""));
        if what == "menu" { Some(Self::Menu) } else { Self::of(what, blade.trim()) }
    }

    fn of(what: &str, blade: &str) -> Option<Self> {
        let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let blade = Some(blade).filter(|blade| !blade.is_empty());
        if blade.is_some_and(|blade| blade.len() > LONGEST || !blade.chars().all(good)) {
            return None;
        }
        match (what, blade) {
            ("console", Some(blade)) => Some(Self::At(What::Console, Some(blade.to_owned()))),
            ("screen", blade) => Some(Self::At(What::Screen, blade.map(str::to_owned))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_by_user_and_by_words() {
        let console = Place::At(What::Console, Some("blade-3".into()));
        assert_eq!(Place::of_user("console-blade-3"), console);
        assert_eq!(Place::of_words(" console blade-3 "), Some(console));
        assert_eq!(Place::of_user("screen"), Place::At(What::Screen, None));
        assert_eq!(Place::of_user("anna"), Place::Menu);
        assert_eq!(Place::of_words("sh -c ls"), None);
        assert_eq!(Place::of_words("console ../../x"), None);
        assert_eq!(Place::of_words("console"), None);
    }
}
