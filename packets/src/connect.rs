//! CONNECT, section 3.1.

use crate::property::Place;
use crate::wire::{OVERLONG, Reader, put_binary, put_header, put_u16};
use crate::{ConnectError, Frame, PacketError, Properties, QoS, ReasonCode, Version};

/// The message a client leaves behind for the case that it vanishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// QoS of the publication.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Where it goes.
    pub topic: &'a str,
    /// Its payload.
    pub payload: &'a [u8],
    /// Its properties, the delay among them.
    pub properties: Properties<'a>,
}

/// A client's request to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that this connection speaks from here on.
    pub version: Version,
    /// Begin with a new session (Clean Session in 3.1.1).
    pub clean_start: bool,
    /// Seconds; 0 is never.
    pub keep_alive_s: u16,
    /// The client identifier, possibly empty.
    pub client_id: &'a str,
    /// Properties of the connection.
    pub properties: Properties<'a>,
    /// The will, if the client leaves one.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
}

impl<'a> Connect<'a> {
    /// Reads a CONNECT, whatever its version.
    ///
    /// # Errors
    /// Whatever [`Packet::decode`](crate::Packet::decode) can answer, with the version to answer in
    /// as far as it was read.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, ConnectError> {
        let mut reader = Reader::new(frame.body);
        let version = decode_version(&mut reader)?;
        if version.has_properties() && !frame.shortest {
            return Err(ConnectError { error: OVERLONG, version: Some(version) });
        }
        Self::decode_rest(reader, version)
            .map_err(|error| ConnectError { error, version: Some(version) })
    }

    fn decode_rest(mut reader: Reader<'a>, version: Version) -> Result<Self, PacketError> {
        let flags = ConnectFlags::check(reader.u8()?, version)?;
        let keep_alive_s = reader.u16()?;
        let properties = if version.has_properties() {
            let properties = Properties::decode(&mut reader, Place::Connect)?;
            check_authentication(properties)?;
            properties
        } else {
            Properties::default()
        };
        let client_id = reader.string()?;
        let will = flags.will.then(|| decode_will(&mut reader, &flags, version)).transpose()?;
        // 3.1 lets a flag stand without its field at the end of the packet.
        let may_lack = version == Version::V3;
        let has_user_name = flags.user_name && !(may_lack && reader.is_empty());
        let user_name = has_user_name.then(|| reader.string()).transpose()?;
        let has_password = flags.password && !(may_lack && reader.is_empty());
        let password = has_password.then(|| reader.binary()).transpose()?;
        if !reader.is_empty() {
            return Err(PacketError::malformed("3.1.2-16", "bytes follow the last field"));
        }
        Ok(Self {
            version,
            clean_start: flags.clean_start,
            keep_alive_s,
            client_id,
            properties,
            will,
            user_name,
            password,
        })
    }

    /// Appends the packet.
    ///
    /// # Panics
    /// When a field is longer than 65,535 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(64);
        let name: &[u8] = if self.version == Version::V3 { b"MQIsdp" } else { b"MQTT" };
        put_binary(&mut body, name);
        body.push(self.version as u8);
        body.push(self.flags());
        put_u16(&mut body, self.keep_alive_s);
        if self.version.has_properties() {
            self.properties.encode(&mut body);
        }
        put_binary(&mut body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if self.version.has_properties() {
                will.properties.encode(&mut body);
            }
            put_binary(&mut body, will.topic.as_bytes());
            put_binary(&mut body, will.payload);
        }
        if let Some(user_name) = self.user_name {
            put_binary(&mut body, user_name.as_bytes());
        }
        if let Some(password) = self.password {
            put_binary(&mut body, password);
        }
        put_header(out, 0x10, body.len());
        out.extend_from_slice(&body);
    }

    fn flags(&self) -> u8 {
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5);
        will | u8::from(self.clean_start) << 1
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.user_name.is_some()) << 7
    }
}

fn decode_version(reader: &mut Reader<'_>) -> Result<Version, ConnectError> {
    let unsupported = |clause| PacketError {
        code: ReasonCode::UnsupportedProtocolVersion,
        clause,
        detail: "protocol name or level is not one of MQTT 3.1, 3.1.1 and 5.0",
    };
    let name = reader.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(unsupported("3.1.2-1").into());
    }
    match (name, reader.u8()?) {
        (b"MQIsdp", 3) => Ok(Version::V3),
        (b"MQTT", 4) => Ok(Version::V4),
        (b"MQTT", 5) => Ok(Version::V5),
        // 3.1.1 demands a CONNACK 0x01 here, in its own form; 5.0 leaves it open [MQTT-3.1.2-2].
        _ => Err(ConnectError { error: unsupported("3.1.2-2"), version: Some(Version::V4) }),
    }
}

struct ConnectFlags {
    clean_start: bool,
    will: bool,
    will_qos: QoS,
    will_retain: bool,
    user_name: bool,
    password: bool,
}

impl ConnectFlags {
    fn check(bits: u8, version: Version) -> Result<Self, PacketError> {
        let set = |bit: u8| bits & (1 << bit) != 0;
        if set(0) {
            return Err(PacketError::malformed("3.1.2-3", "the reserved connect flag is set"));
        }
        let will_qos = QoS::from_bits(bits >> 3 & 0b11)
            .ok_or(PacketError::malformed("3.1.2-12", "will QoS 3"))?;
        if !set(2) && will_qos != QoS::AtMostOnce {
            return Err(PacketError::malformed("3.1.2-11", "a will QoS without a will"));
        }
        if !set(2) && set(5) {
            return Err(PacketError::malformed("3.1.2-13", "a will retain flag without a will"));
        }
        if set(6) && !set(7) && !version.has_properties() {
            return Err(PacketError::malformed("3.1.2-22", "a password without a user name"));
        }
        Ok(Self {
            clean_start: set(1),
            will: set(2),
            will_qos,
            will_retain: set(5),
            user_name: set(7),
            password: set(6),
        })
    }
}

fn decode_will<'a>(
    reader: &mut Reader<'a>,
    flags: &ConnectFlags,
    version: Version,
) -> Result<Will<'a>, PacketError> {
    let properties = if version.has_properties() {
        Properties::decode(reader, Place::Will)?
    } else {
        Properties::default()
    };
    let topic = reader.string()?;
    let payload = reader.binary()?;
    if !crate::is_valid_topic(topic) {
        return Err(PacketError::new(
            ReasonCode::TopicNameInvalid,
            "4.7.0-1",
            "the will topic is empty or has wildcards",
        ));
    }
    Ok(Will { qos: flags.will_qos, retain: flags.will_retain, topic, payload, properties })
}

/// Authentication data without a method is a protocol error (3.1.2.11.10).
fn check_authentication(properties: Properties<'_>) -> Result<(), PacketError> {
    use crate::Property::{AuthenticationData, AuthenticationMethod};
    let has_data = properties.iter().any(|p| matches!(p, AuthenticationData(_)));
    let has_method = properties.iter().any(|p| matches!(p, AuthenticationMethod(_)));
    if has_data && !has_method {
        return Err(PacketError::protocol("3.1.2.11.10", "authentication data without a method"));
    }
    Ok(())
}
