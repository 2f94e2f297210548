//! QoS 2 publications of the client that it has not released yet.

use dunlin_packets::PacketId;

/// Packet identifiers between PUBREC and PUBREL: a PUBLISH under one of them is a repetition
/// \[MQTT-4.3.3-10\]. Part of the session's state, so it outlives the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// By identifier; whether it came on the present connection.
    ids: Vec<(PacketId, bool)>,
    /// How many did.
    fresh: usize,
}

impl Received {
    /// Those that count against our receive maximum, which begins anew with each connection
    /// \[MQTT-4.9.0-1\].
    pub(crate) fn fresh(&self) -> usize {
        self.fresh
    }

    pub(crate) fn contains(&self, id: PacketId) -> bool {
        self.position(id).is_ok()
    }

    pub(crate) fn insert(&mut self, id: PacketId) {
        if let Err(at) = self.position(id) {
            self.ids.insert(at, (id, true));
            self.fresh += 1;
        }
    }

    /// PUBREL came. `false` if there was no such publication.
    pub(crate) fn remove(&mut self, id: PacketId) -> bool {
        let Ok(at) = self.position(id) else { return false };
        let (_, is_fresh) = self.ids.remove(at);
        self.fresh -= usize::from(is_fresh);
        true
    }

    /// A new connection begins.
    pub(crate) fn restart(&mut self) {
        for (_, is_fresh) in &mut self.ids {
            *is_fresh = false;
        }
        self.fresh = 0;
    }

    pub(crate) fn shrink(&mut self) {
        if self.ids.is_empty() {
            self.ids = Vec::new();
        }
    }

    fn position(&self, id: PacketId) -> Result<usize, usize> {
        self.ids.binary_search_by_key(&id, |(id, _)| *id)
    }
}
