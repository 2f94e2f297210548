//! SUBSCRIBE and UNSUBSCRIBE.

use dunlin_packets::{
    FilterRequest, PacketId, Properties, Property, ReasonCode, RetainHandling, Subscribe,
    SubscriptionOptions, Unsubscribe, split_shared,
};
use dunlin_router::Subscription;
use dunlin_session::grant;
use slab::Slab;

use super::conn::ConnId;
use super::queues::{QueueJoined, Refusal};
use super::sessions::SessionId;
use super::{Transport, Worker};
use crate::queues::{ConsumerTerms, Malformed, SubscribeTo, subscribe_to};

/// A SUBACK that waits until groups on other workers have taken their new member.
#[derive(Debug)]
struct PendingSubAck {
    conn: ConnId,
    packet_id: PacketId,
    codes: Vec<u8>,
    waiting: usize,
    /// Why one of the codes is an error, for people.
    reason: &'static str,
    /// A queue has made a group for it, which has to be safe.
    is_recorded: bool,
    generation: u32,
}

/// SUBACKs that wait.
#[derive(Debug, Default)]
pub(super) struct PendingSubAcks {
    slots: Slab<PendingSubAck>,
    generation: u32,
}

impl PendingSubAcks {
    fn insert(&mut self, conn: ConnId, packet_id: PacketId) -> u64 {
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        let pending = PendingSubAck {
            conn,
            packet_id,
            codes: Vec::new(),
            waiting: 0,
            reason: "",
            is_recorded: false,
            generation,
        };
        let slot = self.slots.insert(pending);
        u64::from(generation) << 32 | slot as u64
    }

    fn get_mut(&mut self, ticket: u64) -> Option<&mut PendingSubAck> {
        let pending = self.slots.get_mut(ticket as u32 as usize)?;
        (pending.generation == (ticket >> 32) as u32).then_some(pending)
    }

    fn remove(&mut self, ticket: u64) -> Option<PendingSubAck> {
        self.get_mut(ticket)?;
        Some(self.slots.remove(ticket as u32 as usize))
    }
}

impl<T: Transport> Worker<T> {
    pub(super) fn on_subscribe(
        &mut self,
        conn: ConnId,
        session: SessionId,
        subscribe: &Subscribe<'_>,
    ) {
        let identifier = subscribe.properties.iter().find_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        });
        let identifier = identifier.unwrap_or(0);
        let ticket = self.pending_subacks.insert(conn, subscribe.packet_id);
        let mut waiting = 0;
        let mut codes = Vec::new();
        // What cannot be kept is not promised.
        let is_durable = self.sessions.get(session).durable.is_some();
        let refused = self.log_refusal().filter(|_| is_durable);
        let mut reason = "";
        for request in subscribe.filters.iter() {
            let code = match grant(&request, identifier != 0, self.limits()) {
                Ok(_) if refused.is_some() => refused.map_or(0, |code| code as u8),
                Ok(qos) if let Some(to) = subscribe_to(request.filter) => {
                    let options = SubscriptionOptions { qos, ..request.options };
                    let subscription = Subscription { options, identifier };
                    let place = (ticket, codes.len() as u16);
                    let properties = subscribe.properties;
                    match self.subscribe_to_queue(
                        session,
                        &request,
                        to,
                        subscription,
                        properties,
                        place,
                    ) {
                        Ok(is_done) => {
                            waiting += usize::from(!is_done);
                            qos as u8
                        }
                        Err(refusal) => {
                            reason = refusal.reason;
                            refusal.suback_code() as u8
                        }
                    }
                }
                Ok(_) if self.exceeds_quota(session, request.filter) => {
                    ReasonCode::QuotaExceeded as u8
                }
                Ok(qos) => {
                    let options = SubscriptionOptions { qos, ..request.options };
                    let subscription = Subscription { options, identifier };
                    waiting +=
                        usize::from(!self.subscribe(session, &request, subscription, ticket));
                    qos as u8
                }
                Err(code) => code as u8,
            };
            codes.push(code);
        }
        self.count_sessions();
        if let Some(pending) = self.pending_subacks.get_mut(ticket) {
            (pending.codes, pending.waiting, pending.reason) = (codes, waiting, reason);
        }
        self.finish_suback(ticket);
    }

    /// Whether a subscription would be one too many; changing one that is there never is.
    fn exceeds_quota(&self, session: SessionId, filter: &str) -> bool {
        let slot = self.sessions.get(session);
        let settings = &self.shared.settings;
        let count = slot.subscriptions.len() + slot.memberships.len();
        let fits = count < settings.subscriptions_max
            && slot.filter_bytes + filter.len() <= settings.filter_bytes_max;
        let exists = || {
            slot.memberships.contains_key(filter)
                || self
                    .subscriptions
                    .find(filter)
                    .is_some_and(|id| slot.subscriptions.contains(&id))
        };
        !fits && !exists()
    }

    /// `false` when another worker has to confirm.
    fn subscribe(
        &mut self,
        session: SessionId,
        request: &FilterRequest<'_>,
        subscription: Subscription,
        ticket: u64,
    ) -> bool {
        if let Ok(Some(_)) = split_shared(request.filter) {
            let known = self.sessions.get(session).memberships.get(request.filter);
            if known != Some(&subscription) {
                self.record_subscribed(session, request.filter, subscription);
            }
            return self.join_group(session, request.filter, subscription, ticket);
        }
        let target = session.target();
        let known = self.subscriptions.find(request.filter);
        let known = known.and_then(|filter| self.subscriptions.get(filter, target));
        if known != Some(subscription) {
            self.record_subscribed(session, request.filter, subscription);
        }
        let added = self.subscriptions.subscribe(request.filter, target, subscription);
        let slot = self.sessions.get_mut(session);
        if slot.subscriptions.insert(added.filter) {
            slot.filter_bytes += request.filter.len();
        }
        if added.is_first
            && let Some(interest) = &self.interest
        {
            interest.add(request.filter);
        }
        let wants_retained = match request.options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => added.is_new,
            RetainHandling::Never => false,
        };
        // What an earlier SUBSCRIBE has begun to send goes on under the new terms, or not at all.
        self.cancel_replay(session, request.filter);
        if wants_retained && self.limits().retain_available {
            self.start_replay(session, request.filter, subscription);
        }
        true
    }

    /// One of the filters is of a queue. `Ok(false)` when another worker has to confirm.
    fn subscribe_to_queue(
        &mut self,
        session: SessionId,
        request: &FilterRequest<'_>,
        to: Result<SubscribeTo<'_>, Malformed>,
        subscription: Subscription,
        properties: Properties<'_>,
        place: (u64, u16),
    ) -> Result<bool, Refusal> {
        let to = to.map_err(|bad| Refusal::new(ReasonCode::TopicFilterInvalid, bad.0))?;
        let asked = ConsumerTerms::read(properties);
        let asked = asked.map_err(|bad| Refusal::bad_request(bad.0))?;
        self.consume(session, request.filter, to, &asked, subscription, place)
    }

    /// A queue at home here has made a group for a subscription.
    pub(super) fn note_recorded(&mut self, ticket: u64) {
        if let Some(pending) = self.pending_subacks.get_mut(ticket) {
            pending.is_recorded = true;
        }
    }

    /// The home of a queue has taken a consumer, or not.
    pub(super) fn settle_suback(&mut self, joined: QueueJoined) {
        let QueueJoined { ticket, at, refusal, is_recorded } = joined;
        let Some(pending) = self.pending_subacks.get_mut(ticket) else { return };
        pending.waiting -= 1;
        pending.is_recorded |= is_recorded;
        if let Some(refusal) = refusal {
            pending.reason = refusal.reason;
            if let Some(code) = pending.codes.get_mut(usize::from(at)) {
                *code = refusal.suback_code() as u8;
            }
        }
        let session = self.conns.get(pending.conn).and_then(super::conn::Conn::session);
        if let Some(session) = session {
            self.settle_consumer(session, (ticket, at), refusal.is_some());
        }
        self.finish_suback(ticket);
    }

    /// A group on another worker has taken its new member.
    pub(super) fn on_group_joined(&mut self, ticket: u64) {
        if let Some(pending) = self.pending_subacks.get_mut(ticket) {
            pending.waiting -= 1;
            self.finish_suback(ticket);
        }
    }

    /// Sends the SUBACK if every subscription is effective.
    fn finish_suback(&mut self, ticket: u64) {
        if self.pending_subacks.get_mut(ticket).is_none_or(|pending| pending.waiting > 0) {
            return;
        }
        let Some(pending) = self.pending_subacks.remove(ticket) else { return };
        let Some(conn) = self.conns.get_mut(pending.conn) else { return };
        let Some(session) = conn.session() else { return };
        let PendingSubAck { packet_id, codes, reason, .. } = &pending;
        let answered =
            self.answer_when_safe(pending.conn, session, pending.is_recorded, |session, out| {
                session.suback(*packet_id, codes, reason, out)
            });
        let fits = answered.unwrap_or_else(|| {
            let Some(conn) = self.conns.get_mut(pending.conn) else { return true };
            let out = self.buffers.ready(&mut conn.control);
            self.sessions.get(session).session.suback(*packet_id, codes, reason, out)
        });
        if fits {
            self.mark_dirty(pending.conn);
        } else {
            self.disconnect(pending.conn, ReasonCode::PacketTooLarge, "the SUBACK is too large");
        }
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        conn: ConnId,
        session: SessionId,
        unsubscribe: &Unsubscribe<'_>,
    ) {
        let codes: Vec<u8> = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                let existed = match split_shared(filter) {
                    _ if subscribe_to(filter).is_some() => self.stop_consuming(session, filter),
                    Ok(Some(_)) => self.leave_group(session, filter),
                    _ => self.unsubscribe(session, filter),
                };
                if existed {
                    self.record_unsubscribed(session, filter);
                }
                if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted }
            })
            .map(|code| code as u8)
            .collect();
        self.count_sessions();
        let packet_id = unsubscribe.packet_id;
        let answered = self.answer_when_safe(conn, session, false, |session, out| {
            session.unsuback(packet_id, &codes, out)
        });
        let fits = answered.unwrap_or_else(|| {
            let Some(conn) = self.conns.get_mut(conn) else { return true };
            let out = self.buffers.ready(&mut conn.control);
            self.sessions.get(session).session.unsuback(packet_id, &codes, out)
        });
        if fits {
            self.mark_dirty(conn);
        } else {
            self.disconnect(conn, ReasonCode::PacketTooLarge, "the UNSUBACK is too large");
        }
    }

    fn unsubscribe(&mut self, session: SessionId, filter: &str) -> bool {
        let Some(id) = self.subscriptions.find(filter) else { return false };
        let target = session.target();
        let interest = &self.interest;
        let existed = self.subscriptions.unsubscribe(id, target, |gone| {
            if let Some(interest) = interest {
                interest.remove(gone);
            }
        });
        if existed {
            let slot = self.sessions.get_mut(session);
            slot.subscriptions.remove(&id);
            slot.filter_bytes -= filter.len();
            self.cancel_replay(session, filter);
        }
        existed
    }
}
