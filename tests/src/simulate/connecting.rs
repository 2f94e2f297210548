//! How connections begin and end.

use dunlin_packets::{
    Connect, Disconnect, Packet, PacketId, PropertiesBuf, Property, Publish, QoS, ReasonCode,
    Version, Will,
};

use super::audit::{Verdict, violation};
use super::link::{Diligence, Incoming, Link};
use super::publication::{PubId, Publication, Stage, Tick};
use super::session::{Departure, KeptWill};
use super::world::World;

/// What a CONNECT says.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// 5.0 or 3.1.1.
    pub version: Version,
    /// Clean Start, or Clean Session.
    pub clean: bool,
    /// Session Expiry Interval, in 5.0.
    pub expiry_s: u32,
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Topic Alias Maximum.
    pub alias_max: u16,
    /// The will's publication and delay.
    pub will: Option<KeptWill>,
    /// How the client reads.
    pub diligence: Diligence,
}

impl Wish {
    /// Session Expiry Interval that is asked for, in words or not.
    #[must_use]
    pub fn wanted_s(&self) -> u32 {
        match (self.version, self.clean) {
            (Version::V5, _) => self.expiry_s,
            (_, true) => 0,
            (_, false) => u32::MAX,
        }
    }

    /// To come back for all that is owed.
    #[must_use]
    pub fn to_resume() -> Self {
        Self {
            version: Version::V5,
            clean: false,
            expiry_s: 100_000,
            receive_maximum: u16::MAX,
            alias_max: 0,
            will: None,
            diligence: Diligence::Prompt,
        }
    }
}

fn qos(bits: u8) -> QoS {
    QoS::from_bits(bits).expect("a QoS is 0, 1 or 2")
}

impl World {
    /// Some client connects, whether it has a connection or not.
    pub(super) fn connect_somehow(&mut self, index: usize) -> Verdict {
        let random = &mut self.random;
        let version = if random.percent(70) { Version::V5 } else { Version::V4 };
        let is_5 = version == Version::V5;
        let wish = Wish {
            version,
            clean: random.percent(25),
            expiry_s: random.pick(&[0, 3, 60, 1000, 1000, u32::MAX]),
            receive_maximum: match random.percent(40) {
                true if is_5 => random.between(1, 20) as u16,
                _ => u16::MAX,
            },
            alias_max: if is_5 && random.percent(40) { random.between(1, 4) as u16 } else { 0 },
            will: None,
            diligence: random.pick(&[Diligence::Prompt, Diligence::Lazy]),
        };
        let will = random.percent(40).then(|| self.compose_will(index, is_5));
        self.connect(index, &Wish { will, ..wish })
    }

    fn compose_will(&mut self, index: usize, is_5: bool) -> KeptWill {
        let random = &mut self.random;
        let publication = Publication {
            publisher: index,
            topic: self.audit.names.will_topic(index),
            qos: random.below(3) as u8,
            retain: random.percent(30),
            is_empty: false,
            len: 10,
            expiry_s: (is_5 && random.percent(15)).then(|| random.between(1, 60) as u32),
            expires_min_ms: u64::MAX,
            expires_max_ms: u64::MAX,
            may_last: false,
            stage: Stage::Kept,
            sent: Tick::MAX,
            settled: None,
            is_processed: false,
            is_acked: false,
            is_refused: false,
            transmissions: 0,
            places: (0, 0),
            open: 0,
            crashes_before: self.audit.crashes,
            shared_exactly: 0,
        };
        let delay_s = if is_5 { random.pick(&[0, 0, 2, 30]) } else { 0 };
        let publication = self.audit.on_published(publication);
        KeptWill { publication, delay_s, due_ms: None }
    }

    /// A client connects.
    pub(super) fn connect(&mut self, index: usize, wish: &Wish) -> Verdict {
        let wish = &Wish { clean: wish.clean || self.clients[index].is_blank, ..*wish };
        self.note(&format!("c{index} connects: {wish:?}"));
        let old = self.clients[index].link.take();
        if let Some(old) = &old {
            self.orphans.extend(&old.unsettled);
            self.audit.on_departed(index, Departure::Broken);
        }
        self.audit.on_connecting(index, wish.clean);
        let bytes = self.compose_connect(index, wish);
        let mut link =
            Link::new(self.broker.connect(), wish.version, wish.receive_maximum, wish.alias_max);
        link.diligence = wish.diligence;
        link.client.write(bytes);
        link.may_change_expiry = wish.version == Version::V5 && wish.expiry_s > 0;
        self.clients[index].link = Some(link);
        if self.may_crash && self.random.percent(3) {
            return self.crash_at_connect(index, wish);
        }
        let (present, code, expiry_s) = self.await_connack(index)?;
        if code != ReasonCode::Success {
            return violation(format!("c{index} was refused: {code:?}"));
        }
        if let Some(old) = old {
            self.check_taken_over(index, old)?;
        }
        let wanted_s = wish.wanted_s();
        let granted_s = wanted_s.min(self.settings.limits.session_expiry_max_s);
        let told_s = (granted_s != wanted_s && wish.version == Version::V5).then_some(granted_s);
        if told_s != expiry_s {
            return violation(format!("c{index} was told expiry {expiry_s:?}, not {told_s:?}"));
        }
        self.clients[index].is_blank = false;
        self.audit.on_connected(index, wish.clean, present, granted_s, wish.will)?;
        self.note(&format!("c{index} is connected, session present {present}"));
        if !present {
            self.clients[index].forget_session();
        }
        self.send_again(index);
        Ok(())
    }

    fn compose_connect(&self, index: usize, wish: &Wish) -> Vec<u8> {
        let mut properties = PropertiesBuf::new();
        if wish.version == Version::V5 {
            if wish.expiry_s > 0 {
                properties.push(Property::SessionExpiryInterval(wish.expiry_s));
            }
            if wish.receive_maximum < u16::MAX {
                properties.push(Property::ReceiveMaximum(wish.receive_maximum));
            }
            if wish.alias_max > 0 {
                properties.push(Property::TopicAliasMaximum(wish.alias_max));
            }
        }
        let mut will_properties = PropertiesBuf::new();
        let mut payload = Vec::new();
        if let Some(will) = wish.will {
            payload = self.audit.publications.payload(will.publication);
            if will.delay_s > 0 {
                will_properties.push(Property::WillDelayInterval(will.delay_s));
            }
            if let Some(seconds) = self.audit.publications.get(will.publication).expiry_s {
                will_properties.push(Property::MessageExpiryInterval(seconds));
            }
        }
        let will = wish.will.map(|will| {
            let publication = self.audit.publications.get(will.publication);
            Will {
                qos: qos(publication.qos),
                retain: publication.retain,
                topic: &self.audit.names.topics[publication.topic],
                payload: &payload,
                properties: will_properties.as_properties(),
            }
        });
        let mut bytes = Vec::new();
        Connect {
            version: wish.version,
            clean_start: wish.clean,
            keep_alive_s: 0,
            client_id: &format!("c{index}"),
            properties: properties.as_properties(),
            will,
            user_name: None,
            password: None,
        }
        .encode(&mut bytes);
        bytes
    }

    /// Has the broker work until the CONNACK is there.
    fn await_connack(
        &mut self,
        index: usize,
    ) -> Result<(bool, ReasonCode, Option<u32>), super::audit::Violation> {
        let prompt = std::mem::replace(&mut self.link(index).diligence, Diligence::Lazy);
        for _ in 0..self.random.below(20) {
            if !self.link(index).arrived.is_empty() {
                break;
            }
            self.run_a_little()?;
        }
        if self.link(index).arrived.is_empty() {
            self.rest()?;
        }
        let link = self.link(index);
        link.diligence = prompt;
        match link.arrived.pop_front() {
            Some(Incoming::ConnAck { present, code, expiry_s }) => Ok((present, code, expiry_s)),
            other => violation(format!("c{index} got {other:?}, not CONNACK")),
        }
    }

    fn link(&mut self, index: usize) -> &mut Link {
        self.clients[index].link.as_mut().expect("it is connected")
    }

    /// The old connection is told, and closed \[MQTT-3.1.4-3\].
    fn check_taken_over(&mut self, index: usize, mut old: Link) -> Verdict {
        if !old.client.is_closed() {
            self.rest()?;
        }
        if old.is_limited {
            // It does not read, so it cannot be told.
            old.client.close();
            return Ok(());
        }
        if !old.client.is_closed() {
            return violation(format!("the old connection of c{index} is still open"));
        }
        old.receive(&self.audit.names, &self.audit.publications, self.audit.now_ms)?;
        let last = old.arrived.back();
        let told = matches!(last, Some(Incoming::Disconnect(ReasonCode::SessionTakenOver)));
        if old.version == Version::V5 && !told {
            return violation(format!("the old connection of c{index} got {last:?} at its end"));
        }
        self.digest = self.digest.rotate_left(7) ^ old.digest;
        Ok(())
    }

    /// What was not acknowledged is sent again, in its order \[MQTT-4.4.0-1\].
    fn send_again(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(link) = &mut client.link else { return };
        let mut bytes = Vec::new();
        for outgoing in &client.outgoing {
            let packet_id = PacketId::new(outgoing.packet_id).expect("it is not 0");
            if outgoing.is_released {
                let ack = dunlin_packets::Ack::new(dunlin_packets::AckKind::PubRel, packet_id);
                ack.encode(link.version, &mut bytes);
                continue;
            }
            let id = outgoing.publication;
            self.audit.on_transmitted(id);
            link.unsettled.push(id);
            self.audit.publications.get_mut(id).may_last |= link.version != Version::V5;
            let publication = self.audit.publications.get(id);
            let mut properties = PropertiesBuf::new();
            if let Some(seconds) = publication.expiry_s.filter(|_| link.version == Version::V5) {
                properties.push(Property::MessageExpiryInterval(seconds));
            }
            let payload = self.audit.publications.payload(id);
            Publish {
                dup: true,
                qos: qos(publication.qos),
                retain: publication.retain,
                topic: &self.audit.names.topics[publication.topic],
                packet_id: Some(packet_id),
                properties: properties.as_properties(),
                payload: &payload,
            }
            .encode(link.version, &mut bytes);
        }
        if !bytes.is_empty() {
            link.write(&bytes, &mut self.random);
        }
    }

    /// The connection of a client breaks. It may have read what had come, or not.
    pub(super) fn break_connection(&mut self, index: usize) -> Verdict {
        let (count, answers) = (self.random.portion(), self.random.portion());
        self.read(index, count)?;
        self.answer(index, answers);
        let Some(link) = self.clients[index].link.take() else { return Ok(()) };
        self.note(&format!("c{index} loses its connection, {} packets unread", link.arrived.len()));
        link.client.close();
        self.let_go(index, &link, Departure::Broken);
        Ok(())
    }

    /// A client says goodbye.
    pub(super) fn disconnect(&mut self, index: usize) -> Verdict {
        let Some(mut link) = self.clients[index].link.take() else { return Ok(()) };
        let is_5 = link.version == Version::V5;
        let with_will = is_5 && self.random.percent(30);
        let mut properties = PropertiesBuf::new();
        let mut expiry_s = None;
        if link.may_change_expiry && self.random.percent(40) {
            let wanted_s = self.random.pick(&[0, 5, 2000]);
            properties.push(Property::SessionExpiryInterval(wanted_s));
            expiry_s = Some(wanted_s.min(self.settings.limits.session_expiry_max_s));
        }
        let code = match with_will {
            true => ReasonCode::DisconnectWithWill,
            false => ReasonCode::Success,
        };
        self.note(&format!("c{index} disconnects: {code:?}, expiry {expiry_s:?}"));
        let mut bytes = Vec::new();
        Packet::Disconnect(Disconnect { code, properties: properties.as_properties() })
            .encode(link.version, &mut bytes);
        link.complete();
        link.client.write(bytes);
        link.client.close();
        self.let_go(index, &link, Departure::Orderly { with_will, expiry_s });
        // A takeover may come before the DISCONNECT is read, and then it would be as if it had
        // never been sent.
        self.rest()
    }

    pub(super) fn let_go(&mut self, index: usize, link: &Link, how: Departure) {
        self.digest = self.digest.rotate_left(7) ^ link.digest;
        self.orphans.extend(&link.unsettled);
        self.audit.on_departed(index, how);
    }

    /// Writes a publication of a client for the first time, with what 5.0 allows besides.
    pub(super) fn transmit(&mut self, index: usize, id: PubId, packet_id: u16) {
        self.audit.on_transmitted(id);
        let Some(link) = &mut self.clients[index].link else { return };
        link.unsettled.push(id);
        let publication = self.audit.publications.get(id);
        let topic = publication.topic;
        let mut properties = PropertiesBuf::new();
        let mut name = &self.audit.names.topics[topic][..];
        if link.version == Version::V5 {
            if let Some(seconds) = publication.expiry_s {
                properties.push(Property::MessageExpiryInterval(seconds));
            }
            let alias_max = self.settings.limits.topic_alias_maximum;
            if alias_max > 0 && self.random.percent(30) {
                if let Some(&alias) = link.aliases_out.get(&topic) {
                    properties.push(Property::TopicAlias(alias));
                    name = "";
                } else {
                    let alias = self.random.between(1, usize::from(alias_max)) as u16;
                    link.aliases_out.retain(|_, taken| *taken != alias);
                    link.aliases_out.insert(topic, alias);
                    properties.push(Property::TopicAlias(alias));
                }
            }
        }
        let payload = self.audit.publications.payload(id);
        let mut bytes = Vec::new();
        Publish {
            dup: false,
            qos: qos(publication.qos),
            retain: publication.retain,
            topic: name,
            packet_id: PacketId::new(packet_id),
            properties: properties.as_properties(),
            payload: &payload,
        }
        .encode(link.version, &mut bytes);
        link.write(&bytes, &mut self.random);
    }
}
