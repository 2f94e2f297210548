//! Mail out, and who has to be woken for it. A worker that posts to one that sleeps wakes it, or
//! works its mail off for it (`net::seats`).

use dunlin_queue::mailbox::Posted;

use super::{Transport, Worker, workers_in};

/// With more mail for one worker than this, it is woken at once: it is to work beside this worker,
/// and not this one for it.
const MAIL_ALONE: usize = 8;

impl<T: Transport> Worker<T> {
    /// Posts everything; what is to be retained after everything else (see `replay`).
    pub(super) fn post_mail(&mut self) -> bool {
        let all_posted = self.post_outboxes();
        if self.retains.is_empty() {
            return all_posted;
        }
        let mut retains = std::mem::take(&mut self.retains);
        for (home, item) in retains.drain(..) {
            self.mail(home, item);
        }
        self.retains = retains;
        self.post_outboxes() && all_posted
    }

    fn post_outboxes(&mut self) -> bool {
        let mut all_posted = true;
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            let Some(outbox) = outbox else { continue };
            let (is_much, bit) = (outbox.items() > MAIL_ALONE, 1 << to);
            match outbox.post_quietly() {
                Posted::Unheard => self.unheard |= bit,
                Posted::NoRoom => all_posted = false,
                Posted::Done => {}
            }
            if is_much && self.unheard & bit != 0 {
                self.unheard &= !bit;
                outbox.wake();
            }
        }
        all_posted
    }

    /// Workers that sleep and have mail from this one: after a turn they are to be woken, or their
    /// mail worked off for them.
    pub fn take_unheard(&mut self) -> impl Iterator<Item = usize> + use<T> {
        workers_in(std::mem::take(&mut self.unheard))
    }

    /// Wakes those that have mail from this worker.
    pub fn wake_unheard(&mut self) {
        self.take_unheard().for_each(|worker| self.wake(worker));
    }

    /// Ends the sleep of another worker.
    pub fn wake(&self, worker: usize) {
        if let Some(Some(outbox)) = self.outboxes.get(worker) {
            outbox.wake();
        }
    }

    /// Says that this worker is going to sleep. `false` when it has mail.
    #[must_use]
    pub fn fall_asleep(&mut self) -> bool {
        self.inbox.fall_asleep()
    }

    /// Says that this worker is awake.
    pub fn wake_up(&mut self) {
        self.inbox.wake_up();
    }

    /// The worker has ended: nobody has to post to it any more.
    pub fn close_inbox(&mut self) {
        self.inbox.close();
    }
}
