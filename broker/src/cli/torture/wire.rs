//! A connection of a client, which reads and writes packets and waits for nothing for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use dunlin_packets::{
    Connect, Disconnect, Frame, Packet, PropertiesBuf, Property, ReasonCode, VARINT_MAX, Version,
};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the broker may take to answer a CONNECT, and to take bytes.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const SESSION_EXPIRY_S: u32 = 3600;

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection went away, which it may when the broker was killed.
    Closed(io::Error),
    /// The broker did what it must not, killed or not.
    Fault(String),
}

impl Broken {
    pub(super) fn fault(text: impl Into<String>) -> Self {
        Self::Fault(text.into())
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Closed(error)
    }
}

/// Who connects, and how.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) client_id: String,
    pub(super) version: Version,
    /// The client's own, in 5.0; 0 for none.
    pub(super) receive_maximum: u16,
    /// Whether the session outlives the connection.
    pub(super) is_persistent: bool,
}

impl Identity {
    /// CONNECT, ready to send.
    fn connect(&self) -> Vec<u8> {
        let mut properties = PropertiesBuf::new();
        if self.version.has_properties() && self.is_persistent {
            properties.push(Property::SessionExpiryInterval(SESSION_EXPIRY_S));
        }
        if self.version.has_properties() && self.receive_maximum > 0 {
            properties.push(Property::ReceiveMaximum(self.receive_maximum));
        }
        let mut out = Vec::new();
        let connect = Connect {
            version: self.version,
            clean_start: !self.is_persistent,
            keep_alive_s: 0,
            client_id: &self.client_id,
            properties: properties.as_properties(),
            will: None,
            user_name: None,
            password: None,
        };
        connect.encode(&mut out);
        out
    }
}

/// What the broker's CONNACK said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    pub(super) session_present: bool,
    pub(super) receive_maximum: u16,
}

/// A connection after its CONNACK.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    pub(super) input: Input,
    pub(super) output: Output,
}

/// Bytes of the broker, cut into packets.
#[derive(Debug)]
pub(super) struct Input {
    version: Version,
    bytes: Vec<u8>,
    /// Bytes of packets that were handed out, at the start of `bytes`.
    used: usize,
}

/// Packets that wait for [`Link::flush`].
#[derive(Debug)]
pub(super) struct Output {
    version: Version,
    pub(super) bytes: Vec<u8>,
}

impl Output {
    pub(super) fn new(version: Version) -> Self {
        Self { version, bytes: Vec::new() }
    }

    pub(super) fn push(&mut self, packet: &Packet<'_>) {
        packet.encode(self.version, &mut self.bytes);
    }
}

impl Input {
    /// The next packet, if it is complete.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, Broken> {
        let rest = &self.bytes[self.used..];
        let frame = Frame::split(rest, VARINT_MAX as usize + 5, self.version);
        let Some((frame, len)) = frame.map_err(|error| Broken::fault(error.to_string()))? else {
            return Ok(None);
        };
        let packet = Packet::decode(&frame, self.version);
        let packet = packet.map_err(|error| Broken::fault(error.to_string()))?;
        if let Packet::Disconnect(disconnect) = packet {
            return Err(Broken::Fault(format!("the broker disconnected: {:?}", disconnect.code)));
        }
        self.used += len;
        Ok(Some(packet))
    }
}

impl Link {
    /// Connects to the broker on `port` and waits for its CONNACK.
    pub(super) fn open(port: u16, identity: &Identity) -> Result<(Self, Greeting), Broken> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        if stream.local_addr()? == address {
            // Nobody listens there, and the system chose that very port for our own end.
            return Err(io::Error::from(ErrorKind::ConnectionRefused).into());
        }
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let version = identity.version;
        let mut link = Self {
            stream,
            input: Input { version, bytes: Vec::new(), used: 0 },
            output: Output::new(version),
        };
        link.output.bytes = identity.connect();
        link.flush()?;
        loop {
            if let Some(packet) = link.input.next()? {
                let greeting = greeting(&packet)?;
                return Ok((link, greeting));
            }
            if link.read(ANSWER_LIMIT)? == 0 {
                return Err(Broken::fault("no CONNACK in time"));
            }
        }
    }

    /// Sends what was pushed.
    pub(super) fn flush(&mut self) -> Result<(), Broken> {
        if self.output.bytes.is_empty() {
            return Ok(());
        }
        let written = self.stream.write_all(&self.output.bytes);
        self.output.bytes.clear();
        match written {
            Err(error) if is_timeout(&error) => Err(Broken::fault("the broker takes no bytes")),
            written => Ok(written?),
        }
    }

    /// Waits so long for bytes, and returns how many have come.
    pub(super) fn read(&mut self, limit: Duration) -> Result<usize, Broken> {
        self.input.bytes.drain(..self.input.used);
        self.input.used = 0;
        self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
            Ok(len) => {
                self.input.bytes.extend_from_slice(&buffer[..len]);
                Ok(len)
            }
            Err(error) if is_timeout(&error) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Says goodbye; the session stays.
    pub(super) fn leave(mut self) -> Result<(), Broken> {
        let (code, properties) = (ReasonCode::Success, Default::default());
        self.output.push(&Packet::Disconnect(Disconnect { code, properties }));
        self.flush()
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn greeting(packet: &Packet<'_>) -> Result<Greeting, Broken> {
    let Packet::ConnAck(connack) = packet else {
        return Err(Broken::fault("the first packet is no CONNACK"));
    };
    if connack.code != ReasonCode::Success {
        return Err(Broken::Fault(format!("the broker refused a CONNECT: {:?}", connack.code)));
    }
    let receive_maximum = connack.properties.iter().find_map(|property| match property {
        Property::ReceiveMaximum(count) => Some(count),
        _ => None,
    });
    Ok(Greeting {
        session_present: connack.session_present,
        receive_maximum: receive_maximum.unwrap_or(u16::MAX),
    })
}
