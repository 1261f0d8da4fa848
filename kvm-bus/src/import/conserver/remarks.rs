// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told of keywords that have no counterpart here.

/// Of the blocks that are neither consoles nor defaults.
pub(super) fn elsewhere(kind: &str, key: &str) -> String {
    match kind {
        "access" => format!(
            "`{key}` has no counterpart: from afar consoles are reached by SSH, with keys in /etc/midplane/kvm-bus/authorized_keys"
        ),
        "group" => "there are no groups of users here: who writes has a key without `read-only`, or is in group midplane".to_owned(),
        "break" => format!("`{key}` of a break sequence has no counterpart: ^Ecl0 holds the line at break"),
        _ => format!("`{key}` of `{kind}` has no counterpart"),
    }
}

/// Of a console or a default.
pub(super) fn no_counterpart(key: &str) -> String {
    match key {
        "rw" | "ro" => format!(
            "`{key}` has no counterpart for single consoles: who writes has a key without `read-only`, or is in group midplane"
        ),
        "logfile" => "the log is /var/log/midplane/kvm-bus/NAME.log".to_owned(),
        "timestamp" => "each line of a log has its time".to_owned(),
        "aliases" => "a console is known by its name and slot alone".to_owned(),
        "break" | "breaklist" => {
            format!("`{key}` has no counterpart: ^Ecl0 holds the line at break")
        }
        _ => format!("`{key}` has no counterpart"),
    }
}
