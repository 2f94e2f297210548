//! Groups and members come and go; whose a partition is.

use crate::Time;

use super::alarms::Place;
use super::change::push_settled;
use super::group::{Group, Lane, Owner};
use super::partition::Partition;
use super::queue::{Context, Growth, Queue};
use super::{Change, GroupId, MemberId, Mode, Refused};

/// Where a group begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message there is.
    #[default]
    Earliest,
    /// With what comes from here on.
    Latest,
    /// At this offset of each partition, or the oldest or next one there is.
    Offset(u64),
    /// With the first message that came at this time or later; where the index is not in memory,
    /// up to 255 messages earlier.
    Timestamp(Time),
}

/// How a stream's cursor moves. Work queues go by what is settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commit {
    /// With acknowledgements, over all that are acknowledged.
    #[default]
    Auto,
    /// By [`Queue::commit`] only.
    Explicit,
}

impl Start {
    pub(crate) fn find(self, partition: &Partition) -> u64 {
        match self {
            Self::Earliest => partition.start(),
            Self::Latest => partition.end(),
            Self::Offset(offset) => offset.clamp(partition.start(), partition.end()),
            Self::Timestamp(at) => partition.find_time(at),
        }
    }
}

impl Queue {
    #[inline]
    pub(crate) fn group_at(&self, id: GroupId) -> Result<usize, Refused> {
        self.groups.binary_search_by_key(&id, |group| group.id).map_err(|_| Refused::UnknownGroup)
    }

    /// Makes a group. A work queue's messages are for all groups that exist when they are settled,
    /// and none may begin behind some: that would throw them away.
    ///
    /// # Errors
    /// When there are too many groups, or a work queue's is to start later than at the earliest.
    pub fn create_group(
        &mut self,
        start: Start,
        commit: Commit,
        cx: &mut Context<'_>,
    ) -> Result<GroupId, Refused> {
        let is_work = self.config.mode == Mode::Work;
        if is_work && start != Start::Earliest {
            return Err(Refused::WrongMode);
        }
        if self.groups.len() >= self.config.limits.groups_max as usize {
            return Err(Refused::TooManyGroups);
        }
        let id = GroupId(self.next_group);
        self.next_group += 1;
        cx.changes.push(Change::GroupCreated { group: id, commit });
        let mut group = Group::new(id, commit);
        for (partition, home) in (0..).zip(&self.partitions) {
            let mut lane = Lane::new(start.find(home));
            lane.advance(home);
            if is_work {
                push_settled(cx.changes, (id, partition), 0, lane.floor);
                let floor = lane.floor;
                home.hole_ranges(|from, to| {
                    push_settled(cx.changes, (id, partition), from.max(floor), to);
                });
            } else {
                let offset = lane.floor;
                cx.changes.push(Change::Cursor { group: id, partition, offset, seeks: 0 });
            }
            group.lanes.push(lane);
        }
        self.groups.push(group);
        self.bar_lanes(self.groups.len() - 1, 0);
        self.lift_bars(cx);
        Ok(id)
    }

    /// Ends a group. What only it had not settled is gone from a work queue.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn remove_group(&mut self, id: GroupId, cx: &mut Context<'_>) -> Result<(), Refused> {
        let at = self.group_at(id)?;
        let gone = self.groups.remove(at);
        for (partition, lane) in (0..).zip(gone.lanes) {
            if let Some(mut claims) = lane.claims {
                self.alarms.unset(&mut claims.alarm_at, Place { group: id, partition });
            }
        }
        cx.changes.push(Change::GroupRemoved { group: id });
        self.remove_settled_by_all(cx);
        if self.config.mode == Mode::Work && self.groups.is_empty() {
            // Nobody says any more what is done.
            for (partition, home) in (0..).zip(&self.partitions) {
                let everybody = (GroupId::EVERYBODY, partition);
                push_settled(cx.changes, everybody, 0, home.start());
                home.hole_ranges(|from, to| push_settled(cx.changes, everybody, from, to));
            }
        }
        Ok(())
    }

    /// Looks again at what the groups there are have settled.
    pub(crate) fn remove_settled_by_all(&mut self, cx: &mut Context<'_>) {
        if self.config.mode != Mode::Work || self.groups.is_empty() {
            return;
        }
        for partition in 0..self.partitions() {
            let home = &self.partitions[usize::from(partition)];
            for offset in home.start()..home.end() {
                let at = usize::from(partition);
                if self.groups.iter().all(|group| group.lanes[at].is_settled(offset)) {
                    self.remove(partition, offset, None, cx.index);
                }
            }
        }
    }

    /// Adds a member, and gives it its share of the partitions, at once or when they are free. It
    /// may have `leases_max` messages at a time, within
    /// [`Limits::leases_per_member_max`](super::Limits::leases_per_member_max).
    ///
    /// # Errors
    /// When there is no such group, or it has too many members.
    pub fn join(
        &mut self,
        group: GroupId,
        leases_max: u32,
        cx: &mut Context<'_>,
    ) -> Result<MemberId, Refused> {
        let at = self.group_at(group)?;
        if self.groups[at].members.len() >= self.config.limits.members_max as usize {
            return Err(Refused::TooManyMembers);
        }
        let leases_max = leases_max.min(self.config.limits.leases_per_member_max);
        let member = self.groups[at].add_member(leases_max, cx.now);
        if self.config.member_timeout_ms != 0 {
            let at = cx.now.plus_millis(u64::from(self.config.member_timeout_ms));
            self.members_at = self.members_at.min(at);
        }
        self.rebalance(at, cx);
        Ok(member)
    }

    /// Ends a membership. What the member has counts as a failed attempt and is delivered again at
    /// once.
    ///
    /// # Errors
    /// When there is no such group or member.
    pub fn leave(
        &mut self,
        group: GroupId,
        member: MemberId,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.group_at(group)?;
        self.groups[at].member(member)?;
        for partition in 0..self.partitions() {
            if self.groups[at].lanes[usize::from(partition)].owner.member() == Some(member) {
                self.end_leases(at, partition, cx);
                self.groups[at].free(partition, self.config.mode);
            }
        }
        self.groups[at].members.remove(member.slot as usize);
        self.rebalance(at, cx);
        self.lift_bars(cx);
        Ok(())
    }

    /// The member is there; polls and answers say so too.
    ///
    /// # Errors
    /// When there is no such group or member.
    pub fn touch(&mut self, group: GroupId, member: MemberId, now: Time) -> Result<(), Refused> {
        let at = self.group_at(group)?;
        self.groups[at].member(member)?.seen = now;
        Ok(())
    }

    /// The member gives a partition up that it is to give up (`Action::Revoking`); what it has of
    /// it counts as for [`Self::leave`]. `generation` is that of `Action::Assigned`.
    ///
    /// # Errors
    /// When it is not to, or not any more.
    pub fn release(
        &mut self,
        group: GroupId,
        member: MemberId,
        partition: u16,
        generation: u32,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.group_at(group)?;
        self.groups[at].member(member)?.seen = cx.now;
        let lane = self.groups[at].lanes.get(usize::from(partition));
        let lane = lane.ok_or(Refused::UnknownPartition)?;
        if lane.owner != Owner::Draining(member) || lane.generation != generation {
            return Err(Refused::NotTheOwner);
        }
        self.end_leases(at, partition, cx);
        self.groups[at].free(partition, self.config.mode);
        self.rebalance(at, cx);
        self.lift_bars(cx);
        Ok(())
    }

    pub(crate) fn rebalance(&mut self, at: usize, cx: &mut Context<'_>) {
        let is_waited_for = self.groups[at].rebalance(&self.config, cx.now, cx.actions);
        let partitions = if is_waited_for { self.partitions() } else { 0 };
        for partition in 0..partitions {
            let lane = &self.groups[at].lanes[usize::from(partition)];
            let until = lane.claims.as_ref().map_or(Time::NEVER, |claims| claims.drain_until);
            self.look_at_lane_by(at, partition, until);
        }
    }

    /// All leases of a partition end: failed attempts, to be repeated at once.
    pub(crate) fn end_leases(&mut self, at: usize, partition: u16, cx: &mut Context<'_>) {
        let owner = self.groups[at].lanes[usize::from(partition)].owner;
        while let Some(claims) = &mut self.groups[at].lanes[usize::from(partition)].claims
            && let Some(lease) = claims.leases.pop()
        {
            if let Some(owner) = owner.member() {
                self.note_ended(at, owner, cx);
            }
            self.fail(at, partition, &lease, Some(0), cx);
        }
    }

    /// Gives on what its former owner has nothing of any more.
    pub(crate) fn end_drains(&mut self, cx: &mut Context<'_>) {
        for at in 0..self.groups.len() {
            let mut is_freed = false;
            for partition in 0..self.partitions() {
                if self.groups[at].is_drained(partition, self.config.mode) {
                    self.groups[at].free(partition, self.config.mode);
                    is_freed = true;
                }
            }
            if is_freed {
                self.rebalance(at, cx);
            }
        }
    }

    pub(crate) fn add_partitions(&mut self, to: u16, before: Vec<u64>) {
        self.partitions.resize_with(usize::from(to), Partition::default);
        self.growths.push(Growth { to, before });
        for at in 0..self.groups.len() {
            let from = self.groups[at].lanes.len();
            self.groups[at].lanes.resize_with(usize::from(to), || Lane::new(0));
            self.bar_lanes(at, from);
        }
    }

    /// Bars those of the group's lanes from `from` on that wait for older partitions.
    pub(crate) fn bar_lanes(&mut self, at: usize, from: usize) {
        let Some(first) = self.growths.first() else { return };
        let from = from.max(first.before.len()) as u16;
        let group = &mut self.groups[at];
        group.barred_from = group.barred_from.min(from);
    }

    /// Lets groups read new partitions if they have done with what was in the old ones.
    #[inline]
    pub(crate) fn lift_bars(&mut self, cx: &mut Context<'_>) {
        if self.growths.is_empty() {
            return;
        }
        for at in 0..self.groups.len() {
            if self.groups[at].is_barred(self.partitions() - 1) {
                self.lift_bars_of(at, cx);
            }
        }
    }

    #[cold]
    fn lift_bars_of(&mut self, at: usize, cx: &mut Context<'_>) {
        let lifted = self.groups[at].barred_from;
        for growth in self.growths.iter().filter(|growth| growth.to > lifted) {
            let is_done = (0..).zip(&growth.before).all(|(partition, &before)| {
                self.groups[at].has_done(partition, before, &self.partitions[partition], cx.now)
            });
            if !is_done {
                // A later one has these among its old partitions.
                return;
            }
            let group = &mut self.groups[at];
            let opened = group.barred_from..growth.to;
            group.barred_from = growth.to;
            opened.for_each(|partition| group.wake(partition, cx.actions));
        }
    }
}

impl Group {
    /// Whether all messages of a partition before `before` are settled, or not due.
    fn has_done(&self, partition: usize, before: u64, home: &Partition, now: Time) -> bool {
        let lane = &self.lanes[partition];
        (lane.floor..before).all(|offset| {
            lane.is_settled(offset) || home.is_hole(offset) || home.is_due_after(offset, now)
        })
    }

    /// Whether the partition is to be given on and can be.
    pub(crate) fn is_drained(&self, partition: u16, mode: Mode) -> bool {
        let lane = &self.lanes[usize::from(partition)];
        matches!(lane.owner, Owner::Draining(_)) && !lane.is_out(mode, self.commit)
    }

    pub(crate) fn timed_out(&self, now: Time, timeout_ms: u64) -> Option<MemberId> {
        let owners = self.members.iter();
        let mut gone = owners.filter(|(_, member)| member.seen.plus_millis(timeout_ms) <= now);
        gone.next().map(|(slot, member)| member.id(slot))
    }
}
