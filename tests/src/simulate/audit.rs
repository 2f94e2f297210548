//! The auditor: what the broker has promised to whom, and whether it keeps it.
//!
//! It sees what clients send and receive and nothing else. Whatever the order of events leaves
//! open it allows; each place that allows more than it might says why.

use std::collections::BTreeMap;

use super::names::{FilterId, Names, TopicId};
use super::publication::{PubId, Publication, Publications, Stage, Tick};
use super::session::{Departure, KeptWill, Life, OwedRetained, Session, end_of, timer_after};
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
    /// Everything that was published.
    pub publications: Publications,
    /// By client.
    pub sessions: Vec<Session>,
    /// By topic: what was published with RETAIN, in order.
    pub(super) retained: BTreeMap<TopicId, Vec<PubId>>,
    /// By topic: publications without a payload.
    pub(super) empties: BTreeMap<TopicId, Vec<PubId>>,
    /// When a session that may have been a member ended last, by group.
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
    wills_out: Vec<PubId>,
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
        if self.publications.get(id).retain {
            self.promise_retained(id);
        }
    }

    /// The connection of a session ends.
    pub fn on_departed(&mut self, client: usize, how: Departure) {
        let now_ms = self.now_ms;
        let session = &mut self.sessions[client];
        if session.life != Life::Online {
            return;
        }
        let mut keeps_will = true;
        if let Departure::Orderly { with_will, expiry_s } = how {
            keeps_will = with_will;
            session.expiry_s = expiry_s.unwrap_or(session.expiry_s);
        }
        let ends_ms = timer_after(now_ms, session.expiry_s);
        session.life = Life::Offline { ends_min_ms: ends_ms, ends_max_ms: ends_ms };
        if !keeps_will {
            self.discard_will(client);
        } else if let Some(will) = &mut session.will {
            will.due_ms = Some(timer_after(now_ms, will.delay_s).min(ends_ms));
        }
        self.on_time(now_ms);
    }

    /// The client has sent a CONNECT; its connection, if it had one, has ended before. A clean start
    /// ends the session, and others may hear of its will before the CONNACK is there.
    pub fn on_connecting(&mut self, client: usize, clean_start: bool) {
        if clean_start {
            self.end_session(client);
        }
    }

    /// The client connects; its connection, if it has one, has ended before. `present` is what the
    /// CONNACK said.
    ///
    /// # Errors
    /// When Session Present is wrong.
    pub fn on_connected(
        &mut self,
        client: usize,
        clean_start: bool,
        present: bool,
        expiry_s: u32,
        will: Option<KeptWill>,
    ) -> Verdict {
        let expected = if clean_start {
            Some(false)
        } else {
            self.sessions[client].expected_present(self.now_ms)
        };
        if expected.is_some_and(|expected| expected != present) {
            return violation(format!("c{client}: session present is {present}"));
        }
        if present {
            self.discard_will(client);
        } else {
            self.end_session(client);
        }
        let session = &mut self.sessions[client];
        session.is_doubtful &= present;
        session.life = Life::Online;
        session.expiry_s = expiry_s;
        session.will = will;
        Ok(())
    }

    fn discard_will(&mut self, client: usize) {
        let Some(will) = self.sessions[client].will.take() else { return };
        let publication = self.publications.get_mut(will.publication);
        if publication.stage == Stage::Kept {
            publication.stage = Stage::Discarded;
        }
    }

    /// A will's time has come.
    fn publish_will(&mut self, client: usize) {
        let Some(will) = self.sessions[client].will.take() else { return };
        let id = will.publication;
        let tick = self.tick;
        let from_ms = will.due_ms.unwrap_or(self.now_ms).min(self.now_ms);
        let publication = self.publications.get_mut(id);
        if publication.stage != Stage::Kept {
            return;
        }
        publication.stage = Stage::Out;
        self.wills += 1;
        publication.sent = tick;
        // The broker's own: nobody has to acknowledge it.
        publication.is_acked = true;
        publication.expires_min_ms =
            publication.expiry_s.map_or(u64::MAX, |seconds| end_of(from_ms, seconds));
        if publication.retain {
            let topic = publication.topic;
            self.retained.entry(topic).or_default().push(id);
        }
        self.on_transmitted(id);
        self.wills_out.push(id);
    }

    /// The session ends, and all it was owed with it.
    fn end_session(&mut self, client: usize) {
        self.publish_will(client);
        self.forget_member(client);
        self.sessions[client].renew();
    }

    /// The clock has moved, or something is due now.
    pub fn on_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        for client in 0..self.sessions.len() {
            let session = &self.sessions[client];
            let is_due = session.will.and_then(|will| will.due_ms).is_some_and(|at| at <= now_ms);
            if is_due {
                self.publish_will(client);
            }
            let life = self.sessions[client].life;
            if matches!(life, Life::Offline { ends_max_ms, .. } if ends_max_ms <= now_ms) {
                self.end_session(client);
            }
        }
    }

    /// After a crash: what nobody acknowledged may be gone, whoever may have seen it.
    pub(super) fn forget_unacknowledged(&mut self) {
        for id in 0..self.publications.len() {
            let publication = self.publications.get_mut(id);
            publication.is_processed &= publication.is_acked;
        }
        for id in std::mem::take(&mut self.wills_out) {
            self.publications.get_mut(id).is_acked = false;
            self.on_settled(id, false);
        }
    }

    /// The last publication that is certainly retained under a topic, or has certainly deleted what
    /// was. What is sent again at QoS 1 is retained again, in place of something newer perhaps, so
    /// what counts is the order of sendings; of several sendings of one, only the first is certain
    /// to have had that effect.
    #[must_use]
    pub fn floor(&self, topic: TopicId) -> Option<PubId> {
        let ids = self.retained.get(&topic)?;
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
