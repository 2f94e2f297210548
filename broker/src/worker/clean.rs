//! Looks through records that are about to go, and writes down again what this worker still needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_queue::{Entry, Stage};

use super::journal::Kept;
use super::sessions::SessionId;
use super::then::message_record;
use super::{Transport, Worker};
use crate::store::Chunk;
use crate::store::record::{MessageRecord, Record, Records, Ref, Refs, put_ref};

/// Deliveries in a chunk that sessions of this worker may still wait for, by session and message.
type Deliveries = BTreeMap<u64, BTreeMap<u64, Ref>>;

impl<T: Transport> Worker<T> {
    /// Writes down again what is alive in a chunk, and says with this turn's frame that this is
    /// done.
    pub(super) fn on_chunk(&mut self, chunk: &Arc<Chunk>) {
        let before = self.journal.as_ref().map_or(0, |it| it.bytes_written());
        let mut deliveries = Deliveries::new();
        for (records_at, frame) in &chunk.frames {
            for record in Records::new(frame) {
                // What cannot be read was refused at the start.
                let Ok(record) = record else { break };
                self.look_at(&record, *records_at, &mut deliveries);
            }
            self.submit_if_large();
        }
        let mut alive = self.alive_deliveries(deliveries);
        for (records_at, frame) in &chunk.frames {
            for record in Records::new(frame) {
                let Ok(Record::Message(message)) = record else { continue };
                if message.is_retained {
                    continue;
                }
                // Once, whatever other records of it there are: its deliveries are together now.
                match alive.remove(&message.id) {
                    Some(refs) => self.move_message(&message, &refs),
                    None => self.take_out(&message, records_at + message.position as u64),
                }
            }
        }
        let Some(journal) = &mut self.journal else { return };
        let moved = journal.bytes_written().saturating_sub(before);
        journal.note_moved(moved);
        journal.cleaned = chunk.number;
        journal.wait_for_frame(true);
    }

    fn look_at(&mut self, record: &Record<'_>, records_at: u64, deliveries: &mut Deliveries) {
        let Some(journal) = &mut self.journal else { return };
        match *record {
            Record::Message(message) if message.is_retained => self.move_retained(&message),
            Record::Message(message) => {
                for delivery in message.refs.iter() {
                    if journal.sessions.contains_key(&delivery.sid) {
                        let of_session = deliveries.entry(delivery.sid).or_default();
                        of_session.insert(message.id, delivery);
                    }
                }
            }
            Record::Keys(keys) if self.index == 0 => {
                journal.write(&Record::Keys(keys));
            }
            Record::Session(session) => self.move_state(session.sid, records_at),
            Record::Consumer(consumer) => self.move_state(consumer.sid, records_at),
            Record::Queue(_)
            | Record::QueueGroup { .. }
            | Record::QueueMessage(_)
            | Record::QueueChange { .. }
            | Record::QueueChunk { .. } => self.clean_queue_record(record, records_at),
            Record::Subscribed { sid, .. }
            | Record::Sent { sid, .. }
            | Record::Released { sid, .. }
            | Record::Received { sid, .. } => self.move_state(sid, records_at),
            // What these take back is gone already.
            Record::SessionEnd { .. }
            | Record::QueueEnd { .. }
            | Record::Unsubscribed { .. }
            | Record::Completed { .. }
            | Record::Done { .. }
            | Record::Freed { .. }
            | Record::RetainedGone { .. }
            | Record::Keys(_) => {}
        }
    }

    /// Writes a session's state down again, unless that was done after this record.
    fn move_state(&mut self, sid: u64, records_at: u64) {
        let Some(journal) = &mut self.journal else { return };
        let Some(&session) = journal.sessions.get(&sid) else { return };
        let end = journal.port.reserved();
        let slot = self.sessions.get_mut(session);
        let Some(durable) = &mut slot.durable else { return };
        if records_at < durable.state_at {
            return;
        }
        // The frame will be behind everything that has been submitted by now.
        durable.state_at = end;
        self.record_state(session);
    }

    fn move_retained(&mut self, record: &MessageRecord<'_>) {
        let content = record.content.get(..record.topic_len as usize);
        let Some(topic) = content.and_then(|topic| std::str::from_utf8(topic).ok()) else { return };
        let Some(message) = self.retained.get(topic) else { return };
        if self.pool.get(message).id == record.id
            && let Some(journal) = &mut self.journal
        {
            journal.write(&Record::Message(message_record(&self.pool, message, &[], true)));
        }
    }

    /// Of the deliveries in a chunk, those that are still to be made: by message, encoded.
    fn alive_deliveries(&self, deliveries: Deliveries) -> BTreeMap<u64, Vec<u8>> {
        let mut alive: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let Some(journal) = &self.journal else { return alive };
        for (sid, of_session) in deliveries {
            let Some(&session) = journal.sessions.get(&sid) else { continue };
            let held = self.messages_of(session);
            for (id, delivery) in of_session {
                if held.contains(&id) {
                    let Ref { qos, retain, identifiers, .. } = delivery;
                    put_ref(sid, qos, retain, &identifiers, alive.entry(id).or_default());
                }
            }
        }
        alive
    }

    /// Logged messages that a session has still to get, or to acknowledge.
    fn messages_of(&self, session: SessionId) -> BTreeSet<u64> {
        let session = &self.sessions.get(session).session;
        let number = |entry: &Entry| self.pool.get(&entry.message).id;
        let in_flight = session.window().iter().filter_map(|slot| match &slot.stage {
            Stage::Publish(entry) => Some(number(entry)),
            Stage::Release | Stage::Done => None,
        });
        in_flight.chain(session.queue().iter().map(number)).collect()
    }

    /// Nobody who outlives a crash needs the message any more, but others here may.
    fn take_out(&mut self, record: &MessageRecord<'_>, position: u64) {
        if let Some(message) = self.pool.find_logged(record.id) {
            if self.pool.position(&message) == position {
                self.pool.take_out(&message, record.content);
            }
            self.wake_waiting(record.id);
            self.pool.release(message);
        }
    }

    fn move_message(&mut self, record: &MessageRecord<'_>, refs: &[u8]) {
        let Some(journal) = &mut self.journal else { return };
        let moved = MessageRecord { refs: Refs::new(refs), ..*record };
        let offset = journal.write(&Record::Message(moved));
        journal.cargo.messages.push(Kept { id: record.id, offset, tell: 0 });
        self.submit_if_large();
    }
}
