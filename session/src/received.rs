//! QoS 2 publications of the client that it has not released yet.

use dunlin_packets::PacketId;

/// Packet identifiers between PUBREC and PUBREL: a PUBLISH under one of them is a repetition
/// \[MQTT-4.3.3-10\]. Part of the session's state, so it outlives the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    ids: Vec<PacketId>,
}

impl Received {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn contains(&self, id: PacketId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    pub(crate) fn insert(&mut self, id: PacketId) {
        if let Err(at) = self.ids.binary_search(&id) {
            self.ids.insert(at, id);
        }
    }

    /// PUBREL came. `false` if there was no such publication.
    pub(crate) fn remove(&mut self, id: PacketId) -> bool {
        self.ids.binary_search(&id).map(|at| self.ids.remove(at)).is_ok()
    }

    pub(crate) fn shrink(&mut self) {
        if self.ids.is_empty() {
            self.ids = Vec::new();
        }
    }
}
