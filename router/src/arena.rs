//! Compact storage: strings in pages without an allocation each, and a slab that grows by chunks.

use std::collections::BTreeMap;

const PAGE_BYTES: usize = 1 << 16;
const UNIT_BYTES: usize = 8;

/// Where a string lies: page and offset, in units of 8 bytes, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    unit: u32,
    len: u16,
}

/// Strings of up to 65,535 bytes in pages of 64 KiB. A freed place serves the next string of the
/// same size class (multiples of 8 bytes), so nothing moves and nothing is compacted.
#[derive(Debug, Default)]
pub(crate) struct TextArena {
    pages: Vec<Box<[u8]>>,
    used_in_last: usize,
    free: BTreeMap<u16, Vec<u32>>,
}

impl TextArena {
    pub(crate) fn insert(&mut self, text: &str) -> Text {
        let len = u16::try_from(text.len()).expect("topics have at most 65,535 bytes");
        let class = size_class(len);
        let unit = match self.free.get_mut(&class).and_then(Vec::pop) {
            Some(unit) => unit,
            None => self.bump(usize::from(class) * UNIT_BYTES),
        };
        let (page, offset) = place(unit);
        self.pages[page][offset..offset + text.len()].copy_from_slice(text.as_bytes());
        Text { unit, len }
    }

    pub(crate) fn remove(&mut self, text: Text) {
        self.free.entry(size_class(text.len)).or_default().push(text.unit);
    }

    #[inline]
    pub(crate) fn bytes(&self, text: Text) -> &[u8] {
        let (page, offset) = place(text.unit);
        &self.pages[page][offset..offset + usize::from(text.len)]
    }

    pub(crate) fn get(&self, text: Text) -> &str {
        std::str::from_utf8(self.bytes(text)).expect("only whole strings are stored")
    }

    fn bump(&mut self, bytes: usize) -> u32 {
        if self.pages.is_empty() || self.used_in_last + bytes > PAGE_BYTES {
            self.pages.push(vec![0; PAGE_BYTES].into_boxed_slice());
            self.used_in_last = 0;
        }
        let offset = (self.pages.len() - 1) * PAGE_BYTES + self.used_in_last;
        self.used_in_last += bytes;
        u32::try_from(offset / UNIT_BYTES).expect("32 GiB of topic filters")
    }
}

fn size_class(len: u16) -> u16 {
    len.div_ceil(UNIT_BYTES as u16).max(1)
}

#[inline]
fn place(unit: u32) -> (usize, usize) {
    let offset = unit as usize * UNIT_BYTES;
    (offset / PAGE_BYTES, offset % PAGE_BYTES)
}

const CHUNK: usize = 1024;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Slot<T> {
    Used(T),
    Free(u32),
}

/// A slab in chunks: growing copies nothing, and leaves at most one chunk of slack instead of half
/// the memory.
#[derive(Debug)]
pub(crate) struct ChunkSlab<T> {
    chunks: Vec<Vec<Slot<T>>>,
    free: u32,
    len: usize,
}

impl<T> Default for ChunkSlab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T> ChunkSlab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if self.free != NONE {
            let index = self.free;
            let slot = self.slot_mut(index);
            let Slot::Free(next) = *slot else { unreachable!("the free list names a used slot") };
            *slot = Slot::Used(value);
            self.free = next;
            return index;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows with its use, so that a small map stays small.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let chunk_index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[chunk_index];
        chunk.push(Slot::Used(value));
        (chunk_index * CHUNK + chunk.len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, index: u32) -> T {
        let free = self.free;
        let Slot::Used(value) = std::mem::replace(self.slot_mut(index), Slot::Free(free)) else {
            unreachable!("removed twice")
        };
        self.free = index;
        self.len -= 1;
        value
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> &T {
        let index = index as usize;
        match &self.chunks[index / CHUNK][index % CHUNK] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("a removed index is used"),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut T {
        match self.slot_mut(index) {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("a removed index is used"),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> &mut Slot<T> {
        let index = index as usize;
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}
