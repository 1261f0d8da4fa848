// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may lease what: rules in the order of the file, of which the first that fits decides. Evaluated by the manager
//! that has the unit; the unit can still refuse.

use serde::{Deserialize, Serialize};

use crate::pattern::Pattern;
use crate::record::{Device, Holder, Machine};
use crate::wire::LeaseTerms;

/// Most rules: each is looked at for each request.
pub const MAX_RULES: usize = 256;

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// They may.
    Allow,
    /// They may not.
    Deny,
}

/// A rule: what is left out fits all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What they want.
    pub devices: Option<Pattern>,
    /// The machines they are on.
    pub machines: Vec<Machine>,
    /// Their user numbers there.
    pub users: Vec<u32>,
    /// The groups they are in there.
    pub groups: Vec<String>,
    /// What it says.
    pub verdict: Verdict,
    /// For how long at most, seconds.
    pub limit_s: Option<u32>,
    /// Whether they may only read.
    pub read_only: bool,
    /// Whether they may wait for what others have.
    pub queue: bool,
    /// What they are told if they may not.
    pub reason: Option<String>,
}

impl Rule {
    fn fits(&self, device: &Device, holder: &Holder) -> bool {
        let user = self.users.contains(&holder.uid)
            || self.groups.iter().any(|group| holder.groups.contains(group))
            || (self.users.is_empty() && self.groups.is_empty());
        let machine = self.machines.is_empty() || self.machines.contains(&holder.machine);
        machine && user && self.devices.as_ref().is_none_or(|pattern| pattern.fits(device))
    }
}

/// All rules. Without any, everybody who may ask a manager may lease everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// In the order in which they are asked.
    pub rules: Vec<Rule>,
}

/// What policy says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// For how long.
    pub terms: LeaseTerms,
    /// Whether it may wait.
    pub queue: bool,
    /// The rule that decided, from 1; none if there are none.
    pub rule: Option<usize>,
}

impl Policy {
    /// Judges a request for a device.
    ///
    /// # Errors
    /// The reason why not, with the rule.
    pub fn judge(
        &self,
        device: &Device,
        holder: &Holder,
        limit_s: Option<u32>,
    ) -> Result<Allowed, String> {
        if self.rules.is_empty() {
            let terms = LeaseTerms { limit_s, read_only: false };
            return Ok(Allowed { terms, queue: true, rule: None });
        }
        let mut rules = self.rules.iter().enumerate();
        let Some((at, rule)) = rules.find(|(_, rule)| rule.fits(device, holder)) else {
            return Err("no rule allows it".to_owned());
        };
        if rule.verdict == Verdict::Deny {
            let reason = rule.reason.as_deref().unwrap_or("it is denied");
            return Err(format!("{reason} (rule {})", at + 1));
        }
        let limits = [limit_s, rule.limit_s];
        let limit_s = limits.into_iter().flatten().min();
        let terms = LeaseTerms { limit_s, read_only: rule.read_only };
        Ok(Allowed { terms, queue: rule.queue, rule: Some(at + 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::device;

    fn rule(verdict: Verdict) -> Rule {
        Rule {
            devices: None,
            machines: vec![],
            users: vec![],
            groups: vec![],
            verdict,
            limit_s: None,
            read_only: false,
            queue: true,
            reason: None,
        }
    }

    fn holder(machine: &str, uid: u32, group: &str) -> Holder {
        Holder { machine: machine.parse().unwrap(), uid, groups: vec![group.to_owned()] }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let disk = device("u", "1");
        let policy = Policy {
            rules: vec![
                Rule { users: vec![7], reason: Some("no".into()), ..rule(Verdict::Deny) },
                Rule {
                    devices: Some("type=disk".parse().unwrap()),
                    machines: vec!["a".parse().unwrap()],
                    groups: vec!["staff".into()],
                    users: vec![0],
                    limit_s: Some(60),
                    read_only: true,
                    queue: false,
                    ..rule(Verdict::Allow)
                },
            ],
        };
        let judge =
            |machine, uid, group, limit| policy.judge(&disk, &holder(machine, uid, group), limit);
        assert_eq!(judge("a", 7, "staff", None), Err("no (rule 1)".into()));
        let allowed = judge("a", 5, "staff", Some(90)).unwrap();
        assert_eq!(
            (allowed.terms.limit_s, allowed.queue, allowed.rule),
            (Some(60), false, Some(2))
        );
        assert!(allowed.terms.read_only);
        assert_eq!(judge("a", 0, "x", Some(30)).unwrap().terms.limit_s, Some(30));
        assert_eq!(judge("a", 5, "x", None), Err("no rule allows it".into()));
        assert_eq!(judge("b", 0, "staff", None), Err("no rule allows it".into()));
        assert!(Policy::default().judge(&disk, &holder("b", 9, "x"), None).unwrap().queue);
    }
}
