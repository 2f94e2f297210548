//! What is in memory of the messages of one partition: 24 bytes each, in chunks of 256.
//!
//! ```text
//! filling ── full ──▶ here ── Store ──▶ storing ── stored ──▶ away ── Want ──▶ wanted
//!                      ▲ ◀── moved ────────┘                                      │
//!                      └────────────────────────── load ──────────────────────────┘
//! ```
//!
//! Of a chunk that is away there are some 90 bytes: how many messages of how many bytes are still
//! in it, which those are, their priorities, where it is. One with nothing left in it gives its
//! entries up as well.

use std::collections::VecDeque;

use super::chunk::{Chunk, ENTRY_BYTES, Entry, IndexPool, Meta, Place};
use super::limits::CHUNK_LEN;
use super::settled::bit;

/// What the index has at an offset.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    /// No message, or none any more.
    Nothing,
    /// A message in a chunk that is away.
    Away,
    /// A message.
    Here(Meta),
}

/// The messages of a partition from the chunk of its first one on.
#[derive(Debug, Default)]
pub(crate) struct Index {
    first: u64,
    chunks: VecDeque<Chunk>,
    /// Chunks that were given back and not consumed since.
    loaded: Vec<u64>,
    /// Chunks with messages that are stored as they are.
    pub(crate) stored: usize,
}

impl Index {
    #[inline]
    pub(crate) fn chunk(&self, number: u64) -> Option<&Chunk> {
        self.chunks.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    #[inline]
    fn chunk_mut(&mut self, number: u64) -> Option<&mut Chunk> {
        self.chunks.get_mut(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = (u64, &Chunk)> {
        (self.first..).zip(&self.chunks)
    }

    /// Appends at `offset`, which is behind all there are; what is between are holes.
    #[inline]
    pub(crate) fn push(&mut self, offset: u64, new: &Meta, pool: &mut IndexPool) {
        let number = offset / CHUNK_LEN;
        if self.chunks.is_empty() {
            self.first = number;
            // Small, unless a whole buffer is left over: most queues never fill one.
            self.chunks.push_back(Chunk::new(pool.take(), new.at));
        }
        while self.first + self.chunks.len() as u64 <= number {
            if let Some(last) = self.chunks.back_mut()
                && !last.is_full()
            {
                let is_alive = last.live > 0;
                if !is_alive {
                    last.give_up_entries(pool);
                }
                last.pad_to(CHUNK_LEN, is_alive);
                pool.resident += usize::from(is_alive);
            }
            let is_gap = self.first + (self.chunks.len() as u64) < number;
            let entries = if is_gap { Vec::new() } else { pool.take() };
            self.chunks.push_back(Chunk::new(entries, new.at));
        }
        let Some(chunk) = self.chunks.back_mut() else { return };
        chunk.pad_to(offset % CHUNK_LEN, true);
        chunk.push(new);
        pool.resident += usize::from(chunk.is_full());
    }

    #[inline]
    pub(crate) fn look(&self, offset: u64) -> Look {
        match self.chunk(offset / CHUNK_LEN) {
            Some(chunk) if offset % CHUNK_LEN >= u64::from(chunk.len) => Look::Nothing,
            Some(chunk) if chunk.is_hole(offset) => Look::Nothing,
            Some(chunk) if chunk.is_away() => Look::Away,
            Some(chunk) => Look::Here(chunk.meta(offset)),
            None => Look::Nothing,
        }
    }

    /// Whether there is no message, or none any more.
    #[inline]
    pub(crate) fn is_hole(&self, offset: u64) -> bool {
        self.chunk(offset / CHUNK_LEN).is_none_or(|chunk| !chunk.has(offset))
    }

    /// Says where a message is. One in a chunk that is away keeps its old place.
    pub(crate) fn set_position(&mut self, offset: u64, position: u64) {
        let Some(chunk) = self.chunk_mut(offset / CHUNK_LEN) else { return };
        if chunk.is_away() || chunk.live == 0 {
            return;
        }
        if let Some(entry) = chunk.entries.get_mut((offset % CHUNK_LEN) as usize) {
            entry.position = position;
            let was_stored = std::mem::take(&mut chunk.stored) != 0;
            chunk.place = Place::Here;
            self.stored -= usize::from(was_stored);
        }
    }

    /// The message is gone for everybody. Without `bytes` those of its entry, or of the average
    /// one in a chunk that is away. Says how many it had.
    #[inline]
    pub(crate) fn remove(&mut self, offset: u64, bytes: Option<u32>, pool: &mut IndexPool) -> u64 {
        let Some(chunk) = self.chunk_mut(offset / CHUNK_LEN) else { return 0 };
        if chunk.is_hole(offset) || chunk.live == 0 {
            return 0;
        }
        let bytes = match bytes {
            Some(bytes) => u64::from(bytes),
            None if chunk.is_away() => chunk.bytes / u64::from(chunk.live),
            None => u64::from(chunk.meta(offset).bytes),
        };
        let (word, mask) = bit(offset);
        chunk.holes[word] |= mask;
        chunk.live -= 1;
        let freed = if chunk.live == 0 { chunk.bytes } else { bytes.min(chunk.bytes) };
        chunk.bytes -= freed;
        let is_over = chunk.live == 0 && std::mem::take(&mut chunk.stored) != 0;
        if chunk.live == 0 && chunk.is_full() {
            chunk.give_up_entries(pool);
        }
        self.stored -= usize::from(is_over);
        freed
    }

    /// The first offset at or after `from` that is no hole, or `end`; chunks before it go.
    #[inline]
    pub(crate) fn advance(&mut self, from: u64, end: u64, pool: &mut IndexPool) -> u64 {
        let mut start = from;
        while start < end {
            match self.chunk(start / CHUNK_LEN) {
                Some(chunk) if chunk.live == 0 && chunk.is_full() => {
                    start = (start / CHUNK_LEN + 1) * CHUNK_LEN;
                }
                Some(chunk) if chunk.has(start) => break,
                // Also what was settled behind the last message there was at a start.
                _ => start += 1,
            }
        }
        let start = start.min(end);
        while self.first < start / CHUNK_LEN
            && let Some(mut chunk) = self.chunks.pop_front()
        {
            self.first += 1;
            chunk.give_up_entries(pool);
        }
        start
    }

    /// Whether memory is short, so that a full chunk should go.
    #[inline]
    pub(crate) fn should_store(&self, number: u64, pool: &IndexPool) -> bool {
        pool.is_over()
            && self.chunk(number).is_some_and(|chunk| {
                chunk.is_full() && chunk.live > 0 && chunk.place == Place::Here
            })
    }

    pub(crate) fn begin_storing(&mut self, number: u64) {
        if let Some(chunk) = self.chunk_mut(number) {
            chunk.place = Place::Storing;
        }
    }

    pub(crate) fn encode(&self, number: u64, out: &mut Vec<u8>) -> bool {
        let Some(chunk) = self.chunk(number) else { return false };
        if chunk.place != Place::Storing || chunk.entries.is_empty() {
            return false;
        }
        for entry in &chunk.entries {
            out.extend_from_slice(&entry.position.to_le_bytes());
            for field in [entry.size, entry.key, entry.since, entry.expiry] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        true
    }

    pub(crate) fn stored(&mut self, number: u64, position: u64, pool: &mut IndexPool) -> bool {
        let Some(chunk) = self.chunk_mut(number) else { return false };
        if chunk.place != Place::Storing || chunk.live == 0 {
            return false;
        }
        let is_first = chunk.stored == 0;
        chunk.stored = position;
        chunk.place = Place::Away;
        chunk.give_up_entries(pool);
        self.stored += usize::from(is_first);
        true
    }

    /// Where the chunk is to be read from, if it is away and has not been asked for.
    pub(crate) fn want(&mut self, number: u64) -> Option<u64> {
        let chunk = self.chunk_mut(number)?;
        if chunk.place != Place::Away || chunk.live == 0 {
            return None;
        }
        chunk.place = Place::Wanted;
        Some(chunk.stored)
    }

    /// Takes the entries back.
    pub(crate) fn load(&mut self, number: u64, stored: &[u8], pool: &mut IndexPool) -> bool {
        let whole = CHUNK_LEN as usize * ENTRY_BYTES;
        let Some(chunk) = self.chunk_mut(number) else { return false };
        if !chunk.is_away() || stored.len() != whole {
            return false;
        }
        let mut entries = pool.take();
        let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        entries.extend(stored.chunks_exact(ENTRY_BYTES).map(|entry| Entry {
            position: u64::from(word(entry)) | u64::from(word(&entry[4..])) << 32,
            size: word(&entry[8..]),
            key: word(&entry[12..]),
            since: word(&entry[16..]),
            expiry: word(&entry[20..]),
        }));
        chunk.entries = entries;
        chunk.place = Place::Here;
        pool.resident += 1;
        self.loaded.push(number);
        true
    }

    /// Memory is short: chunks that were loaded, and are not `needed`, go again. Those that are
    /// stored as they are do so at once; of the others `to_store` gets the numbers.
    pub(crate) fn relieve(
        &mut self,
        is_needed: impl Fn(u64) -> bool,
        pool: &mut IndexPool,
        mut to_store: impl FnMut(u64),
    ) {
        if !pool.is_over() {
            return;
        }
        let mut loaded = std::mem::take(&mut self.loaded);
        loaded.retain(|&number| {
            if is_needed(number) {
                return true;
            }
            let Some(chunk) = self.chunk_mut(number) else { return false };
            if chunk.live > 0 && chunk.place == Place::Here {
                if chunk.stored == 0 {
                    chunk.place = Place::Storing;
                    to_store(number);
                } else {
                    chunk.place = Place::Away;
                    chunk.give_up_entries(pool);
                }
            }
            false
        });
        self.loaded = loaded;
    }

    /// Whether the chunk's record at `position` may be read again.
    pub(crate) fn is_stored_at(&self, number: u64, position: u64) -> bool {
        self.chunk(number).is_some_and(|chunk| chunk.live > 0 && chunk.stored == position)
    }

    /// Where the chunk is to be read from, if it was asked for and has not come.
    pub(crate) fn wanted_at(&self, number: u64) -> Option<u64> {
        let chunk = self.chunk(number).filter(|chunk| chunk.place == Place::Wanted)?;
        Some(chunk.stored)
    }

    /// The chunk's record is at another place.
    pub(crate) fn set_stored(&mut self, number: u64, from: u64, to: u64) {
        if let Some(chunk) = self.chunk_mut(number)
            && chunk.stored == from
        {
            chunk.stored = to;
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(|chunk| chunk.entries.capacity()).sum();
        entries * ENTRY_BYTES + self.chunks.capacity() * size_of::<Chunk>()
    }

    /// Gives everything back; nothing must be left in it.
    pub(crate) fn clear(&mut self, pool: &mut IndexPool) {
        for mut chunk in self.chunks.drain(..) {
            chunk.give_up_entries(pool);
        }
    }
}
