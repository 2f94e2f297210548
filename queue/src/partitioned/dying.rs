//! Dead letters: on their way, buried, put back.

use std::cmp::Reverse;

use super::change::push_settled;
use super::claims::{Claims, Dying};
use super::group::Lane;
use super::leases::Lease;
use super::queue::{Context, Queue};
use super::{Action, Change, DeadReason, GroupId, MessageId, Refused};

impl Queue {
    /// The dead letter is written, in the same frame: the group has done with the message.
    ///
    /// # Errors
    /// When the message is not on its way there, as it was dropped meanwhile.
    pub fn bury(
        &mut self,
        group: GroupId,
        id: MessageId,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.group_at(group)?;
        let Some(dying) = self.claims_of(at, id)?.dying.remove(&id.offset) else {
            return Err(Refused::NotDying);
        };
        let Dying { reason, attempts, bytes, key } = dying;
        cx.changes.push(Change::Dead { group, id, reason, attempts });
        self.groups[at].counts.dead += 1;
        self.finish(at, id, key, bytes, cx);
        self.settle_up(at, id.partition, cx);
        Ok(())
    }

    /// The dead letter could not be written: [`Action::DeadLetter`] comes again after the longest
    /// backoff, at least a second. The message stays where it is and is not delivered.
    ///
    /// # Errors
    /// When the message is not on its way there.
    pub fn bury_failed(
        &mut self,
        group: GroupId,
        id: MessageId,
        cx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let at = self.group_at(group)?;
        let due = cx.now.plus_millis(u64::from(self.config.backoff_max_ms).max(1000));
        let claims = self.claims_of(at, id)?;
        if !claims.dying.contains_key(&id.offset) {
            return Err(Refused::NotDying);
        }
        claims.later.push(Reverse((due, id.offset, 0)));
        self.look_at_lane_by(at, id.partition, due);
        Ok(())
    }

    /// The message is gone, for all groups and whoever has it: a dead letter that was put back. Not
    /// where one key is served at a time, as what waits behind it would not be woken.
    ///
    /// # Errors
    /// When there is no such message, or keys are served one at a time.
    pub fn discard(&mut self, id: MessageId, cx: &mut Context<'_>) -> Result<(), Refused> {
        let MessageId { partition, offset } = id;
        if self.config.is_serial {
            return Err(Refused::WrongMode);
        }
        if !self.is_needed(id) {
            return Err(Refused::NotLeased);
        }
        self.remove(partition, offset, None, cx.index);
        push_settled(cx.changes, (GroupId::EVERYBODY, partition), offset, offset + 1);
        for at in 0..self.groups.len() {
            let lane = &mut self.groups[at].lanes[usize::from(partition)];
            let owner = lane.owner.member();
            let ended = lane.claims.as_mut().map_or(0, |claims| claims.forget(offset, offset + 1));
            lane.advance(&self.partitions[usize::from(partition)]);
            if ended > 0
                && let Some(owner) = owner
            {
                self.note_ended(at, owner, cx);
            }
            self.settle_up(at, partition, cx);
        }
        Ok(())
    }

    fn claims_of(&mut self, at: usize, id: MessageId) -> Result<&mut Claims, Refused> {
        let lane = self.groups[at].lanes.get_mut(usize::from(id.partition));
        lane.map(Lane::claims).ok_or(Refused::UnknownPartition)
    }

    /// A message is a dead letter: it waits until it is where those are.
    pub(crate) fn die(
        &mut self,
        at: usize,
        id: MessageId,
        lease: &Lease,
        reason: DeadReason,
        attempts: u32,
        cx: &mut Context<'_>,
    ) {
        let group = &mut self.groups[at];
        if !self.config.has_dead_letters {
            group.counts.dead += 1;
            let group = group.id;
            cx.changes.push(Change::Dead { group, id, reason, attempts });
            self.finish(at, id, lease.key, lease.bytes, cx);
            return;
        }
        let (bytes, key) = (lease.bytes, lease.key);
        let claims = group.lanes[usize::from(id.partition)].claims();
        claims.dying.insert(id.offset, Dying { reason, attempts, bytes, key });
        let group = group.id;
        cx.actions.push(Action::DeadLetter { group, id, reason, attempts });
    }
}
