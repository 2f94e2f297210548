//! Share groups: `$share/<group>/<filter>`, one member per message.

use std::collections::HashMap;
use std::hash::Hash;

use ahash::RandomState;

use crate::subscriptions::Subscription;

/// A share group of this worker. A number is not given again before [`GroupId::COUNT`] others have
/// been, so that what is on its way for a group that has ended reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// Numbers are from 1 to this.
    pub const COUNT: u32 = (1 << 26) - 1;
}

/// How a group picks the member for the next message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// The same one as long as it is there.
    Sticky,
    /// The same one for all messages of a publisher.
    HashClient,
    /// The same one for all messages of a topic.
    HashTopic,
}

/// A member of a group. `K` says where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<K> {
    /// Which session, on which worker.
    pub key: K,
    /// What it asked for.
    pub subscription: Subscription,
}

#[derive(Debug)]
struct Group<K> {
    name: Box<str>,
    /// Those online first, `online` of them.
    members: Vec<Member<K>>,
    online: usize,
    next: usize,
    sticky: Option<K>,
}

/// All groups that have their home on this worker.
#[derive(Debug)]
pub struct ShareGroups<K> {
    groups: HashMap<GroupId, Group<K>, RandomState>,
    last_id: u32,
    by_name: HashMap<Box<str>, GroupId, RandomState>,
    strategy: Strategy,
    hasher: RandomState,
    /// State of a small generator, for [`Strategy::Random`].
    random: u64,
}

impl<K: Copy + Eq + Hash> ShareGroups<K> {
    /// No groups yet; all will pick by `strategy`.
    #[must_use]
    pub fn new(strategy: Strategy, seed: u64) -> Self {
        Self {
            groups: HashMap::default(),
            last_id: 0,
            by_name: HashMap::default(),
            strategy,
            hasher: RandomState::with_seeds(seed, 0x6772, 0x6f75, 0x7073),
            random: seed | 1,
        }
    }

    /// The group with this full name (`$share/<group>/<filter>`).
    #[must_use]
    pub fn find(&self, name: &str) -> Option<GroupId> {
        self.by_name.get(name).copied()
    }

    /// The full name of a group; empty when it has ended.
    #[must_use]
    pub fn name(&self, group: GroupId) -> &str {
        self.groups.get(&group).map_or("", |group| &group.name)
    }

    /// Adds a member, or replaces what it asked for; online or not. Makes the group if need be.
    pub fn join(&mut self, name: &str, member: Member<K>, online: bool) -> GroupId {
        let id = match self.by_name.get(name) {
            Some(&id) => id,
            None => {
                let group = Group {
                    name: name.into(),
                    members: Vec::new(),
                    online: 0,
                    next: 0,
                    sticky: None,
                };
                let id = self.next_id();
                self.groups.insert(id, group);
                self.by_name.insert(name.into(), id);
                id
            }
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.remove(member.key);
            group.insert(member, online);
        }
        id
    }

    fn next_id(&mut self) -> GroupId {
        loop {
            self.last_id = self.last_id % GroupId::COUNT + 1;
            let id = GroupId(self.last_id);
            if !self.groups.contains_key(&id) {
                return id;
            }
        }
    }

    /// Takes a member out. `true` when the group has gone with it.
    pub fn leave(&mut self, group: GroupId, key: K) -> bool {
        let Some(entry) = self.groups.get_mut(&group) else { return false };
        entry.remove(key);
        if !entry.members.is_empty() {
            return false;
        }
        if let Some(gone) = self.groups.remove(&group) {
            self.by_name.remove(&gone.name);
        }
        true
    }

    /// A member came online or went offline.
    pub fn set_online(&mut self, group: GroupId, key: K, online: bool) {
        let Some(group) = self.groups.get_mut(&group) else { return };
        if let Some(member) = group.remove(key) {
            group.insert(member, online);
        }
    }

    /// The member for the next message to `topic` by a client whose identifier hashes to
    /// `publisher`: one that is online, if any is. `None` when the group has gone or nobody is left
    /// but `except`.
    pub fn pick(
        &mut self,
        group: GroupId,
        topic: &str,
        publisher: u64,
        except: Option<K>,
    ) -> Option<Member<K>> {
        let draw = self.draw(topic, publisher);
        let group = self.groups.get_mut(&group)?;
        let online = &group.members[..group.online];
        let others_online = online.iter().any(|member| Some(member.key) != except);
        let count = if others_online { group.online } else { group.members.len() };
        let eligible = &group.members[..count];
        if eligible.iter().all(|member| Some(member.key) == except) {
            return None;
        }
        let mut at = match self.strategy {
            Strategy::RoundRobin => {
                group.next = (group.next + 1) % count;
                group.next
            }
            Strategy::Sticky => {
                eligible.iter().position(|m| Some(m.key) == group.sticky).unwrap_or(0)
            }
            _ => (draw % count as u64) as usize,
        };
        if Some(eligible[at].key) == except {
            at = (at + 1) % count;
        }
        let member = eligible[at];
        group.sticky = Some(member.key);
        Some(member)
    }

    fn draw(&mut self, topic: &str, publisher: u64) -> u64 {
        match self.strategy {
            Strategy::HashClient => publisher,
            Strategy::HashTopic => self.hasher.hash_one(topic),
            Strategy::Random => {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                self.random
            }
            Strategy::RoundRobin | Strategy::Sticky => 0,
        }
    }
}

impl<K: Copy + Eq> Group<K> {
    fn insert(&mut self, member: Member<K>, online: bool) {
        if online {
            self.members.insert(self.online, member);
            self.online += 1;
        } else {
            self.members.push(member);
        }
    }

    fn remove(&mut self, key: K) -> Option<Member<K>> {
        let at = self.members.iter().position(|member| member.key == key)?;
        if at < self.online {
            self.online -= 1;
        }
        Some(self.members.remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(strategy: Strategy, members: &[(u8, bool)]) -> (ShareGroups<u8>, GroupId) {
        let mut groups = ShareGroups::new(strategy, 1);
        let mut id = GroupId(0);
        for &(key, online) in members {
            let member = Member { key, subscription: Subscription::default() };
            id = groups.join("$share/g/t", member, online);
        }
        (groups, id)
    }

    #[test]
    fn round_robin_gives_each_online_member_its_turn() {
        let (mut groups, id) = groups(Strategy::RoundRobin, &[(1, true), (2, false), (3, true)]);
        let mut picked: Vec<_> =
            (0..4).map(|_| groups.pick(id, "t", 7, None).unwrap().key).collect();
        picked.sort_unstable();
        assert_eq!(picked, [1, 1, 3, 3]);
    }

    #[test]
    fn offline_members_are_picked_only_when_nobody_is_online() {
        let (mut groups, id) = groups(Strategy::Random, &[(1, true), (2, false)]);
        assert!((0..20).all(|_| groups.pick(id, "t", 7, None).unwrap().key == 1));
        groups.set_online(id, 1, false);
        assert!(groups.pick(id, "t", 7, None).is_some());
        groups.set_online(id, 2, true);
        assert!((0..20).all(|_| groups.pick(id, "t", 7, None).unwrap().key == 2));
    }

    #[test]
    fn sticky_stays_with_a_member_until_it_leaves() {
        let (mut groups, id) = groups(Strategy::Sticky, &[(1, true), (2, true), (3, true)]);
        let first = groups.pick(id, "t", 7, None).unwrap().key;
        assert!((0..9).all(|_| groups.pick(id, "t", 7, None).unwrap().key == first));
        groups.leave(id, first);
        assert_ne!(groups.pick(id, "t", 7, None).unwrap().key, first);
    }

    #[test]
    fn hashing_keeps_a_publisher_or_a_topic_with_one_member() {
        for strategy in [Strategy::HashClient, Strategy::HashTopic] {
            let (mut groups, id) = groups(strategy, &[(1, true), (2, true), (3, true)]);
            let picks: Vec<_> = (0..30)
                .map(|n| {
                    let name = format!("{}", n % 10);
                    (n % 10, groups.pick(id, &name, n % 10, None).unwrap().key)
                })
                .collect();
            for (name, key) in &picks {
                assert!(picks.iter().all(|(n, k)| n != name || k == key));
            }
            assert!(picks.iter().any(|(_, key)| *key != picks[0].1));
        }
    }

    #[test]
    fn a_member_that_failed_is_passed_over() {
        let (mut groups, id) = groups(Strategy::RoundRobin, &[(1, true), (2, true)]);
        assert!((0..6).all(|_| groups.pick(id, "t", 7, Some(1)).unwrap().key == 2));
        assert!(groups.leave(id, 2) || groups.pick(id, "t", 7, Some(1)).is_none());
    }

    #[test]
    fn the_group_goes_with_its_last_member() {
        let (mut groups, id) = groups(Strategy::RoundRobin, &[(1, true), (2, false)]);
        assert!(!groups.leave(id, 1));
        assert!(groups.leave(id, 2));
        assert_eq!(groups.find("$share/g/t"), None);
        let member = Member { key: 3, subscription: Subscription::default() };
        assert_ne!(groups.join("$share/other/t", member, true), id, "numbers are not reused");
        assert_eq!(groups.pick(id, "t", 7, None), None);
    }
}
