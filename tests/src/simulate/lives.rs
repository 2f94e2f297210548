//! How sessions begin and end, and when their wills go out.

use super::audit::{Auditor, Verdict, violation};
use super::publication::Stage;
use super::session::{Departure, KeptWill, Life, end_of, timer_after};

impl Auditor {
    /// The connection of a session ends.
    pub fn on_departed(&mut self, client: usize, how: Departure) {
        let now_ms = self.now_ms;
        let session = &mut self.sessions[client];
        if session.life != Life::Online {
            return;
        }
        let mut keeps_will = true;
        if let Departure::Orderly { with_will, expiry_s } = how {
            keeps_will = with_will;
            session.expiry_s = expiry_s.unwrap_or(session.expiry_s);
        }
        let ends_ms = timer_after(now_ms, session.expiry_s);
        session.life = Life::Offline { ends_min_ms: ends_ms, ends_max_ms: ends_ms };
        if !keeps_will {
            session.past_will = session.will.map(|will| will.publication);
            self.discard_will(client);
        } else if let Some(will) = &mut session.will {
            will.due_ms = Some(timer_after(now_ms, will.delay_s).min(ends_ms));
        }
        self.on_time(now_ms);
    }

    /// The client has sent a CONNECT; its connection, if it had one, has ended before. A clean start
    /// ends the session, and others may hear of its will before the CONNACK is there.
    pub fn on_connecting(&mut self, client: usize, clean_start: bool) {
        if clean_start {
            self.end_session(client);
        }
    }

    /// The client connects; its connection, if it has one, has ended before. `present` is what the
    /// CONNACK said.
    ///
    /// # Errors
    /// When Session Present is wrong.
    pub fn on_connected(
        &mut self,
        client: usize,
        clean_start: bool,
        present: bool,
        expiry_s: u32,
        will: Option<KeptWill>,
    ) -> Verdict {
        let expected = if clean_start {
            Some(false)
        } else {
            self.sessions[client].expected_present(self.now_ms)
        };
        if expected.is_some_and(|expected| expected != present) {
            return violation(format!("c{client}: session present is {present}"));
        }
        if present {
            self.discard_will(client);
        } else {
            self.end_session(client);
        }
        let session = &mut self.sessions[client];
        session.is_doubtful &= present;
        session.life = Life::Online;
        (session.expiry_s, session.connected_s) = (expiry_s, expiry_s);
        session.will = will;
        (session.past_will, session.ghost) = (None, None);
        Ok(())
    }

    fn discard_will(&mut self, client: usize) {
        let Some(will) = self.sessions[client].will.take() else { return };
        let publication = self.publications.get_mut(will.publication);
        if publication.stage == Stage::Kept {
            publication.stage = Stage::Discarded;
        }
    }

    /// A will's time has come.
    fn publish_will(&mut self, client: usize) {
        let Some(will) = self.sessions[client].will.take() else { return };
        let id = will.publication;
        self.sessions[client].past_will = Some(id);
        let tick = self.tick;
        let from_ms = will.due_ms.unwrap_or(self.now_ms).min(self.now_ms);
        let publication = self.publications.get_mut(id);
        if publication.stage != Stage::Kept {
            return;
        }
        publication.stage = Stage::Out;
        self.wills += 1;
        publication.sent = tick;
        // The broker's own: nobody has to acknowledge it.
        publication.is_acked = true;
        publication.expires_min_ms =
            publication.expiry_s.map_or(u64::MAX, |seconds| end_of(from_ms, seconds));
        if publication.retain {
            let topic = publication.topic;
            self.retained.entry(topic).or_default().push(id);
        }
        self.on_transmitted(id);
        self.wills_out.push(id);
    }

    /// The session ends, and all it was owed with it.
    fn end_session(&mut self, client: usize) {
        self.publish_will(client);
        self.forget_member(client);
        self.sessions[client].renew();
    }

    /// The clock has moved, or something is due now.
    pub fn on_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        for client in 0..self.sessions.len() {
            let session = &self.sessions[client];
            let is_due = session.will.and_then(|will| will.due_ms).is_some_and(|at| at <= now_ms);
            if is_due {
                self.publish_will(client);
            }
            let life = self.sessions[client].life;
            if matches!(life, Life::Offline { ends_max_ms, .. } if ends_max_ms <= now_ms) {
                self.end_session(client);
            }
        }
    }
}
