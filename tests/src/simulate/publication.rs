//! What was published, and how far each publication is, as its publisher knows it.

use std::fmt::Write as _;

use super::names::TopicId;

/// A point in the order of what the driver does. It grows with every step and every time the
/// broker has come to rest; the virtual clock may stand still meanwhile.
pub type Tick = u64;

/// Number of a publication, which its payload carries. Those of one publisher rise in the order it
/// sends them in.
pub type PubId = usize;

/// Whether a will goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A will whose time has not come: nobody may get it.
    Kept,
    /// It was sent, or its time has come.
    Out,
    /// A will that was taken back: nobody may get it.
    Discarded,
    /// A will of which it is not known, because the broker crashed.
    Unclear,
}

/// One application message.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Which client sent it.
    pub publisher: usize,
    /// Where to.
    pub topic: TopicId,
    /// At which QoS.
    pub qos: u8,
    /// With RETAIN.
    pub retain: bool,
    /// Without a payload, and so without its number.
    pub is_empty: bool,
    /// Bytes of its payload.
    pub len: usize,
    /// Message expiry interval in seconds.
    pub expiry_s: Option<u32>,
    /// It was sent again in 3.1.1, and so without its expiry.
    pub may_last: bool,
    /// Before this virtual time it cannot have expired.
    pub expires_min_ms: u64,
    /// From this virtual time on it has; known when it is settled.
    pub expires_max_ms: u64,
    /// Whether it is out.
    pub stage: Stage,
    /// The broker cannot have seen it before.
    pub sent: Tick,
    /// The broker cannot route it after this, unless it is sent again.
    pub settled: Option<Tick>,
    /// It was certainly routed.
    pub is_processed: bool,
    /// The broker has taken responsibility for it, and the publisher knows.
    pub is_acked: bool,
    /// The broker has refused it.
    pub is_refused: bool,
    /// How many times it was sent.
    pub transmissions: u32,
    /// Its first and last place in the order of all sendings.
    pub places: (u64, u64),
    /// Connections it may still come out of.
    pub open: u32,
    /// Crashes of the broker before it was sent.
    pub crashes_before: u32,
    /// Members of share groups it was given to at QoS 2.
    pub shared_exactly: u32,
}

/// All publications of a run.
#[derive(Debug, Default)]
pub struct Publications {
    all: Vec<Publication>,
}

impl Publications {
    /// Adds one.
    pub fn add(&mut self, publication: Publication) -> PubId {
        self.all.push(publication);
        self.all.len() - 1
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one of that number.
    #[must_use]
    pub fn get(&self, id: PubId) -> &Publication {
        &self.all[id]
    }

    /// The one of that number.
    pub fn get_mut(&mut self, id: PubId) -> &mut Publication {
        &mut self.all[id]
    }

    /// All with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (PubId, &Publication)> {
        self.all.iter().enumerate()
    }

    /// The payload of a publication: its number, a point, and as much as it is long.
    #[must_use]
    pub fn payload(&self, id: PubId) -> Vec<u8> {
        let publication = self.get(id);
        if publication.is_empty {
            return Vec::new();
        }
        let mut text = String::with_capacity(publication.len);
        let _ = write!(text, "{id}.");
        let mut payload = text.into_bytes();
        payload.resize(publication.len.max(payload.len()), b'x');
        payload
    }

    /// The publication a payload is of; `None` when no such payload was ever sent.
    #[must_use]
    pub fn find(&self, payload: &[u8]) -> Option<PubId> {
        let end = payload.iter().position(|&byte| byte == b'.')?;
        let id: PubId = std::str::from_utf8(&payload[..end]).ok()?.parse().ok()?;
        let publication = self.all.get(id)?;
        let is_whole = payload.len() == publication.len.max(end + 1)
            && payload[end + 1..].iter().all(|&byte| byte == b'x');
        is_whole.then_some(id)
    }
}
