// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which commands came, and what they changed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipmi::{Command, CompletionCode, Request};
use serde::Serialize;
use serde_json::{Value, json};

/// Entries that are kept in memory; older ones are dropped and counted. An entry is some hundred
/// bytes, so this is about 30 MB.
pub const MAX_ENTRIES: usize = 100_000;

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Milliseconds since the simulator started.
    pub at_ms: u64,
    /// Which connection it came from; none when it happened by itself or on a control command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<u64>,
    /// Network function and command, `06/24`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// Data of the request, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What changed.
    pub changed: Vec<String>,
}

impl Entry {
    /// An entry for what a request changed, or for what changed without one.
    pub fn new(now: Duration, request: Option<(u64, &Request)>, changed: Vec<String>) -> Self {
        let command = request.map(|(_, request)| request.command());
        Self {
            at_ms: millis(now),
            peer: request.map(|(peer, _)| peer),
            command: command.map(|command| command.to_string()),
            name: command.and_then(Command::name),
            data: request.map(|(_, request)| hex(&request.data)),
            changed,
        }
    }
}

/// Milliseconds, as journal and control give them.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes in hexadecimal, two digits each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Entries and counts.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
    dropped: u64,
    counts: BTreeMap<Command, u64>,
    codes: BTreeMap<u8, u64>,
    total: u64,
}

impl Journal {
    /// A request was served.
    pub fn count(&mut self, command: Command) {
        *self.counts.entry(command).or_default() += 1;
        self.total += 1;
    }

    /// A request was answered with this completion code.
    pub fn count_code(&mut self, code: CompletionCode) {
        *self.codes.entry(code.0).or_default() += 1;
    }

    /// Something changed.
    pub fn push(&mut self, entry: Entry) {
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back(entry);
    }

    /// Counts by command and by completion code.
    pub fn stats(&self) -> Value {
        let commands: serde_json::Map<_, _> = self
            .counts
            .iter()
            .map(|(command, count)| {
                (command.to_string(), json!({"count": count, "name": command.name()}))
            })
            .collect();
        let codes: serde_json::Map<_, _> =
            self.codes.iter().map(|(code, count)| (hex(&[*code]), json!(count))).collect();
        json!({"total": self.total, "commands": commands, "codes": codes})
    }

    /// The newest entries, oldest of them first.
    pub fn log(&self, last: usize) -> Value {
        let skip = self.entries.len().saturating_sub(last);
        let entries: Vec<_> = self.entries.iter().skip(skip).collect();
        json!({"entries": entries, "dropped": self.dropped})
    }

    /// Forgets the counts.
    pub fn clear_stats(&mut self) {
        self.counts.clear();
        self.codes.clear();
        self.total = 0;
    }

    /// Forgets the entries.
    pub fn clear_log(&mut self) {
        self.entries.clear();
        self.dropped = 0;
    }
}

#[cfg(test)]
mod tests {
    use ipmi::NetFn;

    use super::*;

    #[test]
    fn the_oldest_entries_go_first() {
        let mut journal = Journal::default();
        for n in 0..MAX_ENTRIES + 3 {
            journal.push(Entry::new(Duration::ZERO, None, vec![n.to_string()]));
        }
        let log = journal.log(usize::MAX);
        assert_eq!(log["dropped"], 3);
        assert_eq!(log["entries"].as_array().unwrap().len(), MAX_ENTRIES);
        assert_eq!(log["entries"][0]["changed"][0], "3");
        assert_eq!(journal.log(1)["entries"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn entries_say_what_came_and_what_changed() {
        let mut journal = Journal::default();
        let request = Request::new(NetFn::APP, 0x2e, [0x0f]);
        journal.count(request.command());
        journal.count_code(CompletionCode::RESERVATION_CANCELLED);
        let now = Duration::from_millis(1500);
        journal.push(Entry::new(now, Some((4, &request)), vec!["enables".into()]));
        assert_eq!(
            journal.log(9)["entries"][0],
            json!({
                "at_ms": 1500, "peer": 4, "command": "06/2e", "name": "Set BMC Global Enables",
                "data": "0f", "changed": ["enables"],
            })
        );
        assert_eq!(journal.stats()["commands"]["06/2e"]["count"], 1);
        assert_eq!(journal.stats()["codes"], json!({"c5": 1}));
        journal.clear_stats();
        assert_eq!(journal.stats()["total"], 0);
    }
}
