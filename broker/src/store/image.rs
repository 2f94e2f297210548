//! What the log says when all of it is read: the sessions, their messages, the retained messages.
//!
//! Cleaning writes records again at the log's end, so a message may stand behind what was done with
//! it, and a session's own record behind those that belong to it. Nothing here depends on which of
//! them comes first, but for records of one thing, of which the last holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;
use dunlin_packets::{PacketId, QoS};
use dunlin_queue::Time;
use dunlin_router::Subscription;
use dunlin_storage::{Backend, BackendError, Entry, FRAME_HEADER_BYTES, Frames, Log, SegmentInfo};

use super::port::Numbers;
use super::record::{MessageRecord, Record, Records, SessionRecord, Unreadable};

/// A message that somebody has still to get. Its bytes are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAt {
    /// Where.
    pub position: u64,
    /// When it is not to be delivered any more.
    pub expires_at: Time,
    /// QoS it was published at.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// Bytes of the topic.
    pub topic_len: u32,
    /// Bytes of the properties.
    pub properties_len: u32,
    /// Bytes in all.
    pub content_len: u32,
    /// Deliveries that are to be made.
    refs: u32,
}

/// Messages by their number.
pub type StoredMessages = HashMap<u64, StoredAt, RandomState>;

/// One delivery that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRef {
    /// The message.
    pub id: u64,
    /// QoS to deliver at.
    pub qos: QoS,
    /// RETAIN flag to deliver with.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub identifiers: Box<[u32]>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its number in the log.
    pub sid: u64,
    /// The client identifier.
    pub client_id: Box<str>,
    /// Seconds it outlives its connection.
    pub expiry_s: u32,
    /// It had a connection.
    pub was_online: bool,
    /// When it ends, unless it had a connection.
    pub expires_at: Time,
    /// When the will is published, unless it had a connection.
    pub will_at: Time,
    /// The will.
    pub will: Option<StoredWill>,
    /// What it subscribes to.
    pub subscriptions: Vec<(Box<str>, Subscription)>,
    /// QoS 2 publications of its client that have not been released.
    pub received: Vec<PacketId>,
    /// What is in flight to it, in order; without a delivery, it only waits for PUBCOMP.
    pub in_flight: Vec<(PacketId, Option<StoredRef>)>,
    /// What waits for it, in order.
    pub queue: Vec<StoredRef>,
}

/// A will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWill {
    /// Its topic.
    pub topic: Box<str>,
    /// Its properties, encoded.
    pub properties: Box<[u8]>,
    /// Its payload.
    pub payload: Box<[u8]>,
    /// Its QoS.
    pub qos: QoS,
    /// Whether it is to be retained.
    pub retain: bool,
    /// Seconds from the end of the connection to its publication.
    pub delay_s: u32,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRetained {
    /// Its number in the log.
    pub id: u64,
    /// Hash of the publisher's client identifier.
    pub publisher: u64,
    /// When it expires.
    pub expires_at: Time,
    /// QoS it was published at.
    pub qos: QoS,
    /// Bytes of the topic.
    pub topic_len: u32,
    /// Bytes of the properties.
    pub properties_len: u32,
    /// Topic, properties and payload.
    pub content: Box<[u8]>,
}

impl StoredRetained {
    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        let topic = self.content.get(..self.topic_len as usize).unwrap_or_default();
        std::str::from_utf8(topic).unwrap_or_default()
    }
}

/// Everything.
#[derive(Debug, Default)]
pub struct Image {
    /// Sessions, by number.
    pub sessions: Vec<StoredSession>,
    /// Messages that they wait for.
    pub messages: StoredMessages,
    /// Retained messages, in no order.
    pub retained: Vec<StoredRetained>,
    /// Keys of the hash in messages; `None` in a new log.
    pub keys: Option<[u64; 4]>,
    /// The first numbers that have never been used.
    pub numbers: Numbers,
    /// Records that were read.
    pub records: u64,
}

/// What one worker gets of an image.
#[derive(Debug, Default)]
pub struct ImageShare {
    /// Its sessions.
    pub sessions: Vec<StoredSession>,
    /// The messages of all sessions.
    pub messages: Arc<StoredMessages>,
    /// Its retained messages.
    pub retained: Vec<StoredRetained>,
}

/// Why a log has no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It could not be read.
    Backend(BackendError),
    /// A frame whose checksum is right has records in it that are none: another version's, or
    /// somebody else's.
    Unreadable {
        /// Address of the frame.
        address: u64,
    },
}

impl std::fmt::Display for ImageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Backend(error) => write!(f, "the log cannot be read: {error}"),
            Self::Unreadable { address } => {
                write!(f, "the frame at {address:016x} has records that this version does not know")
            }
        }
    }
}

impl std::error::Error for ImageError {}

impl Image {
    /// A share for each of so many workers; `owner` says which one a client identifier or a topic
    /// belongs to.
    #[must_use]
    pub fn split(self, workers: usize, owner: impl Fn(&str) -> usize) -> Vec<ImageShare> {
        let messages = Arc::new(self.messages);
        let mut shares: Vec<ImageShare> = (0..workers)
            .map(|_| ImageShare { messages: Arc::clone(&messages), ..ImageShare::default() })
            .collect();
        for session in self.sessions {
            shares[owner(&session.client_id)].sessions.push(session);
        }
        for retained in self.retained {
            shares[owner(retained.topic())].retained.push(retained);
        }
        shares
    }

    /// Reads all of a log.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn read<B: Backend>(log: &Log<B>) -> Result<Self, ImageError> {
        Self::read_segments(log.backend(), log.segments())
    }

    /// Reads all of a log that is not open, from its segments, oldest first.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn read_segments<B: Backend>(
        backend: &B,
        segments: impl IntoIterator<Item = SegmentInfo>,
    ) -> Result<Self, ImageError> {
        let mut reading = Reading::default();
        for SegmentInfo { base, end, .. } in segments {
            let mut frames = Frames::open(backend, base, end).map_err(ImageError::Backend)?;
            while let Some(entry) = frames.next().map_err(ImageError::Backend)? {
                // What is missing was found when the log was opened.
                let Entry::Frame { address, payload } = entry else { continue };
                reading
                    .frame(address + FRAME_HEADER_BYTES as u64, payload)
                    .map_err(|Unreadable| ImageError::Unreadable { address })?;
            }
        }
        Ok(reading.finish())
    }
}

/// A session while the log is being read.
#[derive(Debug, Default)]
struct Draft {
    row: Option<Row>,
    subscriptions: BTreeMap<Box<str>, Subscription>,
    received: BTreeSet<PacketId>,
    /// The message that was sent last under each identifier, and which record said so.
    sent: BTreeMap<PacketId, (u64, u64)>,
    /// Identifiers that wait for PUBCOMP, and which record said so.
    released: BTreeMap<PacketId, u64>,
    refs: BTreeMap<u64, (QoS, bool, Box<[u32]>)>,
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

#[derive(Debug, Default)]
struct Reading {
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
    fn frame(&mut self, records_at: u64, payload: &[u8]) -> Result<(), Unreadable> {
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
            Record::Sent { packet_id, id, .. } => {
                self.numbers.message = self.numbers.message.max(id + 1);
                draft.sent.insert(packet_id, (id, stamp));
            }
            Record::Released { packet_id, id, .. } => {
                // It keeps its place among those in flight.
                let sent = draft.sent.get(&packet_id).map_or(stamp, |(_, sent)| *sent);
                draft.released.insert(packet_id, sent);
                if id != 0 {
                    self.done(sid, id);
                }
            }
            Record::Completed { packet_id, .. } => {
                draft.released.remove(&packet_id);
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

    fn finish(mut self) -> Image {
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
    for (packet_id, (id, stamp)) in draft.sent {
        if !draft.released.contains_key(&packet_id)
            && let Some(delivery) = take(id)
        {
            in_flight.push((stamp, packet_id, Some(delivery)));
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
