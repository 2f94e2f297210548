//! Subscriptions to queues at home elsewhere, until the home has confirmed or refused them.
//!
//! One that names another group is another membership. The former one goes on until the home has
//! taken the new one, so that a refusal leaves everything as it was. Whatever ends the
//! subscription meanwhile has to end both.

use super::Consumer;
use crate::worker::sessions::SessionId;
use crate::worker::{Transport, Worker};

/// A subscription that its queue's home has not confirmed, and what it takes the place of.
#[derive(Debug)]
pub(super) struct ConsumerChange {
    /// Which SUBACK waits for it, and which of its codes is this one's.
    pub(super) place: (u64, u16),
    pub(super) new: Consumer,
    pub(super) former: Option<Consumer>,
}

impl ConsumerChange {
    /// The membership that ends when this one is confirmed.
    fn replaced(self) -> Option<Consumer> {
        let Self { new, former, .. } = self;
        former.filter(|former| former.group != new.group)
    }
}

impl<T: Transport> Worker<T> {
    /// The home of a queue has taken a consumer, or not.
    pub(in crate::worker) fn settle_consumer(
        &mut self,
        session: SessionId,
        place: (u64, u16),
        is_refused: bool,
    ) {
        let Some(changes) = self.queues.unconfirmed.get_mut(&session) else { return };
        let Some(at) = changes.iter().position(|it| it.place == place) else { return };
        let change = changes.swap_remove(at);
        if changes.is_empty() {
            self.queues.unconfirmed.remove(&session);
        }
        if is_refused {
            self.refuse_consumer(session, change);
        } else {
            self.confirm_consumer(session, change);
        }
    }

    /// The queue has taken the consumer.
    pub(super) fn confirm_consumer(&mut self, session: SessionId, change: ConsumerChange) {
        self.record_consumer(session, &change.new.filter);
        if let Some(replaced) = change.replaced() {
            self.end_membership(session, &replaced);
        }
    }

    /// The queue has not taken the consumer: it is as it was.
    pub(super) fn refuse_consumer(&mut self, session: SessionId, change: ConsumerChange) {
        let ConsumerChange { new, former, .. } = change;
        let Some(all) = self.queues.consumers.get_mut(&session) else { return };
        let Some(at) = all.iter().position(|it| *it == new) else {
            // It has subscribed again meanwhile: what that takes the place of is the former one.
            let later = self.queues.unconfirmed.get_mut(&session);
            let later =
                later.and_then(|all| all.iter_mut().find(|it| it.former.as_ref() == Some(&new)));
            if let Some(later) = later {
                later.former = former;
            }
            return;
        };
        match former {
            Some(former) => all[at] = former,
            None => self.forget_consumer(session, &new.filter),
        }
    }

    /// The session's subscriptions to queues end, or the one by this filter: memberships that
    /// unconfirmed ones were to take the place of.
    pub(super) fn take_replaced(
        &mut self,
        session: SessionId,
        filter: Option<&str>,
    ) -> Vec<Consumer> {
        let Some(changes) = self.queues.unconfirmed.remove(&session) else { return Vec::new() };
        let is_it = |it: &ConsumerChange| filter.is_none_or(|filter| *it.new.filter == *filter);
        let (ended, others): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_it);
        if !others.is_empty() {
            self.queues.unconfirmed.insert(session, others);
        }
        ended.into_iter().filter_map(ConsumerChange::replaced).collect()
    }
}
