//! The session itself: from its first connection to its end.

use dunlin_packets::{QoS, ReasonCode, Version};
use dunlin_queue::{
    DeliveryQueue, DropReason, Entry, Message, MessagePool, QueueLimits, Time, Window,
};

use crate::changes::{Answer, note_answer, note_done};
use crate::link::Link;
use crate::received::Received;
use crate::{Change, Level, Limits, Offer, Will};

/// What a session works with and does not own.
#[derive(Debug)]
pub struct Context<'a> {
    /// What the broker allows.
    pub limits: &'a Limits,
    /// The worker's messages.
    pub pool: &'a mut MessagePool,
    /// What durable sessions have to have written down.
    pub changes: &'a mut Vec<Change>,
    /// The time of this turn.
    pub now: Time,
}

/// Whether there is a connection.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // online is the usual case; a box would cost a line of cache
pub(crate) enum State {
    /// There is, on these terms.
    Online(Link),
    /// There is none.
    Offline {
        /// When the session ends.
        expires_at: Time,
        /// When the will is published, if there still is one.
        will_at: Time,
    },
}

/// What has become of a publication of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// QoS it was published at.
    pub qos: QoS,
    /// What to answer.
    pub code: ReasonCode,
    /// How safe it is, for a client that wants to know: [`LEVEL_PROPERTY`](crate::LEVEL_PROPERTY).
    pub level: Level,
    /// Why, for people; may be empty.
    pub reason: &'static str,
}

/// What the end of a connection leaves to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Departure {
    /// To be published now.
    pub will: Option<Box<Will>>,
    /// The session has ended with its connection.
    pub ended: bool,
}

/// What a session's timer found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// The client has been silent for too long: disconnect with 0x8D.
    pub keep_alive: bool,
    /// To be published now.
    pub will: Option<Box<Will>>,
    /// The session has expired \[MQTT-4.1.0-2\].
    pub ended: bool,
}

/// The state of one client identifier. What a delivery at QoS 0 looks at comes first.
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    pub(crate) queue: DeliveryQueue,
    pub(crate) state: State,
    pub(crate) window: Window,
    client_id: Box<str>,
    pub(crate) received: Received,
    pub(crate) will: Option<Box<Will>>,
    pub(crate) expiry_s: u32,
    /// Messages at QoS 1 up to this number may have been sent before a crash.
    pub(crate) maybe_sent: u64,
    /// The client asked for no expiry at CONNECT, so it cannot ask for one at DISCONNECT.
    pub(crate) wants_no_expiry: bool,
    /// It outlives a crash of the broker.
    pub(crate) is_durable: bool,
}

impl Session {
    /// A session that has no connection yet.
    #[must_use]
    pub fn new(client_id: Box<str>) -> Self {
        Self {
            client_id,
            state: State::Offline { expires_at: Time::NEVER, will_at: Time::NEVER },
            queue: DeliveryQueue::default(),
            window: Window::default(),
            received: Received::default(),
            will: None,
            expiry_s: 0,
            maybe_sent: 0,
            wants_no_expiry: false,
            is_durable: false,
        }
    }

    /// The client identifier \[MQTT-3.1.3-2\].
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whether there is a connection.
    #[inline]
    #[must_use]
    pub fn is_online(&self) -> bool {
        matches!(self.state, State::Online(_))
    }

    /// The version of the present connection.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        self.link().map(|link| link.version)
    }

    /// How many QoS 1 and 2 publications its client takes unacknowledged \[MQTT-3.3.4-9\].
    #[must_use]
    pub fn receive_maximum(&self) -> Option<u16> {
        self.link().map(|link| link.receive_maximum)
    }

    /// Seconds the session outlives its connection.
    #[must_use]
    pub fn expiry_s(&self) -> u32 {
        self.expiry_s
    }

    /// What waits to be delivered.
    #[must_use]
    pub fn queue(&self) -> &DeliveryQueue {
        &self.queue
    }

    /// What has been delivered and not acknowledged.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        match &self.state {
            State::Online(link) => Some(link),
            State::Offline { .. } => None,
        }
    }

    /// Begins a connection and appends the CONNACK. `resumed` says whether the session existed
    /// before \[MQTT-3.2.2-2\] \[MQTT-3.2.2-3\]. The will of an earlier connection is dropped: it
    /// was published, or this connection came in time \[MQTT-3.1.3-9\].
    pub fn attach(&mut self, mut offer: Offer, resumed: bool, cx: &Context<'_>, out: &mut Vec<u8>) {
        offer.encode_accept(resumed, cx.limits, out);
        self.will = offer.will.take();
        self.expiry_s = offer.expiry_s;
        self.wants_no_expiry = offer.wants_no_expiry;
        self.received.restart();
        self.window.restart();
        let resend = !self.window.is_empty();
        let mut link = Link::new(&offer, cx.limits, resend, cx.now);
        link.is_durable = self.is_durable;
        self.state = State::Online(link);
    }

    /// Ends the connection. The will goes out unless the client took it back
    /// \[MQTT-3.14.4-3\]: at once when the session ends now, else after its delay
    /// \[MQTT-3.1.2-8\].
    pub fn detach(&mut self, discard_will: bool, now: Time) -> Departure {
        if discard_will {
            self.will = None;
        }
        let expires_at = match self.expiry_s {
            u32::MAX => Time::NEVER,
            seconds => now.plus_seconds(seconds),
        };
        let delay_s = self.will.as_ref().map_or(0, |will| will.delay_s);
        let will_at = match self.will {
            Some(_) => now.plus_seconds(delay_s).min(expires_at),
            None => Time::NEVER,
        };
        self.state = State::Offline { expires_at, will_at };
        self.shrink();
        let due = self.on_timer(now);
        Departure { will: due.will, ended: due.ended }
    }

    /// Takes the will of a session that ends before its time.
    pub fn take_will(&mut self) -> Option<Box<Will>> {
        self.will.take()
    }

    /// When [`Self::on_timer`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Time {
        match &self.state {
            State::Online(link) => link.keep_alive_deadline(),
            State::Offline { expires_at, will_at } => (*expires_at).min(*will_at),
        }
    }

    /// Does what is due.
    pub fn on_timer(&mut self, now: Time) -> Due {
        match &mut self.state {
            State::Online(link) => {
                let keep_alive = link.keep_alive_deadline() <= now;
                self.shrink();
                Due { keep_alive, ..Due::default() }
            }
            State::Offline { expires_at, will_at } => {
                let ended = *expires_at <= now;
                let will_due = ended || *will_at <= now;
                if will_due {
                    *will_at = Time::NEVER;
                }
                let will = if will_due { self.will.take() } else { None };
                Due { keep_alive: false, will, ended }
            }
        }
    }

    /// Gives memory back that bursts have left behind.
    pub fn shrink(&mut self) {
        self.queue.shrink();
        self.window.shrink();
        self.received.shrink();
    }

    /// When the client was last heard of; [`Time::NEVER`] without a connection.
    #[must_use]
    pub fn last_received(&self) -> Time {
        self.link().map_or(Time::NEVER, |link| link.last_received)
    }

    /// Bytes came in from the client at `now`.
    #[inline]
    pub fn heard(&mut self, now: Time) {
        if let State::Online(link) = &mut self.state {
            link.last_received = now;
        }
    }

    /// Puts a message into the queue, within `limits`. `dropped` gets what was not kept, and why.
    /// Says whether the message is in the queue.
    #[inline]
    pub fn enqueue(
        &mut self,
        entry: Entry,
        limits: &QueueLimits,
        cx: &mut Context<'_>,
        mut dropped: impl FnMut(DropReason, &Dropped<'_>),
    ) -> bool {
        let keeps_qos0 = cx.limits.queue_qos0_offline || self.is_online();
        if entry.qos == QoS::AtMostOnce && !keeps_qos0 {
            let (client_id, message) = (&*self.client_id, cx.pool.get(&entry.message));
            dropped(DropReason::OfflineQos0, &Dropped { client_id, message });
            entry.release(cx.pool);
            return false;
        }
        let (is_durable, changes) = (&self.is_durable, &mut *cx.changes);
        let client_id = &*self.client_id;
        self.queue.push(entry, limits, cx.pool, |reason, entry, pool| {
            if reason == DropReason::QueueFullOldest && *is_durable {
                note_done(entry, pool, changes);
            }
            note_answer(entry, Answer::Unsent, pool, changes);
            let message = pool.get(&entry.message);
            dropped(reason, &Dropped { client_id, message });
        })
    }

    /// Puts several messages into the queue of a session that is online, of `bytes` bytes together
    /// and none of them with identifiers of several subscriptions. `false` when the queue would be
    /// half full: then nothing has happened.
    #[inline]
    pub fn enqueue_all(
        &mut self,
        entries: impl ExactSizeIterator<Item = Entry>,
        bytes: usize,
        limits: &QueueLimits,
    ) -> bool {
        debug_assert!(self.is_online());
        let stays_low = !self.queue.would_be_high(entries.len(), bytes, limits);
        if stays_low {
            self.queue.append(entries, bytes);
        }
        stays_low
    }

    /// Whether there is something to deliver, now or when there is room in flight.
    #[inline]
    #[must_use]
    pub fn has_deliveries(&self) -> bool {
        let resends = self.link().is_some_and(|link| link.resends);
        resends || !self.queue.is_empty()
    }

    /// Ends the session: releases what it holds, and says how many messages were not delivered.
    pub fn clear(&mut self, pool: &mut MessagePool) -> usize {
        let mut count = self.queue.clear(pool);
        for entry in self.window.drain() {
            entry.release(pool);
            count += 1;
        }
        count
    }

    /// Takes out what came through share groups and can go to another member. Without `all`, only
    /// what was never sent; with it, unacknowledged QoS 1 as well. QoS 2 stays with its member
    /// \[MQTT-4.8.2-4\] \[MQTT-4.8.2-5\].
    pub fn take_shared(&mut self, all: bool, pool: &mut MessagePool) -> Vec<Entry> {
        let mut taken = Vec::new();
        if all {
            let is_it = |entry: &Entry| is_shared(entry) && entry.qos == QoS::AtLeastOnce;
            taken = self.window.extract(pool, is_it);
        }
        taken.extend(self.queue.extract(pool, is_shared));
        taken
    }

    /// Takes out what came from partitioned queues: what was never sent, and unacknowledged QoS 1.
    /// The queues deliver it again, to whoever is there. An identifier of QoS 2 that the client
    /// may know stays as it is.
    pub fn take_queued(&mut self, pool: &mut MessagePool) -> (Vec<Entry>, Vec<Entry>) {
        let unsent = self.queue.extract(pool, Entry::is_from_queue);
        let is_it = |entry: &Entry| entry.is_from_queue() && entry.qos == QoS::AtLeastOnce;
        (unsent, self.window.extract(pool, is_it))
    }

    /// Takes out those that are wanted, of what was never sent.
    pub fn take_unsent(
        &mut self,
        pool: &MessagePool,
        is_wanted: impl FnMut(&Entry) -> bool,
    ) -> Vec<Entry> {
        self.queue.extract(pool, is_wanted)
    }
}

/// What a session did not take.
#[derive(Clone, Copy, Debug)]
pub struct Dropped<'a> {
    /// Whose session it is.
    pub client_id: &'a str,
    /// The message.
    pub message: &'a Message,
}

/// Whether another member of a share group can get it.
fn is_shared(entry: &Entry) -> bool {
    entry.group != 0 && !entry.is_from_queue()
}
