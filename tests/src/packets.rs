//! Packets to send, written down with what matters in them.

use dunlin_packets::{
    Ack, AckKind, Connect, FilterRequest, PacketId, PropertiesBuf, Property, Publish, QoS,
    RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe, Version, Will,
};

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("a packet identifier is not 0")
}

fn qos(bits: u8) -> QoS {
    QoS::from_bits(bits).expect("a QoS is 0, 1 or 2")
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub struct Connecting<'a> {
    client_id: &'a str,
    version: Version,
    clean: bool,
    keep_alive_s: u16,
    properties: PropertiesBuf,
    will: Option<(&'a str, &'a str, u8, bool, PropertiesBuf)>,
    user_name: Option<&'a str>,
    password: Option<&'a [u8]>,
}

impl<'a> Connecting<'a> {
    /// A clean 5.0 session without keep alive.
    #[must_use]
    pub fn v5(client_id: &'a str) -> Self {
        Self {
            client_id,
            version: Version::V5,
            clean: true,
            keep_alive_s: 0,
            properties: PropertiesBuf::new(),
            will: None,
            user_name: None,
            password: None,
        }
    }

    /// A clean 3.1.1 session.
    #[must_use]
    pub fn v4(client_id: &'a str) -> Self {
        Self { version: Version::V4, ..Self::v5(client_id) }
    }

    /// A clean 3.1 session.
    #[must_use]
    pub fn v3(client_id: &'a str) -> Self {
        Self { version: Version::V3, ..Self::v5(client_id) }
    }

    /// Goes on with a stored session.
    #[must_use]
    pub fn resume(mut self) -> Self {
        self.clean = false;
        self
    }

    /// With a session that outlives the connection by so many seconds (5.0).
    #[must_use]
    pub fn expiry(self, seconds: u32) -> Self {
        self.with(Property::SessionExpiryInterval(seconds))
    }

    /// With a property.
    #[must_use]
    pub fn with(mut self, property: Property<'_>) -> Self {
        self.properties.push(property);
        self
    }

    /// With a keep alive.
    #[must_use]
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive_s = seconds;
        self
    }

    /// With a will.
    #[must_use]
    pub fn will(mut self, topic: &'a str, payload: &'a str, qos: u8, retain: bool) -> Self {
        self.will = Some((topic, payload, qos, retain, PropertiesBuf::new()));
        self
    }

    /// With a property of the will.
    #[must_use]
    pub fn will_with(mut self, property: Property<'_>) -> Self {
        if let Some(will) = &mut self.will {
            will.4.push(property);
        }
        self
    }

    /// With a user name and a password.
    #[must_use]
    pub fn login(mut self, user_name: Option<&'a str>, password: Option<&'a [u8]>) -> Self {
        (self.user_name, self.password) = (user_name, password);
        self
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The packet.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let will = self.will.as_ref().map(|(topic, payload, bits, retain, properties)| Will {
            qos: qos(*bits),
            retain: *retain,
            topic,
            payload: payload.as_bytes(),
            properties: properties.as_properties(),
        });
        Connect {
            version: self.version,
            clean_start: self.clean,
            keep_alive_s: self.keep_alive_s,
            client_id: self.client_id,
            properties: self.properties.as_properties(),
            will,
            user_name: self.user_name,
            password: self.password,
        }
        .encode(&mut out);
        out
    }
}

/// A PUBLISH.
#[derive(Clone, Debug)]
pub struct Publishing<'a> {
    topic: &'a str,
    payload: &'a [u8],
    qos: u8,
    id: u16,
    dup: bool,
    retain: bool,
    properties: PropertiesBuf,
}

impl<'a> Publishing<'a> {
    /// At QoS 0.
    #[must_use]
    pub fn q0(topic: &'a str, payload: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let (payload, properties) = (payload.as_ref(), PropertiesBuf::new());
        Self { topic, payload, qos: 0, id: 1, dup: false, retain: false, properties }
    }

    /// At QoS 1.
    #[must_use]
    pub fn q1(topic: &'a str, payload: &'a (impl AsRef<[u8]> + ?Sized), id: u16) -> Self {
        Self { qos: 1, id, ..Self::q0(topic, payload) }
    }

    /// At QoS 2.
    #[must_use]
    pub fn q2(topic: &'a str, payload: &'a (impl AsRef<[u8]> + ?Sized), id: u16) -> Self {
        Self { qos: 2, id, ..Self::q0(topic, payload) }
    }

    /// With RETAIN.
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// With DUP.
    #[must_use]
    pub fn dup(mut self) -> Self {
        self.dup = true;
        self
    }

    /// With a property.
    #[must_use]
    pub fn with(mut self, property: Property<'_>) -> Self {
        self.properties.push(property);
        self
    }

    /// The packet for `version`.
    #[must_use]
    pub fn bytes_for(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        Publish {
            dup: self.dup,
            qos: qos(self.qos),
            retain: self.retain,
            topic: self.topic,
            packet_id: (self.qos > 0).then(|| id(self.id)),
            properties: self.properties.as_properties(),
            payload: self.payload,
        }
        .encode(version, &mut out);
        out
    }

    /// The packet of 5.0.
    #[must_use]
    pub fn v5(&self) -> Vec<u8> {
        self.bytes_for(Version::V5)
    }

    /// The packet of 3.1.1.
    #[must_use]
    pub fn v4(&self) -> Vec<u8> {
        self.bytes_for(Version::V4)
    }
}

/// A SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct Subscribing<'a> {
    id: u16,
    filters: Vec<(&'a str, SubscriptionOptions)>,
    properties: PropertiesBuf,
}

impl<'a> Subscribing<'a> {
    /// To one filter at a QoS.
    #[must_use]
    pub fn to(filter: &'a str, bits: u8) -> Self {
        let options = SubscriptionOptions { qos: qos(bits), ..SubscriptionOptions::default() };
        Self { id: 1, filters: vec![(filter, options)], properties: PropertiesBuf::new() }
    }

    /// And to another one.
    #[must_use]
    pub fn and(mut self, filter: &'a str, bits: u8) -> Self {
        let options = SubscriptionOptions { qos: qos(bits), ..SubscriptionOptions::default() };
        self.filters.push((filter, options));
        self
    }

    fn last(mut self, change: impl FnOnce(&mut SubscriptionOptions)) -> Self {
        change(&mut self.filters.last_mut().expect("there is one").1);
        self
    }

    /// The last filter with No Local.
    #[must_use]
    pub fn no_local(self) -> Self {
        self.last(|options| options.no_local = true)
    }

    /// The last filter with Retain As Published.
    #[must_use]
    pub fn as_published(self) -> Self {
        self.last(|options| options.retain_as_published = true)
    }

    /// The last filter with a retain handling.
    #[must_use]
    pub fn handling(self, handling: RetainHandling) -> Self {
        self.last(|options| options.retain_handling = handling)
    }

    /// With a packet identifier.
    #[must_use]
    pub fn id(mut self, number: u16) -> Self {
        self.id = number;
        self
    }

    /// With a subscription identifier.
    #[must_use]
    pub fn identifier(self, number: u32) -> Self {
        self.with(Property::SubscriptionIdentifier(number))
    }

    /// With a property.
    #[must_use]
    pub fn with(mut self, property: Property<'_>) -> Self {
        self.properties.push(property);
        self
    }

    /// The packet for `version`.
    #[must_use]
    pub fn bytes_for(&self, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        let requests: Vec<_> = self
            .filters
            .iter()
            .map(|&(filter, options)| FilterRequest { filter, options })
            .collect();
        let properties = self.properties.as_properties();
        Subscribe::encode(version, id(self.id), properties, &requests, &mut out);
        out
    }

    /// The packet of 5.0.
    #[must_use]
    pub fn v5(&self) -> Vec<u8> {
        self.bytes_for(Version::V5)
    }

    /// The packet of 3.1.1.
    #[must_use]
    pub fn v4(&self) -> Vec<u8> {
        self.bytes_for(Version::V4)
    }
}

/// An UNSUBSCRIBE of 5.0.
#[must_use]
pub fn unsubscribe(number: u16, filters: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    let properties = PropertiesBuf::new();
    Unsubscribe::encode(Version::V5, id(number), properties.as_properties(), filters, &mut out);
    out
}

fn ack(kind: AckKind, number: u16) -> Vec<u8> {
    let mut out = Vec::new();
    Ack::new(kind, id(number)).encode(Version::V5, &mut out);
    out
}

/// A successful PUBACK of any version.
#[must_use]
pub fn puback(number: u16) -> Vec<u8> {
    ack(AckKind::PubAck, number)
}

/// A successful PUBREC of any version.
#[must_use]
pub fn pubrec(number: u16) -> Vec<u8> {
    ack(AckKind::PubRec, number)
}

/// A successful PUBREL of any version.
#[must_use]
pub fn pubrel(number: u16) -> Vec<u8> {
    ack(AckKind::PubRel, number)
}

/// A successful PUBCOMP of any version.
#[must_use]
pub fn pubcomp(number: u16) -> Vec<u8> {
    ack(AckKind::PubComp, number)
}
