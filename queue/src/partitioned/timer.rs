//! What happens when time passes.

use std::cmp::Reverse;

use crate::Time;

use super::group::Owner;
use super::limits::CHUNK_LEN;
use super::queue::{Context, Queue};
use super::{Action, MessageId, Mode};

impl Queue {
    /// When [`Self::on_timer`] has something to do, or earlier.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        (self.wake_at != Time::NEVER).then_some(self.wake_at)
    }

    /// Leases end, messages become due, members time out, old messages go. A lease is its holder's
    /// until this is called.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        if cx.now < self.wake_at {
            return;
        }
        // First, so that nothing is asked for about a message that goes.
        self.drop_old(cx);
        self.time_out_members(cx);
        self.release_due(cx);
        for at in 0..self.groups.len() {
            for partition in 0..self.partitions() {
                self.end_overdue(at, partition, cx);
                self.retry_due(at, partition, cx);
            }
        }
        self.end_drains(cx);
        self.lift_bars(cx);
        self.wake_at = self.next_deadline();
    }

    fn time_out_members(&mut self, cx: &mut Context<'_>) {
        let timeout_ms = u64::from(self.config.member_timeout_ms);
        if timeout_ms == 0 {
            return;
        }
        for at in 0..self.groups.len() {
            while let Some(member) = self.groups[at].timed_out(cx.now, timeout_ms) {
                let group = self.groups[at].id;
                cx.actions.push(Action::TimedOut { group, member });
                let left = self.leave(group, member, cx);
                debug_assert_eq!(left, Ok(()));
            }
        }
    }

    fn drop_old(&mut self, cx: &mut Context<'_>) {
        for partition in 0..self.partitions() {
            while let Some(at) = self.too_old_at(partition)
                && at <= cx.now
            {
                self.drop_front(partition, cx);
            }
        }
    }

    /// When the partition's oldest message, or chunk, has to go.
    fn too_old_at(&self, partition: u16) -> Option<Time> {
        let age_ms_max = self.config.retention.age_ms_max;
        let home = &self.partitions[usize::from(partition)];
        if age_ms_max == 0 || home.live() == 0 {
            return None;
        }
        let number = home.start() / CHUNK_LEN;
        let index = &home.waiting.as_ref()?.index;
        let is_whole = self.config.mode == Mode::Stream || index.chunk(number)?.is_away();
        let came = match is_whole {
            // All in a chunk are older than the first in the next one.
            true => index.chunk(number + 1)?.first(),
            false => home.oldest()?,
        };
        Some(came.plus_millis(age_ms_max))
    }

    fn release_due(&mut self, cx: &mut Context<'_>) {
        for partition in 0..self.partitions() {
            let at = usize::from(partition);
            while let Some((offset, priority)) = self.partitions[at].pop_due(cx.now) {
                self.delayed -= 1;
                for group in &mut self.groups {
                    if let Some(claims) = &mut group.lanes[at].claims {
                        claims.on_due(offset, priority);
                    }
                    group.wake(partition, cx.actions);
                }
            }
        }
    }

    fn end_overdue(&mut self, at: usize, partition: u16, cx: &mut Context<'_>) {
        let until = match &self.groups[at].lanes[usize::from(partition)].claims {
            Some(claims) => claims.drain_until,
            None => return,
        };
        let owner = self.groups[at].lanes[usize::from(partition)].owner;
        while let Some(claims) = &mut self.groups[at].lanes[usize::from(partition)].claims
            && let Some(lease) = claims.leases.pop_ended(cx.now)
        {
            if let Some(owner) = owner.member() {
                self.note_ended(at, owner, cx);
            }
            self.fail(at, partition, &lease, None, cx);
        }
        if until <= cx.now && matches!(owner, Owner::Draining(_)) {
            self.end_leases(at, partition, cx);
            self.groups[at].free(partition, self.config.mode);
            self.rebalance(at, cx);
        }
    }

    fn retry_due(&mut self, at: usize, partition: u16, cx: &mut Context<'_>) {
        let group = &mut self.groups[at];
        let id = group.id;
        let Some(claims) = &mut group.lanes[usize::from(partition)].claims else { return };
        let mut is_any = false;
        while let Some(&Reverse((due, offset, priority))) = claims.later.peek()
            && due <= cx.now
        {
            claims.later.pop();
            if let Some(dying) = claims.dying.get(&offset) {
                let (reason, attempts) = (dying.reason, dying.attempts);
                let message = MessageId { partition, offset };
                cx.actions.push(Action::DeadLetter { group: id, id: message, reason, attempts });
            } else {
                claims.ready[usize::from(priority)].push(Reverse(offset));
                is_any = true;
            }
        }
        if is_any {
            group.wake(partition, cx.actions);
        }
    }

    pub(crate) fn next_deadline(&self) -> Time {
        let mut next = Time::NEVER;
        let mut by = |at: Option<Time>| next = next.min(at.unwrap_or(Time::NEVER));
        for (partition, home) in (0..).zip(&self.partitions) {
            by(home.next_due());
            by(self.too_old_at(partition));
        }
        let timeout_ms = u64::from(self.config.member_timeout_ms);
        for group in &self.groups {
            for lane in &group.lanes {
                if let Some(claims) = &lane.claims {
                    by(claims.leases.deadline());
                    by(claims.later.peek().map(|&Reverse((due, _, _))| due));
                    by(Some(claims.drain_until));
                }
            }
            if timeout_ms != 0 {
                let seen = group.members.iter().map(|(_, member)| member.seen);
                by(seen.min().map(|seen| seen.plus_millis(timeout_ms)));
            }
        }
        next
    }
}
