//! Messages go out to members.

use crate::Time;

use super::alarms::Place;
use super::chunk::Meta;
use super::claims::Pick;
use super::group::Owner;
use super::leases::Lease;
use super::limits::{AHEAD_MAX, CHUNK_LEN};
use super::queue::{Context, Queue};
use super::{Action, Commit, DeadReason, GroupId, MemberId, MessageId, Mode, REJECTED, Refused};

/// A message for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Which message; answers name it.
    pub id: MessageId,
    /// Where it is in the log.
    pub position: u64,
    /// Its size.
    pub bytes: u32,
    /// 1 for the first delivery to the group. A stream's are all first.
    pub attempt: u32,
    /// When the lease ends; [`Time::NEVER`] in a stream.
    pub deadline: Time,
    /// Of the ownership of its partition.
    pub generation: u32,
}

enum Step {
    /// One was taken, and delivered or settled.
    Went,
    /// Nothing more here for now.
    Stopped,
}

impl Queue {
    /// Whether a delivery is still its member's: while its message was read it may have been
    /// settled or taken back.
    #[must_use]
    pub fn is_out(&self, group: GroupId, member: MemberId, delivery: &Delivery) -> bool {
        let Delivery { id, attempt, generation, .. } = *delivery;
        let lane = self.group_at(group).ok().and_then(|at| {
            let lane = self.groups[at].lanes.get(usize::from(id.partition))?;
            let is_owned = lane.owner.member() == Some(member) && lane.generation == generation;
            (is_owned && !lane.is_settled(id.offset)).then_some(lane)
        });
        let Some(lane) = lane else { return false };
        let lease = lane.claims.as_ref().and_then(|claims| claims.leases.get(id.offset));
        self.config.mode == Mode::Stream || lease.is_some_and(|lease| lease.attempt == attempt)
    }

    /// Appends to `out` up to `credit` messages for a member, from the partitions it owns in turn.
    /// If it gave fewer, [`Action::Ready`] says when there are more.
    ///
    /// # Errors
    /// When there is no such group or member.
    #[inline]
    pub fn poll(
        &mut self,
        group: GroupId,
        member: MemberId,
        credit: usize,
        out: &mut Vec<Delivery>,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        self.poll_within(group, member, (credit, u64::MAX), out, cx)
    }

    /// [`Self::poll`] for up to `credit` messages, and none any more once they have `bytes`: the
    /// last one may be larger than what is left. If bytes ran out, nothing says when there are
    /// more.
    ///
    /// # Errors
    /// When there is no such group or member.
    #[inline]
    pub fn poll_within(
        &mut self,
        group: GroupId,
        member: MemberId,
        (credit, mut bytes): (usize, u64),
        out: &mut Vec<Delivery>,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.group_at(group)?;
        let known = self.groups[at].member(member)?;
        known.seen = cx.now;
        known.is_waiting = false;
        let owned = known.partitions.len();
        let room = known.leases_max.saturating_sub(known.leases) as usize;
        let end = out.len() + credit;
        let stop = out.len() + credit.min(room);
        for _ in 0..owned {
            if out.len() >= stop || bytes == 0 {
                break;
            }
            let known = self.groups[at].member(member)?;
            let turn = known.turn % owned;
            known.turn = turn + 1;
            let partition = known.partitions[turn];
            self.poll_partition(at, partition, (stop, &mut bytes), out, cx);
        }
        if out.len() < end && bytes > 0 {
            self.groups[at].member(member)?.is_waiting = true;
        }
        self.lift_bars(cx);
        Ok(())
    }

    #[inline]
    fn poll_partition(
        &mut self,
        at: usize,
        partition: u16,
        (stop, bytes): (usize, &mut u64),
        out: &mut Vec<Delivery>,
        cx: &mut Context<'_>,
    ) {
        let home = &self.partitions[usize::from(partition)];
        let group = &self.groups[at];
        let lane = &group.lanes[usize::from(partition)];
        // As most are, most of the time.
        if lane.claims.is_none() && lane.floor >= home.kept() {
            return;
        }
        if group.is_barred(partition) || !matches!(lane.owner, Owner::Owned(_)) {
            return;
        }
        while out.len() < stop && *bytes > 0 {
            let before = out.len();
            if matches!(self.step(at, partition, out, cx), Step::Stopped) {
                break;
            }
            let given = out.get(before).map_or(0, |delivery| delivery.bytes);
            *bytes = bytes.saturating_sub(given.into());
        }
        self.groups[at].lanes[usize::from(partition)]
            .advance(&self.partitions[usize::from(partition)]);
    }

    /// Takes one message.
    #[inline]
    fn step(
        &mut self,
        at: usize,
        partition: u16,
        out: &mut Vec<Delivery>,
        cx: &mut Context<'_>,
    ) -> Step {
        let group = &mut self.groups[at];
        let lane = &mut group.lanes[usize::from(partition)];
        let floor = lane.floor;
        let claims = lane.claims();
        let (mode, commit) = (self.config.mode, group.commit);
        let is_ahead = mode == Mode::Stream
            && commit == Commit::Auto
            && claims.next[0].saturating_sub(floor) >= AHEAD_MAX;
        if is_ahead {
            return Step::Stopped;
        }
        let home = &self.partitions[usize::from(partition)];
        match claims.pick(home, &self.config) {
            Pick::Nothing => Step::Stopped,
            Pick::Away(chunk) => {
                self.want(partition, chunk, cx);
                Step::Stopped
            }
            Pick::Message(offset, meta) => {
                if offset.is_multiple_of(CHUNK_LEN) {
                    // The one behind is on its way when it is needed.
                    self.want(partition, offset / CHUNK_LEN + 1, cx);
                }
                let id = MessageId { partition, offset };
                if meta.is_expired(cx.now) {
                    self.groups[at].counts.expired += 1;
                    self.counts.expired += 1;
                    self.pass_over(at, id, &meta, cx);
                } else {
                    self.deliver(at, id, &meta, out, cx);
                }
                Step::Went
            }
        }
    }

    #[cold]
    fn pass_over(&mut self, at: usize, id: MessageId, meta: &Meta, cx: &mut Context<'_>) {
        match self.config.mode {
            Mode::Work => self.finish(at, id, meta.key, meta.bytes, cx),
            Mode::Stream => self.read(at, id, cx),
        }
    }

    #[inline]
    fn deliver(
        &mut self,
        at: usize,
        id: MessageId,
        meta: &Meta,
        out: &mut Vec<Delivery>,
        cx: &mut Context<'_>,
    ) {
        let group = &mut self.groups[at];
        let lane = &mut group.lanes[usize::from(id.partition)];
        let (position, bytes, generation) = (meta.position, meta.bytes, lane.generation);
        let mut delivery =
            Delivery { id, position, bytes, attempt: 1, deadline: Time::NEVER, generation };
        if self.config.mode == Mode::Stream {
            out.push(delivery);
            return;
        }
        let owner = lane.owner;
        let claims = lane.claims();
        let failed = match claims.failed.is_empty() {
            true => 0,
            false => claims.failed.remove(&id.offset).unwrap_or(0),
        };
        let (failed, is_rejected) = (failed & !REJECTED, failed & REJECTED != 0);
        let attempts_max = self.config.attempts_max;
        let lease = Lease {
            offset: id.offset,
            deadline: cx.now.plus_millis(u64::from(self.config.lease_ms)),
            attempt: failed + 1,
            bytes,
            key: meta.key,
            priority: meta.priority,
        };
        if is_rejected || attempts_max != 0 && failed >= attempts_max {
            // It was as good as dead before a crash.
            let reason = if is_rejected { DeadReason::Rejected } else { DeadReason::Exhausted };
            self.die(at, id, &lease, reason, failed, cx);
            return;
        }
        claims.leases.insert(lease);
        let place = Place { group: group.id, partition: id.partition };
        self.alarms.set(&mut claims.alarm_at, lease.deadline, place);
        group.counts.redelivered += u64::from(failed > 0);
        if let Some(owner) = owner.member()
            && let Ok(member) = group.member(owner)
        {
            member.leases += 1;
        }
        delivery.attempt = lease.attempt;
        delivery.deadline = lease.deadline;
        out.push(delivery);
    }

    /// Asks for a chunk, if it is away and was not asked for.
    pub(crate) fn want(&mut self, partition: u16, chunk: u64, cx: &mut Context<'_>) {
        if let Some(waiting) = &mut self.partitions[usize::from(partition)].waiting
            && let Some(position) = waiting.index.want(chunk)
        {
            cx.actions.push(Action::Want { partition, chunk, position });
        }
    }
}
