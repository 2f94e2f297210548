//! The end of a worker, without loss of what was accepted.
//!
//! ```text
//! serving ── Shutdown ──▶ quiet: no PUBLISH is accepted any more; each worker tells the others,
//!                         and once more when it has worked off what they had sent before
//!            all quiet ──▶ each client is disconnected as soon as its queue is empty
//!            no client left, or time over ──▶ finished
//! ```

use dunlin_packets::ReasonCode;

use super::conn::{ConnId, Phase};
use super::mail::Mail;
use super::timers::Timer;
use super::{Transport, Worker};

/// How far the shutdown is.
#[derive(Debug, Default)]
pub(super) struct Shutdown {
    begun: bool,
    /// Marks that other workers have sent: nothing new from here on, and everything worked off.
    quiet: usize,
    /// The second mark has been sent.
    second_sent: bool,
    pub(super) is_overdue: bool,
    /// Nothing is left but to let the clients go.
    is_over: bool,
}

impl Shutdown {
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    pub(super) fn on_quiet(&mut self) {
        self.quiet += 1;
    }
}

impl<T: Transport> Worker<T> {
    /// Begins to end the worker. Others have to be told as well, by [`Mail::Shutdown`].
    pub fn begin_shutdown(&mut self) {
        if std::mem::replace(&mut self.shutdown.begun, true) {
            return;
        }
        let deadline = self.now.plus_millis(self.shared.settings.shutdown_timeout_ms);
        self.timers.add(deadline, Timer::Shutdown);
        self.mail_quiet();
    }

    fn mail_quiet(&mut self) {
        for worker in 0..self.outboxes.len() {
            if worker != self.index {
                self.mail(worker, Mail::Quiet);
            }
        }
    }

    /// Whether no publication is on its way between workers any more. What a worker accepted
    /// arrives before its first mark; what that made others send on, as to the members of a group,
    /// before their second.
    fn all_are_quiet(&mut self) -> bool {
        let others = self.outboxes.len() - 1;
        if self.shutdown.quiet >= others && !std::mem::replace(&mut self.shutdown.second_sent, true)
        {
            self.mail_quiet();
        }
        self.shutdown.quiet >= 2 * others
    }

    /// Whether the end has begun: no more connections are to be accepted.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutdown.begun
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        let is_overdue = self.shutdown.is_overdue && self.dirty.is_empty();
        let is_written = self.journal.as_ref().is_none_or(|journal| journal.is_idle());
        self.shutdown.is_over && (self.conns.is_empty() && is_written || is_overdue)
    }

    pub(super) fn run_shutdown(&mut self) {
        if !self.shutdown.begun {
            return;
        }
        if !self.all_are_quiet() && !self.shutdown.is_overdue {
            return;
        }
        self.shutdown.is_over = true;
        let ids: Vec<ConnId> = self.conns.ids().collect();
        for id in ids {
            self.shut_conn(id);
        }
    }

    fn shut_conn(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let is_answered = self.journal.as_ref().is_none_or(|journal| !journal.holds(id));
        let is_done = match conn.phase {
            Phase::Online(session) => {
                let session = &self.sessions.get(session).session;
                session.queue().is_empty() && !conn.has_unsent() && is_answered
            }
            Phase::Lobby => true,
            Phase::Closing { .. } => false,
        };
        if is_done || self.shutdown.is_overdue && !conn.phase.is_closing() {
            self.disconnect(id, ReasonCode::ServerShuttingDown, "the broker shuts down");
        }
    }
}
