//! A session that is written down, and made again from that.

use dunlin_packets::PacketId;
use dunlin_queue::{Entry, MessageFields, MessagePool, Time};

use crate::session::State;
use crate::{Session, Will};

/// What of a session outlives a crash, beside its subscriptions and messages.
#[derive(Clone, Copy, Debug)]
pub struct StoredState<'a> {
    /// Seconds it outlives its connection.
    pub expiry_s: u32,
    /// There is a connection.
    pub is_online: bool,
    /// When it ends; [`Time::NEVER`] while there is a connection.
    pub expires_at: Time,
    /// When the will is published; [`Time::NEVER`] while there is a connection.
    pub will_at: Time,
    /// The will.
    pub will: Option<&'a Will>,
}

impl Session {
    /// Whether the session outlives a crash: from here on it says what has to be written down, and
    /// waits until that is.
    pub fn set_durable(&mut self, is_durable: bool) {
        self.is_durable = is_durable;
        if let State::Online(link) = &mut self.state {
            link.is_durable = is_durable;
        }
    }

    /// What is to be written down of it.
    #[must_use]
    pub fn stored_state(&self) -> StoredState<'_> {
        let (expires_at, will_at) = match self.state {
            State::Online(_) => (Time::NEVER, Time::NEVER),
            State::Offline { expires_at, will_at } => (expires_at, will_at),
        };
        StoredState {
            expiry_s: self.expiry_s,
            is_online: self.is_online(),
            expires_at,
            will_at,
            will: self.will.as_deref(),
        }
    }

    /// Gives a new session the state that was written down. One that had a connection then has lost
    /// it now.
    pub fn restore(
        &mut self,
        expiry_s: u32,
        (expires_at, will_at): (Time, Time),
        will: Option<Will>,
    ) {
        self.is_durable = true;
        self.expiry_s = expiry_s;
        self.will = will.map(Box::new);
        let will_at = if self.will.is_some() { will_at } else { Time::NEVER };
        self.state = State::Offline { expires_at, will_at };
    }

    /// Puts a message back into the queue.
    pub fn restore_queued(&mut self, entry: Entry, pool: &MessagePool) {
        let len = entry.len(pool);
        self.queue.append(std::iter::once(entry), len);
    }

    /// Messages up to the number `id` may have been sent at QoS 1 before the crash, without that
    /// being known: they are sent with DUP, which says no more than that \[MQTT-3.3.1-1\].
    pub fn set_maybe_sent(&mut self, id: u64) {
        self.maybe_sent = id;
    }

    /// Puts a message back in flight, behind those that are; `None` for one that the client has and
    /// that only waits for PUBCOMP.
    pub fn restore_in_flight(
        &mut self,
        packet_id: PacketId,
        entry: Option<Entry>,
        pool: &MessagePool,
    ) {
        self.window.restore(packet_id, entry, pool);
    }

    /// A QoS 2 publication of the client has not been released.
    pub fn restore_received(&mut self, packet_id: PacketId) {
        self.received.insert(packet_id);
        self.received.set_recorded(packet_id);
        self.received.restart();
    }

    /// A QoS 2 publication of the client was not taken.
    pub fn forget_received(&mut self, packet_id: PacketId) {
        self.received.remove(packet_id);
    }

    /// The log has this QoS 2 publication. `false` when the client has released it already.
    pub fn set_recorded(&mut self, packet_id: PacketId) -> bool {
        self.received.set_recorded(packet_id)
    }

    /// QoS 2 publications of the client that the log has.
    pub fn recorded(&self) -> impl Iterator<Item = PacketId> {
        self.received.recorded()
    }
}

impl Will {
    /// From what was stored; the properties have been checked when they came in.
    #[must_use]
    pub fn restore(fields: &MessageFields<'_>, delay_s: u32) -> Self {
        Self {
            topic: fields.topic.into(),
            payload: fields.payload.into(),
            properties: fields.properties.as_bytes().into(),
            qos: fields.qos,
            retain: fields.retain,
            delay_s,
        }
    }
}
