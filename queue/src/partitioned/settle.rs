//! The answers to deliveries: settled, to be tried again, dead.

use super::change::push_settled;
use super::group::Owner;
use super::leases::Lease;
use super::limits::{DELAY_MS_MAX, PRIORITIES};
use super::queue::{Context, Queue};
use super::settled::Settled;
use super::{
    Action, Change, Commit, DeadReason, GroupId, MemberId, MessageId, Mode, REJECTED, Refused,
    Start,
};

impl Queue {
    /// The message is done, for this group. A stream's cursor moves over all that is, or by hand.
    ///
    /// # Errors
    /// When the member does not have the message.
    #[inline]
    pub fn ack(
        &mut self,
        group: GroupId,
        member: MemberId,
        id: MessageId,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.holder(group, member, id, cx)?;
        match self.config.mode {
            Mode::Work => {
                let lease = self.end_lease(at, id, cx).ok_or(Refused::NotLeased)?;
                self.finish(at, id, lease.key, lease.bytes, cx);
            }
            Mode::Stream => self.read(at, id, cx),
        }
        self.settle_up(at, id.partition, cx);
        Ok(())
    }

    /// The message could not be handled: it comes again after `delay_ms`, or the backoff of the
    /// queue; after the last attempt it is a dead letter.
    ///
    /// # Errors
    /// When the member does not have the message, or the delay is more than [`DELAY_MS_MAX`], and
    /// always for a stream.
    pub fn nack(
        &mut self,
        group: GroupId,
        member: MemberId,
        id: MessageId,
        delay_ms: Option<u64>,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.holder(group, member, id, cx)?;
        self.must_be(Mode::Work)?;
        if delay_ms.is_some_and(|delay_ms| delay_ms > DELAY_MS_MAX) {
            return Err(Refused::DelayTooLong);
        }
        let lease = self.end_lease(at, id, cx).ok_or(Refused::NotLeased)?;
        self.fail(at, id.partition, &lease, delay_ms, cx);
        self.settle_up(at, id.partition, cx);
        Ok(())
    }

    /// The member was never sent the message: it goes out again at once, and that was no attempt.
    /// In a stream the cursor has not moved, so the next owner of the partition begins with it.
    ///
    /// # Errors
    /// When the member does not have the message.
    pub fn give_back(
        &mut self,
        group: GroupId,
        member: MemberId,
        id: MessageId,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.holder(group, member, id, cx)?;
        if self.config.mode == Mode::Work {
            let lease = self.end_lease(at, id, cx).ok_or(Refused::NotLeased)?;
            let claims = self.groups[at].lanes[usize::from(id.partition)].claims();
            if lease.attempt > 1 {
                claims.failed.insert(id.offset, lease.attempt - 1);
            }
            claims.retry(id.offset, lease.priority, cx.now, cx.now);
            self.groups[at].wake(id.partition, cx.actions);
        }
        self.settle_up(at, id.partition, cx);
        Ok(())
    }

    /// The message can never be handled: it is a dead letter. In a stream it is passed over.
    ///
    /// # Errors
    /// When the member does not have the message.
    pub fn reject(
        &mut self,
        group: GroupId,
        member: MemberId,
        id: MessageId,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.holder(group, member, id, cx)?;
        match self.config.mode {
            Mode::Work => {
                let lease = self.end_lease(at, id, cx).ok_or(Refused::NotLeased)?;
                let attempts = lease.attempt;
                // Should a crash come before it is buried, it is as dead.
                cx.changes.push(Change::Attempts { group, id, attempts: attempts | REJECTED });
                self.die(at, id, &lease, DeadReason::Rejected, attempts, cx);
            }
            Mode::Stream => self.read(at, id, cx),
        }
        self.settle_up(at, id.partition, cx);
        Ok(())
    }

    /// The member needs more time: the lease begins anew. Not for ever if the partition is to go.
    ///
    /// # Errors
    /// When the member does not have the message, and always for a stream.
    pub fn extend(
        &mut self,
        group: GroupId,
        member: MemberId,
        id: MessageId,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.holder(group, member, id, cx)?;
        self.must_be(Mode::Work)?;
        let lease_ms = u64::from(self.config.lease_ms);
        let claims = self.groups[at].lanes[usize::from(id.partition)].claims();
        let mut lease = claims.leases.remove(id.offset).ok_or(Refused::NotLeased)?;
        lease.deadline = cx.now.plus_millis(lease_ms).min(claims.drain_until);
        claims.leases.insert(lease);
        self.look_at_lane_by(at, id.partition, lease.deadline);
        Ok(())
    }

    /// A stream's cursor of a partition goes to `offset`: everything before is done.
    ///
    /// # Errors
    /// Not the member's partition, a cursor that is there already, a gap; always for a work queue.
    pub fn commit(
        &mut self,
        group: GroupId,
        member: MemberId,
        to: MessageId,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.group_at(group)?;
        self.must_be(Mode::Stream)?;
        self.groups[at].member(member)?.seen = cx.now;
        let lane = self.groups[at].lanes.get_mut(usize::from(to.partition));
        let lane = lane.ok_or(Refused::UnknownPartition)?;
        if lane.owner.member() != Some(member) {
            return Err(Refused::NotTheOwner);
        }
        lane.advance(&self.partitions[usize::from(to.partition)]);
        if to.offset <= lane.floor {
            return Err(Refused::Backwards);
        }
        if lane.claims.as_ref().is_none_or(|claims| claims.next[0] < to.offset) {
            return Err(Refused::NotDelivered);
        }
        for offset in lane.floor..to.offset {
            lane.claims().settled.pass(offset);
        }
        lane.floor = to.offset;
        self.move_cursor(at, to.partition, cx);
        self.settle_up(at, to.partition, cx);
        Ok(())
    }

    /// A stream's cursor goes where `start` says, also back: what is behind is delivered again.
    ///
    /// # Errors
    /// When there is no such group or partition; always for a work queue.
    pub fn seek(
        &mut self,
        group: GroupId,
        partition: u16,
        start: Start,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.group_at(group)?;
        self.must_be(Mode::Stream)?;
        let home = self.partitions.get(usize::from(partition)).ok_or(Refused::UnknownPartition)?;
        let seeks = self.groups[at].count_seek(partition);
        let lane = &mut self.groups[at].lanes[usize::from(partition)];
        lane.floor = start.find(home);
        if let Some(claims) = &mut lane.claims {
            claims.next = [lane.floor; PRIORITIES];
            claims.settled = Settled::new(lane.floor);
        }
        let offset = lane.floor;
        cx.changes.push(Change::Cursor { group, partition, offset, seeks });
        self.groups[at].wake(partition, cx.actions);
        self.settle_up(at, partition, cx);
        Ok(())
    }

    fn must_be(&self, mode: Mode) -> Result<(), Refused> {
        if self.config.mode == mode { Ok(()) } else { Err(Refused::WrongMode) }
    }

    /// Where the group is, if the member has the message.
    #[inline]
    fn holder(
        &mut self,
        group: GroupId,
        member: MemberId,
        id: MessageId,
        cx: &Context<'_>,
    ) -> Result<usize, Refused> {
        let at = self.group_at(group)?;
        self.groups[at].member(member)?.seen = cx.now;
        let lane = self.groups[at].lanes.get(usize::from(id.partition));
        let lane = lane.ok_or(Refused::UnknownPartition)?;
        let is_out = !lane.is_settled(id.offset)
            && lane.claims.as_ref().is_some_and(|claims| match self.config.mode {
                Mode::Work => claims.leases.contains(id.offset),
                Mode::Stream => id.offset < claims.next[0],
            });
        match lane.owner {
            Owner::Owned(owner) | Owner::Draining(owner) if owner == member && is_out => Ok(at),
            Owner::Owned(owner) | Owner::Draining(owner) if owner != member && is_out => {
                Err(Refused::LeasedToAnother)
            }
            _ => Err(Refused::NotLeased),
        }
    }

    #[inline]
    fn end_lease(&mut self, at: usize, id: MessageId, cx: &mut Context<'_>) -> Option<Lease> {
        let lane = &mut self.groups[at].lanes[usize::from(id.partition)];
        let owner = lane.owner.member();
        let lease = lane.claims.as_mut()?.leases.remove(id.offset)?;
        if let Some(owner) = owner {
            self.note_ended(at, owner, cx);
        }
        Some(lease)
    }

    /// A lease of the member's has ended: if it had as many as it may, it can have another.
    #[inline]
    pub(crate) fn note_ended(&mut self, at: usize, id: MemberId, cx: &mut Context<'_>) {
        let group = self.groups[at].id;
        if let Ok(member) = self.groups[at].member(id) {
            if member.leases >= member.leases_max && std::mem::take(&mut member.is_waiting) {
                cx.actions.push(Action::Ready { group, member: id });
            }
            member.leases -= 1;
        }
    }

    /// A group has done with a message of a work queue.
    #[inline]
    pub(crate) fn finish(
        &mut self,
        at: usize,
        id: MessageId,
        key: u32,
        bytes: u32,
        cx: &mut Context<'_>,
    ) {
        let partition = usize::from(id.partition);
        let group = &mut self.groups[at];
        let group_id = group.id;
        let lane = &mut group.lanes[partition];
        let claims = lane.claims();
        claims.settled.mark(id.offset);
        if !claims.failed.is_empty() {
            claims.failed.remove(&id.offset);
        }
        push_settled(cx.changes, (group_id, id.partition), id.offset, id.offset + 1);
        if self.config.is_serial {
            claims.release_key(key, id.offset);
            group.wake(id.partition, cx.actions);
        }
        if self.groups.iter().all(|group| group.lanes[partition].is_settled(id.offset)) {
            self.remove(id.partition, id.offset, Some(bytes), cx.index);
        }
        self.groups[at].lanes[partition].advance(&self.partitions[partition]);
    }

    /// A stream's group has read a message.
    #[inline]
    pub(crate) fn read(&mut self, at: usize, id: MessageId, cx: &mut Context<'_>) {
        let group = &mut self.groups[at];
        if group.commit == Commit::Explicit {
            return;
        }
        let lane = &mut group.lanes[usize::from(id.partition)];
        lane.claims().settled.mark(id.offset);
        if lane.advance(&self.partitions[usize::from(id.partition)]) {
            self.move_cursor(at, id.partition, cx);
        }
    }

    /// Writes the cursor down, in place of what was said of it last.
    fn move_cursor(&mut self, at: usize, partition: u16, cx: &mut Context<'_>) {
        let group = &self.groups[at];
        let (offset, seeks) = (group.lanes[usize::from(partition)].floor, group.seeks(partition));
        let group = group.id;
        let new = Change::Cursor { group, partition, offset, seeks };
        for change in cx.changes.iter_mut().rev().take(8) {
            if let Change::Cursor { group: in_group, partition: in_partition, seeks: of, .. } =
                change
                && (*in_group, *in_partition, *of) == (group, partition, seeks)
            {
                *change = new;
                return;
            }
        }
        cx.changes.push(new);
    }

    /// An attempt has failed.
    pub(crate) fn fail(
        &mut self,
        at: usize,
        partition: u16,
        lease: &Lease,
        delay_ms: Option<u64>,
        cx: &mut Context<'_>,
    ) {
        let id = MessageId { partition, offset: lease.offset };
        let attempts = lease.attempt;
        let group = self.groups[at].id;
        cx.changes.push(Change::Attempts { group, id, attempts });
        if self.config.attempts_max != 0 && attempts >= self.config.attempts_max {
            self.die(at, id, lease, DeadReason::Exhausted, attempts, cx);
            return;
        }
        let delay_ms = delay_ms.unwrap_or_else(|| self.config.backoff_ms(attempts));
        let due = cx.now.plus_millis(delay_ms);
        let claims = self.groups[at].lanes[usize::from(partition)].claims();
        claims.failed.insert(lease.offset, attempts);
        claims.retry(lease.offset, lease.priority, due, cx.now);
        if due > cx.now {
            self.look_at_lane_by(at, partition, due);
        } else {
            self.groups[at].wake(partition, cx.actions);
        }
    }

    /// What may follow when a message has gone from its member.
    #[inline]
    pub(crate) fn settle_up(&mut self, at: usize, partition: u16, cx: &mut Context<'_>) {
        if self.groups[at].is_drained(partition, self.config.mode) {
            self.end_drains(cx);
        }
        self.lift_bars(cx);
    }
}
