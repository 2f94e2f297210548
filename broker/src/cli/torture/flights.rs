//! Packet identifiers of what a client has sent and the broker has not acknowledged.

use std::collections::VecDeque;

use dunlin_packets::PacketId;

/// Packets in flight, at most: the bits of [`Flights::ids`].
pub(super) const WINDOW_MAX: usize = 64;

/// What is on its way, in the order it was sent, which is the order it is resent in
/// \[MQTT-4.6.0-1\].
#[derive(Debug)]
pub(super) struct Flights<T> {
    flights: VecDeque<(PacketId, T)>,
    /// Identifiers in use; the lowest free one is taken, so that each is used again soon: a
    /// broker that has forgotten how an exchange ended takes the next one for it.
    ids: u64,
}

impl<T> Flights<T> {
    pub(super) fn new() -> Self {
        Self { flights: VecDeque::new(), ids: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Gives it an identifier, if one is free.
    pub(super) fn begin(&mut self, flight: T) -> Option<PacketId> {
        let index = self.ids.trailing_ones();
        let id = PacketId::new(index as u16 + 1).filter(|_| index < WINDOW_MAX as u32)?;
        self.ids |= 1 << index;
        self.flights.push_back((id, flight));
        Some(id)
    }

    /// What has this identifier.
    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut T> {
        self.flights.iter_mut().find(|(used, _)| *used == id).map(|(_, flight)| flight)
    }

    /// It is acknowledged: the identifier is free.
    pub(super) fn finish(&mut self, id: PacketId) -> Option<T> {
        let at = self.flights.iter().position(|(used, _)| *used == id)?;
        self.ids &= !(1 << (id.get() - 1));
        self.flights.remove(at).map(|(_, flight)| flight)
    }

    /// Gives all of it up.
    pub(super) fn clear(&mut self) {
        self.flights.clear();
        self.ids = 0;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(PacketId, T)> {
        self.flights.iter()
    }
}
