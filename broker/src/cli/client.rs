//! A small blocking client for `dunlin pub` and `dunlin sub`.

use std::io::{self, BufRead, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dunlin_packets::{
    Ack, AckKind, Connect, Disconnect, FilterRequest, Frame, Packet, PacketId, Properties,
    PropertiesBuf, Property, Publish, QoS, ReasonCode, Subscribe, SubscriptionOptions, VARINT_MAX,
    Version,
};

use super::args::{ClientArgs, PublishArgs, SubscribeArgs};
use crate::queues::address::subscribe_to;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

struct Client {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    /// Packets of the server that have been handled, at the start of `input`.
    used: usize,
}

fn invalid(problem: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.into())
}

/// What the broker refused, and why as far as it says so.
fn refused(what: &str, code: &str, properties: Properties<'_>) -> io::Error {
    let reason = properties.reason_string().map(|reason| format!(", {reason}")).unwrap_or_default();
    invalid(format!("the broker refused{what}: {code}{reason}"))
}

impl Client {
    fn connect(args: &ClientArgs) -> io::Result<Self> {
        let stream = TcpStream::connect((args.host.as_str(), args.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut client = Self { stream, version: args.version, input: Vec::new(), used: 0 };
        let client_id = match (args.client_id.as_str(), args.version) {
            // 3.1 has no empty identifier.
            ("", Version::V3) => format!("dunlin-{}", std::process::id()),
            (id, _) => id.to_owned(),
        };
        client.send(&Packet::Connect(Connect {
            version: args.version,
            clean_start: true,
            keep_alive_s: args.keep_alive_s,
            client_id: &client_id,
            properties: Properties::default(),
            will: None,
            user_name: args.user_name.as_deref(),
            password: args.password.as_deref().map(str::as_bytes),
        }))?;
        client.receive(|_, packet| match packet {
            Packet::ConnAck(connack) if connack.code == ReasonCode::Success => Ok(Some(())),
            Packet::ConnAck(connack) => {
                Err(refused("", &format!("{:?}", connack.code), connack.properties))
            }
            _ => Err(invalid("the broker did not answer with CONNACK")),
        })?;
        Ok(client)
    }

    fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut out = Vec::new();
        packet.encode(self.version, &mut out);
        self.stream.write_all(&out)
    }

    /// Hands packets to `handle`, with what is to be answered, until it has a result.
    fn receive<R>(
        &mut self,
        mut handle: impl FnMut(&mut Vec<Ack<'static>>, &Packet<'_>) -> io::Result<Option<R>>,
    ) -> io::Result<R> {
        loop {
            let rest = &self.input[self.used..];
            let frame = Frame::split(rest, VARINT_MAX as usize + 5, self.version);
            if let Some((frame, len)) = frame.map_err(|error| invalid(error.to_string()))? {
                let packet = Packet::decode(&frame, self.version)
                    .map_err(|error| invalid(error.to_string()))?;
                if let Packet::Disconnect(disconnect) = packet {
                    return Err(invalid(format!("the broker left: {:?}", disconnect.code)));
                }
                let mut answers = Vec::new();
                let result = handle(&mut answers, &packet)?;
                self.used += len;
                for answer in answers {
                    self.send(&Packet::Ack(answer))?;
                }
                if let Some(result) = result {
                    return Ok(result);
                }
                continue;
            }
            self.input.drain(..self.used);
            self.used = 0;
            let mut buffer = [0; 16 << 10];
            let len = self.stream.read(&mut buffer)?;
            if len == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the broker closed the connection",
                ));
            }
            self.input.extend_from_slice(&buffer[..len]);
        }
    }

    fn publish(&mut self, args: &PublishArgs, payload: &[u8], id: PacketId) -> io::Result<()> {
        let qos = args.client.qos;
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain: args.retain,
            topic: &args.topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(id),
            properties: Properties::default(),
            payload,
        }))?;
        if qos == QoS::AtMostOnce {
            return Ok(());
        }
        self.receive(|answers, packet| match packet {
            Packet::Ack(ack) if ack.packet_id == id => {
                if ack.code.is_error() {
                    return Err(refused("", &format!("{:?}", ack.code), ack.properties));
                }
                if let Some(reason) = ack.properties.reason_string() {
                    eprintln!("dunlin: {}: {reason}", args.topic);
                }
                match ack.kind {
                    AckKind::PubAck | AckKind::PubComp => Ok(Some(())),
                    AckKind::PubRec => {
                        answers.push(Ack::new(AckKind::PubRel, id));
                        Ok(None)
                    }
                    AckKind::PubRel => Ok(None),
                }
            }
            _ => Ok(None),
        })
    }

    fn leave(&mut self) -> io::Result<()> {
        let properties = Properties::default();
        self.send(&Packet::Disconnect(Disconnect { code: ReasonCode::Success, properties }))
    }
}

/// `dunlin pub`.
pub(super) fn publish(args: &PublishArgs) -> io::Result<()> {
    let mut client = Client::connect(&args.client)?;
    if let Some(payload) = &args.payload {
        client.publish(args, payload, PacketId::MIN)?;
    } else {
        let mut id = 0u16;
        for line in io::stdin().lock().lines() {
            id = id % u16::MAX + 1;
            client.publish(args, line?.as_bytes(), PacketId::new(id).unwrap_or(PacketId::MIN))?;
        }
    }
    client.leave()
}

/// `dunlin sub`.
pub(super) fn subscribe(args: &SubscribeArgs) -> io::Result<()> {
    let mut client = Client::connect(&args.client)?;
    let options = SubscriptionOptions { qos: args.client.qos, ..SubscriptionOptions::default() };
    let requests: Vec<_> =
        args.filters.iter().map(|filter| FilterRequest { filter, options }).collect();
    let mut out = Vec::new();
    let version = client.version;
    let mut properties = PropertiesBuf::new();
    if version.has_properties() && args.filters.iter().any(|filter| is_queue(filter)) {
        // What has been printed is settled: by the acknowledgement, as in 3.1.1.
        properties.push(Property::UserProperty("settle", "auto"));
    }
    let properties = properties.as_properties();
    Subscribe::encode(version, PacketId::MIN, properties, &requests, &mut out);
    client.stream.write_all(&out)?;
    // Half a keep alive of silence is time for a ping; without one, silence is fine.
    let idle = Duration::from_secs(u64::from(args.client.keep_alive_s).div_ceil(2));
    client.stream.set_read_timeout((!idle.is_zero()).then_some(idle))?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let received =
            client.receive(|answers, packet| on_subscriber_packet(args, answers, packet));
        match received {
            Ok(()) => left -= 1,
            Err(error) if is_timeout(&error) => client.send(&Packet::PingReq)?,
            Err(error) => return Err(error),
        }
    }
    client.leave()
}

/// Whether a filter consumes a partitioned queue.
fn is_queue(filter: &str) -> bool {
    let shared = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/'));
    subscribe_to(shared.map_or(filter, |(_, of_group)| of_group)).is_some()
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Prints publications, answers them, and reports refused filters.
fn on_subscriber_packet(
    args: &SubscribeArgs,
    answers: &mut Vec<Ack<'static>>,
    packet: &Packet<'_>,
) -> io::Result<Option<()>> {
    match packet {
        Packet::SubAck(suback) => {
            for (filter, code) in args.filters.iter().zip(suback.codes) {
                if *code >= 0x80 {
                    let filter = format!(" {filter}");
                    return Err(refused(&filter, &format!("{code:#04x}"), suback.properties));
                }
            }
            Ok(None)
        }
        Packet::Publish(publish) => {
            print(args, publish)?;
            match (publish.qos, publish.packet_id) {
                (QoS::AtLeastOnce, Some(id)) => answers.push(Ack::new(AckKind::PubAck, id)),
                (QoS::ExactlyOnce, Some(id)) => answers.push(Ack::new(AckKind::PubRec, id)),
                _ => {}
            }
            Ok(Some(()))
        }
        Packet::Ack(ack) if ack.kind == AckKind::PubRel => {
            answers.push(Ack::new(AckKind::PubComp, ack.packet_id));
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn print(args: &SubscribeArgs, publish: &Publish<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.with_topics {
        write!(out, "{} ", publish.topic)?;
    }
    out.write_all(publish.payload)?;
    out.write_all(b"\n")?;
    out.flush()
}
