//! The names and headers of segment files.
//!
//! A segment is named by the address of its first frame. It begins with 32 bytes, little endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic, `DUNLNLOG` |
//! | 8 | 4 | version of the format |
//! | 12 | 4 | secret, from which the CRCs of its frames begin |
//! | 16 | 8 | address of the first frame |
//! | 24 | 4 | CRC32C over what precedes |
//! | 28 | 4 | 0 |
//!
//! Frames follow without a gap: the byte of address `a` in the segment that begins at `b` is at
//! offset `32 + a - b`. The header stays as it is in later versions, so that a version can be told.
//! Without the secret no frame can be checked, so a segment whose header is damaged is lost.

use crate::frame::{u32_at, u64_at};

/// Bytes before the first frame.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 32;
/// The version of the format that is written and read.
pub const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"DUNLNLOG";
const HEADER: usize = SEGMENT_HEADER_BYTES as usize;

/// A segment of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Address of its first frame.
    pub base: u64,
    /// Address behind its last frame.
    pub end: u64,
    /// Length of its file in bytes.
    pub bytes: u64,
}

/// What the beginning of a segment file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentHeader {
    Good {
        secret: u32,
    },
    /// Not a header, or a part of one.
    Bad,
    /// A header, of another version.
    Version(u32),
    /// A header, of the segment that begins here.
    Base(u64),
}

/// The file of the segment that begins at `base`.
pub(crate) fn name_of(base: u64) -> String {
    format!("{base:016x}.log")
}

/// The address of the first frame in the file of that name, if it is a segment's name.
pub(crate) fn base_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (digits.len() == 16 && digits.bytes().all(hex))
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// The header of the segment that begins at `base`.
pub(crate) fn header_of(base: u64, secret: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&secret.to_le_bytes());
    header[16..24].copy_from_slice(&base.to_le_bytes());
    let crc = crc32c::crc32c(&header[..24]);
    header[24..28].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What `bytes`, the beginning of a file, say of it.
pub(crate) fn read_header(bytes: &[u8], base: u64) -> SegmentHeader {
    if bytes.len() < HEADER
        || bytes[..8] != MAGIC
        || crc32c::crc32c(&bytes[..24]) != u32_at(bytes, 24)
    {
        return SegmentHeader::Bad;
    }
    match (u32_at(bytes, 8), u64_at(bytes, 16)) {
        (version, _) if version != FORMAT_VERSION => SegmentHeader::Version(version),
        (_, found) if found != base => SegmentHeader::Base(found),
        _ if bytes[28..HEADER] != [0; 4] => SegmentHeader::Bad,
        _ => SegmentHeader::Good { secret: u32_at(bytes, 12) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_form_are_segments() {
        assert_eq!(name_of(4096), "0000000000001000.log");
        assert_eq!(base_of("0000000000001000.log"), Some(4096));
        assert_eq!(base_of("ffffffffffffffff.log"), Some(u64::MAX));
        for name in [
            "dunlin.lock",
            "1000.log",
            "000000000000100G.log",
            "000000000000ABCD.log",
            "+00000000000abcd.log",
            "0000000000001000.log.bak",
            "00000000000001000.log",
            "",
        ] {
            assert_eq!(base_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let header = header_of(4096, 0x1234_5678);
        assert_eq!(header[..8], *b"DUNLNLOG");
        assert_eq!(header[12..16], [0x78, 0x56, 0x34, 0x12]);
        assert_eq!(read_header(&header, 4096), SegmentHeader::Good { secret: 0x1234_5678 });
        assert_eq!(read_header(&header, 4097), SegmentHeader::Base(4096));
        assert_eq!(read_header(&header[..31], 4096), SegmentHeader::Bad);
    }

    #[test]
    fn a_flipped_bit_of_a_header_is_seen() {
        for bit in 0..HEADER * 8 {
            let mut header = header_of(4096, 0x1234_5678);
            header[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_header(&header, 4096), SegmentHeader::Bad, "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_told() {
        let mut header = header_of(4096, 0);
        header[8..12].copy_from_slice(&7_u32.to_le_bytes());
        assert_eq!(read_header(&header, 4096), SegmentHeader::Bad);
        let crc = crc32c::crc32c(&header[..24]);
        header[24..28].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read_header(&header, 4096), SegmentHeader::Version(7));
    }
}
