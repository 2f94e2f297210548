//! From a CONNECT to the terms of a connection.

use dunlin_packets::{
    ConnAck, Connect, Properties, PropertiesBuf, Property, QoS, ReasonCode, VARINT_MAX, Version,
};

use crate::{Limits, Will};

/// Why a CONNECT is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The version to answer in.
    pub version: Version,
    /// The code for the CONNACK.
    pub code: ReasonCode,
    /// What was wrong, for the log and the reason string.
    pub detail: &'static str,
    /// The largest packet the client takes.
    pub packet_bytes_max: u32,
}

impl Refusal {
    /// For a CONNECT that could not be read as far as its properties: the answer is kept short.
    #[must_use]
    pub fn of_unreadable(version: Version, code: ReasonCode, detail: &'static str) -> Self {
        Self { version, code, detail, packet_bytes_max: BARE_CONNACK_BYTES }
    }

    /// Appends the CONNACK that refuses; nothing where the version has no code for it
    /// \[MQTT-3.2.2-6 of 3.1.1\]. Session Present is 0 \[MQTT-3.2.2-6\].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut properties = PropertiesBuf::new();
        if self.version.has_properties() && !self.detail.is_empty() {
            properties.push(Property::ReasonString(self.detail));
        }
        let (code, properties) = (self.code, properties.as_properties());
        let mut connack = ConnAck { session_present: false, code, properties };
        let before = out.len();
        connack.encode(self.version, out);
        // Without its reason if the client has no room for it [MQTT-3.2.2-19], and not at all if it
        // has none for the rest either [MQTT-3.1.2-24].
        if out.len() - before > self.packet_bytes_max as usize {
            out.truncate(before);
            connack.properties = Properties::default();
            connack.encode(self.version, out);
        }
        if out.len() - before > self.packet_bytes_max as usize {
            out.truncate(before);
        }
    }
}

/// A client whose CONNECT has this user property with the value `report` gets it with each PUBACK
/// and PUBREC, and in it how safe the message is.
pub const LEVEL_PROPERTY: &str = "durability";

/// A CONNACK of 5.0 without properties.
const BARE_CONNACK_BYTES: u32 = 5;

/// What a client asked for and gets, if its session's worker accepts it. Owned, so that it can be
/// mailed there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The client identifier, assigned if the client sent none.
    pub client_id: Box<str>,
    /// Whether it was assigned \[MQTT-3.1.3-7\].
    pub assigned: bool,
    /// The version the connection speaks.
    pub version: Version,
    /// Begin with a new session.
    pub clean_start: bool,
    /// The user name.
    pub user_name: Option<Box<str>>,
    /// The keep alive that holds, in seconds; 0 for none.
    pub keep_alive_s: u16,
    pub(crate) keep_alive_imposed: bool,
    pub(crate) expiry_s: u32,
    /// The client asked for a session that ends with the connection.
    pub(crate) wants_no_expiry: bool,
    pub(crate) expiry_shortened: bool,
    pub(crate) receive_maximum: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) wants_response_information: bool,
    /// Acknowledgements are to say how safe the message is.
    pub(crate) wants_levels: bool,
    /// They may say why they refuse.
    pub(crate) wants_reasons: bool,
    pub(crate) will: Option<Box<Will>>,
}

impl Offer {
    /// Checks a CONNECT against the limits. `assign` makes a client identifier for a client
    /// without one \[MQTT-3.1.3-6\].
    ///
    /// # Errors
    /// Why it is refused.
    pub fn new(
        connect: &Connect<'_>,
        limits: &Limits,
        assign: impl FnOnce() -> String,
    ) -> Result<Self, Refusal> {
        let packet_bytes_max = connect.properties.iter().find_map(|property| match property {
            Property::MaximumPacketSize(bytes) => Some(bytes),
            _ => None,
        });
        let packet_bytes_max = packet_bytes_max.unwrap_or(u32::MAX).min(VARINT_MAX + 5);
        let version = connect.version;
        let refuse = |code, detail| Refusal { version, code, detail, packet_bytes_max };
        check_version(connect, limits, &refuse)?;
        check_will(connect, limits, &refuse)?;
        let assigned = connect.client_id.is_empty();
        if assigned {
            check_empty_client_id(connect, limits, &refuse)?;
        }
        let client_id = if assigned { assign().into_boxed_str() } else { connect.client_id.into() };
        let mut offer = Self {
            client_id,
            assigned,
            version: connect.version,
            clean_start: connect.clean_start,
            user_name: connect.user_name.map(Into::into),
            keep_alive_s: connect.keep_alive_s,
            keep_alive_imposed: false,
            expiry_s: expiry_before_5(connect),
            wants_no_expiry: false,
            expiry_shortened: false,
            receive_maximum: u16::MAX,
            packet_bytes_max,
            topic_alias_maximum: 0,
            wants_response_information: false,
            wants_levels: false,
            wants_reasons: false,
            will: connect.will.as_ref().map(|will| Box::new(Will::new(will))),
        };
        offer.read_properties(connect.properties, &refuse)?;
        offer.apply_limits(limits);
        // What the CONNACK says must be known, so a client without room for it cannot be served.
        let mut connack = Vec::new();
        offer.encode_accept(true, limits, &mut connack);
        if connack.len() > packet_bytes_max as usize {
            return Err(refuse(ReasonCode::PacketTooLarge, "the CONNACK is larger than that"));
        }
        Ok(offer)
    }

    /// Turns an acceptable client away.
    #[must_use]
    pub fn refuse(&self, code: ReasonCode, detail: &'static str) -> Refusal {
        let packet_bytes_max = self.packet_bytes_max;
        Refusal { version: self.version, code, detail, packet_bytes_max }
    }

    fn read_properties(
        &mut self,
        properties: Properties<'_>,
        refuse: &impl Fn(ReasonCode, &'static str) -> Refusal,
    ) -> Result<(), Refusal> {
        let mut allows_properties = true;
        for property in properties.iter() {
            match property {
                Property::SessionExpiryInterval(seconds) => self.expiry_s = seconds,
                Property::ReceiveMaximum(maximum) => self.receive_maximum = maximum,
                Property::TopicAliasMaximum(maximum) => self.topic_alias_maximum = maximum,
                Property::RequestResponseInformation(wanted) => {
                    self.wants_response_information = wanted;
                }
                // Mechanisms are for the authentication backends; none of them is built in.
                Property::AuthenticationMethod(_) => {
                    return Err(refuse(
                        ReasonCode::BadAuthenticationMethod,
                        "the authentication method is not supported",
                    ));
                }
                Property::UserProperty(LEVEL_PROPERTY, "report") => self.wants_levels = true,
                Property::RequestProblemInformation(wanted) => allows_properties = wanted,
                _ => {}
            }
        }
        // Without it neither reason strings nor user properties come with acknowledgements
        // [MQTT-3.1.2-29].
        self.wants_levels &= allows_properties;
        self.wants_reasons = allows_properties && self.version.has_properties();
        Ok(())
    }

    fn apply_limits(&mut self, limits: &Limits) {
        self.wants_no_expiry = self.expiry_s == 0;
        if self.expiry_s > limits.session_expiry_max_s {
            self.expiry_s = limits.session_expiry_max_s;
            self.expiry_shortened = true;
        }
        let max = limits.keep_alive_max_s;
        // A client before 5.0 cannot be told, so its own value stands [MQTT-3.2.2-22].
        let can_be_told = self.version.has_properties();
        if can_be_told && max > 0 && (self.keep_alive_s == 0 || self.keep_alive_s > max) {
            self.keep_alive_s = max;
            self.keep_alive_imposed = true;
        }
    }

    /// Appends the CONNACK that accepts \[MQTT-3.1.4-5\].
    pub(crate) fn encode_accept(&self, present: bool, limits: &Limits, out: &mut Vec<u8>) {
        let mut properties = PropertiesBuf::new();
        if self.version.has_properties() {
            self.describe(limits, &mut properties);
        }
        let connack = ConnAck {
            session_present: present,
            code: ReasonCode::Success,
            properties: properties.as_properties(),
        };
        connack.encode(self.version, out);
    }

    /// What the client cannot know otherwise: everything that differs from the default.
    fn describe(&self, limits: &Limits, properties: &mut PropertiesBuf) {
        use Property as P;
        if self.expiry_shortened {
            properties.push(P::SessionExpiryInterval(self.expiry_s));
        }
        if limits.receive_maximum < u16::MAX {
            properties.push(P::ReceiveMaximum(limits.receive_maximum));
        }
        if limits.qos_max < QoS::ExactlyOnce {
            properties.push(P::MaximumQos(limits.qos_max == QoS::AtLeastOnce));
        }
        if !limits.retain_available {
            properties.push(P::RetainAvailable(false));
        }
        if limits.packet_bytes_max < VARINT_MAX + 5 {
            properties.push(P::MaximumPacketSize(limits.packet_bytes_max));
        }
        if self.assigned {
            properties.push(P::AssignedClientIdentifier(&self.client_id));
        }
        if limits.topic_alias_maximum > 0 {
            properties.push(P::TopicAliasMaximum(limits.topic_alias_maximum));
        }
        if !limits.wildcards_available {
            properties.push(P::WildcardSubscriptionAvailable(false));
        }
        if !limits.identifiers_available {
            properties.push(P::SubscriptionIdentifierAvailable(false));
        }
        if !limits.shared_available {
            properties.push(P::SharedSubscriptionAvailable(false));
        }
        if self.keep_alive_imposed {
            properties.push(P::ServerKeepAlive(self.keep_alive_s));
        }
        // Only for those who asked [MQTT-3.1.2-28].
        if self.wants_response_information && !limits.response_topic_prefix.is_empty() {
            let information = format!("{}{}", limits.response_topic_prefix, self.client_id);
            if information.len() <= usize::from(u16::MAX) {
                properties.push(P::ResponseInformation(&information));
            }
        }
    }
}

/// Before 5.0 a session without Clean Session has no end.
fn expiry_before_5(connect: &Connect<'_>) -> u32 {
    if connect.version.has_properties() || connect.clean_start { 0 } else { u32::MAX }
}

fn check_version(
    connect: &Connect<'_>,
    limits: &Limits,
    refuse: &impl Fn(ReasonCode, &'static str) -> Refusal,
) -> Result<(), Refusal> {
    if limits.accept_versions[connect.version as usize - 3] {
        return Ok(());
    }
    Err(refuse(ReasonCode::UnsupportedProtocolVersion, "this broker does not accept the version"))
}

/// Topics that only the broker publishes to.
pub const SYS_PREFIX: &str = "$SYS/";

fn check_will(
    connect: &Connect<'_>,
    limits: &Limits,
    refuse: &impl Fn(ReasonCode, &'static str) -> Refusal,
) -> Result<(), Refusal> {
    let Some(will) = &connect.will else { return Ok(()) };
    if will.qos > limits.qos_max {
        return Err(refuse(ReasonCode::QosNotSupported, "the will's QoS is above the maximum"));
    }
    if will.retain && !limits.retain_available {
        return Err(refuse(ReasonCode::RetainNotSupported, "retained messages are switched off"));
    }
    if will.topic.starts_with(SYS_PREFIX) {
        return Err(refuse(ReasonCode::NotAuthorized, "the will's topic is the broker's own"));
    }
    if will.payload.len() > limits.payload_bytes_max as usize {
        return Err(refuse(ReasonCode::PacketTooLarge, "the will's payload is too large"));
    }
    Ok(())
}

/// 3.1 knows no empty identifier; 3.1.1 only for a clean session \[MQTT-3.1.3-8 of 3.1.1\].
fn check_empty_client_id(
    connect: &Connect<'_>,
    limits: &Limits,
    refuse: &impl Fn(ReasonCode, &'static str) -> Refusal,
) -> Result<(), Refusal> {
    let allowed = match connect.version {
        Version::V3 => false,
        Version::V4 => connect.clean_start && limits.allow_empty_client_id,
        Version::V5 => limits.allow_empty_client_id,
    };
    if allowed {
        return Ok(());
    }
    Err(refuse(ReasonCode::ClientIdentifierNotValid, "the client identifier is empty"))
}
