//! What was read of a partition while its queue is made from what was written down: the messages,
//! 32 bytes each, and which are done with, one bit each. In any order, at any moment as short as
//! can be.

use std::collections::BTreeMap;

use crate::Time;

use super::chunk::Meta;
use super::limits::CHUNK_LEN;
use super::settled::{Bits, WORDS, bit};

const NO_EXPIRY: u32 = u32::MAX;
/// What a time is cut to: the year 10889.
const MILLIS_MAX: u64 = (1 << 48) - 1;
const DELAYED: u64 = 1 << 7;

/// One message.
#[derive(Clone, Copy, Debug)]
struct Row {
    position: u64,
    key_hash: u64,
    /// 48 bits of time, 8 of the offset; whether it was delayed; 7 bits of priority.
    packed: u64,
    bytes: u32,
    expiry_s: u32,
}

const _: () = assert!(size_of::<Row>() == 32);

impl Row {
    fn new(offset: u64, message: &Meta, key_hash: u64) -> Self {
        let at = message.at.as_millis().min(MILLIS_MAX);
        let delayed = if message.is_delayed { DELAYED } else { 0 };
        Self {
            position: message.position,
            key_hash,
            packed: at << 16 | (offset % CHUNK_LEN) << 8 | delayed | u64::from(message.priority),
            bytes: message.bytes,
            expiry_s: message.expiry_s.map_or(NO_EXPIRY, |seconds| seconds.min(NO_EXPIRY - 1)),
        }
    }

    fn place(&self) -> u64 {
        self.packed >> 8 & (CHUNK_LEN - 1)
    }

    fn meta(&self) -> Meta {
        Meta {
            position: self.position,
            at: Time::from_millis(self.packed >> 16),
            expiry_s: (self.expiry_s != NO_EXPIRY).then_some(self.expiry_s),
            bytes: self.bytes,
            key: self.key_hash as u32,
            priority: (self.packed & (DELAYED - 1)) as u8,
            is_delayed: self.packed & DELAYED != 0,
        }
    }
}

/// A message, with what the index does not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) offset: u64,
    pub(crate) meta: Meta,
    pub(crate) key_hash: u64,
    pub(crate) deliver_at: Option<Time>,
}

/// The messages of a partition, by offset.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// By offset: those of so many offsets together, so that a full one is as long as its buffer.
    chunks: BTreeMap<u64, Vec<Row>>,
    deliver_at: BTreeMap<u64, Time>,
}

impl Rows {
    /// Adds a message. Of one that was written again the last record is the one at the highest
    /// position.
    pub(crate) fn insert(&mut self, message: &Read) {
        let Read { offset, meta, key_hash, deliver_at } = message;
        let row = Row::new(*offset, meta, *key_hash);
        let rows = self.chunks.entry(offset / CHUNK_LEN).or_default();
        let is_last = rows.last().is_none_or(|last| last.place() < row.place());
        let known = if is_last { Err(rows.len()) } else { find(rows, row.place()) };
        match known {
            Err(at) => rows.insert(at, row),
            Ok(at) if rows[at].position <= row.position => rows[at] = row,
            Ok(_) => return,
        }
        if let Some(due) = deliver_at {
            self.deliver_at.insert(*offset, *due);
        }
    }

    /// Forgets the messages from `from` to before `to`.
    pub(crate) fn remove(&mut self, from: u64, to: u64) {
        if from >= to {
            return;
        }
        let touched = self.chunks.range_mut(from / CHUNK_LEN..=(to - 1) / CHUNK_LEN);
        let mut empty = Vec::new();
        for (&number, rows) in touched {
            rows.retain(|row| !(from..to).contains(&(number * CHUNK_LEN + row.place())));
            if rows.is_empty() {
                empty.push(number);
            }
        }
        for number in empty {
            self.chunks.remove(&number);
        }
        while let Some((&offset, _)) = self.deliver_at.range(from..to).next() {
            self.deliver_at.remove(&offset);
        }
    }

    fn read(&self, number: u64, row: &Row) -> Read {
        let offset = number * CHUNK_LEN + row.place();
        let meta = row.meta();
        let deliver_at = meta.is_delayed.then(|| self.deliver_at.get(&offset).copied()).flatten();
        Read { offset, meta, key_hash: row.key_hash, deliver_at }
    }

    /// All of them, by offset.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Read> {
        let chunks = self.chunks.iter();
        chunks.flat_map(move |(&number, rows)| rows.iter().map(move |row| self.read(number, row)))
    }

    /// All of them, by offset; what was taken is forgotten.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(Read)) {
        while let Some((number, rows)) = self.chunks.pop_first() {
            rows.iter().for_each(|row| each(self.read(number, row)));
        }
    }
}

fn find(rows: &[Row], place: u64) -> Result<usize, usize> {
    rows.binary_search_by_key(&place, Row::place)
}

/// Offsets that are done with: all before one, and some behind it. Takes a byte for four messages
/// behind it.
#[derive(Debug, Default)]
pub(crate) struct Done {
    floor: u64,
    chunks: BTreeMap<u64, Bits>,
}

impl Done {
    /// All before are.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        let (word, mask) = bit(offset);
        let chunk = || self.chunks.get(&(offset / CHUNK_LEN));
        offset < self.floor || chunk().is_some_and(|bits| bits[word] & mask != 0)
    }

    /// Adds those from `from` to before `to`.
    pub(crate) fn add(&mut self, from: u64, to: u64) {
        if from <= self.floor {
            self.floor = self.floor.max(to);
            return self.raise();
        }
        let mut offset = from;
        while offset < to {
            let number = offset / CHUNK_LEN;
            let end = to.min((number + 1) * CHUNK_LEN);
            let bits = self.chunks.entry(number).or_insert([0; WORDS]);
            if end - offset == CHUNK_LEN {
                *bits = [u64::MAX; WORDS];
            } else {
                set(bits, offset, end);
            }
            offset = end;
        }
    }

    /// Moves the floor over what is done.
    fn raise(&mut self) {
        while let Some(first) = self.chunks.first_entry() {
            let end = (first.key() + 1) * CHUNK_LEN;
            if *first.key() > self.floor / CHUNK_LEN {
                return;
            }
            while self.floor < end {
                let (word, mask) = bit(self.floor);
                if first.get()[word] & mask == 0 {
                    return;
                }
                self.floor += 1;
            }
            first.remove();
        }
    }

    /// Those behind the floor, from the lowest on.
    pub(crate) fn above(&self) -> impl Iterator<Item = u64> {
        let from = self.floor;
        let offsets = self.chunks.iter().flat_map(|(&number, bits)| {
            let first = number * CHUNK_LEN;
            (first..first + CHUNK_LEN).filter(|&offset| {
                let (word, mask) = bit(offset);
                bits[word] & mask != 0
            })
        });
        offsets.filter(move |&offset| offset >= from)
    }
}

fn set(bits: &mut Bits, from: u64, to: u64) {
    for offset in from..to {
        let (word, mask) = bit(offset);
        bits[word] |= mask;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn random(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) % below
    }

    #[test]
    fn what_is_done_is_a_set_however_it_came() {
        for seed in 0..40 {
            let (mut done, mut set, mut state) = (Done::default(), BTreeSet::new(), seed);
            for _ in 0..60 {
                let from = random(&mut state, 2000);
                let to = from + random(&mut state, if seed % 2 == 0 { 5 } else { 700 });
                done.add(from, to);
                set.extend(from..to);
                let floor = (0..).find(|offset| !set.contains(offset)).unwrap();
                assert_eq!(done.floor(), floor);
                assert!((0..3000).all(|offset| done.contains(offset) == set.contains(&offset)));
            }
            let floor = done.floor();
            assert!((0..floor).all(|offset| set.contains(&offset)));
            assert!(done.above().eq(set.range(floor..).copied()));
        }
    }

    #[test]
    fn rows_are_a_map_in_which_the_highest_position_holds() {
        for seed in 0..100 {
            let (mut rows, mut map, mut state) = (Rows::default(), BTreeMap::new(), seed);
            for _ in 0..400 {
                let offset = random(&mut state, 800);
                if random(&mut state, 20) == 0 {
                    let to = offset + random(&mut state, 600);
                    rows.remove(offset, to);
                    map.retain(|known, _| !(offset..to).contains(known));
                    continue;
                }
                let is_delayed = random(&mut state, 4) == 0;
                let meta = Meta {
                    position: (random(&mut state, 1000) << 8) | (offset % 256),
                    at: Time::from_millis(random(&mut state, 1 << 31) << 10),
                    expiry_s: offset.is_multiple_of(3).then_some(offset as u32),
                    bytes: random(&mut state, 1 << 28) as u32,
                    key: offset as u32,
                    priority: random(&mut state, 10) as u8,
                    is_delayed: offset.is_multiple_of(7) && is_delayed,
                };
                let deliver_at = meta.is_delayed.then(|| Time::from_millis(meta.position));
                let read = Read { offset, meta, key_hash: (offset << 32) | offset, deliver_at };
                rows.insert(&read);
                let known = map.entry(offset).or_insert(read);
                if known.meta.position <= meta.position {
                    *known = read;
                }
            }
            let text = |read: &Read| format!("{read:?}");
            let expected: Vec<_> = map.values().map(text).collect();
            assert_eq!(rows.iter().map(|read| text(&read)).collect::<Vec<_>>(), expected);
            let mut drained = Vec::new();
            rows.drain(|read| drained.push(text(&read)));
            assert_eq!(drained, expected);
        }
    }
}
