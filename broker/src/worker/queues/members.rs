//! Groups and members at home: they come, go, and answer.

use std::collections::VecDeque;

use dunlin_queue::Time;
use dunlin_queue::partitioned::{Commit, GroupId, MemberId, Mode, Start};
use dunlin_session::Answer as ClientAnswer;

use super::join::{QueueJoin, QueueJoined, QueueLeave, QueueLeft};
use super::{GroupSlot, Member, MemberTerms, QueueAnswer, QueueKey, Refusal};
use crate::worker::mail::Mail;
use crate::worker::{Transport, Worker};

/// Within a session's own limits: a consumer that asks for more gets so many.
const PREFETCH_MAX: u32 = 10_000;

impl<T: Transport> Worker<T> {
    /// A session begins to consume a queue, or comes back.
    pub(in crate::worker) fn on_queue_join(&mut self, from: usize, join: &QueueJoin) {
        let result = self.on_queue_join_here(join);
        let (refusal, is_recorded) = (result.err(), result == Ok(true));
        if join.ticket != 0 {
            let (ticket, at) = (join.ticket, join.at);
            let joined = QueueJoined { ticket, at, refusal, is_recorded };
            match &mut self.journal {
                // It says that this turn's frame is on its way.
                Some(journal) if is_recorded && !journal.is_frame_empty() => {
                    journal.late_joins.push((from, joined));
                }
                _ => self.mail(from, Mail::QueueJoined(joined)),
            }
        }
    }

    /// Says whether something was written down that has to be safe: the group.
    pub(super) fn on_queue_join_here(&mut self, join: &QueueJoin) -> Result<bool, Refusal> {
        let key = match self.queues.find(&join.queue) {
            Some(key) => key,
            None => self.create_asked_for(&join.queue)?,
        };
        let Some(slot) = self.queues.get(key) else {
            return Err(Refusal::bad_topic("there is no such queue"));
        };
        let mode = slot.queue.config().mode;
        if mode == Mode::Work && (join.start.is_some() || join.commit == Commit::Explicit) {
            return Err(Refusal::bad_request("stream-offset and commit are for streams"));
        }
        let mut terms = join.terms;
        terms.is_auto_settled |= mode == Mode::Stream && !join.has_settle;
        let prefetch = if join.has_prefetch { terms.prefetch } else { slot.config.prefetch };
        terms.prefetch = prefetch.clamp(1, PREFETCH_MAX);
        let existing = slot.find_group(&join.group).map(|group| group.id);
        let group = match existing {
            Some(group) if slot.group(group).is_some_and(|it| it.filter != join.filter) => {
                return Err(Refusal::bad_request("a group of this name has another filter"));
            }
            Some(group) => {
                self.seek_if_asked(key, group, join)?;
                self.note_group(key, group, join.is_temporary);
                group
            }
            None => self.create_group(key, join)?,
        };
        let known = self
            .queues
            .get(key)
            .and_then(|slot| slot.by_session.get(&(join.session, group)).copied());
        if let Some(member) = known {
            // On new terms, from here on.
            if let Some(slot) = self.queues.get_mut(key)
                && let Some(known) = slot.members.get_mut(&(group, member))
            {
                known.terms = terms;
                known.membership = join.membership;
            }
            self.queues.list(key, group, member);
            return Ok(self.is_unsafe(key));
        }
        self.add_member(key, group, join, terms)?;
        Ok(self.is_unsafe(key))
    }

    /// Whether a crash could take a group of the queue back: one that somebody else has made a
    /// moment ago, too.
    fn is_unsafe(&self, key: QueueKey) -> bool {
        let is_synced = self.journal.as_ref().is_none_or(|journal| journal.is_synced());
        !is_synced && self.is_durable_queue(key)
    }

    /// Whether the group outlives a crash is for its only session to say, each time it comes.
    fn note_group(&mut self, key: QueueKey, group: GroupId, is_temporary: bool) {
        let slot = self.queues.get_mut(key);
        let known = slot.and_then(|slot| slot.groups.iter_mut().find(|it| it.id == group));
        if let Some(known) = known
            && std::mem::replace(&mut known.is_temporary, is_temporary) != is_temporary
        {
            self.record_group(key, group);
        }
    }

    fn add_member(
        &mut self,
        key: QueueKey,
        group: GroupId,
        join: &QueueJoin,
        terms: MemberTerms,
    ) -> Result<(), Refusal> {
        let joined = self.with_queue(key, |queue, cx| queue.join(group, terms.prefetch, cx));
        let member = joined.ok_or(Refusal::bad_topic("there is no such queue"))??;
        if let Some(slot) = self.queues.get_mut(key) {
            slot.by_session.insert((join.session, group), member);
            let member_slot = Member {
                session: join.session,
                membership: join.membership,
                client_id: join.client_id.clone(),
                terms,
                unanswered: 0,
                unanswered_bytes: 0,
                waiting: VecDeque::new(),
                is_listed: false,
            };
            slot.members.insert((group, member), member_slot);
            if let Some(group) = slot.groups.iter_mut().find(|it| it.id == group) {
                group.idle_since = Time::NEVER;
            }
        }
        self.absorb(key);
        self.queues.list(key, group, member);
        Ok(())
    }

    /// A group of a stream that exists goes on where it is, unless its only consumer wants it to
    /// begin anew.
    fn seek_if_asked(
        &mut self,
        key: QueueKey,
        group: GroupId,
        join: &QueueJoin,
    ) -> Result<(), Refusal> {
        let Some(start) = join.start.filter(|_| join.is_replay) else { return Ok(()) };
        let Some(slot) = self.queues.get(key) else { return Ok(()) };
        let is_other = |member: &Member| member.session != join.session;
        if slot.members.iter().any(|(of, member)| of.0 == group && is_other(member)) {
            return Err(Refusal::bad_request("the group has other consumers: no stream-replay"));
        }
        for partition in 0..slot.queue.partitions() {
            let _ = self.with_queue(key, |queue, cx| queue.seek(group, partition, start, cx));
        }
        self.absorb(key);
        Ok(())
    }

    fn create_group(&mut self, key: QueueKey, join: &QueueJoin) -> Result<GroupId, Refusal> {
        if let Some(refusal) = self.refusal_of_log_for(key) {
            return Err(refusal);
        }
        let start = join.start.unwrap_or(Start::Earliest);
        let made = self.with_queue(key, |queue, cx| queue.create_group(start, join.commit, cx));
        let id = made.ok_or(Refusal::bad_topic("there is no such queue"))??;
        let now = self.now;
        if let Some(slot) = self.queues.get_mut(key) {
            slot.groups.push(GroupSlot {
                id,
                name: join.group.clone(),
                filter: join.filter.clone(),
                is_temporary: join.is_temporary,
                idle_since: now,
            });
        }
        self.absorb(key);
        self.record_group(key, id);
        // Who is told of the group by SUBACK has to find it after a crash.
        let _ = self.receipt(key, self.is_durable_queue(key));
        Ok(id)
    }

    /// A session of another worker consumes a queue no longer, or has gone offline.
    pub(in crate::worker) fn on_queue_leave(&mut self, from: usize, leave: &QueueLeave) {
        self.on_queue_leave_here(leave);
        // Behind all that was sent to the member.
        self.mail(from, Mail::QueueLeft(QueueLeft { membership: leave.membership }));
    }

    pub(super) fn on_queue_leave_here(&mut self, leave: &QueueLeave) {
        let Some(key) = self.queues.find(&leave.queue) else { return };
        let Some(slot) = self.queues.get(key) else { return };
        let Some(group) = slot.find_group(&leave.group).map(|group| group.id) else { return };
        if let Some(&member) = slot.by_session.get(&(leave.session, group)) {
            self.give_back_waiting(key, group, member);
            // One that has lapsed has left already.
            let _ = self.with_queue(key, |queue, cx| queue.leave(group, member, cx));
            self.forget_member(key, group, member);
            self.absorb(key);
        }
        if leave.is_final {
            self.remove_group_if_idle(key, group);
        }
    }

    /// What a member was given and is still being read is no attempt if it leaves now.
    fn give_back_waiting(&mut self, key: QueueKey, group: GroupId, member: MemberId) {
        let known = self.queues.get(key).and_then(|slot| slot.members.get(&(group, member)));
        let waiting = known.into_iter().flat_map(|known| &known.waiting);
        let waiting: Vec<_> = waiting.map(|waiting| waiting.delivery.id).collect();
        self.with_queue(key, |queue, cx| {
            for id in waiting {
                // It may have been settled, or taken back as its time was over.
                let _ = queue.give_back(group, member, id, cx);
            }
        });
    }

    /// A member is none any more.
    pub(super) fn forget_member(&mut self, key: QueueKey, group: GroupId, member: MemberId) {
        if let Some(gone) = self.take_member(key, group, member)
            && let Some(slot) = self.queues.get_mut(key)
        {
            slot.by_session.remove(&(gone.session, group));
        }
    }

    /// A member has had messages and said nothing for too long: its partitions go to others. It is
    /// one again as soon as it says something.
    pub(super) fn lapse_member(&mut self, key: QueueKey, group: GroupId, member: MemberId) {
        let Some(gone) = self.take_member(key, group, member) else { return };
        tracing::info!(client = %gone.client_id, "a consumer has answered nothing for too long");
        if let Some(slot) = self.queues.get_mut(key) {
            slot.lapsed.insert((group, member), gone);
        }
    }

    fn take_member(&mut self, key: QueueKey, group: GroupId, member: MemberId) -> Option<Member> {
        let now = self.now;
        let slot = self.queues.get_mut(key)?;
        let lapsed = || slot.lapsed.remove(&(group, member));
        let mut gone = slot.members.remove(&(group, member)).or_else(lapsed)?;
        let has_others = slot.members.keys().any(|(of, _)| *of == group);
        if let Some(group) = slot.groups.iter_mut().find(|it| it.id == group && !has_others) {
            group.idle_since = now;
        }
        for waiting in std::mem::take(&mut gone.waiting) {
            if let Some(content) = waiting.content {
                self.pool.release(content.message);
            }
        }
        Some(gone)
    }

    /// A consumer that had lapsed has said something. Says as which member it goes on.
    pub(super) fn revive_member(
        &mut self,
        key: QueueKey,
        group: GroupId,
        member: MemberId,
    ) -> Option<MemberId> {
        let mut back = self.queues.get_mut(key)?.lapsed.remove(&(group, member))?;
        let prefetch = back.terms.prefetch;
        let joined = self.with_queue(key, |queue, cx| queue.join(group, prefetch, cx));
        let member = joined.and_then(Result::ok)?;
        // What it had is others' now.
        (back.unanswered, back.unanswered_bytes, back.is_listed) = (0, 0, false);
        let slot = self.queues.get_mut(key)?;
        slot.by_session.insert((back.session, group), member);
        slot.members.insert((group, member), back);
        if let Some(group) = slot.groups.iter_mut().find(|it| it.id == group) {
            group.idle_since = Time::NEVER;
        }
        self.absorb(key);
        self.queues.list(key, group, member);
        Some(member)
    }

    /// Ends a group that has no member.
    pub(super) fn remove_group_if_idle(&mut self, key: QueueKey, group: GroupId) {
        let Some(slot) = self.queues.get_mut(key) else { return };
        if slot.members.keys().any(|(of, _)| *of == group) {
            return;
        }
        slot.groups.retain(|it| it.id != group);
        self.with_queue(key, |queue, cx| queue.remove_group(group, cx));
        self.absorb(key);
    }

    /// Removes groups that have had no member for too long, so that what they never read does not
    /// stay for ever; says when to look again.
    pub(super) fn remove_idle_groups(&mut self, key: QueueKey) {
        let now = self.now;
        let Some(slot) = self.queues.get(key) else { return };
        let idle_s = slot.config.group_idle_s;
        if idle_s == 0 {
            return;
        }
        let gone = slot.groups.iter().filter(|group| {
            group.idle_since != Time::NEVER && group.idle_since.plus_seconds(idle_s) <= now
        });
        let gone: Vec<GroupId> = gone.map(|group| group.id).collect();
        for group in gone {
            let slot = self.queues.get(key);
            let name =
                slot.and_then(|slot| Some((slot.name.clone(), slot.group(group)?.name.clone())));
            if let Some((queue, group)) = name {
                tracing::warn!(%queue, %group, "a group without consumers was removed");
            }
            self.remove_group_if_idle(key, group);
        }
    }

    /// What clients have answered.
    pub(in crate::worker) fn on_queue_answers(&mut self, answers: &[QueueAnswer]) {
        for answer in answers {
            let QueueAnswer { key, group, member, id, bytes, answer } = *answer;
            let Some(slot) = self.queues.get_mut(key) else { continue };
            let Some(known) = slot.members.get_mut(&(group, member)) else {
                if answer != ClientAnswer::Unsent {
                    let _ = self.revive_member(key, group, member);
                }
                continue;
            };
            known.unanswered = known.unanswered.saturating_sub(1);
            known.unanswered_bytes = known.unanswered_bytes.saturating_sub(bytes);
            let is_auto_settled = known.terms.is_auto_settled;
            // What is settled already, or was taken back when its time was over, is refused.
            self.with_queue(key, |queue, cx| match answer {
                ClientAnswer::Acknowledged if is_auto_settled => queue.ack(group, member, id, cx),
                ClientAnswer::Acknowledged => Ok(()),
                ClientAnswer::Refused if queue.config().mode == Mode::Stream => {
                    queue.ack(group, member, id, cx)
                }
                ClientAnswer::Refused => queue.nack(group, member, id, None, cx),
                ClientAnswer::Unsent => queue.give_back(group, member, id, cx),
            });
            self.absorb(key);
            self.queues.list(key, group, member);
        }
    }
}
