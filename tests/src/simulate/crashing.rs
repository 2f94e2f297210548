//! The broker crashes, and what then is still certain: what it had acknowledged.

use super::audit::{Auditor, Verdict};
use super::connecting::Wish;
use super::faults::Fault;
use super::publication::{PubId, Stage};
use super::session::{Life, end_of, timer_after};
use super::world::World;

impl World {
    /// The broker crashes before a client has seen its CONNACK.
    pub(super) fn crash_at_connect(&mut self, index: usize, wish: &Wish) -> Verdict {
        let granted_s = wish.wanted_s().min(self.settings.limits.session_expiry_max_s);
        self.run_a_little()?;
        // What has come is not read.
        self.clients[index].link = None;
        let is_there = self.audit.sessions[index].expected_present(self.audit.now_ms);
        self.audit.on_connect_lost(index, granted_s);
        if wish.clean || is_there != Some(true) {
            // If there was no session before, there may be a new one now, which the client would
            // take for one that knows what it has sent.
            self.clients[index].forget_session();
            self.clients[index].is_blank = true;
        }
        self.crash_now(false)?;
        if let Some(will) = wish.will {
            self.audit.on_will_unclear(will.publication);
        }
        Ok(())
    }

    /// The broker ends in the middle of whatever it does, and another one starts from its disk.
    pub(super) fn crash(&mut self) -> Verdict {
        self.crash_now(true)
    }

    fn crash_now(&mut self, may_recover: bool) -> Verdict {
        if self.random.percent(70) {
            self.run_a_little()?;
        }
        let workers = self.random.pick(&[self.broker.workers(), self.broker.workers(), 1, 2, 3]);
        let fault = self.draw_fault();
        let arrived = self.suffer(fault)?;
        if may_recover && fault == Fault::Space && self.random.percent(50) {
            return self.recover(&arrived);
        }
        let is_graceful = fault == Fault::None && self.random.percent(25);
        let mut took_ms = 0;
        if is_graceful {
            took_ms = self.broker.restart(workers);
        } else {
            self.broker.crash(workers, fault == Fault::Sync, &mut self.random);
        }
        let how = if is_graceful { "ends" } else { "crashes" };
        self.note(&format!("{fault:?}: the broker {how}, and starts again with {workers} workers"));
        if is_graceful || fault != Fault::None {
            self.hear_the_last(fault, &arrived)?;
        }
        for index in 0..self.clients.len() {
            // Some of what had been sent still reaches the client.
            let count = self.random.pick(&[0, 3, usize::MAX]);
            self.read(index, count)?;
            if let Some(link) = self.clients[index].link.take() {
                self.digest = self.digest.rotate_left(7) ^ link.digest;
                self.orphans.extend(&link.unsettled);
            }
        }
        self.audit.on_crash(took_ms);
        // Nothing of before is under way any more.
        for id in std::mem::take(&mut self.orphans) {
            self.audit.on_settled(id, false);
        }
        Ok(())
    }
}

impl Auditor {
    /// Every connection has ended within so many milliseconds, and what was not acknowledged may
    /// have happened or not.
    pub fn on_crash(&mut self, took_ms: u64) {
        self.crashes += 1;
        self.tick += 1;
        self.crashed = self.tick;
        let before_ms = self.now_ms;
        self.now_ms += took_ms;
        let now_ms = self.now_ms;
        for client in 0..self.sessions.len() {
            if self.sessions[client].expiry_s == 0 {
                self.forget_groups(client);
            }
            let session = &mut self.sessions[client];
            session.call_ghost(before_ms);
            // From the restart on, it is a session without a connection. Of one that had none, the
            // broker may know only that much.
            let earliest_ms = timer_after(before_ms, session.connected_s);
            let latest_ms = timer_after(now_ms, session.connected_s);
            session.life = match session.life {
                Life::None => Life::None,
                Life::Online => Life::Offline { ends_min_ms: earliest_ms, ends_max_ms: latest_ms },
                Life::Offline { ends_min_ms, ends_max_ms } => Life::Offline {
                    ends_min_ms: ends_min_ms.min(earliest_ms),
                    ends_max_ms: ends_max_ms.max(latest_ms),
                },
            };
            // A replay is not kept: who subscribes again gets another.
            session.owed_retained.clear();
            let will = session.will.take().map(|will| will.publication);
            let wills = [will, session.past_will.take()];
            wills.into_iter().flatten().for_each(|id| self.on_will_unclear(id));
        }
        self.forget_unacknowledged();
        self.on_time(now_ms);
    }

    /// A CONNECT was sent, and its CONNACK never came: the session may have begun, or gone on with
    /// another expiry.
    fn on_connect_lost(&mut self, client: usize, granted_s: u32) {
        let now_ms = self.now_ms;
        let session = &mut self.sessions[client];
        session.call_ghost(now_ms);
        let granted_ms = timer_after(now_ms, granted_s);
        let (ends_min_ms, ends_max_ms) = match session.life {
            Life::Offline { ends_min_ms, ends_max_ms } => {
                (ends_min_ms.min(granted_ms), ends_max_ms.max(granted_ms))
            }
            Life::None | Life::Online => {
                session.is_doubtful = true;
                (now_ms, granted_ms)
            }
        };
        session.life = Life::Offline { ends_min_ms, ends_max_ms };
        session.connected_s = session.connected_s.max(granted_s);
    }

    /// A will that was kept, or that the broker may not remember to have published or forgotten: it
    /// may be published now, later or not at all.
    pub(super) fn on_will_unclear(&mut self, id: PubId) {
        let publication = self.publications.get_mut(id);
        if publication.stage == Stage::Out {
            publication.transmissions += 1;
            publication.settled = None;
            (publication.places.1, publication.expires_max_ms) = (u64::MAX, u64::MAX);
            return;
        }
        publication.stage = Stage::Unclear;
        publication.sent = publication.sent.min(self.tick);
        publication.transmissions = 1;
        publication.places = (u64::MAX, u64::MAX);
        if let Some(seconds) = publication.expiry_s {
            publication.expires_min_ms = end_of(self.now_ms, seconds);
        }
        let retained = self.retained.entry(publication.topic).or_default();
        if publication.retain && !retained.contains(&id) {
            retained.push(id);
        }
    }
}
