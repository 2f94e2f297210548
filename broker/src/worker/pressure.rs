//! Back-pressure: publishers wait for a consumer that falls behind, but not for ever.
//!
//! ```text
//! (none) ── queue half full ──▶ holding publishers back ── queue low ──▶ (none)
//!                                       │ patience over, less than a quarter drained
//!                                       ▼
//!                                    lagging ── queue low ──▶ (none)
//! ```
//!
//! While a consumer keeps up within the patience, nothing is lost and TCP slows its publishers
//! down to its speed; what is on its way from publishers that do not know yet that they have to
//! wait finds room in a queue of up to twice its bytes. One that does not is lagging: it holds
//! nobody back any more, and what its full queue does not take is dropped by the policy and
//! counted.

use std::collections::BTreeSet;

use dunlin_queue::Time;

use super::conn::ConnId;
use super::mail::{Mail, PublisherKey};
use super::sessions::{SessionId, SessionKey};
use super::timers::Timer;
use super::{Transport, Worker};

/// A session whose queue has become half full.
#[derive(Debug)]
pub(super) struct Pressure {
    since: Time,
    /// The longest the queue has been since then.
    queued_max: usize,
    /// Publishers that wait.
    publishers: BTreeSet<PublisherKey>,
    /// It took too long: nobody waits any more.
    pub(super) is_lagging: bool,
}

impl<T: Transport> Worker<T> {
    /// A message of `publisher` has gone into a queue that is half full.
    #[cold]
    pub(super) fn hold_back(&mut self, session: SessionId, publisher: Option<PublisherKey>) {
        let patience_ms = self.shared.settings.backpressure_ms;
        let Some(publisher) = publisher.filter(|_| patience_ms > 0) else { return };
        let key = self.sessions.key(self.index, session);
        let slot = self.sessions.get_mut(session);
        let is_own =
            slot.conn == Some(publisher.conn) && usize::from(publisher.worker) == self.index;
        if is_own && !slot.session.window().is_empty() {
            // It waits for acknowledgements that only come if we go on reading.
            return;
        }
        if slot.pressure.is_none() {
            self.timers.add(self.now.plus_millis(patience_ms), Timer::Pressure(key));
        }
        let pressure = slot.pressure.get_or_insert_with(|| {
            Box::new(Pressure {
                since: self.now,
                queued_max: 0,
                publishers: BTreeSet::new(),
                is_lagging: false,
            })
        });
        pressure.queued_max = pressure.queued_max.max(slot.session.queue().len());
        if pressure.is_lagging || !pressure.publishers.insert(publisher) {
            return;
        }
        self.counters.paused += 1;
        if usize::from(publisher.worker) == self.index {
            self.pause(publisher.conn);
        } else {
            self.mail(usize::from(publisher.worker), Mail::Pause(publisher.conn));
        }
    }

    /// Lets everybody go on who waits for the session.
    pub(super) fn relieve(&mut self, session: SessionId) {
        let Some(pressure) = self.sessions.get_mut(session).pressure.take() else { return };
        self.resume_all(&pressure.publishers);
    }

    fn resume_all(&mut self, publishers: &BTreeSet<PublisherKey>) {
        for publisher in publishers {
            if usize::from(publisher.worker) == self.index {
                self.resume(publisher.conn);
            } else {
                self.mail(usize::from(publisher.worker), Mail::Resume(publisher.conn));
            }
        }
    }

    /// The patience with a session is over.
    pub(super) fn on_pressure_timer(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.resolve(key) else { return };
        let patience_ms = self.shared.settings.backpressure_ms;
        let slot = self.sessions.get_mut(session);
        let Some(pressure) = slot.pressure.as_mut().filter(|p| !p.is_lagging) else { return };
        if pressure.since.plus_millis(patience_ms) > self.now {
            // A timer of an earlier time of pressure; this one has its own.
            return;
        }
        // Its publishers are waiting, so what it drains shows how fast it is: a quarter in each
        // period empties the queue in a few.
        let queued = slot.session.queue().len();
        if 4 * queued <= 3 * pressure.queued_max {
            (pressure.since, pressure.queued_max) = (self.now, queued);
            self.timers.add(self.now.plus_millis(patience_ms), Timer::Pressure(key));
            return;
        }
        pressure.is_lagging = true;
        let publishers = std::mem::take(&mut pressure.publishers);
        tracing::info!(
            client = slot.session.client_id(),
            queued = slot.session.queue().len(),
            "slow consumer: its publishers go on, its queue will overflow"
        );
        self.resume_all(&publishers);
    }

    /// A session's queue has been flushed as far as its socket went.
    pub(super) fn on_flushed(&mut self, session: SessionId) {
        let slot = self.sessions.get(session);
        if slot.pressure.is_some() && slot.session.queue().is_low(&self.limits().queue) {
            self.relieve(session);
        }
        self.wake_replays(session);
    }

    /// Stops reading from a connection of this worker.
    pub(super) fn pause(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.pauses += 1;
        }
    }

    /// One reason to pause has gone.
    pub(super) fn resume(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.pauses = conn.pauses.saturating_sub(1);
        if conn.pauses == 0 {
            self.resumed.push(id);
        }
    }

    /// Handles what paused connections had sent before, and reads on.
    /// Returns whether there is more to do.
    pub(super) fn go_on_with_resumed(&mut self) -> bool {
        if self.is_out_of_credit {
            // Woken when a batch comes home.
            return false;
        }
        for id in std::mem::take(&mut self.resumed) {
            self.on_kept_input(id);
            self.list_readable(id);
        }
        !self.is_out_of_credit && !self.resumed.is_empty()
    }
}
