//! Groups of streams.
//!
//! * A message has one offset, for every group, for ever, and the same time.
//! * Messages of a key are in their order.
//! * A group leaves nothing out, but what a newer message of the key has replaced.
//! * What a group has committed does not come again, unless it replays.
//! * A partition is read by one reader of a group at a time.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_queue::Time;

use super::super::delivery::Delivery;
use super::super::leased_until;
use super::{key_of, sent::Publications};

/// A partition of a group.
type Lane = (&'static str, u64);

#[derive(Debug, Default)]
pub(in super::super) struct Streams {
    pub(in super::super) is_compacted: bool,
    /// Partition, offset and time of a payload, and the payload that is there.
    places: BTreeMap<String, (u64, u64, u64)>,
    payloads: BTreeMap<(u64, u64), String>,
    received: BTreeSet<(&'static str, String)>,
    /// The offset behind the last that a group has got.
    seen: BTreeMap<Lane, u64>,
    /// The offset behind what is committed and confirmed.
    committed: BTreeMap<Lane, u64>,
    /// The highest number of a key that a group got.
    last: BTreeMap<(&'static str, String), u64>,
    /// Which reader has a message, and at least until when.
    held: BTreeMap<(Lane, u64), (usize, Time)>,
    count: usize,
    /// What a group got since it has asked to begin again, and the ends of that.
    replays: BTreeMap<&'static str, (BTreeSet<String>, BTreeMap<u64, u64>)>,
}

impl Streams {
    pub(in super::super) fn receive(
        &mut self,
        reader: usize,
        group: &'static str,
        delivery: &Delivery,
        sent: &Publications,
        (now, heard): (Time, Time),
    ) -> Result<(), String> {
        sent.check(delivery, now)?;
        let payload = &delivery.payload;
        let (partition, offset) = (delivery.number("partition"), delivery.number("offset"));
        self.check_place(delivery, partition, offset)?;
        let lane = (group, partition);
        if let Some(committed) = self.committed.get(&lane).filter(|end| offset < **end) {
            return Err(format!(
                "{payload} comes again to {group}: {partition}:{offset}, committed {committed}"
            ));
        }
        let seen = self.seen.entry(lane).or_default();
        if offset > *seen && !self.is_compacted {
            return Err(format!("{group} gets {partition}:{offset}, and had all before {seen}"));
        }
        *seen = (*seen).max(offset + 1);
        if let Some((received, ends)) = self.replays.get_mut(group) {
            received.insert(payload.clone());
            let end = ends.entry(partition).or_default();
            *end = (*end).max(offset + 1);
        }
        self.hold(reader, lane, offset, (now, heard))?;
        if self.received.insert((group, payload.clone())) {
            let (key, number) = key_of(payload);
            let last = self.last.entry((group, key.to_owned())).or_default();
            if number < *last {
                return Err(format!("{payload} comes to {group} behind {last}"));
            }
            *last = number;
        }
        self.count += 1;
        Ok(())
    }

    fn hold(
        &mut self,
        reader: usize,
        lane: Lane,
        offset: u64,
        (now, heard): (Time, Time),
    ) -> Result<(), String> {
        let other = self
            .held
            .iter()
            .find(|((of, _), (other, until))| *of == lane && *other != reader && *until > now);
        if let Some(((_, at), (other, _))) = other {
            return Err(format!("reader {reader} gets {lane:?} {offset}, and {other} has {at}"));
        }
        self.held.insert((lane, offset), (reader, leased_until(now, heard)));
        Ok(())
    }

    /// A reader has answered.
    pub(in super::super) fn give_up(&mut self, group: &'static str, partition: u64, offset: u64) {
        self.held.remove(&((group, partition), offset));
    }

    /// A message was sent to a reader that was gone by then.
    pub(in super::super) fn lose(
        &mut self,
        group: &'static str,
        delivery: &Delivery,
    ) -> Result<(), String> {
        let (partition, offset) = (delivery.number("partition"), delivery.number("offset"));
        self.check_place(delivery, partition, offset)?;
        let seen = self.seen.entry((group, partition)).or_default();
        *seen = (*seen).max(offset + 1);
        Ok(())
    }

    fn check_place(
        &mut self,
        delivery: &Delivery,
        partition: u64,
        offset: u64,
    ) -> Result<(), String> {
        let payload = &delivery.payload;
        let place = (partition, offset, delivery.number("x-stream-timestamp"));
        let known = self.places.entry(payload.clone()).or_insert(place);
        if *known != place {
            return Err(format!("{payload} is at {place:?}, and was at {known:?}"));
        }
        let there = self.payloads.entry((partition, offset)).or_insert_with(|| payload.clone());
        if there != payload {
            return Err(format!("{payload} is at {place:?}, where {there} is"));
        }
        // The next ones of its key in both directions.
        let (key, number) = key_of(payload);
        for (other, &(of, at, _)) in &self.places {
            let (other_key, other_number) = key_of(other);
            let is_same = other_key == key && of == partition && other_number != number;
            if is_same && (other_number < number) != (at < offset) {
                return Err(format!("{payload} is at {partition}:{offset}, and {other} at {at}"));
            }
        }
        Ok(())
    }

    /// A group has committed what is before an offset, and that is safe.
    pub(in super::super) fn commit(&mut self, group: &'static str, partition: u64, end: u64) {
        let lane = (group, partition);
        let known = self.committed.entry(lane).or_default();
        *known = (*known).max(end);
        // Whoever has one of those has nothing of it any more.
        self.held.retain(|(of, offset), _| *of != lane || *offset >= end);
    }

    /// A group begins again, or may do so.
    pub(in super::super) fn replay(&mut self, group: &'static str) {
        self.committed.retain(|(of, _), _| *of != group);
        self.replays.insert(group, Default::default());
    }

    /// A group has begun again, and that is confirmed: it has to get everything again.
    pub(in super::super) fn replayed(&mut self, group: &'static str) {
        self.received.retain(|(of, _)| *of != group);
        self.seen.retain(|(of, _), _| *of != group);
        self.last.retain(|(of, _), _| *of != group);
        // Some of it may have come already [MQTT-3.8.4].
        let (received, ends) = self.replays.remove(group).unwrap_or_default();
        for payload in received {
            let (key, number) = key_of(&payload);
            let last = self.last.entry((group, key.to_owned())).or_default();
            *last = (*last).max(number);
            self.received.insert((group, payload));
        }
        self.seen.extend(ends.into_iter().map(|(partition, end)| ((group, partition), end)));
    }

    /// Nobody has anything.
    pub(super) fn restarted(&mut self) {
        self.held.clear();
    }

    pub(super) fn has(&self, group: &'static str, payload: &str) -> bool {
        self.received.contains(&(group, payload.to_owned()))
    }

    /// Whether a group has got neither a message nor a newer one of its key.
    pub(super) fn is_missing_behind(&self, group: &'static str, payload: &str) -> bool {
        let (key, number) = key_of(payload);
        !self.received.iter().any(|(of, it)| {
            let (of_key, of_number) = key_of(it);
            *of == group && of_key == key && of_number >= number
        })
    }

    pub(super) fn received(&self) -> usize {
        self.count
    }
}
