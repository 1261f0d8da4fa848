// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[policies.NAME]`, and the keys of a node that name commands or a policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use daemon_kit::config::{ConfigError, Loaded, Spanned, nearest};
use serde::Deserialize;

use super::{NodeSpec, Raw};
use crate::policy::{Policy, Rule};

/// Policies of one's own, at most: each node has one.
pub const MAX_POLICIES: usize = super::MAX_NODES;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    extends: Option<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    may_reserve: bool,
}

/// All policies of a file, by name, and those that are built in.
pub(super) struct Policies<'a> {
    loaded: &'a Loaded<Raw>,
    done: BTreeMap<&'a str, Arc<Policy>>,
}

impl<'a> Policies<'a> {
    /// Reads all of them, those that no node uses too: a mistake should not wait for its first use.
    pub fn read(loaded: &'a Loaded<Raw>) -> Result<Self, ConfigError> {
        let raw = &loaded.value.policies;
        let mut policies = Self { loaded, done: BTreeMap::new() };
        for name in Policy::BUILT_IN {
            policies.done.extend(Policy::built_in(name).map(|p| (name, Arc::new(p))));
        }
        for (at, (name, policy)) in raw.iter().enumerate() {
            let fail = |message: String, remedy| loaded.error_at(policy.span(), message, remedy);
            if Policy::BUILT_IN.contains(&name.as_str()) {
                let message = format!("policy `{name}` is built in");
                return Err(fail(message, "choose another name"));
            }
            if at == MAX_POLICIES {
                let message = format!("more than {MAX_POLICIES} policies");
                return Err(fail(message, "no more than that can be in use"));
            }
        }
        for name in raw.keys() {
            policies.resolve(name)?;
        }
        Ok(policies)
    }

    /// Reads one, and before it those that it extends.
    fn resolve(&mut self, name: &'a str) -> Result<(), ConfigError> {
        let mut chain: Vec<&str> = vec![];
        let mut next = Some(name);
        while let Some(name) = next.filter(|name| !self.done.contains_key(name)) {
            let raw = self.loaded.value.policies[name].get_ref();
            chain.push(name);
            next = raw.extends.as_ref().map(|extends| self.existing(extends)).transpose()?;
            if let Some(extends) =
                raw.extends.as_ref().filter(|e| chain.contains(&e.get_ref().as_str()))
            {
                let message = format!("policy `{}` extends itself", extends.get_ref());
                return Err(self.loaded.error_at(extends.span(), message, "break the circle"));
            }
        }
        for name in chain.into_iter().rev() {
            let raw = self.loaded.value.policies[name].get_ref();
            let extends =
                raw.extends.as_ref().map(|extends| &*self.done[extends.get_ref().as_str()]);
            let rules = raw.allow.iter().map(|text| rule(self.loaded, text));
            let rules = rules.collect::<Result<Vec<_>, _>>()?;
            let policy = Policy::own(name, extends, rules, raw.may_reserve);
            self.done.insert(name, Arc::new(policy));
        }
        Ok(())
    }

    /// The name of a policy that there is, read already or not.
    fn existing(&self, named: &'a Spanned<String>) -> Result<&'a str, ConfigError> {
        let own = &self.loaded.value.policies;
        let name = named.get_ref().as_str();
        if own.contains_key(name) || Policy::BUILT_IN.contains(&name) {
            return Ok(name);
        }
        let all: Vec<&str> = own.keys().map(String::as_str).chain(Policy::BUILT_IN).collect();
        let remedy = match nearest(name, &all) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "there are full, operator, monitor and those under `policies`".to_owned(),
        };
        Err(self.loaded.error_at(named.span(), format!("there is no policy `{name}`"), remedy))
    }

    /// The policy that a node names.
    pub fn of_node(&self, named: Option<&'a Spanned<String>>) -> Result<Arc<Policy>, ConfigError> {
        let name = named.map_or(Ok("full"), |named| self.existing(named))?;
        Ok(Arc::clone(&self.done[name]))
    }
}

fn rule(loaded: &Loaded<Raw>, text: &Spanned<String>) -> Result<Rule, ConfigError> {
    Rule::parse(text.get_ref()).ok_or_else(|| {
        let names: Vec<&str> = ipmi::names::all().map(|(_, _, name)| name).collect();
        let remedy = match nearest(text.get_ref(), &names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                "write NetFn/Cmd as 0a/49, a whole NetFn as 0a/*, or a standard name".to_owned()
            }
        };
        loaded.error_at(text.span(), format!("`{}` is no command", text.get_ref()), remedy)
    })
}

/// The commands that a node reserves; `others` are the nodes before it.
pub(super) fn reserved(
    loaded: &Loaded<Raw>,
    given: &[Spanned<String>],
    others: &[NodeSpec],
) -> Result<Vec<(u8, u8)>, ConfigError> {
    let mut commands = vec![];
    for text in given {
        let fail = |message: String, remedy| loaded.error_at(text.span(), message, remedy);
        let (netfn, cmd) = match rule(loaded, text)? {
            Rule::Command(netfn, cmd) if netfn & 1 == 0 => (netfn, cmd),
            _ => {
                let message = format!("`{}` cannot be reserved", text.get_ref());
                return Err(fail(message, "name each command, of an even network function"));
            }
        };
        if let Some(other) = others.iter().find(|spec| spec.reserve.contains(&(netfn, cmd))) {
            let message = format!("`{}` is reserved for node `{}`", text.get_ref(), other.name);
            return Err(fail(
                message,
                "one node has a command; it can be opened any number of times",
            ));
        }
        if !commands.contains(&(netfn, cmd)) {
            commands.push((netfn, cmd));
        }
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Class, Config};

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("m.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn nodes_have_policy_class_and_reservations() {
        let config = parse(
            "[policies.b]\nextends = \"a\"\nallow = [\"Set SEL Time\"]\nmay_reserve = true\n\
             [policies.a]\nextends = \"monitor\"\nallow = [\"0a/*\"]\n\
             [[nodes]]\nname = \"x\"\npolicy = \"b\"\nclass = \"background\"\n\
             reserve = [\"00/02\", \"Chassis Control\", \"3e/ff\"]\n[[nodes]]\nname = \"y\"",
        )
        .unwrap();
        let [x, y] = &config.nodes[..] else { panic!("two nodes") };
        assert_eq!((x.policy.name(), x.policy.may_reserve()), ("b", true));
        assert_eq!((x.class, &x.reserve[..]), (Class::Background, &[(0, 2), (0x3e, 0xff)][..]));
        assert_eq!((y.policy.name(), y.class, y.reserve.len()), ("full", Class::Normal, 0));
    }

    #[test]
    fn mistakes_name_line_and_remedy() {
        let node = "[[nodes]]\nname = \"x\"\n";
        for (text, wanted) in [
            (
                format!("{node}policy = \"monitr\""),
                "m.toml:3:10: there is no policy `monitr`; did you mean `monitor`?",
            ),
            (format!("{node}policy = \"zzz\""), "there are full, operator, monitor and those"),
            ("[policies.a]\nextends = \"b\"".into(), "m.toml:2:11: there is no policy `b`"),
            ("[policies.a]\nextends = \"a\"".into(), "m.toml:2:11: policy `a` extends itself"),
            (
                "[policies.a]\nextends = \"b\"\n[policies.b]\nextends = \"a\"".into(),
                "m.toml:4:11: policy `a` extends itself",
            ),
            ("[policies.full]\nallow = []".into(), "policy `full` is built in"),
            (
                "[policies.a]\nallow = [\"00/02\",\n\"Get SEL Tyme\"]".into(),
                "m.toml:3:1: `Get SEL Tyme` is no command; did you mean `Get SEL Time`?",
            ),
            (
                "[policies.a]\nallow = [\"40/02\"]".into(),
                "m.toml:2:10: `40/02` is no command; write NetFn/Cmd",
            ),
            ("[policies.a]\nallows = []".into(), "unknown key `allows`; did you mean `allow`?"),
            (format!("{node}class = \"backgroud\""), "did you mean `background`?"),
            (format!("{node}reserve = [\"00/*\"]"), "m.toml:3:12: `00/*` cannot be reserved"),
            (format!("{node}reserve = [\"01/02\"]"), "m.toml:3:12: `01/02` cannot be reserved"),
            (
                format!(
                    "{node}reserve = [\"00/02\"]\n[[nodes]]\nname = \"y\"\nreserve = [\"Chassis Control\"]"
                ),
                "m.toml:6:12: `Chassis Control` is reserved for node `x`",
            ),
            (
                "[[nodes]]\nname = \"n1..2\"\nreserve = [\"00/02\"]".into(),
                "m.toml:3:12: `00/02` is reserved for node `n1`",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(wanted), "{text:?} gives {error:?}");
        }
    }
}
