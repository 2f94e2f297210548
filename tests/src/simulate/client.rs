//! A client: both ends of QoS 1 and 2, as the standard wants them, over all its connections.

use std::collections::{BTreeMap, VecDeque};

use dunlin_packets::{AckKind, ReasonCode, Version};

use super::audit::{Auditor, Verdict, violation};
use super::delivery::Delivery;
use super::link::{Incoming, Link};
use super::publication::PubId;

/// A publication that the broker has not acknowledged to the end.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// Its packet identifier.
    pub packet_id: u16,
    /// Which one.
    pub publication: PubId,
    /// 1 or 2.
    pub qos: u8,
    /// PUBREC has come: from here on PUBREL is sent.
    pub is_released: bool,
}

/// A client identifier and what its client keeps.
#[derive(Debug)]
pub struct SimClient {
    /// Its number; the identifier is `c` and the number.
    pub index: usize,
    /// Its connection.
    pub link: Option<Link>,
    /// In the order they were sent first.
    pub outgoing: VecDeque<Outgoing>,
    /// QoS 2 deliveries between PUBLISH and PUBREL.
    received: BTreeMap<u16, Option<PubId>>,
    last_id: u16,
    /// It has begun anew and was never answered: it does so again [MQTT-3.2.2-4].
    pub is_blank: bool,
}

/// Packet identifiers a client uses: few, so that they come again soon.
const IDS: u16 = 60;

impl SimClient {
    /// Without a connection or a session.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self {
            index,
            link: None,
            outgoing: VecDeque::new(),
            received: BTreeMap::new(),
            last_id: 0,
            is_blank: false,
        }
    }

    /// A packet identifier that is not in use.
    pub fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % IDS + 1;
            let id = self.last_id;
            let is_used = self.outgoing.iter().any(|outgoing| outgoing.packet_id == id)
                || self.link.as_ref().is_some_and(|link| link.asked.contains_key(&id));
            if !is_used {
                return id;
            }
        }
    }

    /// The broker says there is no session: neither is there one here.
    pub fn forget_session(&mut self) {
        self.outgoing.clear();
        self.received.clear();
    }

    /// Reads up to so many packets that have come.
    ///
    /// # Errors
    /// When one of them must not have come.
    pub fn read(&mut self, count: usize, audit: &mut Auditor) -> Verdict {
        for _ in 0..count {
            let Some(link) = &mut self.link else { return Ok(()) };
            let Some(incoming) = link.arrived.pop_front() else { return Ok(()) };
            match incoming {
                Incoming::Publish(delivery) => self.on_delivery(&delivery, audit)?,
                Incoming::Ack(kind, id, code) => self.on_ack(kind, id, code, audit)?,
                Incoming::Answer(id, codes) => self.on_answer(id, &codes, audit)?,
                Incoming::Pong => {}
                Incoming::ConnAck { .. } | Incoming::Disconnect(_) => {
                    return violation(format!("c{} got {incoming:?}", self.index));
                }
            }
        }
        Ok(())
    }

    fn on_delivery(&mut self, delivery: &Delivery, audit: &mut Auditor) -> Verdict {
        let Some(link) = &mut self.link else { return Ok(()) };
        let id = delivery.packet_id;
        let mut is_new = true;
        match delivery.qos {
            0 => {}
            1 => link.pending.push_back((AckKind::PubAck, id, ReasonCode::Success)),
            _ => {
                link.pending.push_back((AckKind::PubRec, id, ReasonCode::Success));
                let before = self.received.insert(id, delivery.publication);
                is_new = before.is_none();
                if before.is_some_and(|before| before != delivery.publication) {
                    return violation(format!(
                        "c{} would take {delivery:?} for #{before:?}, which it has under the same \
                         packet identifier",
                        self.index
                    ));
                }
            }
        }
        audit.on_delivery(self.index, delivery, is_new)
    }

    fn on_ack(&mut self, kind: AckKind, id: u16, code: ReasonCode, audit: &mut Auditor) -> Verdict {
        let Some(link) = &mut self.link else { return Ok(()) };
        if kind == AckKind::PubRel {
            let known = self.received.remove(&id).is_some();
            let is_5 = link.version == Version::V5;
            let code = if known || !is_5 {
                ReasonCode::Success
            } else {
                ReasonCode::PacketIdentifierNotFound
            };
            link.pending.push_back((AckKind::PubComp, id, code));
            return Ok(());
        }
        let at = self.outgoing.iter().position(|outgoing| {
            outgoing.packet_id == id
                && match kind {
                    AckKind::PubAck => outgoing.qos == 1,
                    AckKind::PubRec => outgoing.qos == 2 && !outgoing.is_released,
                    _ => outgoing.qos == 2 && outgoing.is_released,
                }
        });
        let Some(at) = at else {
            return violation(format!("c{} got {kind:?} {id} for nothing", self.index));
        };
        if kind != AckKind::PubComp {
            audit.on_acked(self.outgoing[at].publication, code.is_error());
        }
        if kind == AckKind::PubRec && !code.is_error() {
            self.outgoing[at].is_released = true;
            link.pending.push_back((AckKind::PubRel, id, ReasonCode::Success));
        } else {
            self.outgoing.remove(at);
        }
        Ok(())
    }

    fn on_answer(&mut self, id: u16, codes: &[u8], audit: &mut Auditor) -> Verdict {
        let Some(link) = &mut self.link else { return Ok(()) };
        let Some(asked) = link.asked.remove(&id) else {
            return violation(format!("c{} got an answer {id} for nothing", self.index));
        };
        // An UNSUBACK of 3.1.1 has no codes.
        let is_bare = codes.is_empty() && link.version != Version::V5;
        for (at, asked) in asked.iter().enumerate() {
            let code = codes.get(at).copied();
            let fits = match asked.qos {
                Some(qos) => code == Some(qos),
                None if is_bare => true,
                None if asked.was_absent => code == Some(ReasonCode::NoSubscriptionExisted as u8),
                None => matches!(code, Some(0x00 | 0x11)),
            };
            if !fits {
                return violation(format!("c{} was answered {codes:?}: {asked:?}", self.index));
            }
            audit.on_granted(self.index, asked.filter, asked.place);
        }
        Ok(())
    }
}
