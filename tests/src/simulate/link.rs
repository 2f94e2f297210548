//! One connection of a client: bytes both ways, and what MQTT says about a single connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_packets::{
    Ack, AckKind, Frame, Packet, PacketId, Property, Publish, ReasonCode, VARINT_MAX, Version,
};

use super::audit::{Verdict, violation};
use super::delivery::Delivery;
use super::names::{FilterId, Names, TopicId};
use super::publication::{PubId, Publications};
use super::random::Random;
use crate::Client;

/// A packet that has come and was not read yet.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// CONNACK.
    ConnAck {
        /// Session Present.
        present: bool,
        /// Success, or why not.
        code: ReasonCode,
        /// Session Expiry Interval, if the broker changed it.
        expiry_s: Option<u32>,
    },
    /// PUBLISH.
    Publish(Delivery),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Ack(AckKind, u16, ReasonCode),
    /// SUBACK or UNSUBACK.
    Answer(u16, Vec<u8>),
    /// DISCONNECT.
    Disconnect(ReasonCode),
    /// PINGRESP.
    Pong,
}

/// A request that waits for its SUBACK or UNSUBACK: filter, place in the history, the code that is
/// expected, and whether there was certainly no subscription before.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Which filter.
    pub filter: FilterId,
    /// See [`Auditor::on_request`](super::audit::Auditor::on_request).
    pub place: usize,
    /// The granted QoS; `None` for an UNSUBSCRIBE.
    pub qos: Option<u8>,
    /// There was certainly no such subscription.
    pub was_absent: bool,
}

/// How a client deals with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diligence {
    /// Reads and answers at once.
    Prompt,
    /// Does so when a step says so.
    Lazy,
}

/// A connection from its client's side.
#[derive(Debug)]
pub struct Link {
    pub(super) client: Client,
    /// What it speaks.
    pub version: Version,
    /// What has come and was not read.
    pub arrived: VecDeque<Incoming>,
    /// The beginning of a packet.
    partial: Vec<u8>,
    /// What the client has composed and not written.
    unsent: Vec<u8>,
    /// Answers that are not written yet, in their order.
    pub pending: VecDeque<(AckKind, u16, ReasonCode)>,
    /// Deliveries that have come and are not acknowledged, as far as the broker can know.
    outstanding: BTreeSet<u16>,
    receive_maximum: usize,
    /// It is slow now; it was once.
    pub is_limited: bool,
    was_limited: bool,
    /// How it reads.
    pub diligence: Diligence,
    aliases_in: BTreeMap<u16, TopicId>,
    alias_max: u16,
    /// Aliases the client has set.
    pub aliases_out: BTreeMap<TopicId, u16>,
    /// Publications that are not settled on this connection.
    pub unsettled: Vec<PubId>,
    /// Requests without an answer.
    pub asked: BTreeMap<u16, Vec<Asked>>,
    /// Whether DISCONNECT may carry a session expiry.
    pub may_change_expiry: bool,
    /// Sum of everything that came, to compare two runs.
    pub digest: u64,
}

impl Link {
    /// Over a new connection.
    #[must_use]
    pub fn new(client: Client, version: Version, receive_maximum: u16, alias_max: u16) -> Self {
        Self {
            client,
            version,
            arrived: VecDeque::new(),
            partial: Vec::new(),
            unsent: Vec::new(),
            pending: VecDeque::new(),
            outstanding: BTreeSet::new(),
            receive_maximum: usize::from(receive_maximum),
            is_limited: false,
            was_limited: false,
            diligence: Diligence::Prompt,
            aliases_in: BTreeMap::new(),
            alias_max,
            aliases_out: BTreeMap::new(),
            unsettled: Vec::new(),
            asked: BTreeMap::new(),
            may_change_expiry: false,
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Sends bytes, sometimes but for the end of them.
    pub fn write(&mut self, bytes: &[u8], random: &mut Random) {
        self.unsent.extend_from_slice(bytes);
        let kept = if random.percent(5) { random.below(self.unsent.len()) } else { 0 };
        let rest = self.unsent.split_off(self.unsent.len() - kept);
        self.client.write(&self.unsent);
        self.unsent = rest;
    }

    /// Sends what was kept back.
    pub fn complete(&mut self) {
        self.client.write(&self.unsent);
        self.unsent.clear();
    }

    /// Whether the broker has taken note of everything that was composed, once it is at rest. A
    /// client that does not read its answers is not listened to.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.unsent.is_empty() && !self.is_limited && self.client.is_read()
    }

    /// Reads slowly: only so many bytes more.
    pub fn limit(&mut self, bytes: usize) {
        (self.is_limited, self.was_limited) = (true, true);
        self.client.limit_room(bytes);
    }

    /// Reads everything again.
    pub fn unlimit(&mut self) {
        self.is_limited = false;
        self.client.limit_room(usize::MAX);
    }

    /// Writes the first of the answers that are due.
    pub fn answer(&mut self, count: usize, random: &mut Random) {
        let mut bytes = Vec::new();
        for (kind, id, code) in self.pending.drain(..count.min(self.pending.len())) {
            if matches!(kind, AckKind::PubAck | AckKind::PubComp) {
                self.outstanding.remove(&id);
            }
            let packet_id = PacketId::new(id).expect("it came as a packet identifier");
            Ack { code, ..Ack::new(kind, packet_id) }.encode(self.version, &mut bytes);
        }
        if !bytes.is_empty() {
            self.write(&bytes, random);
        }
    }

    /// Takes in what the broker has written.
    ///
    /// # Errors
    /// When it is not what a broker may write on this connection.
    pub fn receive(&mut self, names: &Names, sent: &Publications, now_ms: u64) -> Verdict {
        let bytes = self.client.take_bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        for &byte in &bytes {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(&bytes);
        let mut rest = &all[..];
        loop {
            let split = Frame::split(rest, VARINT_MAX as usize + 5, self.version);
            let Some((frame, len)) = split.or_else(|error| violation(format!("{error:?}")))? else {
                break;
            };
            let packet = Packet::decode(&frame, self.version);
            let packet = packet.or_else(|error| violation(format!("{error:?}")))?;
            let incoming = self.take_in(&packet, names, sent, now_ms)?;
            self.arrived.push_back(incoming);
            rest = &rest[len..];
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn take_in(
        &mut self,
        packet: &Packet<'_>,
        names: &Names,
        sent: &Publications,
        now_ms: u64,
    ) -> Result<Incoming, super::audit::Violation> {
        Ok(match packet {
            Packet::ConnAck(connack) => {
                let expiry_s = connack.properties.iter().find_map(|property| match property {
                    Property::SessionExpiryInterval(seconds) => Some(seconds),
                    _ => None,
                });
                let (present, code) = (connack.session_present, connack.code);
                Incoming::ConnAck { present, code, expiry_s }
            }
            Packet::Publish(publish) => {
                let came_ms = (!self.was_limited).then_some(now_ms);
                Incoming::Publish(self.take_in_publish(publish, names, sent, came_ms)?)
            }
            Packet::Ack(ack) => Incoming::Ack(ack.kind, ack.packet_id.get(), ack.code),
            Packet::SubAck(answer) => {
                Incoming::Answer(answer.packet_id.get(), answer.codes.to_vec())
            }
            Packet::UnsubAck(answer) => {
                Incoming::Answer(answer.packet_id.get(), answer.codes.to_vec())
            }
            Packet::Disconnect(disconnect) => Incoming::Disconnect(disconnect.code),
            Packet::PingResp => Incoming::Pong,
            other => return violation(format!("a broker does not send {other:?}")),
        })
    }

    fn take_in_publish(
        &mut self,
        publish: &Publish<'_>,
        names: &Names,
        sent: &Publications,
        came_ms: Option<u64>,
    ) -> Result<Delivery, super::audit::Violation> {
        let topic = self.resolve(publish, names)?;
        let publication = match publish.payload {
            [] => None,
            payload => match sent.find(payload) {
                Some(id) => Some(id),
                None => return violation(format!("nobody sent that: {publish:?}")),
            },
        };
        let packet_id = publish.packet_id.map_or(0, PacketId::get);
        if packet_id != 0 && !self.outstanding.insert(packet_id) {
            return violation(format!("packet identifier {packet_id} is in use: {publish:?}"));
        }
        if self.outstanding.len() > self.receive_maximum {
            return violation(format!("more in flight than {}", self.receive_maximum));
        }
        let mut identifiers = Vec::new();
        let mut expiry_s = None;
        for property in publish.properties.iter() {
            match property {
                Property::SubscriptionIdentifier(identifier) => identifiers.push(identifier),
                Property::MessageExpiryInterval(seconds) => expiry_s = Some(seconds),
                _ => {}
            }
        }
        Ok(Delivery {
            topic,
            publication,
            qos: publish.qos as u8,
            dup: publish.dup,
            retain: publish.retain,
            packet_id,
            identifiers,
            expiry_s,
            has_properties: self.version.has_properties(),
            came_ms,
        })
    }

    fn resolve(
        &mut self,
        publish: &Publish<'_>,
        names: &Names,
    ) -> Result<TopicId, super::audit::Violation> {
        let alias = publish.properties.iter().find_map(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        let named = names.topic(publish.topic);
        let Some(alias) = alias else {
            return named.map_or_else(|| violation(format!("no such topic: {publish:?}")), Ok);
        };
        if alias == 0 || alias > self.alias_max {
            return violation(format!("an alias beyond the maximum: {publish:?}"));
        }
        if let Some(topic) = named {
            self.aliases_in.insert(alias, topic);
        }
        match self.aliases_in.get(&alias) {
            Some(&topic) => Ok(topic),
            None => violation(format!("an alias that was never set: {publish:?}")),
        }
    }
}
