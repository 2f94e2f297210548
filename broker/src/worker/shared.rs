//! Shared subscriptions.
//!
//! A group lives on the worker its name hashes to, its home. The home subscribes in the group's
//! place, picks a member for each message, and sends the message to that member's worker. What a
//! member did not get, because it left or its client takes only smaller packets, comes back to
//! the home and goes to another one.

use dunlin_packets::{QoS, split_shared};
use dunlin_queue::{DropReason, Entry, Identifiers, MessageRef};
use dunlin_router::{GroupId, Member, Subscription, Target};

use super::mail::{Answer, GroupDeliver, GroupJoin, GroupReturn, Mail, PublisherKey, Ticket};
use super::sessions::{SessionId, SessionKey};
use super::then::Then;
use super::{Transport, Worker};

/// A group as queue entries name it: home (of at most 64) and number, never 0.
fn pack_group(home: usize, group: GroupId) -> u32 {
    (home as u32) << 26 | group.0
}

fn unpack_group(group: u32) -> (usize, GroupId) {
    ((group >> 26) as usize, GroupId(group & GroupId::COUNT))
}

/// A delivery that needs another member. If it is on its way to the log it waits until it is there:
/// that it is over must not be written down before it.
#[derive(Debug)]
pub(super) struct Returned {
    entry: Entry,
    except: SessionKey,
    never_again: bool,
    instead_of: Option<u64>,
}

impl<T: Transport> Worker<T> {
    fn group_home(&self, name: &str) -> usize {
        self.shared.worker_of(name, self.outboxes.len())
    }

    /// A session of this worker subscribes to `$share/…`. `false` when the home has to confirm.
    pub(super) fn join_group(
        &mut self,
        session: SessionId,
        name: &str,
        subscription: Subscription,
        ticket: u64,
    ) -> bool {
        let slot = self.sessions.get_mut(session);
        if slot.memberships.insert(name.into(), subscription).is_none() {
            slot.filter_bytes += name.len();
        }
        let online = slot.conn.is_some();
        let member = self.sessions.key(self.index, session);
        let home = self.group_home(name);
        if home == self.index {
            self.join_group_here(name, Member { key: member, subscription }, online);
            return true;
        }
        let join = GroupJoin {
            name: name.into(),
            member,
            options: subscription.options,
            identifier: subscription.identifier,
            online,
            ticket,
        };
        self.mail(home, Mail::GroupJoin(Box::new(join)));
        false
    }

    pub(super) fn on_group_join(&mut self, from: usize, join: &GroupJoin) {
        let member = Member { key: join.member, subscription: join.subscription() };
        self.join_group_here(&join.name, member, join.online);
        if join.ticket != 0 {
            self.mail(from, Mail::GroupJoined { ticket: join.ticket });
        }
    }

    fn join_group_here(&mut self, name: &str, member: Member<SessionKey>, online: bool) {
        let is_new = self.groups.find(name).is_none();
        // If that has changed since, the next mail says so.
        let group = self.groups.join(name, member, online);
        let Ok(Some(shared)) = split_shared(name) else { return };
        if is_new {
            let target = Target::Group(group);
            let added =
                self.subscriptions.subscribe(shared.filter, target, Subscription::default());
            if added.is_first
                && let Some(interest) = &self.interest
            {
                interest.add(shared.filter);
            }
            self.count_sessions();
        }
    }

    /// A session of this worker unsubscribes. `false` if it was no member.
    pub(super) fn leave_group(&mut self, session: SessionId, name: &str) -> bool {
        let slot = self.sessions.get_mut(session);
        if slot.memberships.remove(name).is_none() {
            return false;
        }
        slot.filter_bytes -= name.len();
        self.leave(session, name);
        true
    }

    fn leave(&mut self, session: SessionId, name: &str) {
        let member = self.sessions.key(self.index, session);
        let home = self.group_home(name);
        if home == self.index {
            self.leave_group_here(name, member);
        } else {
            self.mail(home, Mail::GroupLeave { name: name.into(), member });
        }
    }

    pub(super) fn leave_group_here(&mut self, name: &str, member: SessionKey) {
        let Some(group) = self.groups.find(name) else { return };
        if !self.groups.leave(group, member) {
            return;
        }
        let Ok(Some(shared)) = split_shared(name) else { return };
        let Some(filter) = self.subscriptions.find(shared.filter) else { return };
        let interest = &self.interest;
        self.subscriptions.unsubscribe(filter, Target::Group(group), |gone| {
            if let Some(interest) = interest {
                interest.remove(gone);
            }
        });
        self.count_sessions();
    }

    /// The session ends: it leaves its groups, and what it did not get goes to others
    /// \[MQTT-4.8.2-5\].
    pub(super) fn leave_all_groups(&mut self, session: SessionId) {
        let slot = self.sessions.get_mut(session);
        let memberships = std::mem::take(&mut slot.memberships);
        if memberships.is_empty() {
            return;
        }
        let undelivered = slot.session.take_shared(true, &mut self.pool);
        for name in memberships.keys() {
            self.leave(session, name);
        }
        for entry in undelivered {
            self.return_to_group(session, entry, false);
        }
    }

    /// The session has gone offline: others get what it was not sent yet. Not while the broker
    /// ends: they go as well, and it is kept for this one if for anybody.
    pub(super) fn redispatch_queued(&mut self, session: SessionId) {
        if self.shutdown.is_begun() {
            // Everybody is being disconnected: the log has it for this one.
            return;
        }
        let slot = self.sessions.get_mut(session);
        if slot.memberships.is_empty() || self.shutdown.is_begun() {
            return;
        }
        for entry in slot.session.take_shared(false, &mut self.pool) {
            self.return_to_group(session, entry, false);
        }
    }

    /// Tells the homes of its groups whether a session is online.
    pub(super) fn announce_memberships(&mut self, session: SessionId, online: bool) {
        let member = self.sessions.key(self.index, session);
        let memberships = std::mem::take(&mut self.sessions.get_mut(session).memberships);
        for name in memberships.keys() {
            let home = self.group_home(name);
            if home == self.index {
                self.set_member_online_here(name, member, online);
            } else {
                let name = name.clone();
                self.mail(home, Mail::GroupOnline { name, member, online });
            }
        }
        self.sessions.get_mut(session).memberships = memberships;
    }

    pub(super) fn set_member_online_here(&mut self, name: &str, member: SessionKey, online: bool) {
        if let Some(group) = self.groups.find(name) {
            self.groups.set_online(group, member, online);
        }
    }

    /// A message for a group that lives here.
    pub(super) fn deliver_to_group(
        &mut self,
        group: GroupId,
        message: &MessageRef,
        publisher: Option<PublisherKey>,
    ) {
        if let Some(recording) = self.journal.as_mut().and_then(|j| j.recording.as_mut()) {
            recording.is_shared = true;
        }
        let content = self.pool.get(message);
        let picked = self.groups.pick(group, content.topic(), content.publisher, None);
        match picked {
            Some(member) => {
                let group = pack_group(self.index, group);
                self.hand_to_member(member, message, group, publisher);
            }
            None => self.counters.drop(DropReason::GroupGone),
        }
    }

    /// Sends a message to the member that was picked, at that member's QoS \[MQTT-4.8.2-3\].
    fn hand_to_member(
        &mut self,
        member: Member<SessionKey>,
        message: &MessageRef,
        group: u32,
        publisher: Option<PublisherKey>,
    ) {
        let options = member.subscription.options;
        let identifier = member.subscription.identifier;
        let content = self.pool.get(message);
        let qos = self.shared.settings.delivery_qos(content.qos, options.qos);
        let retain = content.retain && options.retain_as_published;
        let member = member.key;
        if usize::from(member.worker) == self.index {
            let Some(session) = self.sessions.resolve(member) else {
                return self.counters.drop(DropReason::GroupGone);
            };
            let message = self.pool.share(message);
            let identifiers = Identifiers::one(identifier);
            let entry = Entry { message, identifiers, group, qos, retain };
            return self.deliver(session, entry, publisher);
        }
        let message = self.pool.copy(message);
        let ticket = self.recording_ticket(true);
        let deliver =
            GroupDeliver { message, member, group, qos, retain, identifier, publisher, ticket };
        self.mail(usize::from(member.worker), Mail::GroupDeliver(Box::new(deliver)));
    }

    /// A session of this worker was picked by a group's home.
    pub(super) fn on_group_deliver(&mut self, deliver: &mut GroupDeliver) {
        let Some(session) = self.sessions.resolve(deliver.member) else {
            return self.return_undelivered(deliver);
        };
        let message = self.pool.adopt(&mut deliver.message);
        let identifiers = Identifiers::one(deliver.identifier);
        let GroupDeliver { group, qos, retain, publisher, ticket, .. } = *deliver;
        if ticket.is_some() {
            self.begin_recording_for(&message, ticket);
        }
        self.deliver(session, Entry { message, identifiers, group, qos, retain }, publisher);
        if ticket.is_some() {
            self.answer_recording(true);
        }
    }

    fn return_undelivered(&mut self, deliver: &mut GroupDeliver) {
        if deliver.group == 0 {
            self.answer_delegation(deliver.ticket);
            return self.counters.drop(DropReason::GroupGone);
        }
        let message = std::mem::take(&mut deliver.message);
        let (home, _) = unpack_group(deliver.group);
        let (group, except, ticket) = (deliver.group, deliver.member, deliver.ticket);
        let (never_again, instead_of) = (false, None);
        let back = GroupReturn { message, group, except, never_again, ticket, instead_of };
        self.mail(home, Mail::GroupReturn(Box::new(back)));
    }

    /// Nobody of the group will get it who outlives a crash.
    fn answer_delegation(&mut self, ticket: Option<Ticket>) {
        if let Some(Ticket { worker, number }) = ticket {
            let answer = Answer { ticket: number, is_delegated: true, ..Answer::default() };
            self.answer(usize::from(worker), answer);
        }
    }

    /// An entry that its session will not deliver.
    pub(super) fn undeliverable(&mut self, session: SessionId, entry: Entry, reason: DropReason) {
        if entry.is_from_queue() {
            return self.undeliverable_from_queue(entry, reason);
        }
        if reason == DropReason::PacketTooLarge && entry.group != 0 {
            return self.return_to_group(session, entry, true);
        }
        self.counters.drop(reason);
        tracing::debug!(
            client = self.sessions.get(session).session.client_id(),
            topic = self.pool.get(&entry.message).topic_if_here(),
            reason = reason.name(),
            "not delivered"
        );
        entry.release(&mut self.pool);
    }

    fn return_to_group(&mut self, session: SessionId, entry: Entry, never_again: bool) {
        if self.shutdown.is_begun() {
            // Everybody is being disconnected: the next member would not keep it either.
            return entry.release(&mut self.pool);
        }
        let except = self.sessions.key(self.index, session);
        let is_logged = entry.qos != QoS::AtMostOnce && self.pool.get(&entry.message).id != 0;
        let durable = self.sessions.get(session).durable.as_deref().filter(|_| is_logged);
        let instead_of = durable.map(|durable| durable.sid);
        let returned = Returned { entry, except, never_again, instead_of };
        let id = self.pool.get(&returned.entry.message).id;
        match &mut self.journal {
            Some(journal) if instead_of.is_some() && self.pool.is_held(&returned.entry.message) => {
                journal.returned.insert(id, returned);
            }
            _ => self.give_back(returned),
        }
    }

    /// Sends a delivery that needs another member to the group's home.
    pub(super) fn give_back(&mut self, returned: Returned) {
        let Returned { entry, except, never_again, instead_of } = returned;
        let (home, group) = unpack_group(entry.group);
        if home == self.index {
            self.redispatch_recorded(group, &entry.message, except, never_again, instead_of);
        } else {
            let message = self.pool.copy(&entry.message);
            let (group, ticket) = (entry.group, None);
            let back = GroupReturn { message, group, except, never_again, ticket, instead_of };
            self.mail(home, Mail::GroupReturn(Box::new(back)));
        }
        entry.release(&mut self.pool);
    }

    pub(super) fn on_group_return(&mut self, mut back: GroupReturn) {
        let message = self.pool.adopt(&mut back.message);
        let (_, group) = unpack_group(back.group);
        let GroupReturn { except, never_again, ticket, instead_of, .. } = back;
        if ticket.is_some() {
            self.begin_recording_for(&message, ticket);
            self.redispatch(group, &message, except, never_again);
            self.answer_recording(true);
        } else {
            self.redispatch_recorded(group, &message, except, never_again, instead_of);
        }
        self.pool.release(message);
    }

    /// Gives a message to another member, and writes that down if need be; if it was written down
    /// for the one that did not get it, the one takes the other's place in the log at once.
    fn redispatch_recorded(
        &mut self,
        group: GroupId,
        message: &MessageRef,
        except: SessionKey,
        never_again: bool,
        instead_of: Option<u64>,
    ) {
        if instead_of.is_none() && !self.is_kept(message) {
            return self.redispatch(group, message, except, never_again);
        }
        let id = self.pool.get(message).id;
        let replaced = instead_of.map(|sid| Then::Done { sid, id });
        // Another number, as it may come back to one that is done with this.
        let message = self.renumbered(message);
        self.begin_recording_for(&message, None);
        self.redispatch(group, &message, except, never_again);
        self.end_recording(&message, None, replaced);
        self.pool.release(message);
    }

    /// Gives a message to another member; to the same one only if there is no other and it can
    /// take it.
    fn redispatch(
        &mut self,
        group: GroupId,
        message: &MessageRef,
        except: SessionKey,
        never_again: bool,
    ) {
        let content = self.pool.get(message);
        let (topic, publisher) = (content.topic(), content.publisher);
        let mut picked = self.groups.pick(group, topic, publisher, Some(except));
        if picked.is_none() && !never_again {
            picked = self.groups.pick(group, topic, publisher, None);
        }
        let Some(member) = picked else { return self.counters.drop(DropReason::GroupGone) };
        // What was too large once is not sent around for ever.
        let group = if never_again { 0 } else { pack_group(self.index, group) };
        self.hand_to_member(member, message, group, None);
    }
}
