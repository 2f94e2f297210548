//! A message gets its place in a queue, and its record in the log.

use dunlin_packets::{Properties, PropertiesBuf, ReasonCode};
use dunlin_queue::partitioned::{Change, Context, MessageId, NewMessage};
use dunlin_queue::{DropReason, MessageRef, Time};

use super::contents::{Content, Contents};
use super::publish::Receipt;
use super::record::{QueuedCargo, Written};
use super::{QueueKey, Refusal};
use crate::queues::{MessageTerms, PublishTo, publish_to, strip_reserved};
use crate::store::record::{QueueContent, QueueMessageRecord, Record};
use crate::worker::settings::Level;
use crate::worker::{Transport, Worker};

/// How a message is to be queued.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// Where in its topic the routing key begins.
    pub(super) key_at: u16,
    pub(super) key_hash: u64,
    pub(super) priority: u8,
    pub(super) deliver_at: Option<Time>,
    /// Of a dead letter that comes back: what it was.
    pub(super) original: Option<MessageId>,
    pub(super) is_captured: bool,
}

impl<T: Transport> Worker<T> {
    /// A message that was published to a queue at home here.
    pub(super) fn enqueue_published(&mut self, message: MessageRef) -> Result<Receipt, Refusal> {
        match self.read_published(&message) {
            Ok((key, terms)) => {
                let message = self.without_reserved(message);
                self.enqueue_here(key, message, terms)
            }
            Err(refusal) => {
                self.pool.release(message);
                Err(refusal)
            }
        }
    }

    fn read_published(&mut self, message: &MessageRef) -> Result<(QueueKey, Terms), Refusal> {
        let content = self.pool.get(message);
        let topic = content.topic();
        let Some(Ok(PublishTo::Message { queue, key: routing_key })) = publish_to(topic) else {
            return Err(Refusal::bad_topic("not the topic of a queue"));
        };
        let properties = Properties::from_checked(content.properties());
        let asked = MessageTerms::read(properties);
        let asked = asked.map_err(|bad| Refusal::bad_request(bad.0))?;
        let key_hash = match (asked.partition_key, routing_key) {
            (Some(partition_key), _) => self.shared.hash(partition_key),
            (None, "") => content.publisher,
            (None, routing_key) => self.shared.hash(routing_key),
        };
        let terms = Terms {
            key_at: u16::try_from(topic.len() - routing_key.len()).unwrap_or(u16::MAX),
            key_hash,
            priority: asked.priority,
            deliver_at: asked.due(self.now),
            original: None,
            is_captured: false,
        };
        let key = match self.queues.find(queue.name) {
            Some(key) => key,
            None => {
                let name: Box<str> = queue.name.into();
                self.create_asked_for(&name)?
            }
        };
        Ok((key, terms))
    }

    /// Takes off what only queues may say.
    pub(super) fn without_reserved(&mut self, message: MessageRef) -> MessageRef {
        let content = self.pool.get(&message);
        let original = Properties::from_checked(content.properties());
        let mut kept = PropertiesBuf::new();
        let stripped = strip_reserved(original, &mut kept);
        if stripped == original {
            return message;
        }
        let (topic, qos) = (content.topic().to_owned(), content.qos);
        let clean = self.pool.derive(&message, &topic, kept.as_properties(), qos, self.now);
        self.pool.release(message);
        clean
    }

    /// Puts a message into a queue.
    pub(super) fn enqueue_here(
        &mut self,
        key: QueueKey,
        message: MessageRef,
        terms: Terms,
    ) -> Result<Receipt, Refusal> {
        let is_durable = self.is_durable_queue(key);
        if let Some(refusal) = self.refusal_of_space(key, &message) {
            self.pool.release(message);
            return Err(refusal);
        }
        let mut encoded = std::mem::take(&mut self.queues.scratch);
        encoded.clear();
        let content = self.pool.get(&message);
        let topic = content.topic();
        QueueContent {
            at: self.now,
            expires_at: content.expires_at,
            is_captured: terms.is_captured,
            topic: topic.get(usize::from(terms.key_at)..).unwrap_or_default(),
            properties: content.properties(),
            payload: content.payload(),
        }
        .put(&mut encoded);
        let expires_at = content.expires_at;
        let new = NewMessage {
            key_hash: terms.key_hash,
            bytes: u32::try_from(encoded.len()).unwrap_or(u32::MAX),
            priority: terms.priority,
            expiry_s: (expires_at != Time::NEVER).then(|| expires_at.seconds_from(self.now)),
            deliver_at: terms.deliver_at,
            original: terms.original,
        };
        let result = self.with_queue(key, |queue, cx| queue.enqueue(&new, cx));
        let receipt = match result {
            Some(Ok(id)) => {
                let receipt = self.keep_enqueued(key, id, &encoded, is_durable);
                self.cache_content(key, id, message, terms, is_durable);
                Ok(receipt)
            }
            Some(Err(refused)) => {
                self.pool.release(message);
                Err(refused.into())
            }
            None => {
                self.pool.release(message);
                Err(Refusal::bad_topic("there is no such queue"))
            }
        };
        self.queues.scratch = encoded;
        self.absorb(key);
        receipt
    }

    /// Why a queue takes nothing more, whatever its own limits are.
    fn refusal_of_space(&self, key: QueueKey, message: &MessageRef) -> Option<Refusal> {
        let level = self.queues.get(key)?.level;
        if self.journal.is_some() && level != Level::Memory {
            return self.refusal_of_log_for(key);
        }
        let bytes = self.queues.only_bytes + self.pool.get(message).len();
        let is_full = bytes > self.shared.settings.queues.memory_bytes;
        is_full.then_some(Refusal::new(
            ReasonCode::QuotaExceeded,
            "queues take all the memory they may",
        ))
    }

    /// Writes the message down; it is delivered when that is safe.
    fn keep_enqueued(
        &mut self,
        key: QueueKey,
        id: MessageId,
        encoded: &[u8],
        is_durable: bool,
    ) -> Receipt {
        let enqueued =
            self.queues.changes.iter().find_map(|change| match *change {
                Change::Enqueued {
                    id: of, at, key_hash, priority, expiry_s, deliver_at, ..
                } if of == id => Some((at, key_hash, priority, expiry_s, deliver_at)),
                _ => None,
            });
        if let Some(journal) = self.journal.as_mut().filter(|_| is_durable)
            && let Some((at, key_hash, priority, expiry_s, deliver_at)) = enqueued
        {
            let record = QueueMessageRecord {
                qid: key.qid,
                id,
                at,
                key_hash,
                priority,
                expiry_s,
                deliver_at,
                content: encoded,
                position: 0,
            };
            let offset = journal.write(&Record::QueueMessage(record));
            journal.cargo.queued.push(QueuedCargo { key, what: Written::Message(id), offset });
            let level = self.queues.get(key).map_or(Level::Fsync, |slot| slot.level);
            let must_sync = level == Level::Fsync;
            journal.wait_for_frame(must_sync);
            return Receipt { is_recorded: true, must_sync, is_later: false };
        }
        let Self { queues, now, .. } = self;
        let (changes, actions, index) =
            (&mut queues.changes, &mut queues.actions, &mut queues.index);
        if let Some(slot) = queues.slots.get_mut(key.slot as usize) {
            slot.queue.keep(id, 0, &mut Context { now: *now, changes, actions, index });
        }
        Receipt::default()
    }

    /// Has the message in memory for its consumers. One that is in the log, only if there is room.
    fn cache_content(
        &mut self,
        key: QueueKey,
        id: MessageId,
        message: MessageRef,
        terms: Terms,
        is_durable: bool,
    ) {
        let len = self.pool.get(&message).len();
        let is_full = self.queues.cached_bytes + len > self.queues.cached_bytes_max;
        if is_durable && is_full {
            return self.pool.release(message);
        }
        let now = self.now;
        let partitions = self.queues.get(key).map_or(0, |slot| slot.queue.partitions());
        match is_durable {
            true => self.queues.cached_bytes += len,
            false => self.queues.only_bytes += len,
        }
        let Some(slot) = self.queues.get_mut(key) else { return self.pool.release(message) };
        slot.contents.resize_with(usize::from(partitions), Contents::default);
        let Terms { key_at, is_captured, .. } = terms;
        let content = Content { message, at: now, key_at, is_captured, is_only: !is_durable };
        slot.contents[usize::from(id.partition)].put(id.offset, content);
    }

    /// An ordinary publication that a queue captures. Says whether something was written down.
    pub(in crate::worker) fn capture(&mut self, slot: u32, message: &MessageRef) {
        let Some(key) = self.queues.slots.get(slot as usize).map(|slot| slot.key) else { return };
        let content = self.pool.get(message);
        let properties = Properties::from_checked(content.properties());
        let asked = MessageTerms::read(properties).unwrap_or_default();
        let key_hash = match asked.partition_key {
            Some(partition_key) => self.shared.hash(partition_key),
            None => self.shared.hash(content.topic()),
        };
        let terms = Terms {
            key_at: 0,
            key_hash,
            priority: asked.priority,
            deliver_at: asked.due(self.now),
            original: None,
            is_captured: true,
        };
        let message = self.pool.share(message);
        let message = self.without_reserved(message);
        let result = self.enqueue_here(key, message, terms);
        let is_acknowledged =
            self.queues.get(key).is_some_and(|slot| slot.config.is_capture_acknowledged);
        if result.is_err() {
            self.counters.drop(DropReason::CaptureRefused);
        }
        let journal = self.journal.as_mut().filter(|_| is_acknowledged);
        if let Some(recording) = journal.and_then(|journal| journal.recording.as_mut()) {
            match result {
                Ok(receipt) => {
                    recording.is_recorded |= receipt.is_recorded;
                    recording.must_sync |= receipt.must_sync;
                }
                Err(refusal) => recording.refusal = Some(refusal),
            }
        }
    }
}
