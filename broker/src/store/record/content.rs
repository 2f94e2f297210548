//! The bytes of a message in a queue: all that a consumer gets, and what it says of itself.

use dunlin_queue::Time;

use super::Unreadable;

const IS_CAPTURED: u8 = 1;

/// A message of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueContent<'a> {
    /// When it was published.
    pub at: Time,
    /// When it is not to be delivered any more; [`Time::NEVER`] without an expiry.
    pub expires_at: Time,
    /// It was not published to the queue: the queue has taken it by a filter of its own.
    pub is_captured: bool,
    /// What it was published to; at most 65,535 bytes, as in any packet.
    pub topic: &'a str,
    /// Its properties, encoded.
    pub properties: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

impl<'a> QueueContent<'a> {
    /// Bytes before the topic: flags, two times, the lengths of topic and properties. Behind them
    /// stand topic, properties and payload.
    pub const HEAD_BYTES: usize = 1 + 8 + 8 + 2 + 4;

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        debug_assert!(self.topic.len() <= usize::from(u16::MAX), "it was in a packet");
        let len = self.topic.len() + self.properties.len() + self.payload.len();
        out.reserve(Self::HEAD_BYTES + len);
        out.push(if self.is_captured { IS_CAPTURED } else { 0 });
        out.extend_from_slice(&self.at.as_millis().to_le_bytes());
        out.extend_from_slice(&self.expires_at.as_millis().to_le_bytes());
        out.extend_from_slice(&(self.topic.len() as u16).to_le_bytes());
        out.extend_from_slice(&(self.properties.len() as u32).to_le_bytes());
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(self.properties);
        out.extend_from_slice(self.payload);
    }

    /// Reads what [`Self::put`] has written.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let (flags, rest) = number::<1>(bytes)?;
        let (at, rest) = number::<8>(rest)?;
        let (expires_at, rest) = number::<8>(rest)?;
        let (topic_len, rest) = number::<2>(rest)?;
        let (properties_len, rest) = number::<4>(rest)?;
        let (topic, rest) = rest.split_at_checked(topic_len as usize).ok_or(Unreadable)?;
        let (properties, payload) =
            rest.split_at_checked(properties_len as usize).ok_or(Unreadable)?;
        if flags & !u64::from(IS_CAPTURED) != 0 {
            return Err(Unreadable);
        }
        Ok(Self {
            at: Time::from_millis(at),
            expires_at: Time::from_millis(expires_at),
            is_captured: flags != 0,
            topic: std::str::from_utf8(topic).map_err(|_| Unreadable)?,
            properties,
            payload,
        })
    }
}

/// A number of so many bytes, and what is behind it.
fn number<const BYTES: usize>(bytes: &[u8]) -> Result<(u64, &[u8]), Unreadable> {
    let (number, rest) = bytes.split_first_chunk::<BYTES>().ok_or(Unreadable)?;
    let mut whole = [0; 8];
    whole[..BYTES].copy_from_slice(number);
    Ok((u64::from_le_bytes(whole), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_is_read_as_it_was_put_and_nothing_shorter_is_one() {
        let content = QueueContent {
            at: Time::from_millis(1_700_000_000_000),
            expires_at: Time::NEVER,
            is_captured: true,
            topic: "m/ä",
            properties: &[1, 2, 3],
            payload: b"payload",
        };
        let mut bytes = vec![9];
        content.put(&mut bytes);
        let bytes = &bytes[1..];
        assert_eq!(&bytes[QueueContent::HEAD_BYTES..][..4], "m/ä".as_bytes());
        assert_eq!(QueueContent::read(bytes), Ok(content));
        let payload_at = bytes.len() - content.payload.len();
        for len in 0..payload_at {
            assert_eq!(QueueContent::read(&bytes[..len]), Err(Unreadable), "{len} bytes");
        }
        let empty = QueueContent { payload: b"", is_captured: false, ..content };
        let mut others = Vec::new();
        empty.put(&mut others);
        assert_eq!(QueueContent::read(&others), Ok(empty));
        others[0] = 2;
        assert_eq!(QueueContent::read(&others), Err(Unreadable), "a flag of another version");
        others[0] = 0;
        others[QueueContent::HEAD_BYTES] = 0xff;
        assert_eq!(QueueContent::read(&others), Err(Unreadable), "a topic is UTF-8");
    }
}
