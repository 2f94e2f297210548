//! 256 messages of a partition, 24 bytes each, and the buffers for them.

use crate::Time;

use super::limits::{CHUNK_LEN, SPARE_CHUNKS_MAX};
use super::settled::{Bits, WORDS, bit};

/// Never.
const NO_EXPIRY: u32 = (1 << 31) - 1;
const DELAYED: u32 = 1 << 31;
pub(crate) const ENTRY_BYTES: usize = 24;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    /// Bytes in the lower 28 bits, priority above.
    pub(crate) size: u32,
    pub(crate) key: u32,
    /// Since the chunk's first message, in units of the chunk.
    pub(crate) since: u32,
    /// Seconds in the lower 31 bits, whether it was delayed above.
    pub(crate) expiry: u32,
}

const _: () = assert!(size_of::<Entry>() == ENTRY_BYTES);

/// One message, as the index knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meta {
    pub(crate) position: u64,
    pub(crate) at: Time,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) bytes: u32,
    pub(crate) key: u32,
    pub(crate) priority: u8,
    pub(crate) is_delayed: bool,
}

impl Meta {
    pub(crate) fn is_expired(&self, now: Time) -> bool {
        self.expiry_s.is_some_and(|seconds| self.at.plus_seconds(seconds) <= now)
    }
}

/// Where the entries of a chunk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Here,
    Storing,
    Away,
    Wanted,
}

#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) entries: Vec<Entry>,
    /// Which are gone, for everybody.
    pub(crate) holes: Bits,
    first_ms: u64,
    /// Where it is stored; 0 for nowhere, or not as it is now.
    pub(crate) stored: u64,
    pub(crate) bytes: u64,
    pub(crate) len: u16,
    pub(crate) live: u16,
    /// Which priorities are or were in it.
    priorities: u16,
    /// Times in it are in units of `1 << shift` ms.
    shift: u8,
    pub(crate) place: Place,
}

impl Chunk {
    pub(crate) fn new(entries: Vec<Entry>, first: Time) -> Self {
        Self {
            entries,
            holes: [0; WORDS],
            first_ms: first.as_millis(),
            stored: 0,
            bytes: 0,
            len: 0,
            live: 0,
            priorities: 0,
            shift: 0,
            place: Place::Here,
        }
    }

    /// When its first message came.
    pub(crate) fn first(&self) -> Time {
        Time::from_millis(self.first_ms)
    }

    pub(crate) fn is_full(&self) -> bool {
        u64::from(self.len) == CHUNK_LEN
    }

    pub(crate) fn is_away(&self) -> bool {
        self.live > 0 && matches!(self.place, Place::Away | Place::Wanted)
    }

    #[inline]
    pub(crate) fn is_hole(&self, offset: u64) -> bool {
        let (word, mask) = bit(offset);
        self.holes[word] & mask != 0
    }

    /// Whether there is a message at `offset`, one of the chunk's: behind its last one is none, and
    /// no hole either.
    #[inline]
    pub(crate) fn has(&self, offset: u64) -> bool {
        offset % CHUNK_LEN < u64::from(self.len) && !self.is_hole(offset)
    }

    /// Whether a message with one of these priorities may be left in it.
    #[inline]
    pub(crate) fn may_have(&self, priorities: u16) -> bool {
        self.live > 0 && self.priorities & priorities != 0
    }

    pub(crate) fn pad_to(&mut self, len: u64, keeps_entries: bool) {
        for offset in u64::from(self.len)..len {
            let (word, mask) = bit(offset);
            self.holes[word] |= mask;
            if keeps_entries {
                self.entries.push(Entry::default());
            }
        }
        self.len = self.len.max(len as u16);
    }

    pub(crate) fn push(&mut self, new: &Meta) {
        let since = new.at.as_millis().saturating_sub(self.first_ms);
        while since >> self.shift > u64::from(u32::MAX) {
            // More than 49 days in one chunk: coarser from here on.
            self.shift += 1;
            self.entries.iter_mut().for_each(|entry| entry.since >>= 1);
        }
        self.entries.push(Entry {
            position: new.position,
            size: new.bytes | u32::from(new.priority) << 28,
            key: new.key,
            since: (since >> self.shift) as u32,
            expiry: new.expiry_s.map_or(NO_EXPIRY, |seconds| seconds.min(NO_EXPIRY - 1))
                | if new.is_delayed { DELAYED } else { 0 },
        });
        self.len += 1;
        self.live += 1;
        self.bytes += u64::from(new.bytes);
        self.priorities |= 1 << new.priority;
    }

    #[inline]
    pub(crate) fn meta(&self, offset: u64) -> Meta {
        let entry = &self.entries[(offset % CHUNK_LEN) as usize];
        let seconds = entry.expiry & !DELAYED;
        Meta {
            position: entry.position,
            at: Time::from_millis(self.first_ms + (u64::from(entry.since) << self.shift)),
            expiry_s: (seconds != NO_EXPIRY).then_some(seconds),
            bytes: entry.size & 0x0fff_ffff,
            key: entry.key,
            priority: (entry.size >> 28) as u8,
            is_delayed: entry.expiry & DELAYED != 0,
        }
    }

    pub(crate) fn give_up_entries(&mut self, pool: &mut IndexPool) {
        if self.is_full() && !self.entries.is_empty() {
            pool.resident -= 1;
        }
        pool.give(std::mem::take(&mut self.entries));
    }
}

/// Buffers for the chunks of all queues of a worker, and how many of them may be in memory.
#[derive(Debug)]
pub struct IndexPool {
    spares: Vec<Vec<Entry>>,
    /// Full chunks whose entries are in memory.
    pub(crate) resident: usize,
    resident_max: usize,
}

impl IndexPool {
    /// Full chunks take `bytes_max` together before the queues that grow store theirs. It may be
    /// exceeded by the chunk a group is in and the one behind, per group and partition.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let resident_max = bytes_max / (CHUNK_LEN as usize * ENTRY_BYTES);
        Self { spares: Vec::new(), resident: 0, resident_max }
    }

    /// Bytes of full chunks in memory.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        self.resident * CHUNK_LEN as usize * ENTRY_BYTES
    }

    /// Bytes that full chunks may take.
    #[must_use]
    pub fn resident_bytes_max(&self) -> usize {
        self.resident_max * CHUNK_LEN as usize * ENTRY_BYTES
    }

    /// Chunks that should not be in memory.
    pub(crate) fn excess(&self) -> usize {
        self.resident.saturating_sub(self.resident_max)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.resident > self.resident_max
    }

    pub(crate) fn take(&mut self) -> Vec<Entry> {
        self.spares.pop().unwrap_or_default()
    }

    pub(crate) fn give(&mut self, mut entries: Vec<Entry>) {
        let is_whole = entries.capacity() as u64 == CHUNK_LEN;
        if is_whole && self.spares.len() < SPARE_CHUNKS_MAX {
            entries.clear();
            self.spares.push(entries);
        }
    }
}
