//! Frames that serve many: subscribers of one topic wait for the same messages, and at QoS 0 to
//! clients of one version those look the same on the wire. They are composed for the first of them
//! and sent to the others as they are.

use dunlin_packets::Version;
use dunlin_queue::{Likeness, MessagePool, Time};

use crate::outbound::{COPIED_PAYLOAD_MAX, encode};
use crate::session::State;
use crate::{Context, Session};

/// Messages composed at a time. A queue with more is drained one by one.
const MESSAGES_MAX: usize = 256;
/// And their bytes, topics included.
const BYTES_MAX: usize = 32 << 10;

/// What was composed last, and from what.
#[derive(Debug)]
pub struct Alike {
    version: Version,
    edition: u64,
    messages: Vec<Likeness>,
    bytes: Vec<u8>,
}

impl Default for Alike {
    fn default() -> Self {
        Self { version: Version::V5, edition: 0, messages: Vec::new(), bytes: Vec::new() }
    }
}

impl Alike {
    /// The packets.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn fits(&self, version: Version, pool: &MessagePool, session: &Session) -> bool {
        self.version == version
            && self.edition == pool.edition()
            && self.messages.len() == session.queue.len()
            && session.queue.iter().map(|entry| entry.likeness()).eq(self
                .messages
                .iter()
                .map(|message| Some(*message)))
    }
}

impl Session {
    /// Takes everything that waits, if all of it can be sent at once and looks as it would for
    /// others; says how many messages that were. The packets are then in `alike`. With 0, nothing
    /// has happened, and [`Session::poll_publish`] is the way.
    #[inline]
    pub fn poll_alike(&mut self, cx: &mut Context<'_>, alike: &mut Alike) -> usize {
        let State::Online(link) = &self.state else { return 0 };
        let count = self.queue.len();
        let is_simple = !link.resends && link.topic_alias_maximum == 0;
        if !is_simple || count == 0 || count > MESSAGES_MAX || self.queue.bytes() > BYTES_MAX {
            return 0;
        }
        let packet_bytes_max = link.packet_bytes_max as usize;
        if !alike.fits(link.version, cx.pool, self) && !self.compose(cx, alike) {
            return 0;
        }
        // No packet is larger than all together.
        if alike.bytes.len() > packet_bytes_max {
            return 0;
        }
        self.queue.clear(cx.pool)
    }

    /// Composes everything that waits; `false` when something in it is for this session only.
    fn compose(&mut self, cx: &mut Context<'_>, alike: &mut Alike) -> bool {
        let State::Online(link) = &mut self.state else { return false };
        alike.messages.clear();
        alike.bytes.clear();
        for entry in self.queue.iter() {
            let message = cx.pool.get(&entry.message);
            // What has an expiry says how much of it is left, and may have none.
            let is_lasting = message.expires_at == Time::NEVER;
            let is_small = message.payload().len() <= COPIED_PAYLOAD_MAX;
            let Some(likeness) = entry.likeness().filter(|_| is_lasting && is_small) else {
                alike.messages.clear();
                return false;
            };
            if encode(link, entry, None, false, cx, &mut alike.bytes) != Some(true) {
                alike.messages.clear();
                return false;
            }
            alike.messages.push(likeness);
        }
        (alike.version, alike.edition) = (link.version, cx.pool.edition());
        true
    }
}
