//! The auditor: what the broker has promised to whom, and whether it keeps it.
//!
//! It sees what clients send and receive and nothing else. Whatever the order of events leaves
//! open it allows; each place that allows more than it might says why.

use std::collections::BTreeMap;

use super::names::{FilterId, Names, TopicId};
use super::publication::{PubId, Publication, Publications, Stage, Tick};
use super::session::{OwedRetained, Session, end_of};
use super::subscriptions::{is_certain, possible};

/// A rule that was broken, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// Whether the rules were kept.
pub type Verdict = Result<(), Violation>;

/// Says that a rule was broken.
///
/// # Errors
/// Always.
pub fn violation<T>(text: impl Into<String>) -> Result<T, Violation> {
    Err(Violation(text.into()))
}

/// Options of the broker that change what it has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Overlapping subscriptions get a copy each.
    pub separate_copies: bool,
    /// Deliver at the granted QoS even what was published at a lower one.
    pub upgrade_qos: bool,
    /// There may be no room to retain what is published: nothing is certain of what is retained.
    pub may_not_retain: bool,
}

impl Rules {
    /// QoS of a delivery.
    #[must_use]
    pub fn qos(&self, published: u8, granted: u8) -> u8 {
        if self.upgrade_qos { granted } else { published.min(granted) }
    }
}

/// What is known, and what is owed.
#[derive(Debug)]
pub struct Auditor {
    /// Topics and filters.
    pub names: Names,
    /// What the broker goes by.
    pub rules: Rules,
    /// Now, in the order of events.
    pub tick: Tick,
    /// Now, on the virtual clock.
    pub now_ms: u64,
    /// Crashes so far.
    pub crashes: u32,
    /// When the last was.
    pub(super) crashed: Tick,
    /// Everything that was published.
    pub publications: Publications,
    /// By client.
    pub sessions: Vec<Session>,
    /// By topic: what was published with RETAIN, in order.
    pub(super) retained: BTreeMap<TopicId, Vec<PubId>>,
    /// By topic: publications without a payload.
    pub(super) empties: BTreeMap<TopicId, Vec<PubId>>,
    /// When a session that may have been a member ended last, or the last certain one left, by
    /// group.
    pub(super) members_gone: BTreeMap<FilterId, Tick>,
    /// Publications that some member of a group has to get.
    pub(super) group_owed: BTreeMap<(FilterId, PubId), ()>,
    /// Deliveries that were read.
    pub deliveries: u64,
    /// Wills that went out.
    pub wills: u64,
    /// How many times anything was sent.
    sendings: u64,
    /// Wills that have gone out since the broker last came to rest.
    pub(super) wills_out: Vec<PubId>,
}

impl Auditor {
    /// For so many clients.
    #[must_use]
    pub fn new(clients: usize, rules: Rules) -> Self {
        Self {
            names: Names::new(clients),
            rules,
            tick: 1,
            now_ms: 0,
            crashes: 0,
            crashed: 0,
            publications: Publications::default(),
            sessions: (0..clients).map(|_| Session::default()).collect(),
            retained: BTreeMap::new(),
            empties: BTreeMap::new(),
            members_gone: BTreeMap::new(),
            group_owed: BTreeMap::new(),
            deliveries: 0,
            wills: 0,
            sendings: 0,
            wills_out: Vec::new(),
        }
    }

    /// A client has composed a publication.
    pub fn on_published(&mut self, publication: Publication) -> PubId {
        let Publication { topic, retain, is_empty, stage, .. } = publication;
        let id = self.publications.add(publication);
        if is_empty {
            self.empties.entry(topic).or_default().push(id);
        }
        if retain && stage == Stage::Out {
            self.retained.entry(topic).or_default().push(id);
        }
        id
    }

    fn on_retained(&mut self, topic: TopicId) {
        // A replay leaves out what is published meanwhile, and that may be lost or come to nobody:
        // at QoS 0 to a session offline, by its expiry, by No Local, on other terms.
        for session in &mut self.sessions {
            session.owed_retained.retain(|&(_, other), _| other != topic);
        }
    }

    /// It was sent, for the first time or again, on a connection that may still deliver it.
    pub fn on_transmitted(&mut self, id: PubId) {
        let publication = self.publications.get_mut(id);
        publication.transmissions += 1;
        publication.open += 1;
        publication.settled = None;
        self.sendings += 1;
        publication.places.1 = self.sendings;
        if publication.transmissions == 1 {
            publication.places.0 = self.sendings;
        }
        if publication.retain {
            let topic = publication.topic;
            self.on_retained(topic);
        }
    }

    /// The broker is at rest and a connection has nothing more of it. `is_processed` when it was
    /// read for certain, and not thrown away with the connection.
    pub fn on_settled(&mut self, id: PubId, is_processed: bool) {
        let (tick, now_ms) = (self.tick, self.now_ms);
        let publication = self.publications.get_mut(id);
        publication.is_processed |= is_processed;
        publication.open -= 1;
        if publication.open == 0 {
            publication.settled = Some(tick);
            publication.expires_max_ms =
                publication.expiry_s.map_or(u64::MAX, |seconds| end_of(now_ms, seconds));
            self.promise(id);
        }
    }

    /// PUBACK or PUBREC came.
    pub fn on_acked(&mut self, id: PubId, is_refusal: bool) {
        let publication = self.publications.get_mut(id);
        if is_refusal {
            publication.is_refused = true;
            return;
        }
        if !std::mem::replace(&mut publication.is_acked, true) {
            self.promise(id);
        }
    }

    /// The broker has come to rest: nothing is under way between workers.
    pub fn on_rest(&mut self) {
        self.tick += 1;
        for id in std::mem::take(&mut self.wills_out) {
            self.on_settled(id, true);
        }
    }

    /// Enters who has to get an acknowledged publication.
    fn promise(&mut self, id: PubId) {
        let publication = self.publications.get(id);
        let Some(settled) = publication.settled.filter(|_| publication.is_acked) else { return };
        if publication.qos == 0 || publication.is_empty {
            // Empty ones cannot be told from each other.
            return;
        }
        let (topic, sent, qos) = (publication.topic, publication.sent, publication.qos);
        let publisher = publication.publisher;
        let rules = self.rules;
        for (client, session) in self.sessions.iter_mut().enumerate() {
            if !session.exists() || session.is_doubtful || session.delivered.contains_key(&id) {
                continue;
            }
            let is_own = client == publisher;
            let is_owed = session.subscriptions.filters().any(|(filter, changes)| {
                !self.names.is_shared(filter)
                    && self.names.matches(filter, topic)
                    && is_certain(changes, sent, settled, |terms| {
                        rules.qos(qos, terms.qos) > 0 && !(is_own && terms.no_local)
                    })
            });
            if is_owed {
                session.owed.insert(id);
            }
        }
        self.promise_groups(id);
        if self.publications.get(id).retain && !self.rules.may_not_retain {
            self.promise_retained(id);
        }
    }

    /// After a crash: what nobody acknowledged may be gone, whoever may have seen it.
    pub(super) fn forget_unacknowledged(&mut self) {
        for id in 0..self.publications.len() {
            let publication = self.publications.get_mut(id);
            // A will at QoS 0 was never anybody's responsibility either.
            publication.is_acked &= publication.qos > 0;
            publication.is_processed &= publication.is_acked;
        }
        for id in std::mem::take(&mut self.wills_out) {
            // The broker may not even have seen that it was due.
            let publication = self.publications.get_mut(id);
            (publication.is_acked, publication.open) = (false, 0);
            publication.stage = Stage::Kept;
            self.on_will_unclear(id);
        }
    }

    /// The last publication that is certainly retained under a topic, or has certainly deleted what
    /// was. What is sent again at QoS 1 is retained again, in place of something newer perhaps, so
    /// what counts is the order of sendings; of several sendings of one, only the first is certain
    /// to have had that effect.
    #[must_use]
    pub fn floor(&self, topic: TopicId) -> Option<PubId> {
        let ids = self.retained.get(&topic).filter(|_| !self.rules.may_not_retain)?;
        ids.iter().rev().copied().find(|&id| {
            let publication = self.publications.get(id);
            let is_certain = publication.is_acked || publication.is_processed;
            publication.settled.is_some() && is_certain && !publication.is_refused
        })
    }

    /// Whether a publication was sent, or sent again, at or after the first sending of `floor`.
    #[must_use]
    pub fn is_not_older(&self, id: PubId, floor: PubId) -> bool {
        self.publications.get(id).places.1 >= self.publications.get(floor).places.0
    }

    /// Terms on which a session may have been sent a publication live, each with its filter.
    pub(super) fn possible_terms(
        &self,
        client: usize,
        id: PubId,
    ) -> Vec<(FilterId, super::subscriptions::Terms)> {
        let publication = self.publications.get(id);
        let is_own = publication.publisher == client;
        let to = publication.settled.unwrap_or(Tick::MAX);
        let mut found = Vec::new();
        for (filter, changes) in self.sessions[client].subscriptions.filters() {
            if self.names.matches(filter, publication.topic) {
                // What a member of a group did not get goes to another, who may have joined since.
                let to = if self.names.is_shared(filter) { Tick::MAX } else { to };
                let terms = possible(changes, publication.sent, to);
                let terms = terms.filter(|terms| !(is_own && terms.no_local));
                found.extend(terms.map(|terms| (filter, *terms)));
            }
        }
        found
    }

    /// What a session still has to get, and has not expired.
    ///
    /// # Errors
    /// When there is something.
    pub fn check_nothing_owed(&self) -> Verdict {
        for (client, session) in self.sessions.iter().enumerate() {
            let missing = session
                .owed
                .iter()
                .find(|&&id| self.publications.get(id).expires_min_ms > self.now_ms);
            if let Some(&id) = missing {
                let publication = self.publications.get(id);
                return violation(format!("c{client} never got #{id}: {publication:?}"));
            }
            let missing = session.owed_retained.iter().find(|(_, owed)| owed.is_granted);
            if let Some((&(filter, topic), OwedRetained { floor: id, .. })) = missing {
                let (filter, topic) = (self.names.filter(filter), &self.names.topics[topic]);
                return violation(format!(
                    "c{client} subscribed to {filter} and never got {topic} as retained by #{id}"
                ));
            }
        }
        self.check_groups()
    }
}
