//! What the log has of sessions' subscriptions to queues.

use super::consume::{Consumer, prefetch_of};
use crate::store::StoredConsumer;
use crate::store::record::{ConsumerRecord, Record};
use crate::worker::sessions::SessionId;
use crate::worker::{Transport, Worker};

impl Consumer {
    fn record(&self, sid: u64) -> ConsumerRecord<'_> {
        let Self { filter, group, options, identifier, flags, prefetch, .. } = self;
        let (options, identifier, flags) = (*options, *identifier, *flags);
        let prefetch = u32::from(*prefetch);
        ConsumerRecord { sid, filter, group, options, identifier, flags, prefetch }
    }
}

impl<T: Transport> Worker<T> {
    /// Writes down that the session consumes a queue.
    pub(in crate::worker) fn record_consumer(&mut self, session: SessionId, filter: &str) {
        let all = self.queues.consumers.get(&session);
        let known = all.and_then(|all| all.iter().find(|it| &*it.filter == filter));
        let (Some(consumer), Some(journal)) = (known, &mut self.journal) else { return };
        let Some(durable) = &self.sessions.get(session).durable else { return };
        journal.write(&Record::Consumer(consumer.record(durable.sid)));
    }

    /// Writes down what the session consumes.
    pub(in crate::worker) fn record_consumers(&mut self, session: SessionId) {
        let Some(all) = self.queues.consumers.get(&session) else { return };
        let Some(journal) = &mut self.journal else { return };
        let Some(durable) = &self.sessions.get(session).durable else { return };
        for consumer in all {
            journal.write(&Record::Consumer(consumer.record(durable.sid)));
        }
    }

    /// Takes in what the log has of a session's consumers.
    pub(in crate::worker) fn restore_consumers(
        &mut self,
        session: SessionId,
        stored: Vec<StoredConsumer>,
    ) {
        for stored in stored {
            let mut consumer = Consumer {
                filter: stored.filter,
                group: stored.group,
                options: stored.options,
                identifier: stored.identifier,
                flags: stored.flags,
                prefetch: prefetch_of(stored.prefetch),
                membership: 0,
            };
            self.number_membership(session, &mut consumer);
            self.queues.consumers.entry(session).or_default().push(consumer);
        }
    }
}
