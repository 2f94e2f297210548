//! What a payload begins with: who sent it, which of theirs it is, and when it was due.

/// Bytes of a stamp, and so of the smallest payload.
pub(crate) const STAMP_LEN: usize = 16;

/// The first 16 bytes of every payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When the message was to be sent, by the generator's clock. In an open loop that is the
    /// schedule's time, so a stalled broker is charged for what could not be sent meanwhile.
    pub(crate) due_ns: u64,
    pub(crate) publisher: u32,
    /// From 1 for each publisher.
    pub(crate) sequence: u32,
}

impl Stamp {
    #[inline]
    pub(crate) fn write(self, payload: &mut [u8]) {
        payload[..8].copy_from_slice(&self.due_ns.to_le_bytes());
        payload[8..12].copy_from_slice(&self.publisher.to_le_bytes());
        payload[12..16].copy_from_slice(&self.sequence.to_le_bytes());
    }

    /// `None` when the payload is not one of ours.
    #[inline]
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let due_ns = u64::from_le_bytes(payload.get(..8)?.try_into().ok()?);
        let publisher = u32::from_le_bytes(payload.get(8..12)?.try_into().ok()?);
        let sequence = u32::from_le_bytes(payload.get(12..16)?.try_into().ok()?);
        Some(Self { due_ns, publisher, sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { due_ns: u64::MAX - 1, publisher: 7, sequence: u32::MAX };
        let mut payload = [0; 20];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert_eq!(Stamp::read(&payload[..15]), None);
    }
}
