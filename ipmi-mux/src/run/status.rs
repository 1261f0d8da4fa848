// SPDX-License-Identifier: MIT OR Apache-2.0
//! Answers the questions of the control interface.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use super::shell::Shell;
use crate::config::{BmcAddress, Config};
use crate::control::{BmcStatus, Client, HeldStatus, NodeStatus, Question, Status};
use crate::mux::{HandleId, Held, Holder, Owner};

/// What the core does not know and the status shows.
pub(super) struct Facts<'a> {
    pub config: &'a Config,
    pub started: Instant,
    pub device_id: Option<&'a [u8]>,
}

impl Shell {
    pub(super) fn on_question(&mut self, question: Question, facts: &Facts<'_>) {
        // An asker that went away in the meantime is no error.
        match question {
            Question::Status(answer) => drop(answer.send(self.status(facts))),
            Question::Clients(answer) => drop(answer.send(self.clients())),
            Question::Watch(answer) => {
                drop(answer.send(self.publisher.subscribe(&mut self.mux)));
            }
            Question::Reserve(ask) => {
                let major = self.nodes.values().next().map_or(0, |node| node.numbers.0);
                let Self { mux, nodes, reservations, .. } = self;
                reservations.ask(ask, mux, nodes, major, &facts.config.runtime_dir);
            }
        }
    }

    pub(super) fn status(&self, facts: &Facts<'_>) -> Status {
        let mut handles: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, info) in self.mux.handles() {
            *handles.entry(info.owner.node).or_default() += 1;
        }
        let counters = serde_json::to_value(self.mux.stats()).ok();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: facts.started.elapsed().as_secs(),
            bmc: bmc_status(facts, self.reachable),
            nodes: self
                .nodes
                .iter()
                .map(|(index, node)| NodeStatus {
                    path: node.path().display().to_string(),
                    device: format!("{}:{}", node.numbers.0, node.numbers.1),
                    group: node.spec.group.clone(),
                    mode: node.spec.mode.to_string(),
                    handles: handles.get(index).copied().unwrap_or(0),
                })
                .collect(),
            held: self.held(),
            watchers: self.publisher.watchers(),
            counters: counters.and_then(|c| c.as_object().cloned()).unwrap_or_default(),
        }
    }

    pub(super) fn publish(&mut self) {
        let Self { mux, nodes, publisher, .. } = self;
        publisher.publish(mux, |node| {
            nodes.get(&node).map(|n| n.path().display().to_string()).unwrap_or_default()
        });
    }

    pub(super) fn node_path(&self, node: usize) -> String {
        self.nodes.get(&node).map(|n| n.path().display().to_string()).unwrap_or_default()
    }

    fn held(&self) -> Vec<HeldStatus> {
        let owners: HashMap<HandleId, Owner> =
            self.mux.handles().map(|(id, info)| (id, info.owner)).collect();
        let shown = |Held { holder, what }: Held| {
            let (node, handle, uid, pid) = match holder {
                Holder::Handle(id) => {
                    let owner = owners.get(&id);
                    (owner.map(|o| o.node), Some(id.0), owner.map(|o| o.uid), owner.map(|o| o.pid))
                }
                Holder::Node(node) => {
                    let (uid, pid) = self.reservations.asker(node).unzip();
                    (Some(node), None, uid, pid.flatten())
                }
            };
            HeldStatus {
                what,
                node: node.map(|node| self.node_path(node)).unwrap_or_default(),
                handle,
                uid,
                pid,
                command: pid.and_then(process_name),
            }
        };
        self.mux.held().into_iter().map(shown).collect()
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        let client = |(HandleId(handle), info): (HandleId, crate::mux::Info)| Client {
            handle,
            controller: info.controller.0,
            node: self.node_path(info.owner.node),
            uid: info.owner.uid,
            pid: info.owner.pid,
            command: process_name(info.owner.pid),
            age_s: info.opened.elapsed().as_secs(),
            sent: info.sent,
            answered: info.answered,
            timeouts: info.timeouts,
            refused: info.refused,
            dropped: info.dropped,
            queued: info.queued,
            in_flight: info.in_flight,
            unread: info.unread,
            events: info.gets_events,
        };
        self.mux.handles().map(client).collect()
    }
}

/// Get Device ID, IPMI 2.0 table 20-2; offsets are those after the completion code.
fn bmc_status(facts: &Facts<'_>, reachable: bool) -> BmcStatus {
    let id = facts.device_id.filter(|id| id.len() >= 9);
    // They pass beside us only where the kernel's driver is what we use.
    let behind_driver = matches!(facts.config.bmc, BmcAddress::Device(_));
    let in_use = |module: &&str| behind_driver && Path::new("/sys/module").join(module).exists();
    BmcStatus {
        address: facts.config.bmc.to_string(),
        hardware_node: facts.config.hardware().map(|path| path.display().to_string()),
        reachable,
        firmware: id.map(|id| format!("{}.{:02x}", id[2] & 0x7f, id[3])),
        ipmi_version: id.map(|id| format!("{}.{}", id[4] & 0x0f, id[4] >> 4)),
        manufacturer: id.map(|id| u32::from_le_bytes([id[6], id[7], id[8], 0])),
        kernel_users: ["ipmi_watchdog", "ipmi_poweroff", "acpi_ipmi"]
            .into_iter()
            .filter(in_use)
            .map(str::to_owned)
            .collect(),
    }
}

fn process_name(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}
