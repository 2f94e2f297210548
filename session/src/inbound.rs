//! Packets from the client.

use dunlin_packets::{
    Ack, AckKind, Disconnect, Kind, Packet, PacketError, PacketId, Property, Publish, QoS,
    ReasonCode, Subscribe, Unsubscribe, Version,
};
use dunlin_queue::{DropReason, Entry, MessageFields, MessageRef, Stage};

use crate::changes::{Answer, note_answer, note_finished};
use crate::link::Link;
use crate::session::State;
use crate::{Change, Context, Limits, Session};

/// What the owner of the session has to do about a packet.
#[derive(Debug)]
#[must_use]
pub enum Action<'a> {
    /// Nothing more.
    None,
    /// Route the message, then [`Session::acknowledge`].
    Publish {
        /// The message, aliases resolved.
        message: MessageRef,
        /// What to acknowledge; `None` at QoS 0.
        packet_id: Option<PacketId>,
    },
    /// A QoS 2 PUBLISH came again. It may not be safe yet, so its PUBREC goes out behind what has
    /// still to be written down: [`Session::acknowledge`].
    Repeated {
        /// What to acknowledge.
        packet_id: PacketId,
    },
    /// PUBCOMP may go out when everything is safe that was written down so far, that the identifier
    /// is free again in particular: [`Session::pubcomp`]. Until then a crash would bring back the
    /// publication that had it, and take the next one under it for that one.
    Complete {
        /// What to acknowledge.
        packet_id: PacketId,
        /// There was such a publication.
        is_known: bool,
    },
    /// Change the subscriptions, then [`Session::suback`].
    Subscribe(Subscribe<'a>),
    /// Change the subscriptions, then [`Session::unsuback`].
    Unsubscribe(Unsubscribe<'a>),
    /// Close the connection, and [`Session::detach`].
    Disconnect {
        /// The client takes its will back.
        discard_will: bool,
        /// What it said.
        code: ReasonCode,
    },
    /// A delivery is over; the window may have room again.
    Acknowledged(Option<Refused>),
}

/// The client answered a delivery with an error: it is not sent again \[MQTT-4.4.0-2\].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How it is counted.
    pub reason: DropReason,
    /// What the client said.
    pub code: ReasonCode,
}

/// A PUBACK without a reason code, in any version, and how it begins.
const PUBACK_BYTES: usize = 4;
const PUBACK_HEAD: [u8; 2] = [(Kind::PubAck as u8) << 4, 2];

impl Session {
    /// Handles one packet. What has to be answered at once is appended to `out`.
    /// `publisher` is the hash of the client identifier that goes into messages.
    ///
    /// # Errors
    /// What the client did wrong: answer with [`Session::disconnect`] and close.
    ///
    /// # Panics
    /// When there is no connection.
    #[inline]
    pub fn on_packet<'a>(
        &mut self,
        packet: &Packet<'a>,
        publisher: u64,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Action<'a>, PacketError> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish, publisher, cx),
            Packet::Ack(ack) => self.on_ack(ack, cx, out),
            Packet::Subscribe(subscribe) => Ok(Action::Subscribe(*subscribe)),
            Packet::Unsubscribe(unsubscribe) => Ok(Action::Unsubscribe(*unsubscribe)),
            Packet::PingReq => {
                let _ = self.send(&Packet::PingResp, out);
                Ok(Action::None)
            }
            Packet::Disconnect(disconnect) => self.on_disconnect(disconnect, cx.limits),
            Packet::Connect(_) => Err(PacketError::protocol("3.1.0-2", "a second CONNECT")),
            Packet::Auth(_) => Err(PacketError::protocol(
                "4.12.0-7",
                "AUTH on a connection without an authentication method",
            )),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(PacketError::protocol("4.13", "a packet that only servers send"))
            }
        }
    }

    #[inline]
    fn on_publish(
        &mut self,
        publish: &Publish<'_>,
        publisher: u64,
        cx: &mut Context<'_>,
    ) -> Result<Action<'static>, PacketError> {
        check_publish(publish, cx.limits)?;
        let State::Online(link) = &mut self.state else { panic!("a packet without a connection") };
        // Before 5.0 there is no receive maximum.
        let has_maximum = link.version.has_properties();
        let topic = resolve_topic(publish, link, cx.limits)?;
        if let Some(id) = publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce) {
            if self.received.contains(id) {
                return Ok(Action::Repeated { packet_id: id });
            }
            if has_maximum && self.received.fresh() >= usize::from(cx.limits.receive_maximum) {
                return Err(PacketError::new(
                    ReasonCode::ReceiveMaximumExceeded,
                    "3.3.4-7",
                    "more unacknowledged publications than the receive maximum",
                ));
            }
        }
        let fields = MessageFields {
            topic,
            payload: publish.payload,
            properties: publish.properties,
            qos: publish.qos,
            retain: publish.retain,
            publisher,
        };
        let message = cx.pool.insert(&fields, cx.now);
        if let Some(id) = publish.packet_id.filter(|_| publish.qos == QoS::ExactlyOnce) {
            self.received.insert(id);
        }
        Ok(Action::Publish { message, packet_id: publish.packet_id })
    }

    /// Takes the PUBACKs at the beginning of `bytes` as far as they are what most are: without a
    /// reason code, and for deliveries at QoS 1 that are in flight. Returns how many bytes those
    /// are; what follows is for [`Session::on_packet`]. A client that is sent much answers with
    /// many in a row.
    pub fn take_pubacks(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> usize {
        let (packets, _) = bytes.as_chunks::<PUBACK_BYTES>();
        let mut count = 0;
        for &[first, len, high, low] in packets {
            let id = PacketId::new(u16::from_be_bytes([high, low]));
            let Some(id) = id.filter(|_| [first, len] == PUBACK_HEAD) else { break };
            let Some(entry) = self.window.acknowledge(id, cx.pool) else { break };
            self.on_done(id, entry, Answer::Acknowledged, cx);
            count += 1;
        }
        count * PUBACK_BYTES
    }

    /// The client has answered a delivery, and will not get it again.
    #[inline]
    fn on_done(&self, id: PacketId, entry: Entry, answer: Answer, cx: &mut Context<'_>) {
        note_answer(&entry, answer, cx.pool, cx.changes);
        if self.is_durable {
            note_finished(id, &entry, cx.pool, cx.changes);
        }
        entry.release(cx.pool);
    }

    #[inline]
    fn on_ack(
        &mut self,
        ack: &Ack<'_>,
        cx: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Action<'static>, PacketError> {
        let id = ack.packet_id;
        if ack.kind == AckKind::PubRel {
            let removed = self.received.remove(id);
            let is_known = removed.is_some();
            if removed == Some(true) {
                cx.changes.push(Change::Freed { packet_id: id });
            }
            if self.is_durable {
                return Ok(Action::Complete { packet_id: id, is_known });
            }
            self.answer(AckKind::PubComp, id, is_known, out);
            return Ok(Action::None);
        }
        let qos = match self.window.stage(id) {
            Some(Stage::Publish(entry)) => Some(entry.qos),
            _ => None,
        };
        let wrong_kind = match ack.kind {
            AckKind::PubAck => qos == Some(QoS::ExactlyOnce),
            AckKind::PubRec => qos == Some(QoS::AtLeastOnce),
            AckKind::PubComp | AckKind::PubRel => false,
        };
        if wrong_kind {
            return Err(PacketError::protocol("4.3", "an acknowledgement for another QoS"));
        }
        let finished = match ack.kind {
            AckKind::PubRec if !ack.code.is_error() => {
                self.on_pubrec(id, cx, out);
                return Ok(Action::None);
            }
            // A PUBCOMP before the PUBREC ends nothing.
            AckKind::PubComp if qos.is_some() => None,
            // A PUBACK ends nothing of QoS 2.
            AckKind::PubAck if qos.is_none() => None,
            _ => self.window.finish(id, cx.pool),
        };
        let Some(entry) = finished else { return Ok(Action::None) };
        match entry {
            Some(entry) => {
                let is_refused = ack.code.is_error();
                let answer = if is_refused { Answer::Refused } else { Answer::Acknowledged };
                self.on_done(id, entry, answer, cx);
            }
            None if self.is_durable => cx.changes.push(Change::Completed { packet_id: id }),
            None => {}
        }
        // PUBCOMP 0x92 comes for a message that was delivered.
        let is_refusal = ack.code.is_error() && ack.kind != AckKind::PubComp;
        let refused = Refused { reason: DropReason::RefusedByClient, code: ack.code };
        Ok(Action::Acknowledged(is_refusal.then_some(refused)))
    }

    /// PUBREC: the message is the client's; from here on only PUBREL is sent \[MQTT-4.3.3-4\].
    fn on_pubrec(&mut self, id: PacketId, cx: &mut Context<'_>, out: &mut Vec<u8>) {
        let released = self.window.release(id, cx.pool);
        let known = released.is_some();
        if let Some(Some(entry)) = released {
            let message_id = cx.pool.get(&entry.message).id;
            note_answer(&entry, Answer::Acknowledged, cx.pool, cx.changes);
            entry.release(cx.pool);
            if self.is_durable {
                cx.changes.push(Change::Released { packet_id: id, id: message_id });
                return self.window.hold_release(id);
            }
        }
        if self.is_durable && self.window.is_held(id) {
            // PUBREC came twice; the answer to the first is still being written down.
            return;
        }
        self.answer(AckKind::PubRel, id, known, out);
    }

    /// Appends PUBCOMP for a publication that the client has released.
    pub fn pubcomp(&self, id: PacketId, is_known: bool, out: &mut Vec<u8>) {
        self.answer(AckKind::PubComp, id, is_known, out);
    }

    /// The next step of a QoS 2 handshake, with 0x92 when we know nothing of it.
    fn answer(&self, kind: AckKind, id: PacketId, known: bool, out: &mut Vec<u8>) {
        let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        let _ = self.send(&Packet::Ack(Ack { code, ..Ack::new(kind, id) }), out);
    }

    fn on_disconnect(
        &mut self,
        disconnect: &Disconnect<'_>,
        limits: &Limits,
    ) -> Result<Action<'static>, PacketError> {
        for property in disconnect.properties.iter() {
            match property {
                Property::SessionExpiryInterval(seconds) if self.wants_no_expiry && seconds > 0 => {
                    return Err(PacketError::protocol(
                        "3.14.2.2.2",
                        "a session expiry for a session that was to end with its connection",
                    ));
                }
                Property::SessionExpiryInterval(seconds) => {
                    self.expiry_s = seconds.min(limits.session_expiry_max_s);
                }
                Property::ServerReference(_) => {
                    return Err(PacketError::protocol("3.14.2.2.5", "a server reference"));
                }
                _ => {}
            }
        }
        let before_5 = self.version() != Some(Version::V5);
        let discard_will = before_5 || disconnect.code == ReasonCode::Success;
        Ok(Action::Disconnect { discard_will, code: disconnect.code })
    }
}

#[inline]
fn check_publish(publish: &Publish<'_>, limits: &Limits) -> Result<(), PacketError> {
    if publish.qos > limits.qos_max {
        return Err(PacketError::new(
            ReasonCode::QosNotSupported,
            "3.2.2-11",
            "the QoS is above the maximum QoS",
        ));
    }
    if publish.retain && !limits.retain_available {
        return Err(PacketError::new(
            ReasonCode::RetainNotSupported,
            "3.2.2-14",
            "retained messages are switched off",
        ));
    }
    if publish.payload.len() > limits.payload_bytes_max as usize {
        return Err(PacketError::new(
            ReasonCode::PacketTooLarge,
            "3.2.2-15",
            "the payload is larger than this broker takes",
        ));
    }
    Ok(())
}

/// The topic a PUBLISH means: its own, or that of its alias.
#[inline]
fn resolve_topic<'a>(
    publish: &Publish<'a>,
    link: &'a mut Link,
    limits: &Limits,
) -> Result<&'a str, PacketError> {
    let mut alias = None;
    for property in publish.properties.iter() {
        match property {
            Property::TopicAlias(number) => alias = Some(number),
            Property::SubscriptionIdentifier(_) => {
                return Err(PacketError::protocol(
                    "3.3.4-6",
                    "a client's PUBLISH has a subscription identifier",
                ));
            }
            _ => {}
        }
    }
    let Some(alias) = alias else { return Ok(publish.topic) };
    let aliases = link.incoming.get_or_insert_default();
    aliases.resolve(alias, publish.topic, limits.topic_alias_maximum)
}
