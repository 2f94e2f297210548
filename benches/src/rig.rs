//! One worker of the broker, with everything but the kernel: bytes go in and are thrown away where
//! they come out. So what is measured is ours.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use dunlin::worker::{ConnId, Mail, Peer, Settings, Shared, Transport, Worker};
use dunlin_packets::{Ack, AckKind, Frame, Packet, QoS, VARINT_MAX, Version};
use dunlin_queue::mailbox::Inbox;
use dunlin_queue::{PoolStats, Time};
use dunlin_tests::{Connecting, Subscribing};

/// A client of a [`Rig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientNo(u32);

#[derive(Debug, Default)]
struct End {
    id: Option<ConnId>,
    /// What the client has sent and the broker not read.
    input: Vec<u8>,
    /// It reads nothing.
    is_blocked: bool,
    /// A write was refused meanwhile.
    was_refused: bool,
    /// It acknowledges what it gets, and says so.
    answers: Option<Version>,
}

/// The clients' ends.
#[derive(Debug, Default)]
struct World {
    ends: Vec<End>,
    /// Those that have answered since the broker was last told.
    answered: Vec<u32>,
}

type Ends = Rc<RefCell<World>>;

/// Memory as a transport: a link is the number of its client.
#[derive(Debug)]
struct Memory {
    ends: Ends,
}

impl Transport for Memory {
    type Link = u32;

    fn attach(&mut self, link: &mut u32, id: ConnId) -> io::Result<()> {
        self.ends.borrow_mut().ends[*link as usize].id = Some(id);
        Ok(())
    }

    fn detach(&mut self, link: &mut u32) {
        self.ends.borrow_mut().ends[*link as usize].id = None;
    }

    fn read(&mut self, link: &mut u32, buffer: &mut [u8]) -> io::Result<usize> {
        let input = &mut self.ends.borrow_mut().ends[*link as usize].input;
        if input.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let len = input.len().min(buffer.len());
        buffer[..len].copy_from_slice(&input[..len]);
        input.drain(..len);
        Ok(len)
    }

    fn watch_room(&mut self, _link: &mut u32, _id: ConnId) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, link: &mut u32, head: &[u8], body: &[u8]) -> io::Result<usize> {
        let World { ends, answered } = &mut *self.ends.borrow_mut();
        let end = &mut ends[*link as usize];
        if end.is_blocked {
            end.was_refused = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(version) = end.answers
            && end.answer(head, version)
        {
            answered.push(*link);
        }
        Ok(head.len() + body.len())
    }

    fn shutdown(&mut self, _link: &mut u32) {}
}

impl End {
    fn answer(&mut self, mut bytes: &[u8], version: Version) -> bool {
        let before = self.input.len();
        while let Ok(Some((frame, len))) = Frame::split(bytes, VARINT_MAX as usize, version) {
            let answer = match Packet::decode(&frame, version) {
                Ok(Packet::Publish(publish)) => publish.packet_id.map(|id| match publish.qos {
                    QoS::ExactlyOnce => Ack::new(AckKind::PubRec, id),
                    _ => Ack::new(AckKind::PubAck, id),
                }),
                Ok(Packet::Ack(ack)) => match ack.kind {
                    AckKind::PubRec => Some(Ack::new(AckKind::PubRel, ack.packet_id)),
                    AckKind::PubRel => Some(Ack::new(AckKind::PubComp, ack.packet_id)),
                    AckKind::PubAck | AckKind::PubComp => None,
                },
                _ => None,
            };
            if let Some(answer) = answer {
                answer.encode(version, &mut self.input);
            }
            bytes = &bytes[len..];
        }
        self.input.len() > before
    }
}

/// The worker and its clients.
pub struct Rig {
    worker: Worker<Memory>,
    shared: Arc<Shared>,
    ends: Ends,
    now: Time,
}

impl std::fmt::Debug for Rig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rig").field("clients", &self.ends.borrow().ends.len()).finish()
    }
}

impl Rig {
    /// A broker of one worker without clients. `$SYS` is off.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let settings = Settings { sys_interval_ms: 0, ..settings };
        let now = Time::from_millis(1_000_000_000_000);
        let shared = Arc::new(Shared::new(settings, 1, 1, now, [1, 2, 3, 4]));
        let ends = Ends::default();
        let transport = Memory { ends: Rc::clone(&ends) };
        let inbox: Inbox<Mail<u32>> = Inbox::new(1, Box::new(|| ()));
        let worker = Worker::new(0, Arc::clone(&shared), transport, inbox, vec![None], now);
        Self { worker, shared, ends, now }
    }

    /// A client that has connected.
    pub fn connect(&mut self, connecting: &Connecting<'_>) -> ClientNo {
        let client = self.open(connecting);
        self.settle();
        client
    }

    /// A client whose CONNECT the broker has not read yet.
    pub fn open(&mut self, connecting: &Connecting<'_>) -> ClientNo {
        let client = ClientNo(self.ends.borrow().ends.len() as u32);
        self.ends.borrow_mut().ends.push(End::default());
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000);
        self.shared.connections.try_add(0, usize::MAX, usize::MAX);
        self.worker.accept(client.0, Peer { address, listener: 0 }, self.now);
        self.send(client, &connecting.bytes());
        client
    }

    /// A client that has subscribed. With `answers` it acknowledges what it gets.
    pub fn subscriber(
        &mut self,
        name: &str,
        version: Version,
        subscribing: &Subscribing<'_>,
        answers: bool,
    ) -> ClientNo {
        let connecting = match version {
            Version::V5 => Connecting::v5(name),
            Version::V3 | Version::V4 => Connecting::v4(name),
        };
        let client = self.connect(&connecting);
        self.send(client, &subscribing.bytes_for(version));
        self.settle();
        if answers {
            self.answer(client, version);
        }
        client
    }

    /// Has a client acknowledge what it gets.
    pub fn answer(&mut self, client: ClientNo, version: Version) {
        self.ends.borrow_mut().ends[client.0 as usize].answers = Some(version);
    }

    /// Puts bytes where the broker will read them.
    #[inline]
    pub fn send(&mut self, client: ClientNo, bytes: &[u8]) {
        let id = {
            let end = &mut self.ends.borrow_mut().ends[client.0 as usize];
            end.input.extend_from_slice(bytes);
            end.id
        };
        if let Some(id) = id {
            self.worker.on_readable(id, false);
        }
    }

    /// One turn of the worker. Whether there is more to do at once.
    #[inline]
    pub fn turn(&mut self) -> bool {
        self.worker.turn(self.now)
    }

    /// Lets the worker work until nothing moves, acknowledgements included.
    pub fn settle(&mut self) {
        loop {
            while self.turn() {}
            if !self.report_answers() {
                return;
            }
        }
    }

    fn report_answers(&mut self) -> bool {
        let mut any = false;
        loop {
            let id = {
                let World { ends, answered } = &mut *self.ends.borrow_mut();
                let Some(client) = answered.pop() else { return any };
                ends[client as usize].id
            };
            if let Some(id) = id {
                self.worker.on_readable(id, false);
                any = true;
            }
        }
    }

    /// From now on these clients read nothing, or read on.
    pub fn block(&mut self, clients: &[ClientNo], is_blocked: bool) {
        for client in clients {
            let (id, was_refused) = {
                let end = &mut self.ends.borrow_mut().ends[client.0 as usize];
                end.is_blocked = is_blocked;
                (end.id, std::mem::take(&mut end.was_refused))
            };
            if let (false, true, Some(id)) = (is_blocked, was_refused, id) {
                self.worker.on_writable(id);
            }
        }
    }

    /// Ends a connection as a broken one.
    pub fn drop_connection(&mut self, client: ClientNo) {
        // A DISCONNECT that keeps the will is the shortest way to say so.
        self.send(client, &[0xe0, 0x00]);
        self.settle();
    }

    /// Moves the clock.
    pub fn advance_ms(&mut self, millis: u64) {
        self.now = self.now.plus_millis(millis);
        self.settle();
    }

    /// How the worker's messages have done.
    #[must_use]
    pub fn pool_stats(&self) -> PoolStats {
        self.worker.pool_stats()
    }
}
