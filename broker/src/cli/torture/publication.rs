//! What is published: everything about a publication follows from its source and its sequence
//! number, so that nobody has to keep it for a repetition or for the audit.

use dunlin_packets::QoS;

use super::random::{Random, mix};

/// Topics of each publisher.
const TOPICS: u32 = 3;
/// After so many publications in a row a publisher has used each topic at each QoS.
pub(super) const ROUND: u32 = TOPICS * 2;
/// Topics of the publisher of retained messages.
pub(super) const RETAINED_TOPICS: u32 = 64;
/// The source of retained messages, beside the numbered publishers.
pub(super) const RETAINED_SOURCE: u16 = u16::MAX;

/// The queue, and how many keys each publisher has in it.
pub(super) const QUEUE: &str = "torture";
const QUEUE_KEYS: u32 = 5;
/// The first source of messages for the queue.
pub(super) const QUEUE_SOURCE: u16 = 1 << 15;

/// Retained topics that are in use at a time, and publications until the next one comes into use
/// and the oldest is left alone: what is lost of one that is never written again stays lost.
const RETAINED_ACTIVE: u32 = 8;
const RETAINED_STEP: u32 = 50;

/// Run, source, sequence number, length of the filler.
const HEADER_BYTES: usize = 8 + 2 + 4 + 4;

/// One publication of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    /// The publisher's number, [`QUEUE_SOURCE`] and that of a queue's publisher, or
    /// [`RETAINED_SOURCE`].
    pub(super) source: u16,
    /// Counted by the source, from 0.
    pub(super) sequence: u32,
}

impl Publication {
    pub(super) fn is_retained(self) -> bool {
        self.source == RETAINED_SOURCE
    }

    pub(super) fn qos(self) -> QoS {
        if self.is_retained() || (self.sequence / TOPICS).is_multiple_of(2) {
            QoS::AtLeastOnce
        } else {
            QoS::ExactlyOnce
        }
    }

    /// Which of the source's pairs of topic and QoS it belongs to. Order is promised within one
    /// only \[MQTT-4.6.0-6\].
    pub(super) fn lane(self) -> u32 {
        self.sequence % ROUND
    }

    /// Which of the retained topics it goes to.
    pub(super) fn retained_topic(self) -> u32 {
        let oldest = (self.sequence / RETAINED_STEP).min(RETAINED_TOPICS - RETAINED_ACTIVE);
        oldest + (mix(u64::from(self.sequence)) % u64::from(RETAINED_ACTIVE)) as u32
    }

    pub(super) fn is_queued(self) -> bool {
        self.source >= QUEUE_SOURCE && !self.is_retained()
    }

    /// Which of the source's keys in the queue it has.
    pub(super) fn key(self) -> u32 {
        mix(u64::from(self.sequence)) as u32 % QUEUE_KEYS
    }

    pub(super) fn topic(self) -> String {
        if self.is_retained() {
            return format!("r/{}", self.retained_topic());
        }
        if self.is_queued() {
            return format!("$queue/{QUEUE}/{}/{}", self.source - QUEUE_SOURCE, self.key());
        }
        format!("t/{}/{}", self.source, self.sequence % TOPICS)
    }

    fn words(self, run: u64) -> Random {
        Random::new(run, u64::from(self.source) << 32 | u64::from(self.sequence))
    }

    /// Appends the payload: mostly short, sometimes a few kilobytes.
    pub(super) fn write_payload(self, run: u64, out: &mut Vec<u8>) {
        let mut words = self.words(run);
        let max = match words.within(0..=15) {
            0 => 8 << 10,
            1..=3 => 1 << 10,
            _ => 128,
        };
        let len = words.within(0..=max) as usize;
        out.extend_from_slice(&run.to_be_bytes());
        out.extend_from_slice(&self.source.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&(len as u32).to_be_bytes());
        let end = out.len() + len;
        while out.len() < end {
            let word = words.next().to_be_bytes();
            out.extend_from_slice(&word[..word.len().min(end - out.len())]);
        }
    }

    /// Which publication of the run a payload is, if it is one to the last byte. `scratch` is
    /// overwritten.
    pub(super) fn read(run: u64, payload: &[u8], scratch: &mut Vec<u8>) -> Option<Self> {
        let header: &[u8; HEADER_BYTES] = payload.first_chunk()?;
        let source = u16::from_be_bytes([header[8], header[9]]);
        let sequence = u32::from_be_bytes([header[10], header[11], header[12], header[13]]);
        let publication = Self { source, sequence };
        scratch.clear();
        publication.write_payload(run, scratch);
        (scratch == payload).then_some(publication)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_which_publication_it_is_and_a_flipped_bit_shows() {
        let mut scratch = Vec::new();
        for sequence in 0..200 {
            let publication = Publication { source: 3, sequence };
            let mut payload = Vec::new();
            publication.write_payload(7, &mut payload);
            assert_eq!(Publication::read(7, &payload, &mut scratch), Some(publication));
            assert_eq!(Publication::read(8, &payload, &mut scratch), None);
            let last = payload.len() - 1;
            payload[last] ^= 1;
            assert_eq!(Publication::read(7, &payload, &mut scratch), None);
            assert_eq!(Publication::read(7, &payload[..last], &mut scratch), None);
        }
    }

    #[test]
    fn a_round_uses_every_topic_at_every_qos() {
        let mut lanes: Vec<_> = (100..100 + ROUND)
            .map(|sequence| Publication { source: 0, sequence })
            .map(|publication| (publication.topic(), publication.qos(), publication.lane()))
            .collect();
        lanes.sort();
        lanes.dedup_by(|a, b| (&a.0, a.1) == (&b.0, b.1) || a.2 == b.2);
        assert_eq!(lanes.len(), ROUND as usize);
    }
}
