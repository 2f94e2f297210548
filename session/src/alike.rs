//! Frames that serve many: subscribers of one topic wait for the same messages, and at QoS 0 to
//! clients of one version those look the same on the wire. They are composed for the first of them
//! and sent to the others as they are.

use dunlin_packets::{QoS, Version};
use dunlin_queue::{Entry, Likeness, MessagePool, Time};

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

    /// Whether just this waits for the session.
    #[inline]
    fn holds(&self, version: Version, pool: &MessagePool, session: &Session) -> bool {
        !self.messages.is_empty()
            && self.version == version
            && self.edition == pool.edition()
            && self.messages.len() == session.queue.len()
            && session
                .queue
                .iter()
                .map(Entry::likeness)
                .eq(self.messages.iter().map(|message| Some(*message)))
    }
}

impl Session {
    /// Whether what waits may be what others wait for: a quick look.
    #[inline]
    #[must_use]
    pub fn may_be_alike(&self) -> bool {
        let State::Online(link) = &self.state else { return false };
        let is_plain = |entry: &Entry| entry.qos == QoS::AtMostOnce;
        !link.resends && link.topic_alias_maximum == 0 && self.queue.front().is_some_and(is_plain)
    }

    /// Takes everything that waits, if it is what is in `alike` already; says how many messages
    /// that were, and with 0 that nothing has happened. Only of a session that
    /// [may be alike](Self::may_be_alike).
    #[inline]
    pub fn take_alike(&mut self, cx: &mut Context<'_>, alike: &Alike) -> usize {
        let State::Online(link) = &self.state else { return 0 };
        // No packet is larger than all together.
        let fits = alike.bytes.len() <= link.packet_bytes_max as usize;
        debug_assert!(self.may_be_alike());
        if !fits || !alike.holds(link.version, cx.pool, self) {
            return 0;
        }
        self.queue.clear(cx.pool)
    }

    /// Takes everything that waits and composes it, if all of it can be sent at once and looks as
    /// it would for others. As [`Self::take_alike`]; with 0, [`Session::poll_publish`] is the way.
    pub fn compose_alike(&mut self, cx: &mut Context<'_>, alike: &mut Alike) -> usize {
        let count = self.queue.len();
        if count == 0 || count > MESSAGES_MAX || self.queue.bytes() > BYTES_MAX {
            return 0;
        }
        alike.messages.clear();
        if self.compose(cx, alike) { self.take_alike(cx, alike) } else { 0 }
    }

    /// `false` when something that waits is for this session only.
    fn compose(&mut self, cx: &mut Context<'_>, alike: &mut Alike) -> bool {
        let State::Online(link) = &mut self.state else { return false };
        alike.bytes.clear();
        let mut messages = std::mem::take(&mut alike.messages);
        let is_alike = self.queue.iter().all(|entry| {
            let message = cx.pool.get(&entry.message);
            // What has an expiry says how much of it is left, and may have none.
            let is_lasting = message.expires_at == Time::NEVER;
            // What is on disk only has to be loaded first.
            let is_small = !message.is_absent() && message.payload().len() <= COPIED_PAYLOAD_MAX;
            let Some(likeness) = entry.likeness().filter(|_| is_lasting && is_small) else {
                return false;
            };
            messages.push(likeness);
            encode(link, entry, None, false, cx, &mut alike.bytes) == Some(true)
        });
        if !is_alike {
            messages.clear();
        }
        alike.messages = messages;
        (alike.version, alike.edition) = (link.version, cx.pool.edition());
        is_alike
    }
}
