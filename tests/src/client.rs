//! The test's end of a connection.

use std::sync::Arc;

use dunlin_packets::{Ack, AckKind, Frame, Packet, VARINT_MAX, Version};
use parking_lot::Mutex;

use crate::{Connecting, Pipe, Sim, describe};

/// A client: bytes in, packets out as text.
#[derive(Debug)]
pub struct Client {
    pipe: Arc<Mutex<Pipe>>,
    version: Version,
}

impl Client {
    pub(crate) fn new(pipe: Arc<Mutex<Pipe>>) -> Self {
        Self { pipe, version: Version::V5 }
    }

    /// Connects and lets the broker answer. What it answered is still to be taken.
    pub fn connect(sim: &mut Sim, connecting: &Connecting<'_>) -> Self {
        let mut client = sim.client();
        client.version = connecting.version();
        client.send(sim, connecting.bytes());
        client
    }

    /// Connects, and expects success.
    ///
    /// # Panics
    /// When the CONNACK says something else.
    pub fn online(sim: &mut Sim, connecting: &Connecting<'_>) -> Self {
        let client = Self::connect(sim, connecting);
        let answer = client.take();
        assert!(
            answer.first().is_some_and(|first| first.starts_with("CONNACK Success")),
            "{answer:?}"
        );
        client
    }

    /// Reads answers as those of `version`.
    pub fn speak(&mut self, version: Version) {
        self.version = version;
    }

    /// Sends bytes, and lets the broker work.
    pub fn send(&self, sim: &mut Sim, bytes: impl AsRef<[u8]>) {
        self.write(bytes);
        sim.run();
    }

    /// Sends bytes without letting the broker work yet.
    pub fn write(&self, bytes: impl AsRef<[u8]>) {
        self.pipe.lock().to_broker.extend(bytes.as_ref());
    }

    /// The bytes that have come since the last call.
    pub(crate) fn take_bytes(&self) -> Vec<u8> {
        std::mem::take(&mut self.pipe.lock().from_broker)
    }

    /// Whether the broker has read everything that was written.
    pub(crate) fn is_read(&self) -> bool {
        self.pipe.lock().to_broker.is_empty()
    }

    /// Closes without a word, and without letting the broker work yet.
    pub(crate) fn close(&self) {
        self.pipe.lock().client_closed = true;
    }

    /// Closes without a word.
    pub fn drop_connection(&self, sim: &mut Sim) {
        self.pipe.lock().client_closed = true;
        sim.run();
    }

    /// Takes no more than so many bytes from now on.
    pub fn limit_room(&self, bytes: usize) {
        self.pipe.lock().room = bytes;
    }

    /// Takes everything again.
    pub fn unlimited(&self, sim: &mut Sim) {
        self.pipe.lock().room = usize::MAX;
        sim.run();
    }

    /// Whether the broker has closed the connection.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.pipe.lock().broker_closed
    }

    /// The packets that have come since the last call, as text; `CLOSED` at the end of the
    /// connection.
    ///
    /// # Panics
    /// When the broker sent something that is no packet.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        let mut pipe = self.pipe.lock();
        let bytes = std::mem::take(&mut pipe.from_broker);
        let mut texts = Vec::new();
        let mut rest = &bytes[..];
        while let Some((frame, len)) =
            Frame::split(rest, VARINT_MAX as usize + 5, self.version).expect("a packet")
        {
            let packet = Packet::decode(&frame, self.version).expect("a valid packet");
            texts.push(describe(&packet));
            rest = &rest[len..];
        }
        pipe.from_broker.extend_from_slice(rest);
        if pipe.broker_closed {
            texts.push("CLOSED".into());
        }
        texts
    }

    /// Appends a PUBACK for every PUBLISH at QoS 1 that has come, and throws everything away.
    /// Allocates nothing.
    pub fn acknowledge_into(&self, acks: &mut Vec<u8>) {
        let mut pipe = self.pipe.lock();
        let mut rest = &pipe.from_broker[..];
        while let Ok(Some((frame, len))) = Frame::split(rest, VARINT_MAX as usize + 5, self.version)
        {
            if let Ok(Packet::Publish(publish)) = Packet::decode(&frame, self.version)
                && let Some(id) = publish.packet_id
            {
                Ack::new(AckKind::PubAck, id).encode(self.version, acks);
            }
            rest = &rest[len..];
        }
        pipe.from_broker.clear();
    }

    /// Throws away what has come.
    pub fn discard(&self) {
        self.pipe.lock().from_broker.clear();
    }
}
