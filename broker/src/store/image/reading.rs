//! Record by record to an [`Image`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ahash::RandomState;
use dunlin_packets::{PacketId, QoS};
use dunlin_queue::Time;
use dunlin_router::Subscription;

use super::{
    Image, StoredAt, StoredMessages, StoredRef, StoredRetained, StoredSession, StoredWill,
};
use crate::store::port::Numbers;
use crate::store::record::{MessageRecord, Record, Records, SessionRecord, Unreadable};

/// A session while the log is being read.
#[derive(Debug, Default)]
struct Draft {
    row: Option<Row>,
    subscriptions: BTreeMap<Box<str>, Subscription>,
    received: BTreeSet<PacketId>,
    /// The message that was sent last under each identifier.
    sent: BTreeMap<PacketId, Sent>,
    /// Identifiers that wait for PUBCOMP, and which record said so.
    released: BTreeMap<PacketId, u64>,
    refs: BTreeMap<u64, (QoS, bool, Box<[u32]>)>,
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
    will: Option<StoredWill>,
}

impl From<&SessionRecord<'_>> for Row {
    fn from(record: &SessionRecord<'_>) -> Self {
        Self {
            client_id: record.client_id.into(),
            expiry_s: record.expiry_s,
            was_online: record.is_online,
            expires_at: record.expires_at,
            will_at: record.will_at,
            will: record.will.map(|will| StoredWill {
                topic: will.topic.into(),
                properties: will.properties.into(),
                payload: will.payload.into(),
                qos: will.qos,
                retain: will.retain,
                delay_s: will.delay_s,
            }),
        }
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Reading {
    sessions: HashMap<u64, Draft, RandomState>,
    messages: StoredMessages,
    retained: HashMap<Box<str>, StoredRetained, RandomState>,
    /// Messages that a session was done with before they came.
    done: HashSet<(u64, u64), RandomState>,
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
                    self.retained.remove(topic);
                }
                Record::Keys(keys) => self.keys = Some(keys),
                Record::SessionEnd { sid } => self.session_end(sid),
                Record::Done { sid, id } => self.done(sid, id),
                change => self.session_change(change),
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
            if self.done.remove(&(delivery.sid, record.id)) {
                continue;
            }
            self.numbers.session = self.numbers.session.max(delivery.sid + 1);
            let terms = (delivery.qos, delivery.retain, delivery.identifiers.into_boxed_slice());
            let draft = self.sessions.entry(delivery.sid).or_default();
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
        let topic = std::str::from_utf8(topic).map_err(|_| Unreadable)?;
        self.retained.insert(topic.into(), retained);
        Ok(())
    }

    fn session_end(&mut self, sid: u64) {
        self.numbers.session = self.numbers.session.max(sid + 1);
        if let Some(draft) = self.sessions.remove(&sid) {
            draft.refs.keys().for_each(|&id| self.let_go(id));
        }
    }

    fn done(&mut self, sid: u64, id: u64) {
        // The message may have been cleaned up before this record. Another one of its number would
        // be taken for done with.
        self.numbers.message = self.numbers.message.max(id + 1);
        let draft = self.sessions.get_mut(&sid);
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

    fn session_change(&mut self, change: Record<'_>) {
        let (Record::Session(SessionRecord { sid, .. })
        | Record::Subscribed { sid, .. }
        | Record::Unsubscribed { sid, .. }
        | Record::Sent { sid, .. }
        | Record::Released { sid, .. }
        | Record::Completed { sid, .. }
        | Record::Received { sid, .. }
        | Record::Freed { sid, .. }) = change
        else {
            return;
        };
        self.numbers.session = self.numbers.session.max(sid + 1);
        let stamp = self.records;
        let draft = self.sessions.entry(sid).or_default();
        match change {
            Record::Session(row) => draft.row = Some(Row::from(&row)),
            Record::Subscribed { filter, options, identifier, .. } => {
                draft.subscriptions.insert(filter.into(), Subscription { options, identifier });
            }
            Record::Unsubscribed { filter, .. } => {
                draft.subscriptions.remove(filter);
            }
            Record::Sent { packet_id, id, is_exactly_once, .. } => {
                self.numbers.message = self.numbers.message.max(id + 1);
                draft.sent.insert(packet_id, Sent { id, is_exactly_once, stamp });
            }
            Record::Released { packet_id, id, .. } => {
                // It keeps its place among those in flight.
                let sent = draft.sent.remove(&packet_id).map_or(stamp, |sent| sent.stamp);
                draft.released.insert(packet_id, sent);
                if id != 0 {
                    self.done(sid, id);
                }
            }
            Record::Completed { packet_id, .. } => {
                draft.released.remove(&packet_id);
                draft.sent.remove(&packet_id);
            }
            Record::Received { packet_id, .. } => {
                draft.received.insert(packet_id);
            }
            Record::Freed { packet_id, .. } => {
                draft.received.remove(&packet_id);
            }
            _ => {}
        }
    }

    /// What all records together say.
    pub(super) fn finish(mut self) -> Image {
        let mut by_client: HashMap<Box<str>, u64, RandomState> = HashMap::default();
        let mut sessions: Vec<StoredSession> = Vec::with_capacity(self.sessions.len());
        let mut drafts: Vec<(u64, Draft)> =
            std::mem::take(&mut self.sessions).into_iter().collect();
        drafts.sort_unstable_by_key(|(sid, _)| *sid);
        // The newest first: of two with one client identifier it is the one that holds.
        for (sid, draft) in drafts.into_iter().rev() {
            let is_current =
                draft.row.as_ref().is_some_and(|row| !by_client.contains_key(&row.client_id));
            if !is_current {
                // Deliveries that were on their way to a session while it ended.
                draft.refs.keys().for_each(|&id| self.let_go(id));
                continue;
            }
            if let Some(session) = finish_session(sid, draft) {
                by_client.insert(session.client_id.clone(), sid);
                sessions.push(session);
            }
        }
        sessions.reverse();
        Image {
            sessions,
            messages: self.messages,
            retained: self.retained.into_values().collect(),
            keys: self.keys,
            numbers: self.numbers,
            records: self.records,
        }
    }
}

fn finish_session(sid: u64, draft: Draft) -> Option<StoredSession> {
    let row = draft.row?;
    let mut refs = draft.refs;
    let mut take = |id: u64| {
        let (qos, retain, identifiers) = refs.remove(&id)?;
        Some(StoredRef { id, qos, retain, identifiers })
    };
    let mut in_flight: Vec<(u64, PacketId, Option<StoredRef>)> = Vec::new();
    for (packet_id, stamp) in &draft.released {
        in_flight.push((*stamp, *packet_id, None));
    }
    for (packet_id, Sent { id, is_exactly_once, stamp }) in draft.sent {
        let delivery = take(id);
        // Without its message it ends with PUBREL: its client may know the identifier, and would
        // take the next message under it for this one.
        if delivery.is_some() || is_exactly_once {
            in_flight.push((stamp, packet_id, delivery));
        }
    }
    in_flight.sort_unstable_by_key(|(stamp, ..)| *stamp);
    let queue = refs
        .into_iter()
        .map(|(id, (qos, retain, identifiers))| StoredRef { id, qos, retain, identifiers })
        .collect();
    Some(StoredSession {
        sid,
        client_id: row.client_id,
        expiry_s: row.expiry_s,
        was_online: row.was_online,
        expires_at: row.expires_at,
        will_at: row.will_at,
        will: row.will,
        subscriptions: draft.subscriptions.into_iter().collect(),
        received: draft.received.into_iter().collect(),
        in_flight: in_flight.into_iter().map(|(_, id, delivery)| (id, delivery)).collect(),
        queue,
    })
}
