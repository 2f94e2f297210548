//! The trie of filters with wildcards.
//!
//! A node is 24 bytes; its literal children are found through one hash table for the whole trie,
//! keyed by parent and interned level. Matching goes level by level with a frontier of nodes, so
//! it needs no recursion and reads each level of the topic once.

use ahash::RandomState;
use dunlin_packets::levels;
use hashbrown::HashTable;

use crate::arena::{ChunkSlab, Text, TextArena};

pub(crate) const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

#[derive(Debug)]
struct Node {
    parent: u32,
    /// The interned level this node hangs at; unused for the root and for `+`.
    level: u32,
    /// The child for `+`.
    plus: u32,
    /// The filter that ends here.
    end: u32,
    /// The filter that ends here with a `#` behind.
    hash: u32,
    /// Children, `+` included.
    children: u32,
}

impl Node {
    fn new(parent: u32, level: u32) -> Self {
        Self { parent, level, plus: NONE, end: NONE, hash: NONE, children: 0 }
    }

    fn is_unused(&self) -> bool {
        self.children == 0 && self.end == NONE && self.hash == NONE
    }
}

#[derive(Debug)]
struct Level {
    text: Text,
    uses: u32,
}

/// Level strings, each stored once.
#[derive(Debug, Default)]
struct Levels {
    texts: TextArena,
    slots: ChunkSlab<Level>,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Levels {
    fn find(&self, level: &str) -> Option<u32> {
        let same = |&id: &u32| self.texts.bytes(self.slots.get(id).text) == level.as_bytes();
        self.table.find(self.hasher.hash_one(level.as_bytes()), same).copied()
    }

    fn acquire(&mut self, level: &str) -> u32 {
        if let Some(id) = self.find(level) {
            self.slots.get_mut(id).uses += 1;
            return id;
        }
        let text = self.texts.insert(level);
        let id = self.slots.insert(Level { text, uses: 1 });
        let Self { texts, slots, table, hasher } = self;
        let hash_of = |&id: &u32| hasher.hash_one(texts.bytes(slots.get(id).text));
        table.insert_unique(hasher.hash_one(level.as_bytes()), id, hash_of);
        id
    }

    fn release(&mut self, id: u32) {
        let level = self.slots.get_mut(id);
        level.uses -= 1;
        if level.uses > 0 {
            return;
        }
        let text = level.text;
        let hash = self.hasher.hash_one(self.texts.bytes(text));
        if let Ok(entry) = self.table.find_entry(hash, |&other| other == id) {
            entry.remove();
        }
        self.slots.remove(id);
        self.texts.remove(text);
    }
}

/// Buffers of a match, kept by the caller so that matching allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Frontier {
    now: Vec<u32>,
    next: Vec<u32>,
}

/// Maps filters with wildcards to numbers.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: ChunkSlab<Node>,
    edges: HashTable<u32>,
    levels: Levels,
    hasher: RandomState,
}

impl Default for Trie {
    fn default() -> Self {
        let mut nodes = ChunkSlab::default();
        nodes.insert(Node::new(NONE, NONE));
        Self {
            nodes,
            edges: HashTable::default(),
            levels: Levels::default(),
            hasher: RandomState::default(),
        }
    }
}

impl Trie {
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.get(ROOT).is_unused()
    }

    /// Enters a filter that is not in the trie yet.
    pub(crate) fn insert(&mut self, filter: &str, value: u32) {
        let mut at = ROOT;
        for level in levels(filter) {
            match level {
                "#" => {
                    self.nodes.get_mut(at).hash = value;
                    return;
                }
                "+" => at = self.plus_child(at),
                _ => at = self.literal_child(at, level),
            }
        }
        self.nodes.get_mut(at).end = value;
    }

    /// Takes a filter out that is in the trie, and the nodes only it needed.
    pub(crate) fn remove(&mut self, filter: &str) {
        let mut at = ROOT;
        let mut ends_in_hash = false;
        for level in levels(filter) {
            at = match level {
                "#" => {
                    ends_in_hash = true;
                    break;
                }
                "+" => self.nodes.get(at).plus,
                _ => {
                    let id = self.levels.find(level).expect("the filter is in the trie");
                    self.find_edge(at, id).expect("the filter is in the trie")
                }
            };
        }
        let node = self.nodes.get_mut(at);
        if ends_in_hash {
            node.hash = NONE;
        } else {
            node.end = NONE;
        }
        self.prune(at);
    }

    fn prune(&mut self, mut at: u32) {
        while at != ROOT && self.nodes.get(at).is_unused() {
            let hash = self.edge_hash(at);
            let node = self.nodes.remove(at);
            let parent = self.nodes.get_mut(node.parent);
            parent.children -= 1;
            if parent.plus == at {
                parent.plus = NONE;
            } else {
                if let Ok(entry) = self.edges.find_entry(hash, |&other| other == at) {
                    entry.remove();
                }
                self.levels.release(node.level);
            }
            at = node.parent;
        }
    }

    /// Calls `found` for every filter that matches `topic`.
    pub(crate) fn matches(&self, topic: &str, frontier: &mut Frontier, mut found: impl FnMut(u32)) {
        let Frontier { now, next } = frontier;
        now.clear();
        now.push(ROOT);
        // Wildcards in the first level do not match a topic of the server's own [MQTT-4.7.2-1].
        let mut wildcards_apply = !topic.starts_with('$');
        for level in levels(topic) {
            let level = self.levels.find(level);
            next.clear();
            for &at in now.iter() {
                let node = self.nodes.get(at);
                if wildcards_apply && node.hash != NONE {
                    found(node.hash);
                }
                if wildcards_apply && node.plus != NONE {
                    next.push(node.plus);
                }
                next.extend(level.and_then(|level| self.find_edge(at, level)));
            }
            wildcards_apply = true;
            std::mem::swap(now, next);
            if now.is_empty() {
                return;
            }
        }
        for &at in now.iter() {
            let node = self.nodes.get(at);
            // `a/#` stands for `a` as well.
            for value in [node.end, node.hash] {
                if value != NONE {
                    found(value);
                }
            }
        }
    }

    fn plus_child(&mut self, at: u32) -> u32 {
        let existing = self.nodes.get(at).plus;
        if existing != NONE {
            return existing;
        }
        let child = self.nodes.insert(Node::new(at, NONE));
        let node = self.nodes.get_mut(at);
        node.plus = child;
        node.children += 1;
        child
    }

    fn literal_child(&mut self, at: u32, level: &str) -> u32 {
        if let Some(child) = self.levels.find(level).and_then(|id| self.find_edge(at, id)) {
            return child;
        }
        let level = self.levels.acquire(level);
        let child = self.nodes.insert(Node::new(at, level));
        self.nodes.get_mut(at).children += 1;
        let Self { nodes, edges, hasher, .. } = self;
        let hash_of = |&node: &u32| {
            let node = nodes.get(node);
            hasher.hash_one((node.parent, node.level))
        };
        edges.insert_unique(hasher.hash_one((at, level)), child, hash_of);
        child
    }

    #[inline]
    fn find_edge(&self, at: u32, level: u32) -> Option<u32> {
        let same = |&child: &u32| {
            let child = self.nodes.get(child);
            child.parent == at && child.level == level
        };
        self.edges.find(self.hasher.hash_one((at, level)), same).copied()
    }

    fn edge_hash(&self, node: u32) -> u64 {
        let node = self.nodes.get(node);
        self.hasher.hash_one((node.parent, node.level))
    }
}
