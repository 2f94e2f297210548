//! The format of a frame, the unit of a log.
//!
//! 32 bytes of header, little endian, and the payload:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic, `d7 44 4c 66` |
//! | 4 | 4 | length of the payload |
//! | 8 | 8 | address of the frame |
//! | 16 | 8 | what had been synced when the frame was written: everything before this address |
//! | 24 | 4 | CRC32C over the header, with this field as 0, and the payload, mixed |
//! | 28 | 4 | 0 |
//!
//! A frame is taken or refused as a whole, so what has to be there together goes into one.
//!
//! The CRC begins from the secret of the segment, so that nobody who does not know it can put
//! something into a payload that passes for a frame, other than by a guess: one in 2^32 for each
//! that is tried. What is stored is [`mixed`].

/// Bytes at the beginning of a frame that belong to the log.
pub const FRAME_HEADER_BYTES: usize = 32;
/// Largest payload in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 512 << 20;

pub(crate) const MAGIC: [u8; 4] = *b"\xd7DLf";
const CRC: usize = 24;

/// Notes in a frame which address it was given. [`crate::Log::append`] looks at it.
///
/// # Panics
/// When `frame` is shorter than [`FRAME_HEADER_BYTES`].
pub fn set_address(frame: &mut [u8], address: u64) {
    frame[8..16].copy_from_slice(&address.to_le_bytes());
}

/// The address that a frame was given.
///
/// # Panics
/// When `frame` is shorter than [`FRAME_HEADER_BYTES`].
#[must_use]
pub fn address_of(frame: &[u8]) -> u64 {
    u64_at(frame, 8)
}

/// Fills in the header; the address is there already. `secret` is that of the segment.
pub(crate) fn seal(frame: &mut [u8], durable: u64, secret: u32) {
    let payload = frame.len() - FRAME_HEADER_BYTES;
    assert!(payload <= PAYLOAD_BYTES_MAX, "a payload of {payload} bytes is too large for a frame");
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..8].copy_from_slice(&(payload as u32).to_le_bytes());
    frame[16..24].copy_from_slice(&durable.to_le_bytes());
    frame[CRC..FRAME_HEADER_BYTES].fill(0);
    let crc = crc32c::crc32c_append(secret, frame);
    frame[CRC..CRC + 4].copy_from_slice(&mixed(crc).to_le_bytes());
}

/// What is stored of a CRC, one to one. CRCs are linear: over a forged frame that reaches over the
/// CRC field of a later one the secret would come in twice, from the beginning and from that field,
/// and lengths could be chosen such that it cancels out. (The steps end `MurmurHash3`.)
fn mixed(crc: u32) -> u32 {
    let crc = (crc ^ (crc >> 16)).wrapping_mul(0x85eb_ca6b);
    let crc = (crc ^ (crc >> 13)).wrapping_mul(0xc2b2_ae35);
    crc ^ (crc >> 16)
}

/// A header that may be one: its CRC has yet to be compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) payload_bytes: u32,
    pub(crate) address: u64,
    pub(crate) durable: u64,
    /// As it is stored.
    crc: u32,
}

impl Header {
    /// Reads a header, unless it cannot be one.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = Self {
            payload_bytes: u32_at(bytes, 4),
            address: u64_at(bytes, 8),
            durable: u64_at(bytes, 16),
            crc: u32_at(bytes, CRC),
        };
        let good = bytes[..4] == MAGIC
            && u32_at(bytes, 28) == 0
            && header.payload_bytes as usize <= PAYLOAD_BYTES_MAX
            && header.durable <= header.address;
        good.then_some(header)
    }

    /// Bytes of the frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// Whether `crc`, of the header and the payload, is the one that is stored.
    pub(crate) fn has_crc(&self, crc: u32) -> bool {
        mixed(crc) == self.crc
    }
}

/// The CRC of a header, to be continued with the payload.
pub(crate) fn header_crc(bytes: &[u8], secret: u32) -> u32 {
    let crc = crc32c::crc32c_append(secret, &bytes[..CRC]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[CRC + 4..FRAME_HEADER_BYTES])
}

pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[offset..offset + 4]);
    u32::from_le_bytes(field)
}

pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[offset..offset + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: u32 = 0x1234_5678;

    fn sealed(payload: &[u8], address: u64, durable: u64) -> Vec<u8> {
        let mut frame = vec![0xff; FRAME_HEADER_BYTES];
        frame.extend_from_slice(payload);
        set_address(&mut frame, address);
        seal(&mut frame, durable, SECRET);
        frame
    }

    #[test]
    fn a_frame_has_the_format_that_is_written_down() {
        let frame = sealed(b"123", 0x0102, 0x0101);
        assert_eq!(frame[..4], MAGIC);
        assert_eq!(frame[4..8], [3, 0, 0, 0]);
        assert_eq!(frame[8..16], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frame[16..24], [1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(frame[28..], [0, 0, 0, 0, b'1', b'2', b'3']);
        assert_eq!(address_of(&frame), 0x0102);
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let frame = sealed(b"payload", 8192, 4096);
        let header = Header::parse(&frame).unwrap();
        assert_eq!((header.address, header.durable), (8192, 4096));
        assert_eq!(header.frame_bytes(), frame.len() as u64);
        let crc = |secret| crc32c::crc32c_append(header_crc(&frame, secret), b"payload");
        assert!(header.has_crc(crc(SECRET)));
        assert!(!header.has_crc(crc(SECRET ^ 1)), "another secret");
        assert!(!header.has_crc(crc(0)), "none");
    }

    #[test]
    fn sealing_twice_gives_the_same() {
        let mut frame = sealed(b"payload", 8192, 4096);
        let before = frame.clone();
        seal(&mut frame, 4096, SECRET);
        assert_eq!(frame, before);
    }

    #[test]
    fn what_cannot_be_a_header_is_none() {
        let frame = sealed(b"", 8192, 4096);
        let with = |offset: usize, bytes: &[u8]| {
            let mut frame = frame.clone();
            frame[offset..offset + bytes.len()].copy_from_slice(bytes);
            Header::parse(&frame).is_some()
        };
        assert!(with(0, &MAGIC));
        assert!(!with(0, b"x"), "another magic");
        assert!(!with(4, &(PAYLOAD_BYTES_MAX as u32 + 1).to_le_bytes()), "too long");
        assert!(!with(16, &8193_u64.to_le_bytes()), "synced behind itself");
        assert!(!with(28, &[1]), "reserved");
    }
}
