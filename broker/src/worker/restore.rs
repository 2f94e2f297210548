//! Sessions and retained messages as the log has them, made again at the start.

use dunlin_packets::{Properties, split_shared};
use dunlin_queue::{Content, Entry, Identifiers, MessageFields, MessageRef, StoredMessage, Time};
use dunlin_router::Subscription;
use dunlin_session::Will;

use super::durable::Durable;
use super::sessions::SessionId;
use super::{Transport, Worker};
use crate::store::{ImageShare, StoredMessages, StoredRef, StoredRetained, StoredSession};

impl<T: Transport> Worker<T> {
    /// Takes this worker's share of what the log has. When all workers have done so,
    /// [`Self::finish_restore`] follows, and only when all have done that may anything else happen:
    /// who publishes has to find everybody there.
    pub fn restore(&mut self, mut share: ImageShare) {
        sort_by_topic(&mut share.retained);
        self.make_room(&share.sessions);
        for retained in &share.retained {
            self.restore_retained(retained);
        }
        for session in share.sessions {
            self.restore_session(session, &share.messages);
        }
        for queue in share.queues {
            self.restore_queue(queue);
        }
        self.counters.retained = self.retained.len() as u64;
        self.count_sessions();
        self.post_mail();
    }

    /// Tables that grow a step at a time move everything at each of them.
    fn make_room(&mut self, sessions: &[StoredSession]) {
        let filters = sessions.iter().map(|session| session.subscriptions.len()).sum();
        self.sessions.reserve(sessions.len());
        self.subscriptions.reserve(filters);
        if let Some(journal) = &mut self.journal {
            journal.sessions.reserve(sessions.len());
        }
        if let Some(interest) = &self.interest {
            // The others have about as many.
            interest.reserve(filters * self.outboxes.len());
        }
    }

    /// Takes members of share groups in whose sessions are on other workers.
    pub fn finish_restore(&mut self) {
        while self.receive_mail() {}
        self.send_batches_home();
    }

    fn restore_retained(&mut self, retained: &StoredRetained) {
        if retained.expires_at <= self.now {
            return;
        }
        let stored = StoredMessage {
            id: retained.id,
            expires_at: retained.expires_at,
            publisher: retained.publisher,
            qos: retained.qos,
            retain: true,
            received: 0,
            topic_len: retained.topic_len,
            properties_len: retained.properties_len,
            content: Content::Bytes(&retained.content),
        };
        // Nobody is known to wait for it, so it is not one of those that are known by number.
        let Ok(message) = self.pool.restore(&stored, 0) else {
            tracing::error!(id = retained.id, "a retained message in the log is none");
            return;
        };
        self.insert_retained(retained.topic(), message);
    }

    fn restore_session(&mut self, stored: StoredSession, messages: &StoredMessages) {
        let hash = self.shared.hash(&stored.client_id);
        let session = self.sessions.insert(&stored.client_id, hash);
        let Some(journal) = &mut self.journal else { return };
        journal.port.add_durable_session();
        journal.sessions.insert(stored.sid, session);
        let now = self.now;
        let slot = self.sessions.get_mut(session);
        slot.durable = Some(Box::new(Durable { sid: stored.sid, state_at: 0 }));
        let mut times = (stored.expires_at, stored.will_at);
        if stored.was_online {
            // Its connection was lost with the broker, at a time nobody knows: from now on.
            times.0 = match stored.expiry_s {
                u32::MAX => Time::NEVER,
                seconds => now.plus_seconds(seconds),
            };
            let delay_s = stored.will.as_ref().map_or(0, |will| will.delay_s);
            times.1 = now.plus_seconds(delay_s).min(times.0);
        }
        let will = stored.will.map(|will| {
            let fields = MessageFields {
                topic: &will.topic,
                payload: &will.payload,
                properties: Properties::from_checked(&will.properties),
                qos: will.qos,
                retain: will.retain,
                publisher: 0,
            };
            Will::restore(&fields, will.delay_s)
        });
        slot.session.restore(stored.expiry_s, times, will);
        for packet_id in stored.received {
            slot.session.restore_received(packet_id);
        }
        for (packet_id, delivery) in stored.in_flight {
            let is_release = delivery.is_none();
            let entry = delivery.and_then(|delivery| self.restore_entry(&delivery, messages));
            if is_release || entry.is_some() {
                let session = &mut self.sessions.get_mut(session).session;
                session.restore_in_flight(packet_id, entry, &self.pool);
            }
        }
        if stored.was_online {
            // What was sent last may not be in the log as sent: no more than was ever in flight.
            let in_flight_max = self.shared.settings.limits.in_flight_max;
            let maybe_sent = stored.queue.iter().take(in_flight_max).map(|delivery| delivery.id);
            let slot = self.sessions.get_mut(session);
            slot.session.set_maybe_sent(maybe_sent.max().unwrap_or(0));
        }
        for delivery in stored.queue {
            if let Some(entry) = self.restore_entry(&delivery, messages) {
                self.sessions.get_mut(session).session.restore_queued(entry, &self.pool);
            }
        }
        for (filter, subscription) in stored.subscriptions {
            let filter: &str = &filter;
            self.restore_subscription(session, filter, subscription);
        }
        self.restore_consumers(session, stored.consumers);
        if stored.was_online {
            self.record_session(session);
        }
        self.arm_session(session);
    }

    /// A delivery whose message stays on disk until the client comes for it.
    fn restore_entry(&mut self, delivery: &StoredRef, messages: &StoredMessages) -> Option<Entry> {
        let message = self.restore_message(delivery.id, messages)?;
        let identifiers = match &delivery.identifiers[..] {
            [one] => Identifiers::one(*one),
            several => self.pool.identifiers(several),
        };
        let StoredRef { qos, retain, .. } = *delivery;
        Some(Entry { message, identifiers, group: 0, qos, retain })
    }

    fn restore_message(&mut self, id: u64, messages: &StoredMessages) -> Option<MessageRef> {
        let stored = messages.get(&id)?;
        let message = StoredMessage {
            id,
            expires_at: stored.expires_at,
            publisher: 0,
            qos: stored.qos,
            retain: stored.retain,
            received: stored.received,
            topic_len: stored.topic_len,
            properties_len: stored.properties_len,
            content: Content::Absent(stored.content_len),
        };
        self.pool.restore(&message, stored.position).ok()
    }

    fn restore_subscription(
        &mut self,
        session: SessionId,
        filter: &str,
        subscription: Subscription,
    ) {
        if let Ok(Some(_)) = split_shared(filter) {
            self.join_group(session, filter, subscription, 0);
            return;
        }
        let added = self.subscriptions.subscribe(filter, session.target(), subscription);
        let slot = self.sessions.get_mut(session);
        slot.subscriptions.insert(added.filter);
        slot.filter_bytes += filter.len();
        if added.is_first
            && let Some(interest) = &self.interest
        {
            interest.add(filter);
        }
    }
}

/// In the order of the index they go into, where each then comes behind the last: in any other
/// order every step down the tree is a miss of the cache. What tells topics apart mostly stands
/// behind what all begin with, so that is compared, without another look at the topics themselves.
fn sort_by_topic(retained: &mut [StoredRetained]) {
    let Some(first) = retained.first().map(topic_of) else { return };
    let common = retained.iter().fold(first.len(), |common, other| {
        let pairs = first[..common].iter().zip(topic_of(other));
        pairs.take_while(|(one, other)| one == other).count()
    });
    retained.sort_by_cached_key(|retained| {
        let mut key = [0; 16];
        let rest = topic_of(retained).get(common..).unwrap_or_default();
        let len = rest.len().min(key.len());
        key[..len].copy_from_slice(&rest[..len]);
        u128::from_be_bytes(key)
    });
}

fn topic_of(retained: &StoredRetained) -> &[u8] {
    retained.content.get(..retained.topic_len as usize).unwrap_or_default()
}
