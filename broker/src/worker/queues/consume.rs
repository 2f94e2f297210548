//! Subscriptions to queues, on the worker of their session.

use dunlin_packets::{QoS, ReasonCode, SubscriptionOptions, Version};
use dunlin_queue::Entry;
use dunlin_queue::partitioned::{Commit, Start};
use dunlin_router::Subscription;
use dunlin_session::Answer as ClientAnswer;

use super::join::{QueueJoin, QueueLeave, QueueLeft};
use super::unconfirmed::ConsumerChange;
use super::{MemberTerms, QueueAnswer, Refusal};
use crate::queues::{ConsumerTerms, QueueName, SubscribeTo, check_group, subscribe_to};
use crate::worker::mail::Mail;
use crate::worker::sessions::SessionId;
use crate::worker::{Transport, Worker};

/// Queues one session may consume, and bytes of a filter for one.
const CONSUMERS_MAX: usize = 256;
const FILTER_BYTES_MAX: usize = 1024;

/// In the log: PUBACK settles.
const AUTO_SETTLED: u8 = 1;
/// The cursor moves by `$commit` only.
const EXPLICIT_COMMIT: u8 = 2;
/// The group is named by the client identifier, and ends with the subscription.
const TEMPORARY: u8 = 4;
/// How it settles was not said: it is decided by the client's version.
const BY_VERSION: u8 = 8;

/// A session's subscription to a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Consumer {
    /// As it was subscribed.
    pub(super) filter: Box<str>,
    pub(super) group: Box<str>,
    pub(super) options: SubscriptionOptions,
    pub(super) identifier: u32,
    pub(super) flags: u8,
    /// What it asked for, up to 10,000; 0 if it did not.
    pub(super) prefetch: u16,
    /// Which membership it is, to this worker: the same for all that are one member.
    pub(super) membership: u32,
}

impl Consumer {
    fn to(&self) -> Option<SubscribeTo<'_>> {
        subscribe_to(&self.filter).and_then(Result::ok)
    }

    /// Whether both are one member of one group: a filter can name the group itself.
    fn is_same_group(&self, other: &Self) -> bool {
        let address = |to: SubscribeTo<'_>| (to.queue.to_string(), to.filter.to_owned());
        self.group == other.group && self.to().map(address) == other.to().map(address)
    }
}

impl<T: Transport> Worker<T> {
    /// A session subscribes to a queue. `Ok(false)` if the queue's home is elsewhere and has to
    /// confirm. What is refused leaves a former subscription as it was.
    pub(in crate::worker) fn consume(
        &mut self,
        session: SessionId,
        filter: &str,
        to: SubscribeTo<'_>,
        asked: &ConsumerTerms<'_>,
        subscription: Subscription,
        place: (u64, u16),
    ) -> Result<bool, Refusal> {
        let Subscription { options, identifier } = subscription;
        if options.qos == QoS::AtMostOnce {
            return Err(Refusal::bad_request("a queue is consumed at QoS 1 or 2"));
        }
        if filter.len() > FILTER_BYTES_MAX {
            return Err(Refusal::bad_request("the filter is too long for a queue"));
        }
        let named = to.group.or(asked.group);
        let group = named.unwrap_or(self.sessions.get(session).session.client_id());
        // What a consumer could not say in `group-id`.
        check_group(group).map_err(|bad| Refusal::bad_request(bad.0))?;
        let known = self.queues.consumers.get(&session);
        let former = known.and_then(|all| all.iter().find(|it| &*it.filter == filter).cloned());
        if former.is_none() && known.is_some_and(|all| all.len() >= CONSUMERS_MAX) {
            return Err(Refusal::new(ReasonCode::QuotaExceeded, "too many queues"));
        }
        let is_temporary = named.is_none();
        let mut flags = if is_temporary { TEMPORARY } else { 0 };
        match asked.is_auto_settled {
            Some(true) => flags |= AUTO_SETTLED,
            Some(false) => {}
            None => flags |= BY_VERSION,
        }
        if asked.commit == Commit::Explicit {
            flags |= EXPLICIT_COMMIT;
        }
        let mut consumer = Consumer {
            filter: filter.into(),
            group: group.into(),
            options,
            identifier,
            flags,
            prefetch: asked.prefetch.map_or(0, prefetch_of),
            membership: 0,
        };
        self.number_membership(session, &mut consumer);
        let all = self.queues.consumers.entry(session).or_default();
        all.retain(|it| &*it.filter != filter);
        all.push(consumer.clone());
        let start = (asked.start, asked.is_replay);
        let joined = self.join_queue(session, &consumer, start, place);
        let change = ConsumerChange { place, new: consumer, former };
        match joined {
            Ok(false) => self.queues.unconfirmed.entry(session).or_default().push(change),
            Ok(true) => self.confirm_consumer(session, change),
            Err(_) => self.refuse_consumer(session, change),
        }
        joined
    }

    /// Tells the queue's home that the session is there.
    fn join_queue(
        &mut self,
        session: SessionId,
        consumer: &Consumer,
        (start, is_replay): (Option<Start>, bool),
        (ticket, at): (u64, u16),
    ) -> Result<bool, Refusal> {
        let Some(to) = consumer.to() else {
            return Err(Refusal::bad_topic("not the topic of a queue"));
        };
        let client = &self.sessions.get(session).session;
        let has_properties = client.version() == Some(Version::V5);
        let Consumer { group, options, identifier, flags, prefetch, membership, .. } = consumer;
        let is_auto_settled =
            flags & AUTO_SETTLED != 0 || flags & BY_VERSION != 0 && !has_properties;
        let terms = MemberTerms {
            qos: options.qos,
            identifier: *identifier,
            is_auto_settled,
            prefetch: u32::from(*prefetch),
            in_flight_max: client.receive_maximum().unwrap_or(u16::MAX),
            has_properties,
        };
        let home = self.queue_home(to.queue);
        let is_explicit = flags & EXPLICIT_COMMIT != 0;
        let join = QueueJoin {
            queue: to.queue.to_string().into(),
            group: group_name(group, to.filter),
            filter: to.filter.into(),
            is_temporary: flags & TEMPORARY != 0 && self.sessions.get(session).durable.is_none(),
            commit: if is_explicit { Commit::Explicit } else { Commit::Auto },
            start,
            is_replay,
            session: self.sessions.key(self.index, session),
            membership: *membership,
            client_id: self.sessions.get(session).session.client_id().into(),
            terms,
            has_prefetch: *prefetch != 0,
            has_settle: flags & BY_VERSION == 0,
            ticket,
            at,
        };
        if home == self.index {
            if self.on_queue_join_here(&join)? {
                self.note_recorded(ticket);
            }
            return Ok(true);
        }
        self.mail(home, Mail::QueueJoin(Box::new(join)));
        Ok(false)
    }

    /// Gives a consumer the number of the member it is, or of a new one.
    pub(super) fn number_membership(&mut self, session: SessionId, consumer: &mut Consumer) {
        let all = self.queues.consumers.get(&session);
        let same = all.and_then(|all| all.iter().find(|it| it.is_same_group(consumer)));
        let known = same.map(|same| same.membership);
        consumer.membership = known.unwrap_or_else(|| self.queues.memberships.number());
    }

    pub(super) fn forget_consumer(&mut self, session: SessionId, filter: &str) {
        if let Some(all) = self.queues.consumers.get_mut(&session) {
            all.retain(|it| &*it.filter != filter);
            if all.is_empty() {
                self.queues.consumers.remove(&session);
            }
        }
    }

    /// The session unsubscribes from a queue. `false` if it did not consume it.
    pub(in crate::worker) fn stop_consuming(&mut self, session: SessionId, filter: &str) -> bool {
        let all = self.queues.consumers.get(&session);
        let known = all.and_then(|all| all.iter().find(|it| &*it.filter == filter));
        let Some(consumer) = known.cloned() else { return false };
        self.forget_consumer(session, filter);
        self.end_membership(session, &consumer);
        for replaced in self.take_replaced(session, Some(filter)) {
            self.end_membership(session, &replaced);
        }
        true
    }

    /// A subscription has ended. Another one to the same group goes on, on its own terms.
    pub(super) fn end_membership(&mut self, session: SessionId, ended: &Consumer) {
        let all = self.queues.consumers.get(&session);
        let other = all.and_then(|all| all.iter().find(|it| it.is_same_group(ended)));
        let Some(other) = other.cloned() else {
            self.give_back_unsent(session, ended.membership);
            return self.leave_queue(session, ended, true);
        };
        if let Err(refusal) = self.join_queue(session, &other, (None, false), (0, 0)) {
            tracing::warn!(filter = %other.filter, reason = refusal.reason, "not on new terms");
        }
    }

    /// A membership ends, and its session goes on: what that was not sent yet it must not be sent
    /// any more, as its queue gives it to others.
    fn give_back_unsent(&mut self, session: SessionId, membership: u32) {
        let Self { sessions, queues, pool, .. } = self;
        if queues.outgoing.is_empty() {
            return;
        }
        let is_its = |entry: &Entry| {
            let number = pool.get(&entry.message).publisher as usize;
            let outgoing = queues.outgoing.get(number).filter(|_| entry.is_from_queue());
            outgoing.is_some_and(|outgoing| outgoing.membership == membership)
        };
        let unsent = sessions.get_mut(session).session.take_unsent(pool, is_its);
        self.answer_unsent(unsent);
    }

    fn answer_unsent(&mut self, unsent: Vec<Entry>) {
        for entry in unsent {
            let number = self.pool.get(&entry.message).publisher;
            entry.release(&mut self.pool);
            self.note_answer(number, ClientAnswer::Unsent);
        }
    }

    fn leave_queue(&mut self, session: SessionId, consumer: &Consumer, is_final: bool) {
        let Some(to) = consumer.to() else { return };
        // Before its home ends the membership: what was acknowledged is settled, and what was not
        // sent is no attempt.
        self.send_queue_answers();
        let home = self.queue_home(to.queue);
        let is_final = is_final && consumer.flags & TEMPORARY != 0;
        let leave = QueueLeave {
            queue: to.queue.to_string().into(),
            group: group_name(&consumer.group, to.filter),
            session: self.sessions.key(self.index, session),
            membership: consumer.membership,
            is_final,
        };
        if home == self.index {
            return self.on_queue_leave_here(&leave);
        }
        self.queues.memberships.begin_end(consumer.membership);
        self.mail(home, Mail::QueueLeave(Box::new(leave)));
    }

    /// The home of a queue knows that a membership has ended.
    pub(in crate::worker) fn on_queue_left(&mut self, left: QueueLeft) {
        self.queues.memberships.end(left.membership);
    }

    /// The session has a connection again.
    pub(in crate::worker) fn rejoin_queues(&mut self, session: SessionId) {
        if self.queues.consumers.is_empty() {
            return;
        }
        let Some(all) = self.queues.consumers.get(&session) else { return };
        for consumer in all.clone() {
            if let Err(refusal) = self.join_queue(session, &consumer, (None, false), (0, 0)) {
                let filter = &consumer.filter;
                tracing::warn!(%filter, reason = refusal.reason, "a queue has no consumer back");
            }
        }
    }

    /// The session has lost its connection, or ends: its queues deliver again what it was not sent
    /// and what it has not acknowledged.
    pub(in crate::worker) fn leave_queues(&mut self, session: SessionId, is_final: bool) {
        if self.queues.consumers.is_empty() && self.queues.outgoing.is_empty() {
            return;
        }
        let (unsent, sent) = self.sessions.get_mut(session).session.take_queued(&mut self.pool);
        self.answer_unsent(unsent);
        for entry in sent {
            let number = self.pool.get(&entry.message).publisher;
            entry.release(&mut self.pool);
            // Its attempt ends with the membership.
            self.forget_outgoing(number);
        }
        if is_final {
            self.forget_outgoing_of(session);
        }
        let all = match is_final {
            true => self.queues.consumers.remove(&session),
            false => self.queues.consumers.get(&session).cloned(),
        };
        let replaced = self.take_replaced(session, None);
        if self.shutdown.is_begun() {
            // Nobody is to blame for what is not answered now.
            return;
        }
        for consumer in all.unwrap_or_default().into_iter().chain(replaced) {
            self.leave_queue(session, &consumer, is_final);
        }
    }

    /// What clients have answered in this turn goes to the homes of their queues.
    pub(in crate::worker) fn send_queue_answers(&mut self) {
        for home in 0..self.queues.answers.len() {
            if self.queues.answers[home].is_empty() {
                continue;
            }
            if home == self.index {
                let mut answers = std::mem::take(&mut self.queues.answers[home]);
                self.on_queue_answers(&answers);
                answers.clear();
                // Its memory serves again, unless others have come meanwhile.
                if self.queues.answers[home].is_empty() {
                    self.queues.answers[home] = answers;
                }
                continue;
            }
            let answers: Vec<QueueAnswer> = std::mem::take(&mut self.queues.answers[home]);
            self.mail(home, Mail::QueueAnswers(answers));
        }
    }
}

/// It was checked when it was asked for.
pub(super) fn prefetch_of(asked: u32) -> u16 {
    u16::try_from(asked).unwrap_or(u16::MAX)
}

/// Another filter makes another group.
fn group_name(group: &str, filter: &str) -> Box<str> {
    if filter.is_empty() { group.into() } else { format!("{group}@{filter}").into() }
}

/// Whether a queue name is that of dead letters.
pub(super) fn is_dead(name: &str) -> bool {
    QueueName::parse(name).is_ok_and(|name| name.is_dead)
}
