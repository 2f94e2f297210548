//! A PUBLISH that looks like the one before it needs no second look.
//!
//! In a flood nearly all do: they differ in the packet identifier and the payload. Of such a one
//! the rest is compared, which is less work than to decode it, and as strict.

use dunlin_packets::{PacketId, Publish, QoS};

/// Longest beginning that is remembered, for each client.
const LEN_MAX: usize = 512;

/// How the last PUBLISH of a connection was made: everything before its payload.
#[derive(Debug, Default)]
pub(crate) struct Template {
    beginning: Vec<u8>,
    /// Where the packet identifier stands in it, and how many bytes it has: none at QoS 0.
    id_at: usize,
    id_len: usize,
    /// Bytes of the packet; 0 for none.
    total: usize,
    qos: QoS,
}

/// What differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alike<'a> {
    pub(crate) qos: QoS,
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) payload: &'a [u8],
    /// Bytes of the packet.
    pub(crate) len: usize,
}

impl Template {
    /// Remembers a packet that has been decoded.
    pub(crate) fn learn(&mut self, packet: &[u8], publish: &Publish<'_>) {
        let beginning = &packet[..packet.len() - publish.payload.len()];
        if beginning == self.beginning && packet.len() == self.total {
            return;
        }
        self.total = 0;
        if beginning.len() > LEN_MAX {
            return;
        }
        self.beginning.clear();
        self.beginning.extend_from_slice(beginning);
        // One byte with type and flags, the length in groups of seven bits, the topic with its own.
        let len_bytes = packet[1..].iter().take_while(|&&byte| byte & 0x80 != 0).count() + 1;
        self.id_at = 1 + len_bytes + 2 + publish.topic.len();
        self.id_len = if publish.packet_id.is_some() { 2 } else { 0 };
        (self.total, self.qos) = (packet.len(), publish.qos);
    }

    /// The first packet of `bytes`, if it is whole and looks like the one remembered.
    #[inline]
    pub(crate) fn split<'a>(&self, bytes: &'a [u8]) -> Option<Alike<'a>> {
        if self.total == 0 {
            return None;
        }
        let packet = bytes.get(..self.total)?;
        let (beginning, payload) = packet.split_at_checked(self.beginning.len())?;
        let behind = self.id_at + self.id_len;
        if beginning[..self.id_at] != self.beginning[..self.id_at]
            || beginning[behind..] != self.beginning[behind..]
        {
            return None;
        }
        let packet_id = match beginning[self.id_at..behind] {
            [high, low] => Some(PacketId::new(u16::from_be_bytes([high, low]))?),
            _ => None,
        };
        Some(Alike { qos: self.qos, packet_id, payload, len: self.total })
    }
}

#[cfg(test)]
mod tests {
    use dunlin_packets::{Frame, Packet, PropertiesBuf, Property, Version};

    use super::*;

    fn packet(version: Version, topic: &str, id: u16, expiry_s: u32, payload: &[u8]) -> Vec<u8> {
        let mut properties = PropertiesBuf::new();
        if version.has_properties() {
            properties.push(Property::MessageExpiryInterval(expiry_s));
        }
        let qos = if id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let mut bytes = Vec::new();
        Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: PacketId::new(id),
            properties: properties.as_properties(),
            payload,
        }
        .encode(version, &mut bytes);
        bytes
    }

    fn learned(version: Version, bytes: &[u8]) -> Template {
        let mut template = Template::default();
        let (frame, len) = Frame::split(bytes, 1 << 20, version).unwrap().unwrap();
        let Packet::Publish(publish) = Packet::decode(&frame, version).unwrap() else { panic!() };
        template.learn(&bytes[..len], &publish);
        template
    }

    #[test]
    fn what_looks_the_same_is_taken_apart_as_decoding_would() {
        for version in [Version::V4, Version::V5] {
            for (id, next_id) in [(0, 0), (1, 0x1234)] {
                for len in [16, 300] {
                    let template = learned(version, &packet(version, "a/b", id, 9, &vec![1; len]));
                    let mut next = packet(version, "a/b", next_id, 9, &vec![2; len]);
                    let whole = next.len();
                    assert_eq!(template.split(&next[..whole - 1]), None, "it is not whole");
                    next.push(0x30);
                    let alike = template.split(&next).unwrap();
                    assert_eq!((alike.payload, alike.len), (&vec![2; len][..], whole));
                    assert_eq!(alike.packet_id, PacketId::new(next_id));
                }
            }
        }
    }

    #[test]
    fn what_differs_anywhere_else_is_not() {
        let first = packet(Version::V5, "a/b", 1, 9, b"payload of sixteen");
        let template = learned(Version::V5, &first);
        let others = [
            packet(Version::V5, "a/c", 1, 9, b"payload of sixteen"),
            packet(Version::V5, "a/b", 1, 8, b"payload of sixteen"),
            packet(Version::V5, "a/b", 1, 9, b"payload of seventeen"),
            packet(Version::V5, "a/bc", 1, 9, b"payload of sixtee"),
            packet(Version::V5, "a/b", 0, 9, b"..payload of sixteen"),
        ];
        for other in others {
            assert_eq!(template.split(&other), None, "{other:?}");
        }
        let mut without_id = first;
        without_id[7..9].fill(0);
        assert_eq!(template.split(&without_id), None, "packet identifier 0");
        assert_eq!(Template::default().split(b"anything"), None);
    }
}
