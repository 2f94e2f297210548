//! Reads a segment frame by frame, in bites, and finds its way behind damage.
//!
//! Nothing is believed before it is checked: a length is compared with the file before anything is
//! read for it, and a payload is given out only once its CRC is right. A search for the next good
//! frame looks at every byte; a candidate has to carry the address of the very place where it was
//! found, so bytes of a payload are not taken for a frame by accident, and a CRC that began from
//! the secret in the header of the segment, so that nobody makes them such that they are. Where
//! that header is damaged, no frame is good.

use crate::frame::{FRAME_HEADER_BYTES, Header, MAGIC, header_crc};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, name_of, read_header};
use crate::{Backend, BackendError, ReadFile};

/// Bytes read at once, and kept in memory unless a single frame is larger.
const BITE_BYTES: u64 = 1 << 20;

/// A part of a file in memory.
#[derive(Debug)]
struct Bites<F> {
    file: F,
    file_bytes: u64,
    buffer: Vec<u8>,
    /// Offset of the buffer in the file.
    start: u64,
}

impl<F: ReadFile> Bites<F> {
    /// `bytes` bytes from `offset` on, all of them within the file.
    fn slice(&mut self, offset: u64, bytes: u64) -> Result<&[u8], BackendError> {
        debug_assert!(offset + bytes <= self.file_bytes);
        let held = self.start..self.start + self.buffer.len() as u64;
        if offset < held.start || offset + bytes > held.end {
            // A bite never goes beyond the file, so this is bounded by it.
            let wanted = bytes.max(BITE_BYTES).min(self.file_bytes - offset) as usize;
            if self.buffer.capacity() as u64 > 2 * BITE_BYTES {
                self.buffer = Vec::new();
            }
            self.buffer.resize(wanted, 0);
            self.start = offset;
            if let Err(error) = self.file.read(offset, &mut self.buffer) {
                self.buffer.clear();
                return Err(error);
            }
        }
        let from = (offset - self.start) as usize;
        Ok(&self.buffer[from..from + bytes as usize])
    }
}

/// Looks at the frames of one segment.
#[derive(Debug)]
pub(crate) struct Scan<F> {
    bites: Bites<F>,
    header: SegmentHeader,
    base: u64,
    /// Nothing at or behind this address is looked at. Within the file.
    limit: u64,
}

impl<F: ReadFile> Scan<F> {
    /// Of the segment that begins at `base`; frames that reach beyond `limit` are not frames.
    pub(crate) fn open<B>(backend: &B, base: u64, limit: u64) -> Result<Self, BackendError>
    where
        B: Backend<File = F>,
    {
        let file = backend.open(&name_of(base))?;
        let file_bytes = file.bytes()?;
        let there = base.saturating_add(file_bytes.saturating_sub(SEGMENT_HEADER_BYTES));
        let mut bites = Bites { file, file_bytes, buffer: Vec::new(), start: 0 };
        let header = read_header(bites.slice(0, file_bytes.min(SEGMENT_HEADER_BYTES))?, base);
        Ok(Self { bites, header, base, limit: limit.min(there) })
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.bites.file_bytes
    }

    /// Where the scan ends: at the limit or the end of the file, whichever comes first.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn segment_header(&self) -> SegmentHeader {
        self.header
    }

    fn secret(&self) -> Option<u32> {
        match self.header {
            SegmentHeader::Good { secret } => Some(secret),
            _ => None,
        }
    }

    fn slice(&mut self, address: u64, bytes: u64) -> Result<&[u8], BackendError> {
        self.bites.slice(SEGMENT_HEADER_BYTES + (address - self.base), bytes)
    }

    /// The header at `address`, if it is one of a frame that ends before the limit.
    fn candidate(&mut self, address: u64) -> Result<Option<Header>, BackendError> {
        const HEADER: u64 = FRAME_HEADER_BYTES as u64;
        if self.secret().is_none() || self.limit - address < HEADER {
            return Ok(None);
        }
        let limit = self.limit;
        let header = Header::parse(self.slice(address, HEADER)?);
        Ok(header
            .filter(|header| header.address == address && header.frame_bytes() <= limit - address))
    }

    /// The frame at `address`, if it is good. Takes no more memory than a bite.
    pub(crate) fn frame_at(&mut self, address: u64) -> Result<Option<Header>, BackendError> {
        let (Some(secret), Some(header)) = (self.secret(), self.candidate(address)?) else {
            return Ok(None);
        };
        let mut crc = header_crc(self.slice(address, FRAME_HEADER_BYTES as u64)?, secret);
        let end = address + header.frame_bytes();
        let mut at = address + FRAME_HEADER_BYTES as u64;
        while at < end {
            let bytes = (end - at).min(BITE_BYTES);
            crc = crc32c::crc32c_append(crc, self.slice(at, bytes)?);
            at += bytes;
        }
        Ok(header.has_crc(crc).then_some(header))
    }

    /// As [`Scan::frame_at`], with the whole frame in memory at the end, so that it is read once.
    fn whole_frame_at(&mut self, address: u64) -> Result<Option<Header>, BackendError> {
        let Some(header) = self.candidate(address)? else { return Ok(None) };
        self.slice(address, header.frame_bytes())?;
        self.frame_at(address)
    }

    /// The payload of a good frame. Takes as much memory as the frame.
    fn payload(&mut self, header: &Header) -> Result<&[u8], BackendError> {
        let frame = self.slice(header.address, header.frame_bytes())?;
        Ok(&frame[FRAME_HEADER_BYTES..])
    }

    /// The address of the first good frame at `from` or behind it.
    pub(crate) fn next_good(&mut self, from: u64) -> Result<Option<u64>, BackendError> {
        if self.secret().is_none() {
            return Ok(None);
        }
        let mut at = from;
        while self.limit.saturating_sub(at) >= FRAME_HEADER_BYTES as u64 {
            let bytes = (self.limit - at).min(BITE_BYTES);
            let found = self.slice(at, bytes)?.windows(MAGIC.len()).position(|four| four == MAGIC);
            let Some(offset) = found else {
                // A magic may begin in the last bytes of this bite.
                at += bytes - (MAGIC.len() as u64 - 1);
                continue;
            };
            at += offset as u64;
            if self.frame_at(at)?.is_some() {
                return Ok(Some(at));
            }
            at += 1;
        }
        Ok(None)
    }
}

/// What [`Frames::next`] finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A frame.
    Frame {
        /// Its address.
        address: u64,
        /// What it carries.
        payload: &'a [u8],
    },
    /// No frame that could be read: it is damaged or not there.
    Missing {
        /// Address of the first missing byte.
        from: u64,
        /// Address behind the last one.
        to: u64,
    },
}

/// The frames of a segment, in order, read from the backend in bites of 1 MiB and checked.
#[derive(Debug)]
pub struct Frames<F> {
    scan: Scan<F>,
    at: u64,
    end: u64,
}

impl<F: ReadFile> Frames<F> {
    /// Of the segment that begins at `base`, up to `end`: see [`crate::SegmentInfo`].
    ///
    /// # Errors
    /// `NotFound`, `Failed`.
    pub fn open<B>(backend: &B, base: u64, end: u64) -> Result<Self, BackendError>
    where
        B: Backend<File = F>,
    {
        Ok(Self { scan: Scan::open(backend, base, end)?, at: base, end })
    }

    /// The next frame, or what is missing before it; `None` at the end. The payload is good until
    /// the next call.
    ///
    /// # Errors
    /// `NotFound` when the file has become shorter, `Failed`. The call may be made again.
    #[expect(clippy::should_implement_trait, reason = "it lends from itself")]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>, BackendError> {
        if self.at >= self.end {
            return Ok(None);
        }
        let from = self.at;
        if from < self.scan.limit()
            && let Some(header) = self.scan.whole_frame_at(from)?
        {
            let payload = self.scan.payload(&header)?;
            self.at += header.frame_bytes();
            return Ok(Some(Entry::Frame { address: from, payload }));
        }
        let to = self.scan.next_good(from + 1)?.unwrap_or(self.end);
        self.at = to;
        Ok(Some(Entry::Missing { from, to }))
    }
}
