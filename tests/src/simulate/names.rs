//! The few topics and filters a run uses, and which matches which.

use dunlin_packets::{filter_matches, split_shared};

/// Index of a topic.
pub type TopicId = usize;
/// Index of a filter.
pub type FilterId = usize;

/// Anybody publishes to these, never with RETAIN: here the count of copies is exact.
const PLAIN: [&str; 6] = ["a", "b", "a/b", "a/c", "a/b/c", "b/c"];
/// Only one client publishes to each of these, so that it is known what is retained.
const RETAINED: [&str; 5] = ["a/r", "r", "r/0", "r/1", "b/r/x"];
const FILTERS: [&str; 20] = [
    "#",
    "a/#",
    "a/+",
    "a/b",
    "+/b",
    "+/+",
    "+/+/+",
    "a",
    "b/#",
    "r/#",
    "r/+",
    "r/0",
    "+/r",
    "a/r",
    "w/#",
    "+/b/c",
    "$share/g/a/#",
    "$share/g/#",
    "$share/h/a/b",
    "$share/h/r/+",
];

/// Topics and filters.
#[derive(Debug)]
pub struct Names {
    /// The topics: plain ones, retained ones, then a will's for each client.
    pub topics: Vec<String>,
    clients: usize,
    matches: Vec<Vec<bool>>,
}

impl Names {
    /// For so many clients.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        let mut topics: Vec<String> =
            PLAIN.iter().chain(&RETAINED).map(ToString::to_string).collect();
        topics.extend((0..clients).map(|client| format!("w/{client}")));
        let matches = FILTERS
            .iter()
            .map(|filter| {
                let plain = match split_shared(filter) {
                    Ok(Some(shared)) => shared.filter,
                    _ => filter,
                };
                topics.iter().map(|topic| filter_matches(plain, topic)).collect()
            })
            .collect();
        Self { topics, clients, matches }
    }

    /// How many filters there are.
    #[must_use]
    pub fn filter_count(&self) -> usize {
        FILTERS.len()
    }

    /// The text of a filter.
    #[must_use]
    pub fn filter(&self, filter: FilterId) -> &'static str {
        FILTERS[filter]
    }

    /// Whether a filter is a shared subscription.
    #[must_use]
    pub fn is_shared(&self, filter: FilterId) -> bool {
        FILTERS[filter].starts_with("$share/")
    }

    /// Whether a filter matches a topic.
    #[must_use]
    pub fn matches(&self, filter: FilterId, topic: TopicId) -> bool {
        self.matches[filter][topic]
    }

    /// The topic of that name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<TopicId> {
        self.topics.iter().position(|topic| topic == name)
    }

    /// Topics a client may publish to.
    #[must_use]
    pub fn topics_of(&self, client: usize) -> Vec<TopicId> {
        let own = (0..RETAINED.len()).filter(|topic| topic % self.clients == client);
        (0..PLAIN.len()).chain(own.map(|topic| PLAIN.len() + topic)).collect()
    }

    /// Whether messages to a topic may be retained.
    #[must_use]
    pub fn may_retain(&self, topic: TopicId) -> bool {
        topic >= PLAIN.len()
    }

    /// The topic of a client's will.
    #[must_use]
    pub fn will_topic(&self, client: usize) -> TopicId {
        PLAIN.len() + RETAINED.len() + client
    }
}
