//! What happens when time passes.

use std::cmp::Reverse;

use crate::Time;

use super::alarms::Place;
use super::group::Owner;
use super::limits::CHUNK_LEN;
use super::queue::{Context, Queue};
use super::{Action, GroupId, MessageId, Mode};

impl Queue {
    /// When [`Self::on_timer`] has something to do, or earlier.
    #[inline]
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let at = self.alarms.next().min(self.members_at);
        (at != Time::NEVER).then_some(at)
    }

    /// Leases end, messages become due, members time out, old messages go. A lease is its holder's
    /// until this is called.
    pub fn on_timer(&mut self, cx: &mut Context<'_>) {
        if self.deadline().is_none_or(|at| cx.now < at) {
            return;
        }
        let due = self.take_due(cx.now);
        let (homes, lanes) = due.split_at(due.partition_point(|place| place.is_of_queue()));
        // First, so that nothing is asked for about a message that goes.
        for home in homes {
            self.drop_old(home.partition, cx);
        }
        self.time_out_members(cx);
        for home in homes {
            self.release_due(home.partition, cx);
            self.set_home_alarm(home.partition);
        }
        for &Place { group, partition } in lanes {
            if let Ok(at) = self.group_at(group) {
                self.end_overdue(at, partition, cx);
                self.retry_due(at, partition, cx);
                self.set_lane_alarm(at, partition);
            }
        }
        self.lift_bars(cx);
    }

    /// Takes the alarms that ring, in the order of places.
    fn take_due(&mut self, now: Time) -> Vec<Place> {
        let mut due = Vec::new();
        while let Some(place) = self.alarms.pop_due(now) {
            if let Some(alarm_at) = self.alarm_at(place) {
                *alarm_at = Time::NEVER;
                due.push(place);
            }
        }
        due.sort_unstable();
        due
    }

    /// The earliest alarm of what is there.
    fn alarm_at(&mut self, Place { group, partition }: Place) -> Option<&mut Time> {
        if group == GroupId::EVERYBODY {
            let home = self.partitions.get_mut(usize::from(partition))?;
            return home.waiting.as_mut().map(|waiting| &mut waiting.alarm_at);
        }
        let at = self.group_at(group).ok()?;
        let claims = self.groups[at].lanes.get_mut(usize::from(partition))?.claims.as_mut()?;
        Some(&mut claims.alarm_at)
    }

    /// Something happens in a partition at that time.
    #[inline]
    pub(crate) fn look_at_home_by(&mut self, partition: u16, at: Time) {
        if let Some(waiting) = &mut self.partitions[usize::from(partition)].waiting {
            self.alarms.set(&mut waiting.alarm_at, at, Place::of_queue(partition));
        }
    }

    /// And to a group in a partition.
    pub(crate) fn look_at_lane_by(&mut self, at: usize, partition: u16, due: Time) {
        let group = &mut self.groups[at];
        if let Some(claims) = &mut group.lanes[usize::from(partition)].claims {
            let place = Place { group: group.id, partition };
            self.alarms.set(&mut claims.alarm_at, due, place);
        }
    }

    pub(crate) fn set_home_alarm(&mut self, partition: u16) {
        let due = self.partitions[usize::from(partition)].next_due().unwrap_or(Time::NEVER);
        let old = self.too_old_at(partition).unwrap_or(Time::NEVER);
        self.look_at_home_by(partition, due.min(old));
    }

    fn set_lane_alarm(&mut self, at: usize, partition: u16) {
        let lane = &self.groups[at].lanes[usize::from(partition)];
        let due = lane.claims.as_ref().map_or(Time::NEVER, |claims| claims.deadline());
        self.look_at_lane_by(at, partition, due);
    }

    /// After a restart: groups have nothing under way.
    pub(crate) fn set_alarms(&mut self) {
        (0..self.partitions()).for_each(|partition| self.set_home_alarm(partition));
    }

    fn time_out_members(&mut self, cx: &mut Context<'_>) {
        let timeout_ms = u64::from(self.config.member_timeout_ms);
        if timeout_ms == 0 || cx.now < self.members_at {
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
        let members = self.groups.iter().flat_map(|group| group.members.iter());
        let seen = members.map(|(_, member)| member.seen).min();
        self.members_at = seen.map_or(Time::NEVER, |seen| seen.plus_millis(timeout_ms));
    }

    fn drop_old(&mut self, partition: u16, cx: &mut Context<'_>) {
        while let Some(at) = self.too_old_at(partition)
            && at <= cx.now
        {
            self.drop_front(partition, cx);
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

    fn release_due(&mut self, partition: u16, cx: &mut Context<'_>) {
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
        let is_over = until <= cx.now && matches!(owner, Owner::Draining(_));
        if is_over || self.groups[at].is_drained(partition, self.config.mode) {
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
}
