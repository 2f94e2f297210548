//! Queues, groups and members at home: they come, go, and answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use dunlin_packets::ReasonCode;
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Commit, Config, GroupId, MemberId, Mode, Queue, Start};
use dunlin_router::{QueueId, Subscription, Target};
use dunlin_session::Answer as ClientAnswer;

use super::consume::{QueueJoin, QueueJoined, QueueLeave, is_dead};
use super::{GroupSlot, Member, MemberTerms, QueueAnswer, QueueKey, QueueSlot, Queues, Refusal};
use crate::queues::{QueueConfig, QueueName};
use crate::store::record::Record;
use crate::worker::mail::Mail;
use crate::worker::settings::Level;
use crate::worker::{Transport, Worker};

/// What the core goes by.
pub(super) fn core_config(config: &QueueConfig) -> Config {
    Config { member_timeout_ms: config.member_timeout_ms(), ..config.core }
}

/// Within a session's own limits: a consumer that asks for more gets so many.
const PREFETCH_MAX: u32 = 10_000;

impl<T: Transport> Worker<T> {
    /// A queue that somebody named and that is not there.
    pub(super) fn create_asked_for(&mut self, name: &str) -> Result<QueueKey, Refusal> {
        if !self.shared.settings.queues.auto_create && !is_dead(name) {
            return Err(Refusal::bad_topic("there is no such queue"));
        }
        // Those of dead letters are not counted: there is one for each other at most.
        if !is_dead(name) && self.queues.count >= self.shared.settings.queues.max {
            return Err(Refusal::new(ReasonCode::QuotaExceeded, "as many queues as there may be"));
        }
        if self.log_refusal().is_some() {
            return Err(Refusal::new(ReasonCode::QuotaExceeded, "the storage takes no more"));
        }
        let config = self.queue_config(name);
        Ok(self.create_queue(name, &config))
    }

    /// The configuration of a queue: its own, that of its origin for dead letters, or the usual.
    pub(super) fn queue_config(&self, name: &str) -> Arc<QueueConfig> {
        let Ok(QueueName { name, is_dead }) = QueueName::parse(name) else {
            return Arc::clone(&self.queues.defaults);
        };
        let declared = &self.shared.settings.queues.declared;
        let own = declared.iter().find(|(declared, _)| declared == name);
        match own {
            None if !is_dead => Arc::clone(&self.queues.defaults),
            None => Arc::new(self.queues.defaults.dead_letter_config()),
            Some((_, config)) if is_dead => Arc::new(config.dead_letter_config()),
            Some((_, config)) => Arc::new(config.clone()),
        }
    }

    /// Makes a queue.
    pub(super) fn create_queue(&mut self, name: &str, config: &Arc<QueueConfig>) -> QueueKey {
        let queue = Queue::new(core_config(config)).unwrap_or_else(|bad| {
            unreachable!("the configuration was checked at the start: {bad:?}");
        });
        let qid = match &self.journal {
            Some(journal) => journal.port.session_number(),
            None => {
                self.queues.last_qid += 1;
                self.queues.last_qid
            }
        };
        let key = self.insert_queue(qid, name, config, queue);
        tracing::info!(queue = name, "a queue was made");
        self.record_queue(key);
        key
    }

    /// Takes a queue in.
    pub(super) fn insert_queue(
        &mut self,
        qid: u64,
        name: &str,
        config: &Arc<QueueConfig>,
        queue: Queue,
    ) -> QueueKey {
        let topic = if is_dead(name) { name.to_owned() } else { format!("$queue/{name}") };
        let durability = &self.shared.settings.durability;
        let level = config.level.unwrap_or_else(|| durability.level(&topic));
        let entry = self.queues.slots.vacant_entry();
        let key = QueueKey { slot: entry.key() as u32, qid };
        let captures = config.capture.clone();
        entry.insert(QueueSlot {
            key,
            name: name.into(),
            config: Arc::clone(config),
            level,
            queue,
            groups: Vec::new(),
            members: BTreeMap::new(),
            lapsed: BTreeMap::new(),
            by_session: BTreeMap::new(),
            contents: Vec::new(),
            timer_at: Time::NEVER,
            counted_bytes: 0,
            counted_drops: 0,
            state_at: 0,
            idle_looks: 0,
            said: 0,
        });
        self.queues.count += usize::from(!is_dead(name));
        self.queues.by_name.insert(name.into(), key.slot);
        self.queues.by_qid.insert(qid, key.slot);
        let is_counted = config.is_capture_acknowledged && level != Level::Memory;
        for filter in &captures {
            let target = Target::Queue(QueueId(key.slot));
            let added = self.subscriptions.subscribe(filter, target, Subscription::default());
            if added.is_first
                && let Some(interest) = &self.interest
            {
                interest.add(filter);
            }
            if let Some(journal) = self.journal.as_ref().filter(|_| is_counted) {
                // As a session would: publications are written down for it.
                journal.port.add_durable_session();
            }
        }
        key
    }

    /// A session begins to consume a queue, or comes back.
    pub(in crate::worker) fn on_queue_join(&mut self, from: usize, join: &QueueJoin) {
        let refusal = self.on_queue_join_here(join).err();
        if join.ticket != 0 {
            let (ticket, at) = (join.ticket, join.at);
            self.mail(from, Mail::QueueJoined(QueueJoined { ticket, at, refusal }));
        }
    }

    pub(super) fn on_queue_join_here(&mut self, join: &QueueJoin) -> Result<(), Refusal> {
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
            }
            self.queues.list(key, group, member);
            return Ok(());
        }
        self.add_member(key, group, join, terms)
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

    /// The only consumer of a stream may say anew where it begins.
    fn seek_if_asked(
        &mut self,
        key: QueueKey,
        group: GroupId,
        join: &QueueJoin,
    ) -> Result<(), Refusal> {
        let Some(start) = join.start else { return Ok(()) };
        let Some(slot) = self.queues.get(key) else { return Ok(()) };
        if slot.members.keys().any(|(of, _)| *of == group) {
            return Err(Refusal::bad_request(
                "the group has consumers: stream-offset is for the first",
            ));
        }
        for partition in 0..slot.queue.partitions() {
            self.with_queue(key, |queue, cx| queue.seek(group, partition, start, cx));
        }
        self.absorb(key);
        Ok(())
    }

    fn create_group(&mut self, key: QueueKey, join: &QueueJoin) -> Result<GroupId, Refusal> {
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
        Ok(id)
    }

    /// A session consumes a queue no longer, or has gone offline.
    pub(in crate::worker) fn on_queue_leave(&mut self, leave: &QueueLeave) {
        let Some(key) = self.queues.find(&leave.queue) else { return };
        let Some(slot) = self.queues.get(key) else { return };
        let Some(group) = slot.find_group(&leave.group).map(|group| group.id) else { return };
        if let Some(&member) = slot.by_session.get(&(leave.session, group)) {
            // One that has lapsed has left already.
            let _ = self.with_queue(key, |queue, cx| queue.leave(group, member, cx));
            self.forget_member(key, group, member);
            self.absorb(key);
        }
        if leave.is_final {
            self.remove_group_if_idle(key, group);
        }
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
            known.unanswered_bytes = known.unanswered_bytes.saturating_sub(bytes as usize);
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

    /// Makes the queues of the configuration that are not there yet, and more partitions where it
    /// says more.
    pub(super) fn open_queues(&mut self) {
        self.queues.is_open = true;
        let shared = Arc::clone(&self.shared);
        for (name, config) in &shared.settings.queues.declared {
            if self.queue_home(QueueName { name, is_dead: false }) != self.index {
                continue;
            }
            match self.queues.find(name) {
                None => {
                    self.create_queue(name, &Arc::new(config.clone()));
                }
                Some(key) => self.grow_queue(key, config),
            }
        }
    }

    fn grow_queue(&mut self, key: QueueKey, config: &QueueConfig) {
        let Some(slot) = self.queues.get(key) else { return };
        let (now, wanted) = (slot.queue.partitions(), config.core.partitions);
        let name = &slot.name;
        if slot.queue.config().mode != config.core.mode {
            tracing::error!(queue = %name, "its mode stays as it was: messages are in it");
        }
        if wanted < now {
            tracing::warn!(queue = %name, partitions = now, "partitions cannot become fewer");
        }
        if wanted > now {
            tracing::info!(queue = %name, from = now, to = wanted, "more partitions");
            self.with_queue(key, |queue, cx| queue.grow(wanted, cx));
            self.absorb(key);
        }
    }

    /// Ends a queue that was made because somebody named it, and that nobody uses.
    pub(super) fn remove_queue(&mut self, key: QueueKey) {
        let is_durable = self.is_durable_queue(key);
        let Queues { slots, by_name, by_qid, log_bytes, count, .. } = &mut self.queues;
        let Some(slot) = slots.try_remove(key.slot as usize) else { return };
        *count -= usize::from(!is_dead(&slot.name));
        by_name.remove(&slot.name);
        by_qid.remove(&key.qid);
        *log_bytes = log_bytes.saturating_sub(slot.counted_bytes);
        if let Some(journal) = self.journal.as_mut().filter(|_| is_durable) {
            journal.write(&Record::QueueEnd { qid: key.qid });
        }
        for filter in &slot.config.capture {
            let Some(id) = self.subscriptions.find(filter) else { continue };
            let interest = &self.interest;
            self.subscriptions.unsubscribe(id, Target::Queue(QueueId(key.slot)), |gone| {
                if let Some(interest) = interest {
                    interest.remove(gone);
                }
            });
            if slot.config.is_capture_acknowledged
                && slot.level != Level::Memory
                && let Some(journal) = &self.journal
            {
                journal.port.remove_durable_session();
            }
        }
        tracing::info!(queue = %slot.name, "a queue that nobody used was removed");
        if slot.said != 0 {
            self.publish_text(&format!("queues/{}", slot.name), "");
        }
    }
}
