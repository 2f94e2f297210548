//! Records to bytes.

use dunlin_packets::{PacketId, QoS};
use dunlin_queue::Time;

use super::*;

impl Record<'_> {
    /// Appends the record. For a message, returns where its checksum and content begin in `out`.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        match *self {
            Self::Message(ref message) => return message.encode(out),
            Self::Session(ref session) => session.encode(out),
            Self::SessionEnd { sid } => put_numbers(SESSION_END, &[sid], out),
            Self::Subscribed { sid, filter, options, identifier } => {
                put_numbers(SUBSCRIBED, &[sid, u64::from(identifier)], out);
                out.push(options.to_bits());
                put_bytes(filter.as_bytes(), out);
            }
            Self::Unsubscribed { sid, filter } => {
                put_numbers(UNSUBSCRIBED, &[sid], out);
                put_bytes(filter.as_bytes(), out);
            }
            Self::Sent { sid, packet_id, id, is_exactly_once } => {
                let kind = if is_exactly_once { SENT_EXACTLY_ONCE } else { SENT };
                put_numbers(kind, &[sid, of(packet_id), id], out);
            }
            Self::Released { sid, packet_id, id } => {
                put_numbers(RELEASED, &[sid, of(packet_id), id], out);
            }
            Self::Completed { sid, packet_id } => {
                put_numbers(COMPLETED, &[sid, of(packet_id)], out);
            }
            Self::Done { sid, id } => put_numbers(DONE, &[sid, id], out),
            Self::Received { sid, packet_id } => put_numbers(RECEIVED, &[sid, of(packet_id)], out),
            Self::Freed { sid, packet_id } => put_numbers(FREED, &[sid, of(packet_id)], out),
            Self::RetainedGone { topic } => {
                out.push(RETAINED_GONE);
                put_bytes(topic.as_bytes(), out);
            }
            Self::Keys(keys) => {
                out.push(KEYS);
                keys.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
            }
            _ => return queue::encode(self, out),
        }
        out.len()
    }
}

fn of(packet_id: PacketId) -> u64 {
    u64::from(packet_id.get())
}

impl MessageRecord<'_> {
    fn encode(&self, out: &mut Vec<u8>) -> usize {
        out.push(MESSAGE);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            self.qos as u8
                | flag(self.retain, RETAIN)
                | flag(self.is_retained, IS_RETAINED)
                | flag(self.expires_at != Time::NEVER, HAS_EXPIRY),
        );
        put_varint(self.id, out);
        if self.expires_at != Time::NEVER {
            put_varint(self.expires_at.as_millis(), out);
        }
        put_varint(u64::from(self.received), out);
        if self.is_retained {
            out.extend_from_slice(&self.publisher.to_le_bytes());
        }
        put_varint(u64::from(self.topic_len), out);
        put_varint(u64::from(self.properties_len), out);
        put_varint(self.content.len() as u64, out);
        put_varint(self.refs.bytes.len() as u64, out);
        let position = out.len();
        out.extend_from_slice(&crc32c::crc32c(self.content).to_le_bytes());
        out.extend_from_slice(self.content);
        out.extend_from_slice(self.refs.bytes);
        position
    }
}

impl SessionRecord<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_numbers(SESSION, &[self.sid, u64::from(self.expiry_s)], out);
        let will_bit = if self.will.is_some() { HAS_WILL } else { 0 };
        out.push(if self.is_online { IS_ONLINE } else { 0 } | will_bit);
        out.extend_from_slice(&self.expires_at.as_millis().to_le_bytes());
        put_bytes(self.client_id.as_bytes(), out);
        if let Some(will) = &self.will {
            out.push(will.qos as u8 | if will.retain { RETAIN } else { 0 });
            put_varint(u64::from(will.delay_s), out);
            out.extend_from_slice(&self.will_at.as_millis().to_le_bytes());
            put_bytes(will.topic.as_bytes(), out);
            put_bytes(will.properties, out);
            put_bytes(will.payload, out);
        }
    }
}

/// Appends one delivery to what [`Refs::new`] takes.
pub fn put_ref(sid: u64, qos: QoS, retain: bool, identifiers: &[u32], out: &mut Vec<u8>) {
    put_varint(sid, out);
    let identifiers_bit = if identifiers.is_empty() { 0 } else { HAS_IDENTIFIERS };
    out.push(qos as u8 | if retain { RETAIN } else { 0 } | identifiers_bit);
    if !identifiers.is_empty() {
        put_varint(identifiers.len() as u64, out);
        identifiers.iter().for_each(|&identifier| put_varint(u64::from(identifier), out));
    }
}

pub(super) fn put_numbers(kind: u8, numbers: &[u64], out: &mut Vec<u8>) {
    out.push(kind);
    numbers.iter().for_each(|&number| put_varint(number, out));
}

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
