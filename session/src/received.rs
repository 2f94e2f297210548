//! QoS 2 publications of the client that it has not released yet.

use dunlin_packets::PacketId;

/// Packet identifiers between PUBREC and PUBREL: a PUBLISH under one of them is a repetition
/// \[MQTT-4.3.3-10\]. Part of the session's state, so it outlives the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// By identifier.
    ids: Vec<Publication>,
    /// How many came on the present connection.
    fresh: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Publication {
    packet_id: PacketId,
    /// It came on the present connection.
    is_fresh: bool,
    /// The log has it: its end has to be written down too.
    is_recorded: bool,
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
            self.ids.insert(at, Publication { packet_id: id, is_fresh: true, is_recorded: false });
            self.fresh += 1;
        }
    }

    /// The log has the publication. `false` if it is over already.
    pub(crate) fn set_recorded(&mut self, id: PacketId) -> bool {
        let Ok(at) = self.position(id) else { return false };
        self.ids[at].is_recorded = true;
        true
    }

    /// Identifiers that the log has.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = PacketId> {
        let recorded = self.ids.iter().filter(|publication| publication.is_recorded);
        recorded.map(|publication| publication.packet_id)
    }

    /// PUBREL came. Says whether the log had it; `None` if there was no such publication.
    pub(crate) fn remove(&mut self, id: PacketId) -> Option<bool> {
        let at = self.position(id).ok()?;
        let publication = self.ids.remove(at);
        self.fresh -= usize::from(publication.is_fresh);
        Some(publication.is_recorded)
    }

    /// A new connection begins.
    pub(crate) fn restart(&mut self) {
        for publication in &mut self.ids {
            publication.is_fresh = false;
        }
        self.fresh = 0;
    }

    pub(crate) fn shrink(&mut self) {
        if self.ids.is_empty() {
            self.ids = Vec::new();
        }
    }

    fn position(&self, id: PacketId) -> Result<usize, usize> {
        self.ids.binary_search_by_key(&id, |publication| publication.packet_id)
    }
}
