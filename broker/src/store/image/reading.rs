//! Record by record to an [`Image`].

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};

use ahash::RandomState;
use dunlin_packets::{PacketId, QoS};
use dunlin_queue::Time;
use dunlin_router::Subscription;

use super::few::FewMap;
use super::places::Places;
use super::queues::QueuesRead;
use super::*;
use crate::store::port::Numbers;
use crate::store::record::*;

/// A session while the log is being read.
#[derive(Debug, Default)]
struct Draft {
    sid: u64,
    row: Option<Row>,
    subscriptions: FewMap<Box<str>, Subscription>,
    refs: FewMap<u64, Terms>,
    flight: Option<Box<Flight>>,
    /// By filter; few sessions have any.
    consumers: Option<Box<FewMap<Box<str>, StoredConsumer>>>,
}

/// How a message is to be delivered: at which QoS, with which RETAIN flag, for which subscriptions.
type Terms = (QoS, bool, Box<[u32]>);

/// What is on its way between a session and its client; few have anything.
#[derive(Debug, Default)]
struct Flight {
    received: BTreeSet<PacketId>,
    /// The message that was sent last under each identifier.
    sent: BTreeMap<PacketId, Sent>,
    /// Identifiers that wait for PUBCOMP, and which record said so.
    released: BTreeMap<PacketId, u64>,
}

/// What was sent under an identifier.
#[derive(Clone, Copy, Debug)]
struct Sent {
    id: u64,
    is_exactly_once: bool,
    /// Which record said so.
    stamp: u64,
}

#[derive(Debug)]
struct Row {
    client_id: Box<str>,
    expiry_s: u32,
    was_online: bool,
    expires_at: Time,
    will_at: Time,
    will: Option<Box<StoredWill>>,
}

impl From<&SessionRecord<'_>> for Row {
    fn from(record: &SessionRecord<'_>) -> Self {
        Self {
            client_id: record.client_id.into(),
            expiry_s: record.expiry_s,
            was_online: record.is_online,
            expires_at: record.expires_at,
            will_at: record.will_at,
            will: record.will.map(|will| {
                Box::new(StoredWill {
                    topic: will.topic.into(),
                    properties: will.properties.into(),
                    payload: will.payload.into(),
                    qos: will.qos,
                    retain: will.retain,
                    delay_s: will.delay_s,
                })
            }),
        }
    }
}

/// A retained message in a set of them by topic, which it has in itself.
#[derive(Debug)]
struct ByTopic(StoredRetained);

impl ByTopic {
    fn topic(&self) -> &[u8] {
        self.0.content.get(..self.0.topic_len as usize).unwrap_or_default()
    }
}

impl Hash for ByTopic {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.topic().hash(hasher);
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.topic() == other.topic()
    }
}

impl Eq for ByTopic {}

impl Borrow<[u8]> for ByTopic {
    fn borrow(&self) -> &[u8] {
        self.topic()
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Sessions in the order in which they came. One that has ended is empty.
    drafts: Vec<Draft>,
    /// Where each is, by number; and the last that was looked up, as records of one session come
    /// together.
    places: Places,
    last: Option<(u64, u32)>,
    messages: StoredMessages,
    retained: HashSet<ByTopic, RandomState>,
    /// Messages that a session was done with before they came.
    done: HashSet<(u64, u64), RandomState>,
    queues: QueuesRead,
    keys: Option<[u64; 4]>,
    numbers: Numbers,
    records: u64,
}

impl Reading {
    /// Takes the records of one frame in, which begin at `records_at` in the log.
    pub(super) fn frame(&mut self, records_at: u64, payload: &[u8]) -> Result<(), Unreadable> {
        for record in Records::new(payload) {
            self.records += 1;
            match record? {
                Record::Message(message) => self.message(&message, records_at)?,
                Record::RetainedGone { topic } => {
                    self.retained.remove(topic.as_bytes());
                }
                Record::Keys(keys) => self.keys = Some(keys),
                Record::SessionEnd { sid } => self.session_end(sid),
                Record::Done { sid, id } => self.done(sid, id),
                record => match self.queues.take(&record, records_at) {
                    Some(qid) => self.numbers.session = self.numbers.session.max(qid + 1),
                    None => self.session_change(&record),
                },
            }
        }
        Ok(())
    }

    fn message(&mut self, record: &MessageRecord<'_>, records_at: u64) -> Result<(), Unreadable> {
        self.numbers.message = self.numbers.message.max(record.id + 1);
        if record.is_retained {
            return self.retain(record);
        }
        let position = records_at + record.position as u64;
        let mut refs = 0;
        for delivery in record.refs.iter() {
            if !self.done.is_empty() && self.done.remove(&(delivery.sid, record.id)) {
                continue;
            }
            self.numbers.session = self.numbers.session.max(delivery.sid + 1);
            let terms = (delivery.qos, delivery.retain, delivery.identifiers.into_boxed_slice());
            let draft = self.draft(delivery.sid);
            refs += u32::from(draft.refs.insert(record.id, terms).is_none());
        }
        let stored = StoredAt {
            position,
            expires_at: record.expires_at,
            received: record.received,
            qos: record.qos,
            retain: record.retain,
            topic_len: record.topic_len,
            properties_len: record.properties_len,
            content_len: record.content.len() as u32,
            refs: 0,
        };
        if refs > 0 || self.messages.contains_key(&record.id) {
            let known = self.messages.entry(record.id).or_insert(stored);
            known.refs += refs;
            known.position = position;
        }
        Ok(())
    }

    fn retain(&mut self, record: &MessageRecord<'_>) -> Result<(), Unreadable> {
        let retained = StoredRetained {
            id: record.id,
            publisher: record.publisher,
            expires_at: record.expires_at,
            qos: record.qos,
            topic_len: record.topic_len,
            properties_len: record.properties_len,
            content: record.content.into(),
        };
        let topic = record.content.get(..record.topic_len as usize).ok_or(Unreadable)?;
        std::str::from_utf8(topic).map_err(|_| Unreadable)?;
        self.retained.replace(ByTopic(retained));
        Ok(())
    }

    /// The session of that number; a new one if it has not been heard of.
    fn draft(&mut self, sid: u64) -> &mut Draft {
        let place = match self.last {
            Some((last, place)) if last == sid => place,
            _ => {
                let next = self.drafts.len() as u32;
                let place = self.places.get_or_insert(sid, next);
                if place == next {
                    self.drafts.push(Draft { sid, ..Draft::default() });
                }
                self.last = Some((sid, place));
                place
            }
        };
        &mut self.drafts[place as usize]
    }

    fn session_end(&mut self, sid: u64) {
        self.numbers.session = self.numbers.session.max(sid + 1);
        if let Some(place) = self.places.remove(sid) {
            self.last = None;
            let draft = std::mem::take(&mut self.drafts[place as usize]);
            self.let_go_all(draft);
        }
    }

    /// Deliveries to a session that is no more.
    fn let_go_all(&mut self, draft: Draft) {
        draft.refs.into_vec().iter().for_each(|(id, _)| self.let_go(*id));
    }

    fn done(&mut self, sid: u64, id: u64) {
        // The message may have been cleaned up before this record. Another one of its number would
        // be taken for done with.
        self.numbers.message = self.numbers.message.max(id + 1);
        let place = self.places.get(sid);
        let draft = place.and_then(|place| self.drafts.get_mut(place as usize));
        if draft.is_some_and(|draft| draft.refs.remove(&id).is_some()) {
            self.let_go(id);
        } else {
            self.done.insert((sid, id));
        }
    }

    fn let_go(&mut self, id: u64) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.refs -= 1;
            if message.refs == 0 {
                self.messages.remove(&id);
            }
        }
    }

    fn session_change(&mut self, change: &Record<'_>) {
        let (Record::Session(SessionRecord { sid, .. })
        | Record::Subscribed { sid, .. }
        | Record::Unsubscribed { sid, .. }
        | Record::Sent { sid, .. }
        | Record::Released { sid, .. }
        | Record::Completed { sid, .. }
        | Record::Received { sid, .. }
        | Record::Freed { sid, .. }
        | Record::Consumer(ConsumerRecord { sid, .. })) = *change
        else {
            return;
        };
        self.numbers.session = self.numbers.session.max(sid + 1);
        let stamp = self.records;
        let draft = self.draft(sid);
        match *change {
            Record::Session(ref row) => draft.row = Some(Row::from(row)),
            Record::Subscribed { filter, options, identifier, .. } => {
                draft.subscriptions.insert(filter.into(), Subscription { options, identifier });
            }
            Record::Unsubscribed { filter, .. } => {
                draft.subscriptions.remove(filter);
                if let Some(consumers) = &mut draft.consumers {
                    consumers.remove(filter);
                }
            }
            Record::Consumer(ref consumer) => {
                let consumers = draft.consumers.get_or_insert_default();
                consumers.insert(consumer.filter.into(), StoredConsumer::from(consumer));
            }
            Record::Sent { packet_id, id, is_exactly_once, .. } => {
                draft.flight().sent.insert(packet_id, Sent { id, is_exactly_once, stamp });
                self.numbers.message = self.numbers.message.max(id + 1);
            }
            Record::Released { packet_id, id, .. } => {
                // It keeps its place among those in flight.
                let flight = draft.flight();
                let sent = flight.sent.remove(&packet_id).map_or(stamp, |sent| sent.stamp);
                flight.released.insert(packet_id, sent);
                if id != 0 {
                    self.done(sid, id);
                }
            }
            Record::Completed { packet_id, .. } => {
                draft.flight().released.remove(&packet_id);
                draft.flight().sent.remove(&packet_id);
            }
            Record::Received { packet_id, .. } => {
                draft.flight().received.insert(packet_id);
            }
            Record::Freed { packet_id, .. } => {
                draft.flight().received.remove(&packet_id);
            }
            _ => {}
        }
    }

    /// What all records together say.
    pub(super) fn finish(mut self) -> Image {
        let mut drafts = std::mem::take(&mut self.drafts);
        let known = drafts.iter().enumerate().filter(|(_, draft)| draft.sid != 0);
        let mut order: Vec<(u64, u32)> =
            known.map(|(place, draft)| (draft.sid, place as u32)).collect();
        order.sort_unstable();
        // The newest first: of two with one client identifier it is the one that holds.
        let mut clients: HashSet<&str, RandomState> = HashSet::default();
        clients.reserve(order.len());
        let is_current = |&(_, place): &(u64, u32)| {
            let row = drafts[place as usize].row.as_ref();
            row.is_some_and(|row| clients.insert(&row.client_id))
        };
        let mut current: Vec<bool> = order.iter().rev().map(is_current).collect();
        current.reverse();
        drop(clients);
        let mut sessions = Vec::with_capacity(order.len());
        for (&(_, place), is_current) in order.iter().zip(current) {
            let draft = std::mem::take(&mut drafts[place as usize]);
            match is_current {
                true => sessions.extend(finish_session(draft)),
                // Deliveries that were on their way to a session while it ended.
                false => self.let_go_all(draft),
            }
        }
        Image {
            sessions,
            messages: self.messages,
            retained: self.retained.into_iter().map(|retained| retained.0).collect(),
            queues: self.queues.finish(),
            keys: self.keys,
            numbers: self.numbers,
            records: self.records,
        }
    }
}

impl Draft {
    fn flight(&mut self) -> &mut Flight {
        self.flight.get_or_insert_default()
    }
}

fn finish_session(draft: Draft) -> Option<StoredSession> {
    let row = draft.row?;
    let mut refs = draft.refs;
    let mut in_flight: Vec<(u64, PacketId, Option<StoredRef>)> = Vec::new();
    let Flight { received, sent, released } =
        draft.flight.map(|flight| *flight).unwrap_or_default();
    for (packet_id, stamp) in &released {
        in_flight.push((*stamp, *packet_id, None));
    }
    for (packet_id, Sent { id, is_exactly_once, stamp }) in sent {
        let delivery = refs.remove(&id).map(|terms| stored_ref((id, terms)));
        // Without its message it ends with PUBREL: its client may know the identifier, and would
        // take the next message under it for this one.
        if delivery.is_some() || is_exactly_once {
            in_flight.push((stamp, packet_id, delivery));
        }
    }
    in_flight.sort_unstable_by_key(|(stamp, ..)| *stamp);
    let consumers = draft.consumers.map(|consumers| consumers.into_vec()).unwrap_or_default();
    Some(StoredSession {
        sid: draft.sid,
        client_id: row.client_id,
        expiry_s: row.expiry_s,
        was_online: row.was_online,
        expires_at: row.expires_at,
        will_at: row.will_at,
        will: row.will,
        subscriptions: draft.subscriptions.into_vec(),
        received: received.into_iter().collect(),
        in_flight: in_flight.into_iter().map(|(_, id, delivery)| (id, delivery)).collect(),
        queue: refs.into_vec().into_iter().map(stored_ref).collect(),
        consumers: consumers.into_iter().map(|(_, consumer)| consumer).collect(),
    })
}

fn stored_ref((id, (qos, retain, identifiers)): (u64, Terms)) -> StoredRef {
    StoredRef { id, qos, retain, identifiers }
}
