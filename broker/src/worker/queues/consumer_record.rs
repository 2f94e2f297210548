//! What the log has of sessions' subscriptions to queues.

use super::consume::Consumer;
use crate::store::StoredConsumer;
use crate::store::record::{ConsumerRecord, Record};
use crate::worker::sessions::SessionId;
use crate::worker::{Transport, Worker};

impl Consumer {
    fn record(&self, sid: u64) -> ConsumerRecord<'_> {
        let Self { filter, group, options, identifier, flags, prefetch } = self;
        let (options, identifier, flags, prefetch) = (*options, *identifier, *flags, *prefetch);
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
        if stored.is_empty() {
            return;
        }
        let consumers = stored.into_iter().map(|stored| Consumer {
            filter: stored.filter,
            group: stored.group,
            options: stored.options,
            identifier: stored.identifier,
            flags: stored.flags,
            prefetch: stored.prefetch,
        });
        self.queues.consumers.insert(session, consumers.collect());
    }
}
