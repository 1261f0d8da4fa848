// SPDX-License-Identifier: MIT OR Apache-2.0
//! A YAML text as a tree that keeps lines, names of anchors, and keys that stand there twice: ser2net has each
//! connection under the same key.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser};

use super::{At, Remark};

/// How deep lists and mappings are in one another; ser2net has four.
const MAX_NESTED: usize = 16;
/// Texts, lists and mappings in one file.
const MAX_NODES: usize = 100_000;

/// A text, list or mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its line.
    pub line: usize,
    /// The name of its anchor.
    pub anchor: Option<String>,
    /// What it is.
    pub what: What,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Rc<Node>>),
    /// Keys and values, in their order.
    Map(Vec<(Rc<Node>, Rc<Node>)>),
}

/// What anchors name.
pub type Named = BTreeMap<String, Rc<Node>>;

impl Node {
    /// Its text, if it is one.
    pub fn text(&self) -> Option<&str> {
        if let What::Text(text) = &self.what { Some(text) } else { None }
    }
}

/// Reads a text; also gives what anchors name, by name. An alias is the node itself, with its own line.
///
/// # Errors
/// What is wrong, and where.
pub fn read(text: &str, file: &Arc<str>) -> Result<(Option<Rc<Node>>, Named), Remark> {
    // What is missing at the end the parser finds a line behind it, and nothing begins there. Either character ends a line
    // (YAML 1.2, section 5.4).
    let last = text.replace("\r\n", "\n").matches(['\n', '\r']).count() + 1;
    let line_of = |marker: &Marker| marker.line().clamp(1, last);
    let error = |line: usize, text: String| Remark::new(&At { file: Arc::clone(file), line }, text);
    let chars: Vec<char> = text.chars().collect();
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|e| error(line_of(e.marker()), format!("this is no YAML: {}", e.info())))?;
        let line = line_of(&span.start);
        let name = || anchor(&chars, span.start.index());
        reader.event(&event, line, name).map_err(|why| error(line, why))?;
        if matches!(event, Event::DocumentEnd) {
            // What follows is another document, of which ser2net reads none.
            break;
        }
    }
    Ok((reader.root, reader.named))
}

/// What is begun and not ended.
#[derive(Debug)]
struct Begun {
    node: Node,
    id: usize,
    /// Of a mapping, the key whose value comes next.
    key: Option<Rc<Node>>,
}

#[derive(Debug, Default)]
struct Reader {
    begun: Vec<Begun>,
    by_id: BTreeMap<usize, Rc<Node>>,
    named: Named,
    root: Option<Rc<Node>>,
    count: usize,
}

impl Reader {
    fn event(
        &mut self,
        event: &Event,
        line: usize,
        name: impl Fn() -> Option<String>,
    ) -> Result<(), String> {
        let node =
            |id: usize, what| Node { line, anchor: if id > 0 { name() } else { None }, what };
        match event {
            Event::Scalar(text, _, id, _) => {
                self.add(Rc::new(node(*id, What::Text(text.to_string()))), *id)
            }
            Event::Alias(id) => {
                let Some(found) = self.by_id.get(id) else {
                    return Err("this alias names what is not yet whole".to_owned());
                };
                self.add(Rc::clone(found), 0)
            }
            Event::SequenceStart(id, _) => self.begin(node(*id, What::List(vec![])), *id),
            Event::MappingStart(id, _) => self.begin(node(*id, What::Map(vec![])), *id),
            Event::SequenceEnd | Event::MappingEnd => match self.begun.pop() {
                Some(Begun { node, id, .. }) => self.add(Rc::new(node), id),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, node: Node, id: usize) -> Result<(), String> {
        if self.begun.len() >= MAX_NESTED {
            return Err(format!("more than {MAX_NESTED} lists and mappings are in one another"));
        }
        self.begun.push(Begun { node, id, key: None });
        Ok(())
    }

    fn add(&mut self, node: Rc<Node>, id: usize) -> Result<(), String> {
        self.count += 1;
        if self.count > MAX_NODES {
            return Err(format!("there are more than {MAX_NODES} texts and lists"));
        }
        if id > 0 {
            self.by_id.insert(id, Rc::clone(&node));
            if let Some(name) = &node.anchor {
                self.named.insert(name.clone(), Rc::clone(&node));
            }
        }
        let Some(Begun { node: into, key, .. }) = self.begun.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match (&mut into.what, key.take()) {
            (What::List(list), _) => list.push(node),
            (What::Map(map), Some(key)) => map.push((key, node)),
            (What::Map(_), None) => *key = Some(node),
            (What::Text(_), _) => {}
        }
        Ok(())
    }
}

/// The parser numbers anchors; their names stand in the text.
fn anchor(chars: &[char], start: usize) -> Option<String> {
    let rest = chars.get(start..)?.strip_prefix(&['&'])?;
    let name: String =
        rest.iter().take_while(|c| !c.is_whitespace() && !"[]{},".contains(**c)).collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Option<Rc<Node>>, Named), String> {
        read(text, &"y".into()).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_may_be_twice_and_anchors_have_names() {
        let text = "%YAML 1.1\n---\n# é &no\ndefine: &ban \\r\\n x\nc: &con1 # &y\n  a: *ban\nc: &c2 {l: [*con1, &z b]}\n";
        let (root, named) = parse(text).unwrap();
        let What::Map(map) = &root.as_ref().unwrap().what else { panic!("{root:?}") };
        let keys: Vec<_> = map.iter().map(|(key, _)| (key.text().unwrap(), key.line)).collect();
        assert_eq!(keys, [("define", 4), ("c", 5), ("c", 7)]);
        assert_eq!(map[1].1.anchor.as_deref(), Some("con1"));
        assert_eq!(named.keys().collect::<Vec<_>>(), ["ban", "c2", "con1", "z"]);
        let What::Map(con1) = &map[1].1.what else { panic!() };
        assert_eq!(con1[0].1.text(), Some("\\r\\n x"));
    }

    #[test]
    fn what_is_too_much_or_none_is_an_error() {
        assert_eq!(parse("").unwrap().0, None);
        for (text, wanted) in [
            ("a: [b\n", "no YAML"),
            ("a: *b\n", "no YAML"),
            ("a:\n  b: c\n d: e\n", "no YAML"),
            (&"[".repeat(100), "in one another"),
            (&format!("a: &x [y]\nb: [{}]", "*x,".repeat(100_000)), "more than 100000"),
            ("a: &x [*x]\n", "not yet whole"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("y:") && error.contains(wanted), "{error}");
        }
        // Nothing, which the parser finds behind the last line.
        assert_eq!(parse("---").unwrap().0.map(|node| node.line), Some(1));
    }
}
