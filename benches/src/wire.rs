//! A client on a socket that waits for every answer: for programs that measure the broker, not it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use dunlin_packets::{
    Ack, AckKind, Connect, FilterRequest, Frame, Packet, PacketId, Properties, Publish, QoS,
    Subscribe, SubscriptionOptions, VARINT_MAX, Version,
};

/// Longest wait for an answer: a broker that reads a large log is silent for long.
const PATIENCE: Duration = Duration::from_secs(300);

/// A client of MQTT 3.1.1.
#[derive(Debug)]
pub struct WireClient {
    stream: TcpStream,
    input: Vec<u8>,
    /// The broker had a session for it.
    pub session_present: bool,
}

/// What a client was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The topic.
    pub topic: String,
    /// The first 8 bytes of the payload, little endian.
    pub number: u64,
    /// The RETAIN flag.
    pub retain: bool,
}

impl WireClient {
    /// Connects. Without a clean start, the session outlives the connection.
    ///
    /// # Errors
    /// When there is no connection, or no CONNACK.
    pub fn connect(address: SocketAddr, client_id: &str, clean_start: bool) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, input: Vec::new(), session_present: false };
        let mut bytes = Vec::new();
        Connect {
            version: Version::V4,
            clean_start,
            keep_alive_s: 0,
            client_id,
            properties: Properties::default(),
            will: None,
            user_name: None,
            password: None,
        }
        .encode(&mut bytes);
        client.stream.write_all(&bytes)?;
        client.session_present = client.until(|packet| match packet {
            Packet::ConnAck(connack) => Some(connack.session_present),
            _ => None,
        })?;
        Ok(client)
    }

    /// Reads up to the packet that `pick` takes. Others are left out.
    fn until<R>(&mut self, mut pick: impl FnMut(&Packet<'_>) -> Option<R>) -> io::Result<R> {
        let mut scratch = [0; 16 << 10];
        loop {
            let mut used = 0;
            let mut picked = None;
            while picked.is_none()
                && let Some((frame, len)) =
                    Frame::split(&self.input[used..], VARINT_MAX as usize, Version::V4)
                        .map_err(|error| io::Error::other(error.to_string()))?
            {
                let packet = Packet::decode(&frame, Version::V4)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                picked = pick(&packet);
                used += len;
            }
            self.input.drain(..used);
            if let Some(picked) = picked {
                return Ok(picked);
            }
            match self.stream.read(&mut scratch)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                len => self.input.extend_from_slice(&scratch[..len]),
            }
        }
    }

    /// The next delivery, acknowledged.
    ///
    /// # Errors
    /// When none comes.
    pub fn delivery(&mut self) -> io::Result<Delivery> {
        let (delivery, id) = self.until(|packet| match packet {
            Packet::Publish(publish) => {
                let number = publish.payload.first_chunk().copied().map(u64::from_le_bytes);
                let topic = publish.topic.to_owned();
                let number = number.unwrap_or(u64::MAX);
                Some((Delivery { topic, number, retain: publish.retain }, publish.packet_id))
            }
            _ => None,
        })?;
        if let Some(id) = id {
            let mut bytes = Vec::new();
            Ack::new(AckKind::PubAck, id).encode(Version::V4, &mut bytes);
            self.stream.write_all(&bytes)?;
        }
        Ok(delivery)
    }

    /// Publishes; at QoS 1 with an identifier.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn publish(&mut self, topic: &str, payload: &[u8], id: Option<PacketId>) -> io::Result<()> {
        self.publish_all(topic, payload, &[id])
    }

    /// Publishes the same several times in one write.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn publish_all(
        &mut self,
        topic: &str,
        payload: &[u8],
        ids: &[Option<PacketId>],
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for &packet_id in ids {
            Publish {
                dup: false,
                qos: if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce },
                retain: false,
                topic,
                packet_id,
                properties: Properties::default(),
                payload,
            }
            .encode(Version::V4, &mut bytes);
        }
        self.stream.write_all(&bytes)
    }

    /// Waits for so many acknowledgements of publications.
    ///
    /// # Errors
    /// When they do not come.
    pub fn acknowledgements(&mut self, count: usize) -> io::Result<()> {
        let mut left = count;
        self.until(|packet| {
            left -= usize::from(matches!(packet, Packet::Ack(ack) if ack.kind == AckKind::PubAck));
            (left == 0).then_some(())
        })
    }

    /// Subscribes.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) -> io::Result<()> {
        let mut bytes = Vec::new();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let requests = [FilterRequest { filter, options }];
        let properties = Properties::default();
        Subscribe::encode(Version::V4, PacketId::MIN, properties, &requests, &mut bytes);
        self.stream.write_all(&bytes)
    }

    /// Waits for the answer to [`Self::subscribe`]. What is delivered before it is left out.
    ///
    /// # Errors
    /// When it does not come.
    pub fn subscribed(&mut self) -> io::Result<()> {
        self.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(()))
    }
}
