//! A log that is written in one go, with nothing in it but what is alive: a compacted one, or one
//! that is imported.

use std::collections::BTreeMap;

use dunlin_packets::QoS;
use dunlin_queue::Time;
use dunlin_queue::partitioned::Change;
use dunlin_router::Subscription;
use dunlin_storage::{
    Backend, Damage, FRAME_HEADER_BYTES, Log, LogError, LogOptions, OpenError, set_address,
};

use super::image::{StoredGroup, StoredRef, StoredRetained, StoredSession};
use super::record::{
    MessageRecord, QueueMessageRecord, QueueRecord, Record, Refs, SessionRecord, WillRecord,
    put_ref,
};

/// Records are gathered in frames of about so many bytes. Whatever belongs to one session is in one
/// frame, however large that gets.
const FRAME_BYTES: usize = 1 << 20;

/// A log being written. Nothing of it is promised to be there before [`Self::finish`].
pub struct NewLog<B: Backend> {
    log: Log<B>,
    frame: Vec<u8>,
}

impl<B: Backend> NewLog<B> {
    /// On a backend that has no log.
    ///
    /// # Errors
    /// When the backend fails.
    pub fn begin(backend: B, options: LogOptions) -> Result<Self, OpenError> {
        let (log, _) = Log::open(backend, options, Damage::Refuse)?;
        Ok(Self { log, frame: vec![0; FRAME_HEADER_BYTES] })
    }

    /// Writes the keys of the hash in messages.
    ///
    /// # Errors
    /// See [`LogError`]; the log is of no use then.
    pub fn keys(&mut self, keys: [u64; 4]) -> Result<(), LogError> {
        Record::Keys(keys).encode(&mut self.frame);
        self.flush_if_large()
    }

    /// Writes a session, but for the messages it waits for: they say so themselves.
    ///
    /// # Errors
    /// See [`LogError`]; the log is of no use then.
    pub fn session(&mut self, session: &StoredSession) -> Result<(), LogError> {
        let sid = session.sid;
        let will = session.will.as_ref().map(|will| WillRecord {
            topic: &will.topic,
            properties: &will.properties,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            delay_s: will.delay_s,
        });
        let record = SessionRecord {
            sid,
            client_id: &session.client_id,
            expiry_s: session.expiry_s,
            expires_at: session.expires_at,
            is_online: session.was_online,
            will_at: if will.is_some() { session.will_at } else { Time::NEVER },
            will,
        };
        let frame = &mut self.frame;
        Record::Session(record).encode(frame);
        for (filter, subscription) in &session.subscriptions {
            let Subscription { options, identifier } = *subscription;
            Record::Subscribed { sid, filter, options, identifier }.encode(frame);
        }
        for consumer in &session.consumers {
            Record::Consumer(consumer.record(sid)).encode(frame);
        }
        for &packet_id in &session.received {
            Record::Received { sid, packet_id }.encode(frame);
        }
        for (packet_id, delivery) in &session.in_flight {
            let packet_id = *packet_id;
            match delivery {
                Some(StoredRef { id, qos, .. }) => {
                    let is_exactly_once = *qos == QoS::ExactlyOnce;
                    Record::Sent { sid, packet_id, id: *id, is_exactly_once }
                }
                None => Record::Released { sid, packet_id, id: 0 },
            }
            .encode(frame);
        }
        self.flush_if_large()
    }

    /// Writes a message that sessions wait for.
    ///
    /// # Errors
    /// See [`LogError`]; the log is of no use then.
    pub fn message(&mut self, message: &MessageRecord<'_>) -> Result<(), LogError> {
        if self.frame.len() + message.content.len() > FRAME_BYTES {
            self.flush()?;
        }
        Record::Message(*message).encode(&mut self.frame);
        self.flush_if_large()
    }

    /// Writes a retained message.
    ///
    /// # Errors
    /// See [`LogError`]; the log is of no use then.
    pub fn retained(&mut self, retained: &StoredRetained) -> Result<(), LogError> {
        self.message(&MessageRecord {
            id: retained.id,
            qos: retained.qos,
            retain: true,
            is_retained: true,
            expires_at: retained.expires_at,
            received: 0,
            publisher: retained.publisher,
            topic_len: retained.topic_len,
            properties_len: retained.properties_len,
            content: &retained.content,
            refs: Refs::default(),
            position: 0,
        })
    }

    /// Writes a queue and its groups, but for its messages and what is to be known of them.
    ///
    /// # Errors
    /// See [`LogError`]; the log is of no use then.
    pub fn queue(
        &mut self,
        queue: &QueueRecord<'_>,
        groups: &[StoredGroup],
    ) -> Result<(), LogError> {
        let qid = queue.qid;
        Record::Queue(*queue).encode(&mut self.frame);
        for StoredGroup { group, name, filter, is_temporary } in groups {
            let (group, is_temporary) = (*group, *is_temporary);
            let record = Record::QueueGroup { qid, group, name, filter, is_temporary };
            record.encode(&mut self.frame);
        }
        self.flush_if_large()
    }

    /// Writes what else is to be known of a queue.
    ///
    /// # Errors
    /// See [`LogError`]; the log is of no use then.
    pub fn queue_change(&mut self, qid: u64, change: &Change) -> Result<(), LogError> {
        Record::QueueChange { qid, change: *change }.encode(&mut self.frame);
        self.flush_if_large()
    }

    /// Writes a message of a queue.
    ///
    /// # Errors
    /// See [`LogError`]; the log is of no use then.
    pub fn queue_message(&mut self, message: &QueueMessageRecord<'_>) -> Result<(), LogError> {
        if self.frame.len() + message.content.len() > FRAME_BYTES {
            self.flush()?;
        }
        Record::QueueMessage(*message).encode(&mut self.frame);
        self.flush_if_large()
    }

    /// Syncs everything, and leaves a mark behind it: should the end of the log be damaged later,
    /// that is told from a write that was not finished.
    ///
    /// # Errors
    /// See [`LogError`]; the log is of no use then.
    pub fn finish(mut self) -> Result<(), LogError> {
        self.flush()?;
        self.log.sync()?;
        self.append()?;
        self.log.sync()
    }

    fn flush_if_large(&mut self) -> Result<(), LogError> {
        if self.frame.len() < FRAME_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), LogError> {
        if self.frame.len() == FRAME_HEADER_BYTES { Ok(()) } else { self.append() }
    }

    fn append(&mut self) -> Result<(), LogError> {
        set_address(&mut self.frame, self.log.end());
        self.log.append(std::slice::from_mut(&mut self.frame))?;
        self.frame.clear();
        self.frame.resize(FRAME_HEADER_BYTES, 0);
        Ok(())
    }
}

/// Who waits for which message, as [`MessageRecord::refs`] has it.
#[derive(Debug, Default)]
pub struct Deliveries {
    refs: BTreeMap<u64, Vec<u8>>,
}

impl Deliveries {
    /// Adds what a session waits for.
    pub fn add(&mut self, session: &StoredSession) {
        let in_flight = session.in_flight.iter().filter_map(|(_, delivery)| delivery.as_ref());
        for delivery in in_flight.chain(&session.queue) {
            let StoredRef { id, qos, retain, identifiers } = delivery;
            let refs = self.refs.entry(*id).or_default();
            put_ref(session.sid, *qos, *retain, identifiers, refs);
        }
    }

    /// Takes those who wait for a message; `None` if nobody does, or they have been taken.
    pub fn take(&mut self, id: u64) -> Option<Vec<u8>> {
        self.refs.remove(&id)
    }

    /// A message that somebody waits for and that was not taken.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        self.refs.keys().next().copied()
    }
}
