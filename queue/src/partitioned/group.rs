//! A group: its members, and whose each partition is.
//!
//! ```text
//!          assign                  too many                   nothing out, or time over
//! Free ─────────────▶ Owned(m) ───────────────▶ Draining(m) ─────────────────────────▶ Free
//!                        ▲ ◀───── m has too few ────┘
//! ```
//!
//! A partition has one owner by construction, and goes to another only through `Free`, when the one
//! before has nothing of it out any more. Which members get how many is worked out anew whenever a
//! member comes or goes or a partition becomes free; nothing depends on the way there.

use std::collections::BTreeMap;

use slab::Slab;

use crate::Time;

use super::claims::Claims;
use super::limits::{DRAIN_LEASES_MAX, PRIORITIES};
use super::partition::Partition;
use super::{Action, Commit, Config, GroupId, MemberId, Mode, Refused};

/// Whose a partition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Free,
    Owned(MemberId),
    Draining(MemberId),
}

impl Owner {
    pub(crate) fn member(self) -> Option<MemberId> {
        match self {
            Self::Free => None,
            Self::Owned(member) | Self::Draining(member) => Some(member),
        }
    }
}

/// One partition, to a group: 32 bytes if nothing waits there.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) owner: Owner,
    /// Raised whenever it gets an owner.
    pub(crate) generation: u32,
    /// Everything before is settled.
    pub(crate) floor: u64,
    pub(crate) claims: Option<Box<Claims>>,
}

impl Lane {
    pub(crate) fn new(floor: u64) -> Self {
        Self { owner: Owner::Free, generation: 0, floor, claims: None }
    }

    #[inline]
    pub(crate) fn claims(&mut self) -> &mut Claims {
        let floor = self.floor;
        self.claims.get_or_insert_with(|| Box::new(Claims::new(floor)))
    }

    #[inline]
    pub(crate) fn is_settled(&self, offset: u64) -> bool {
        offset < self.floor || self.claims.as_ref().is_some_and(|it| it.settled.get(offset))
    }

    /// Moves the floor over what is settled or gone. Says whether it moved.
    #[inline]
    pub(crate) fn advance(&mut self, partition: &Partition) -> bool {
        let before = self.floor;
        match &mut self.claims {
            Some(claims) => {
                while self.floor < partition.end()
                    && (claims.settled.get(self.floor) || partition.is_hole(self.floor))
                {
                    claims.settled.pass(self.floor);
                    self.floor += 1;
                }
            }
            None => {
                self.floor = self.floor.max(partition.start());
                while self.floor < partition.end() && partition.is_hole(self.floor) {
                    self.floor += 1;
                }
            }
        }
        self.floor > before
    }

    /// Whether the owner has something of it that is not settled.
    pub(crate) fn is_out(&self, mode: Mode, commit: Commit) -> bool {
        let Some(claims) = &self.claims else { return false };
        match (mode, commit) {
            (Mode::Work, _) => claims.leases.len() > 0,
            (Mode::Stream, Commit::Auto | Commit::Explicit) => claims.next[0] > self.floor,
        }
    }

    /// Messages that the group has not done with; those that compaction took, and that it has not
    /// come to, are counted.
    pub(crate) fn lag(&self, partition: &Partition) -> u64 {
        let settled = self.claims.as_ref().map_or(0, |claims| claims.settled.count());
        (partition.end() - self.floor).saturating_sub(settled)
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    generation: u32,
    pub(crate) seen: Time,
    /// Those it owns, also those that are draining.
    pub(crate) partitions: Vec<u16>,
    /// Where in `partitions` the next poll begins.
    pub(crate) turn: usize,
    pub(crate) leases: u32,
    /// Leases it may have.
    pub(crate) leases_max: u32,
    /// Its last poll gave less than it might have.
    pub(crate) is_waiting: bool,
}

impl Member {
    pub(crate) fn id(&self, slot: usize) -> MemberId {
        MemberId { slot: slot as u32, generation: self.generation }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupCounts {
    pub(crate) redelivered: u64,
    pub(crate) dead: u64,
    pub(crate) expired: u64,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) commit: Commit,
    pub(crate) members: Slab<Member>,
    pub(crate) lanes: Vec<Lane>,
    joins: u32,
    /// Lanes from here on are barred: they are new, and older ones have messages that must be
    /// settled first.
    pub(crate) barred_from: u16,
    /// How often the cursor of a partition was set by hand, where it was.
    pub(crate) seeks: BTreeMap<u16, u32>,
    pub(crate) counts: GroupCounts,
}

impl Group {
    pub(crate) fn new(id: GroupId, commit: Commit) -> Self {
        Self {
            id,
            commit,
            members: Slab::new(),
            lanes: Vec::new(),
            joins: 0,
            barred_from: u16::MAX,
            seeks: BTreeMap::new(),
            counts: GroupCounts::default(),
        }
    }

    #[inline]
    pub(crate) fn is_barred(&self, partition: u16) -> bool {
        partition >= self.barred_from
    }

    pub(crate) fn seeks(&self, partition: u16) -> u32 {
        self.seeks.get(&partition).copied().unwrap_or(0)
    }

    /// The cursor of a partition is set by hand. Says how often it was, with this time.
    pub(crate) fn count_seek(&mut self, partition: u16) -> u32 {
        let seeks = self.seeks.entry(partition).or_default();
        *seeks += 1;
        *seeks
    }

    #[inline]
    pub(crate) fn member(&mut self, id: MemberId) -> Result<&mut Member, Refused> {
        match self.members.get_mut(id.slot as usize) {
            Some(member) if member.generation == id.generation => Ok(member),
            _ => Err(Refused::UnknownMember),
        }
    }

    pub(crate) fn leases_of(&self, id: MemberId) -> Option<u32> {
        let member = self.members.get(id.slot as usize)?;
        (member.generation == id.generation).then_some(member.leases)
    }

    pub(crate) fn add_member(&mut self, leases_max: u32, now: Time) -> MemberId {
        self.joins += 1;
        let member = Member {
            generation: self.joins,
            seen: now,
            partitions: Vec::new(),
            turn: 0,
            leases: 0,
            leases_max,
            is_waiting: false,
        };
        MemberId { slot: self.members.insert(member) as u32, generation: self.joins }
    }

    /// The lane becomes free: a stream's cursor goes back to what is done.
    pub(crate) fn free(&mut self, partition: u16, mode: Mode) {
        let lane = &mut self.lanes[usize::from(partition)];
        if let Some(member) = lane.owner.member()
            && let Some(member) = self.members.get_mut(member.slot as usize)
        {
            member.partitions.retain(|&other| other != partition);
        }
        lane.owner = Owner::Free;
        if let Some(claims) = &mut lane.claims {
            claims.drain_until = Time::NEVER;
            if mode == Mode::Stream {
                claims.next = [lane.floor; PRIORITIES];
            }
        }
    }

    /// Makes a waiting owner of the partition ask.
    #[inline]
    pub(crate) fn wake(&mut self, partition: u16, actions: &mut Vec<Action>) {
        if let Owner::Owned(id) = self.lanes[usize::from(partition)].owner
            && let Some(member) = self.members.get_mut(id.slot as usize)
            && std::mem::take(&mut member.is_waiting)
        {
            actions.push(Action::Ready { group: self.id, member: id });
        }
    }

    /// Gives each member its share: within one of all others, and as much as can be of what it has.
    /// Says whether there is a partition that has to be waited for now.
    pub(crate) fn rebalance(
        &mut self,
        config: &Config,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> bool {
        if self.members.is_empty() {
            return false;
        }
        // Who has more keeps more; among equals who came first.
        let mut shares: Vec<Share> = self.shares();
        shares.sort_by_key(|share| (usize::MAX - share.owned, share.id.generation));
        let (each, extra) = (self.lanes.len() / shares.len(), self.lanes.len() % shares.len());
        for (at, share) in shares.iter_mut().enumerate() {
            share.quota = each + usize::from(at < extra);
        }
        let mut is_waited_for = false;
        for share in &mut shares {
            while share.owned > share.quota {
                is_waited_for |= self.take_one(share.id, config, now, actions);
                share.owned -= 1;
            }
            self.give_back(share, actions);
        }
        for partition in 0..self.lanes.len() {
            if self.lanes[partition].owner != Owner::Free {
                continue;
            }
            let poorest = shares
                .iter_mut()
                .filter(|share| share.owned < share.quota)
                .min_by_key(|share| (share.owned, share.id.generation));
            if let Some(share) = poorest {
                share.owned += 1;
                self.assign(partition as u16, share.id, actions);
            }
        }
        is_waited_for
    }

    fn shares(&self) -> Vec<Share> {
        let owned =
            |id: MemberId| self.lanes.iter().filter(|lane| lane.owner == Owner::Owned(id)).count();
        let members = self.members.iter().map(|(slot, member)| member.id(slot));
        members.map(|id| Share { id, owned: owned(id), quota: 0 }).collect()
    }

    /// Takes a partition from a member, one with nothing out if it has such a one. Says whether it
    /// has to be waited for.
    fn take_one(
        &mut self,
        id: MemberId,
        config: &Config,
        now: Time,
        actions: &mut Vec<Action>,
    ) -> bool {
        let (mode, commit) = (config.mode, self.commit);
        let owned = (0..self.lanes.len()).filter(|&at| self.lanes[at].owner == Owner::Owned(id));
        let Some(at) = owned.max_by_key(|&at| (!self.lanes[at].is_out(mode, commit), at)) else {
            return false;
        };
        let lane = &mut self.lanes[at];
        actions.push(Action::Revoking { group: self.id, member: id, partition: at as u16 });
        if !lane.is_out(mode, commit) {
            self.free(at as u16, mode);
            return false;
        }
        let leases = if mode == Mode::Work { DRAIN_LEASES_MAX } else { 1 };
        lane.owner = Owner::Draining(id);
        lane.claims().drain_until = now.plus_millis(u64::from(config.lease_ms) * leases);
        true
    }

    /// A member with too few keeps what it was to give up.
    fn give_back(&mut self, share: &mut Share, actions: &mut Vec<Action>) {
        for at in 0..self.lanes.len() {
            let lane = &mut self.lanes[at];
            if share.owned == share.quota || lane.owner != Owner::Draining(share.id) {
                continue;
            }
            lane.owner = Owner::Owned(share.id);
            lane.claims().drain_until = Time::NEVER;
            share.owned += 1;
            let (group, member, partition) = (self.id, share.id, at as u16);
            let generation = lane.generation;
            actions.push(Action::Assigned { group, member, partition, generation });
            self.wake(partition, actions);
        }
    }

    fn assign(&mut self, partition: u16, id: MemberId, actions: &mut Vec<Action>) {
        let lane = &mut self.lanes[usize::from(partition)];
        lane.owner = Owner::Owned(id);
        lane.generation += 1;
        let (group, member, generation) = (self.id, id, lane.generation);
        actions.push(Action::Assigned { group, member, partition, generation });
        if let Some(member) = self.members.get_mut(id.slot as usize) {
            member.partitions.push(partition);
        }
        self.wake(partition, actions);
    }
}

struct Share {
    id: MemberId,
    owned: usize,
    quota: usize,
}
