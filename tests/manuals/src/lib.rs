// SPDX-License-Identifier: MIT OR Apache-2.0
//! For tests that manual pages and programs say the same.
//!
//! The pages are mdoc(7) source. Read here: `.Sh` and `.Ss` begin a section, `.It` an entry, `Fl`
//! stands before options without their first hyphen, `Cm` and `Ic` before words that are typed.
//!
//! All functions panic where something is not as it should be: they are for tests alone.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use clap::Command;
use serde::Serialize;

/// A set of words.
pub type Words = BTreeSet<String>;

/// The text of a section or subsection, without its heading.
#[must_use]
pub fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let line = format!("\n{heading}\n");
    let start = page.find(&line).unwrap_or_else(|| panic!("the page has no {heading:?}"));
    let text = &page[start + line.len() - 1..];
    let end = [text.find("\n.Sh "), text.find("\n.Ss ")].into_iter().flatten().min();
    &text[..end.unwrap_or(text.len())]
}

/// What follows `name` on macro lines, up to the next macro; macros are two letters, the first a capital.
#[must_use]
pub fn arguments<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let is_macro = |word: &str| matches!(word.as_bytes(), [a, b] if a.is_ascii_uppercase() && b.is_ascii_lowercase());
    let mut found = vec![];
    for line in text.lines().filter_map(|line| line.strip_prefix('.')) {
        let mut inside = false;
        for word in line.split_whitespace() {
            match word {
                "," | "." | "(" | ")" | "|" | ":" => {}
                _ if is_macro(word) => inside = word == name,
                _ if inside => found.push(word),
                _ => {}
            }
        }
    }
    found
}

/// Options as one types them.
fn options(text: &str) -> Words {
    arguments(text, "Fl").into_iter().map(|word| format!("-{word}")).collect()
}

/// The entries of a list of typed words (`.It Ic` or `.It Cm`): those words, and all the lines.
#[must_use]
pub fn entries<'a>(text: &'a str, kind: &str) -> Vec<(Vec<&'a str>, &'a str)> {
    let begins = format!("\n.It {kind} ");
    let pieces = text.split(begins.as_str()).skip(1);
    pieces
        .map(|piece| {
            let head = piece.lines().next().unwrap_or("");
            let words = head.split(" No ").next().unwrap_or("");
            (words.split([' ', ',']).filter(|w| !w.is_empty()).collect(), piece)
        })
        .collect()
}

/// The first words of those entries.
#[must_use]
pub fn names(text: &str, kind: &str) -> Words {
    entries(text, kind).into_iter().flat_map(|(words, _)| words).map(str::to_owned).collect()
}

/// The members of an object as JSON has them.
#[must_use]
pub fn members(value: impl Serialize) -> Words {
    let json = serde_json::to_value(value).expect("answers are JSON");
    json.as_object().expect("an answer's parts are objects").keys().cloned().collect()
}

/// The command lines that a page shows (literal blocks, `.Dl`, `.Ql`), cut at pipes and `&&`.
fn shown_commands(page: &str) -> Vec<&str> {
    let mut literal = false;
    let mut lines = vec![];
    for line in page.lines() {
        match line.split(' ').next() {
            Some(".Bd") => literal = true,
            Some(".Ed") => literal = false,
            Some(".Dl" | ".Ql") => lines.push(&line[4..]),
            _ if literal => lines.push(line),
            _ => {}
        }
    }
    lines.into_iter().flat_map(|line| line.split(['|', '&', ';'])).map(str::trim).collect()
}

/// Each command that does something, with its words: those with commands below them do nothing themselves.
fn verbs(cli: &Command) -> Vec<(String, Command)> {
    let below = cli.get_subcommands().filter(|command| command.get_name() != "help");
    let each = below.flat_map(|command| {
        let name = command.get_name().to_owned();
        if !command.has_subcommands() {
            return vec![(name, command.clone())];
        }
        let mut deeper = verbs(command);
        for (words, verb) in &mut deeper {
            *words = format!("{name} {words}");
            // Options of the command above may be given too.
            let of_all: Vec<_> = command.get_arguments().cloned().collect();
            *verb = verb.clone().args(of_all);
        }
        deeper
    });
    each.collect()
}

/// The names of an option, as one types them; they are alternatives.
fn spellings(arg: &clap::Arg) -> Vec<String> {
    let short = arg.get_short().map(|c| format!("-{c}"));
    short.into_iter().chain(arg.get_long().map(|name| format!("--{name}"))).collect()
}

fn built(mut cli: Command) -> Command {
    cli.build();
    cli
}

/// Every option, command and default of a program is in its page: options under OPTIONS, commands under COMMANDS,
/// both in the synopsis.
pub fn describes_all(page: &str, cli: Command) {
    let cli = built(cli);
    let listed = options(section(page, ".Sh OPTIONS"));
    let described = entries(section(page, ".Sh COMMANDS"), "Cm");
    let synopsis = section(page, ".Sh SYNOPSIS");
    for name in cli.get_arguments().flat_map(spellings) {
        assert!(listed.contains(&name), "{name} is not under OPTIONS");
    }
    for (name, command) in verbs(&cli) {
        let words: Vec<&str> = name.split(' ').collect();
        assert!(described.iter().any(|(of, _)| of.starts_with(&words)), "{name} is not described");
        let usage = synopsis
            .split("\n.Cm ")
            .find(|usage| usage.lines().next() == Some(&name))
            .unwrap_or_else(|| panic!("{name} is not in the synopsis"));
        let shown = options(usage);
        for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
            let spellings = spellings(arg);
            for option in &spellings {
                assert!(listed.contains(option), "{option} of {name} is not under OPTIONS");
            }
            // Every command has help.
            let is_shown = arg.get_id() == "help" || spellings.iter().any(|o| shown.contains(o));
            assert!(is_shown, "{name}: {spellings:?} is not in the synopsis");
            let takes_a_value = arg.get_action().takes_values();
            for default in arg.get_default_values().iter().filter(|_| takes_a_value) {
                let default = default.to_string_lossy();
                assert!(page.contains(&*default), "{name}: default {default} is not told");
            }
        }
    }
}

/// A page names no option and shows no command of the program that does not exist.
pub fn names_only_what_is(page: &str, cli: Command) {
    let cli = built(cli);
    let all = verbs(&cli);
    let commands = all.iter().map(|(_, command)| command).chain([&cli]);
    let real: Words = commands.flat_map(Command::get_arguments).flat_map(spellings).collect();
    for option in options(page) {
        assert!(real.contains(&option), "there is no {option}");
    }
    let shown = shown_commands(page);
    for command in &shown {
        let mut words = command.split_whitespace();
        if words.next() != Some(cli.get_name()) {
            continue;
        }
        let verb = words.next().unwrap_or("");
        assert!(cli.find_subcommand(verb).is_some(), "there is no `{} {verb}`", cli.get_name());
        // What follows -- is another program's; - alone is standard input or output.
        let own = words.take_while(|word| *word != "--");
        for option in own.filter(|word| word.len() > 1 && word.starts_with('-')) {
            assert!(real.contains(option), "there is no {option}: {command}");
        }
    }
    // In running text; what other programs are called with stands in a command that is shown.
    for word in page.split(|c: char| c.is_whitespace() || "(),;\"'".contains(c)) {
        let option = word.trim_end_matches('.').replace('\\', "");
        let of_another = || shown.iter().any(|command| command.contains(word));
        if option.starts_with("--") && !real.contains(&option) {
            assert!(of_another(), "there is no {option}");
        }
    }
}

/// The keys that serde lists when it refuses `no_such_key`.
#[must_use]
pub fn expected_keys(refusal: &str) -> Words {
    let expected = refusal.split_once("expected ").expect("serde lists the keys").1;
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The entries of keys under a heading of a file's page.
#[must_use]
pub fn keys<'a>(page: &'a str, heading: &str) -> BTreeMap<String, &'a str> {
    // Where the keys are `Ic`, `Cm` are their values.
    let kinds = ["Ic", "Cm"].map(|kind| entries(section(page, heading), kind));
    let all = kinds.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    all.into_iter().map(|(words, text)| (words[0].to_owned(), text)).collect()
}

/// The page has these keys under a heading, each with its default, and no other.
pub fn describes_keys(page: &str, heading: &str, real: &Words) {
    let described = keys(page, heading);
    assert_eq!(&described.keys().cloned().collect::<Words>(), real, "under {heading}");
    for (key, text) in described {
        assert!(text.contains("\nDefault"), "{key}: no default is told");
    }
}

/// A shipped configuration with all its examples in force: a `#` with no blank behind it stands before them.
#[must_use]
pub fn uncommented(shipped: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(example) if example.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
            format!("{example}\n")
        }
        _ => format!("{line}\n"),
    };
    shipped.lines().map(line).collect()
}

/// The exit statuses that all programs have are under EXIT STATUS.
pub fn describes_exit_codes(page: &str) {
    use daemon_kit::exit;
    let status = section(page, ".Sh EXIT STATUS");
    for code in [exit::OK, exit::FAILED, exit::USAGE, exit::BUSY] {
        assert!(status.contains(&format!("\n.It {code}\n")), "exit status {code}");
    }
}
