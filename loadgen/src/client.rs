//! One MQTT client: from TCP connect to its last packet.

use std::io::{self, ErrorKind, Read, Write};

use dunlin_packets::{
    Ack, AckKind, Connect, Disconnect, FilterRequest, Frame, Packet, PacketId, Properties,
    PropertiesBuf, Property, Publish, QoS, ReasonCode, Subscribe, SubscriptionOptions, VARINT_MAX,
    Version,
};

use crate::stream::Stream;
use crate::template::Template;

/// Who a client is, and what it subscribes to as soon as it is connected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Greeting {
    pub(crate) client_id: String,
    /// Goes on with a stored session, and leaves one behind.
    pub(crate) keeps_session: bool,
    pub(crate) filters: Vec<String>,
    pub(crate) qos: QoS,
}

/// Filters in one SUBSCRIBE.
const FILTERS_PER_PACKET: usize = 100;
/// Long enough that no scenario ends it; some brokers refuse 0.
const KEEP_ALIVE_S: u16 = 3600;
const SESSION_EXPIRY_S: u32 = 3600;

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    /// So many SUBACKs are still to come.
    Subscribing(u32),
    Online,
}

/// What the scenarios are told.
pub(crate) trait Observer {
    /// A delivery, `now` being the time at which it was read.
    fn on_publish(&mut self, _client: usize, _payload: &[u8], _now: u64) {}
    /// The end of a QoS 1 or 2 publication.
    fn on_acknowledged(&mut self, _client: usize, _id: PacketId, _code: ReasonCode, _now: u64) {}
    /// Connected, and subscribed to everything in the greeting.
    fn on_online(&mut self, _client: usize, _since_ns: u64, _now: u64) {}
}

/// Listens to nothing.
#[derive(Debug)]
pub(crate) struct Deaf;
impl Observer for Deaf {}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: Stream,
    pub(crate) phase: Phase,
    version: Version,
    /// The beginning of a packet whose rest has not come.
    input: Vec<u8>,
    /// What the socket did not take yet.
    pub(crate) output: Vec<u8>,
    pub(crate) is_blocked: bool,
    greeting: Option<Box<Greeting>>,
    pub(crate) since_ns: u64,
    /// The most QoS 1 and 2 publications the broker takes unacknowledged.
    pub(crate) receive_maximum: u16,
    pub(crate) session_present: bool,
    template: Template,
}

/// User name and password.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    pub(crate) user_name: Option<String>,
    pub(crate) password: Option<String>,
}

impl Client {
    pub(crate) fn new(
        stream: Stream,
        version: Version,
        greeting: Greeting,
        login: &Login,
        now: u64,
    ) -> Self {
        let mut output = Vec::new();
        let mut properties = PropertiesBuf::new();
        if greeting.keeps_session && version.has_properties() {
            properties.push(Property::SessionExpiryInterval(SESSION_EXPIRY_S));
        }
        Connect {
            version,
            clean_start: !greeting.keeps_session,
            keep_alive_s: KEEP_ALIVE_S,
            client_id: &greeting.client_id,
            properties: properties.as_properties(),
            will: None,
            user_name: login.user_name.as_deref(),
            password: login.password.as_deref().map(str::as_bytes),
        }
        .encode(&mut output);
        Self {
            stream,
            phase: Phase::Connecting,
            version,
            input: Vec::new(),
            output,
            is_blocked: true,
            greeting: Some(Box::new(greeting)),
            since_ns: now,
            receive_maximum: u16::MAX,
            session_present: false,
            template: Template::default(),
        }
    }

    /// Appends a PUBLISH, to be sent by [`Self::flush`].
    #[inline]
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        id: Option<PacketId>,
        retain: bool,
    ) {
        Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id: id,
            properties: Properties::default(),
            payload,
        }
        .encode(self.version, &mut self.output);
    }

    /// Subscribes. The client is not online until all SUBACKs are there.
    pub(crate) fn subscribe(&mut self, filters: &[String], qos: QoS) {
        let mut packets = 0;
        for (number, some) in filters.chunks(FILTERS_PER_PACKET).enumerate() {
            let id = PacketId::MIN.saturating_add((number % 60_000) as u16);
            let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
            let requests: Vec<_> =
                some.iter().map(|filter| FilterRequest { filter, options }).collect();
            Subscribe::encode(self.version, id, Properties::default(), &requests, &mut self.output);
            packets += 1;
        }
        self.phase = if packets > 0 { Phase::Subscribing(packets) } else { Phase::Online };
    }

    pub(crate) fn disconnect(&mut self) {
        let properties = Properties::default();
        let packet = Packet::Disconnect(Disconnect { code: ReasonCode::Success, properties });
        packet.encode(self.version, &mut self.output);
    }

    /// Sends what there is, as far as the socket takes it.
    #[inline]
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() && !self.is_blocked {
            match self.stream.write(&self.output[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if sent == self.output.len() {
            self.output.clear();
        } else {
            self.output.drain(..sent);
        }
        match self.stream.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_blocked = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Reads what there is and tells `observer`; answers are left in the output.
    ///
    /// # Errors
    /// When the connection is at its end, with the reason.
    #[inline]
    pub(crate) fn read(
        &mut self,
        number: usize,
        scratch: &mut [u8],
        now: u64,
        observer: &mut impl Observer,
    ) -> io::Result<()> {
        loop {
            let len = match self.stream.read(scratch) {
                Ok(0) => return Err(io::Error::other("the broker closed the connection")),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if self.input.is_empty() {
                let used = self.take(number, &scratch[..len], now, observer)?;
                self.input.extend_from_slice(&scratch[used..len]);
            } else {
                let mut input = std::mem::take(&mut self.input);
                input.extend_from_slice(&scratch[..len]);
                let used = self.take(number, &input, now, observer)?;
                input.drain(..used);
                self.input = input;
            }
            if len < scratch.len() && self.stream.short_read_means_empty() {
                return Ok(());
            }
        }
    }

    fn take(
        &mut self,
        number: usize,
        bytes: &[u8],
        now: u64,
        observer: &mut impl Observer,
    ) -> io::Result<usize> {
        let mut used = 0;
        loop {
            if let Some(alike) = self.template.split(&bytes[used..]) {
                observer.on_publish(number, alike.payload, now);
                self.acknowledge(alike.qos, alike.packet_id);
                used += alike.len;
                continue;
            }
            let split = Frame::split(&bytes[used..], VARINT_MAX as usize + 5, self.version)
                .map_err(|error| io::Error::other(format!("a malformed packet: {error}")))?;
            let Some((frame, len)) = split else { return Ok(used) };
            let packet = Packet::decode(&frame, self.version)
                .map_err(|error| io::Error::other(format!("a malformed packet: {error}")))?;
            if let Packet::Publish(publish) = &packet {
                self.template.learn(&bytes[used..used + len], publish);
            }
            self.on_packet(number, &packet, now, observer)?;
            used += len;
        }
    }

    #[inline]
    fn on_packet(
        &mut self,
        number: usize,
        packet: &Packet<'_>,
        now: u64,
        observer: &mut impl Observer,
    ) -> io::Result<()> {
        match packet {
            Packet::Publish(publish) => {
                observer.on_publish(number, publish.payload, now);
                self.acknowledge(publish.qos, publish.packet_id);
            }
            Packet::Ack(ack) => match ack.kind {
                AckKind::PubRec if !ack.code.is_error() => {
                    self.answer(AckKind::PubRel, ack.packet_id);
                }
                AckKind::PubRel => self.answer(AckKind::PubComp, ack.packet_id),
                AckKind::PubAck | AckKind::PubComp | AckKind::PubRec => {
                    observer.on_acknowledged(number, ack.packet_id, ack.code, now);
                }
            },
            Packet::ConnAck(connack) => {
                if connack.code != ReasonCode::Success {
                    return Err(io::Error::other(format!("CONNACK: {:?}", connack.code)));
                }
                self.session_present = connack.session_present;
                for property in connack.properties.iter() {
                    if let Property::ReceiveMaximum(maximum) = property {
                        self.receive_maximum = maximum;
                    }
                }
                let greeting = self.greeting.take().unwrap_or_default();
                self.subscribe(&greeting.filters, greeting.qos);
                self.tell_if_online(number, now, observer);
            }
            Packet::SubAck(suback) => {
                if let Some(code) = suback.codes.iter().find(|&&code| code >= 0x80) {
                    return Err(io::Error::other(format!("SUBACK: code {code:#x}")));
                }
                if let Phase::Subscribing(left) = self.phase {
                    self.phase =
                        if left > 1 { Phase::Subscribing(left - 1) } else { Phase::Online };
                    self.tell_if_online(number, now, observer);
                }
            }
            Packet::Disconnect(disconnect) => {
                return Err(io::Error::other(format!("DISCONNECT: {:?}", disconnect.code)));
            }
            _ => {}
        }
        Ok(())
    }

    fn tell_if_online(&self, number: usize, now: u64, observer: &mut impl Observer) {
        if self.phase == Phase::Online {
            observer.on_online(number, self.since_ns, now);
        }
    }

    #[inline]
    fn acknowledge(&mut self, qos: QoS, id: Option<PacketId>) {
        match (qos, id) {
            (QoS::AtLeastOnce, Some(id)) => self.answer(AckKind::PubAck, id),
            (QoS::ExactlyOnce, Some(id)) => self.answer(AckKind::PubRec, id),
            _ => {}
        }
    }

    #[inline]
    fn answer(&mut self, kind: AckKind, id: PacketId) {
        Ack::new(kind, id).encode(self.version, &mut self.output);
    }
}
