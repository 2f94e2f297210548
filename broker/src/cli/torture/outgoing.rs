//! The sender's half of a client's session: publications that are not acknowledged yet, and how
//! they are resent.

use dunlin_packets::{Ack, AckKind, Packet, PacketId, Properties, Publish, QoS};

use super::flights::Flights;
use super::publication::Publication;
use super::receipts::Published;
use super::wire::{Broken, Output};

/// A publication on its way.
#[derive(Clone, Copy, Debug)]
struct Flight {
    publication: Publication,
    /// PUBREC has come: from here on PUBREL is what is resent \[MQTT-4.3.3-4\].
    is_released: bool,
}

/// The state a sender keeps across connections.
#[derive(Debug)]
pub(super) struct Outgoing {
    seed: u64,
    source: u16,
    flights: Flights<Flight>,
    pub(super) published: Published,
    /// Publications the broker took over, at QoS 1 and QoS 2.
    pub(super) acked: [u64; 2],
    /// Publications it refused by a reason code.
    pub(super) refused: u64,
}

impl Outgoing {
    pub(super) fn new(seed: u64, source: u16) -> Self {
        Self {
            seed,
            source,
            flights: Flights::new(),
            published: Published::default(),
            acked: [0; 2],
            refused: 0,
        }
    }

    /// Publications without an end so far.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// What [`publish`](Self::publish) would send now.
    pub(super) fn upcoming(&self) -> Publication {
        Publication { source: self.source, sequence: self.published.count }
    }

    /// Sends the next publication, if an identifier is free.
    pub(super) fn publish(&mut self, out: &mut Output) {
        let flight = Flight { publication: self.upcoming(), is_released: false };
        let Some(id) = self.flights.begin(flight) else { return };
        self.published.count += 1;
        self.send(id, flight, false, out);
    }

    fn send(&self, id: PacketId, flight: Flight, dup: bool, out: &mut Output) {
        let Flight { publication, is_released } = flight;
        if is_released {
            return out.push(&Packet::Ack(Ack::new(AckKind::PubRel, id)));
        }
        let mut payload = Vec::new();
        publication.write_payload(self.seed, &mut payload);
        out.push(&Packet::Publish(Publish {
            dup,
            qos: publication.qos(),
            retain: publication.is_retained(),
            topic: &publication.topic(),
            packet_id: Some(id),
            properties: Properties::default(),
            payload: &payload,
        }));
    }

    /// A connection begins: resends what has no end yet \[MQTT-4.4.0-1\], or, when the broker has
    /// no session any more, gives it up, as resending it could double it.
    pub(super) fn resume(&mut self, session_present: bool, out: &mut Output) {
        if !session_present {
            self.flights.clear();
        }
        for &(id, flight) in self.flights.iter() {
            self.send(id, flight, true, out);
        }
    }

    /// An acknowledgement came. Returns the publication if the broker has just taken it over.
    pub(super) fn on_ack(
        &mut self,
        ack: &Ack<'_>,
        out: &mut Output,
    ) -> Result<Option<Publication>, Broken> {
        let id = ack.packet_id;
        let flight = self.flights.get_mut(id).copied();
        match (ack.kind, flight) {
            (AckKind::PubAck, Some(Flight { publication, .. }))
                if publication.qos() != QoS::ExactlyOnce =>
            {
                self.flights.finish(id);
                Ok(self.settle(publication, ack))
            }
            (AckKind::PubRec, Some(Flight { publication, is_released: false }))
                if publication.qos() == QoS::ExactlyOnce =>
            {
                let taken = self.settle(publication, ack);
                if taken.is_some() {
                    self.release(id, out);
                } else {
                    self.flights.finish(id);
                }
                Ok(taken)
            }
            (AckKind::PubComp, Some(Flight { is_released: true, .. })) => {
                self.flights.finish(id);
                Ok(None)
            }
            (kind, flight) => {
                Err(Broken::Fault(format!("{kind:?} {id} has no place at {flight:?}")))
            }
        }
    }

    /// PUBREC has come.
    fn release(&mut self, id: PacketId, out: &mut Output) {
        if let Some(flight) = self.flights.get_mut(id) {
            flight.is_released = true;
            let flight = *flight;
            self.send(id, flight, false, out);
        }
    }

    /// Enters the broker's word: taken over, or refused.
    fn settle(&mut self, publication: Publication, ack: &Ack<'_>) -> Option<Publication> {
        if ack.code.is_error() {
            self.refused += 1;
            return None;
        }
        self.acked[usize::from(publication.qos() == QoS::ExactlyOnce)] += 1;
        self.published.acked.insert(publication.sequence);
        Some(publication)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_packets::{Frame, Version};

    use super::*;
    use crate::cli::torture::publication::ROUND;

    const ID: fn(u16) -> PacketId = |id| PacketId::new(id).unwrap();

    fn sent(out: &mut Output) -> Vec<String> {
        let (mut rest, mut texts) = (&out.bytes[..], Vec::new());
        while let Some((frame, len)) = Frame::split(rest, 1 << 20, Version::V4).unwrap() {
            texts.push(match Packet::decode(&frame, Version::V4).unwrap() {
                Packet::Publish(publish) => {
                    format!("{}{}", publish.packet_id.unwrap(), if publish.dup { "+" } else { "" })
                }
                Packet::Ack(ack) => format!("{:?} {}", ack.kind, ack.packet_id),
                packet => panic!("{packet:?}"),
            });
            rest = &rest[len..];
        }
        out.bytes.clear();
        texts
    }

    #[test]
    fn what_has_no_end_is_resent_in_order_and_ids_are_used_again_at_once() {
        let mut out = Output::new(Version::V4);
        let mut outgoing = Outgoing::new(1, 0);
        (0..ROUND).for_each(|_| outgoing.publish(&mut out));
        assert_eq!(sent(&mut out), ["1", "2", "3", "4", "5", "6"]);
        // The first three have QoS 1, the others QoS 2.
        for (kind, id) in [(AckKind::PubAck, 2), (AckKind::PubRec, 4), (AckKind::PubRec, 5)] {
            let taken = outgoing.on_ack(&Ack::new(kind, ID(id)), &mut out).unwrap();
            assert_eq!(taken.map(|publication| publication.sequence), Some(u32::from(id) - 1));
        }
        outgoing.on_ack(&Ack::new(AckKind::PubComp, ID(4)), &mut out).unwrap();
        assert_eq!(sent(&mut out), ["PubRel 4", "PubRel 5"]);
        outgoing.resume(true, &mut out);
        assert_eq!(sent(&mut out), ["1+", "3+", "PubRel 5", "6+"]);
        outgoing.publish(&mut out);
        outgoing.publish(&mut out);
        assert_eq!(sent(&mut out), ["2", "4"]);
        assert_eq!((outgoing.acked, outgoing.published.acked.len()), ([1, 2], 3));
        outgoing.resume(false, &mut out);
        assert_eq!((sent(&mut out).len(), outgoing.in_flight()), (0, 0));
    }

    #[test]
    fn an_acknowledgement_out_of_place_is_a_fault() {
        let mut out = Output::new(Version::V4);
        let mut outgoing = Outgoing::new(1, 0);
        outgoing.publish(&mut out);
        for (kind, id) in [(AckKind::PubAck, 2), (AckKind::PubRec, 1), (AckKind::PubComp, 1)] {
            assert!(outgoing.on_ack(&Ack::new(kind, ID(id)), &mut out).is_err());
        }
    }
}
