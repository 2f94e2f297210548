//! Reading and writing the data types of section 1.5: integers, strings, binary data.

use crate::{PacketError, VARINT_MAX};

const SHORT: PacketError = PacketError::malformed("1.5", "the packet ends inside a field");

/// A cursor over the bytes of one packet. Nothing is read beyond them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], PacketError> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, PacketError> {
        let (&first, tail) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = tail;
        Ok(first)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, PacketError> {
        let (head, tail) = self.rest.split_first_chunk::<2>().ok_or(SHORT)?;
        self.rest = tail;
        Ok(u16::from_be_bytes(*head))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, PacketError> {
        let (head, tail) = self.rest.split_first_chunk::<4>().ok_or(SHORT)?;
        self.rest = tail;
        Ok(u32::from_be_bytes(*head))
    }

    /// A variable byte integer in its shortest form [MQTT-1.5.5-1].
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, PacketError> {
        let (value, len, shortest) = read_varint(self.rest)?.ok_or(SHORT)?;
        if !shortest {
            return Err(OVERLONG);
        }
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// Binary data: two length bytes, then that many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], PacketError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string without U+0000. Surrogates are not UTF-8; a BOM is kept
    /// [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.4-3].
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, PacketError> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| PacketError::malformed("1.5.4-1", "a string is not valid UTF-8"))?;
        if text.as_bytes().contains(&0) {
            return Err(PacketError::malformed("1.5.4-2", "a string contains U+0000"));
        }
        Ok(text)
    }
}

pub(crate) const OVERLONG: PacketError =
    PacketError::malformed("1.5.5-1", "a variable byte integer is longer than it needs to be");

/// Reads a variable byte integer: value, bytes used, whether it had the shortest form.
/// `None` when more bytes are needed.
#[inline]
pub(crate) fn read_varint(bytes: &[u8]) -> Result<Option<(u32, usize, bool)>, PacketError> {
    let mut value = 0u32;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1, index == 0 || byte != 0)));
        }
    }
    if bytes.len() >= 4 {
        return Err(PacketError::malformed("1.5.5", "a variable byte integer has over four bytes"));
    }
    Ok(None)
}

/// Bytes that `value` takes as a variable byte integer.
#[inline]
pub(crate) fn varint_len(value: usize) -> usize {
    match value {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: usize) {
    assert!(value <= VARINT_MAX as usize, "a packet over 256 MB cannot be encoded");
    let mut rest = value;
    while rest > 127 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[inline]
pub(crate) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Writes binary data or a string. A field over 65,535 bytes cannot be represented; every
/// caller's data came off the wire or was checked by the configuration.
#[inline]
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("a field over 65,535 bytes cannot be encoded");
    put_u16(out, len);
    out.extend_from_slice(bytes);
}

/// Begins a packet whose body length is known.
#[inline]
pub(crate) fn put_header(out: &mut Vec<u8>, first: u8, body_len: usize) {
    out.push(first);
    put_varint(out, body_len);
}
