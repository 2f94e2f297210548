//! What may happen next.

use dunlin_packets::{
    FilterRequest, PacketId, PropertiesBuf, Property, QoS, RetainHandling, Subscribe,
    SubscriptionOptions, Unsubscribe, Version,
};

use super::audit::Verdict;
use super::client::Outgoing;
use super::link::Asked;
use super::publication::{Publication, Stage};
use super::session::end_of;
use super::subscriptions::Terms;
use super::world::World;

/// Publications a client has in flight at most.
const IN_FLIGHT: usize = 20;

impl World {
    /// Does something, and then has the broker do something.
    ///
    /// # Errors
    /// When a rule was broken.
    pub fn step(&mut self) -> Verdict {
        self.audit.tick += 1;
        let index = self.random.below(self.clients.len());
        let is_online = self.clients[index].link.is_some();
        match self.random.below(1000) {
            _ if !is_online => {
                // Some stay away for a while.
                if self.random.percent(30) {
                    self.connect_somehow(index)?;
                }
            }
            0..350 => self.publish(index),
            350..550 => self.read_and_answer(index)?,
            550..660 => self.subscribe(index),
            660..710 => self.unsubscribe(index),
            710..760 => self.break_connection(index)?,
            760..775 => self.disconnect(index)?,
            775..800 => self.connect_somehow(index)?,
            800..840 => self.limit(index),
            840..900 => self.hurry(index),
            900..950 => self.advance()?,
            950..955 if self.may_crash => return self.crash(),
            950..980 => self.run_a_little()?,
            _ => self.rest()?,
        }
        self.schedule()
    }

    pub(super) fn publish(&mut self, index: usize) {
        for _ in 0..self.random.pick(&[1, 1, 1, 2, 5]) {
            let quota = IN_FLIGHT.min(usize::from(self.settings.limits.receive_maximum));
            let is_full = self.clients[index].outgoing.len() >= quota;
            let qos = if is_full { 0 } else { self.random.below(3) as u8 };
            self.publish_one(index, qos);
        }
    }

    fn publish_one(&mut self, index: usize, qos: u8) {
        let Some(version) = self.clients[index].link.as_ref().map(|link| link.version) else {
            return;
        };
        let random = &mut self.random;
        let topic = random.pick(&self.audit.names.topics_of(index));
        let may_retain = self.audit.names.may_retain(topic);
        let expiry_s =
            (version == Version::V5 && random.percent(8)).then(|| random.pick(&[1, 5, 60]));
        let len = match random.below(100) {
            0..90 => random.between(8, 30),
            90..98 => random.between(100, 2000),
            _ => random.between(17_000, 20_000),
        };
        let publication = Publication {
            publisher: index,
            topic,
            qos,
            retain: may_retain && random.percent(70),
            is_empty: may_retain && random.percent(15),
            len,
            expiry_s,
            expires_min_ms: expiry_s.map_or(u64::MAX, |seconds| end_of(self.audit.now_ms, seconds)),
            expires_max_ms: u64::MAX,
            may_last: false,
            stage: Stage::Out,
            sent: self.audit.tick,
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
        let (retain, is_empty) = (publication.retain, publication.is_empty);
        let id = self.audit.on_published(publication);
        let mut packet_id = 0;
        if qos > 0 {
            packet_id = self.clients[index].next_id();
            let outgoing = Outgoing { packet_id, publication: id, qos, is_released: false };
            self.clients[index].outgoing.push_back(outgoing);
        }
        let name = self.audit.names.topics[topic].clone();
        self.note(&format!(
            "c{index} publishes #{id} to {name}, QoS {qos}, id {packet_id}{}{}{}",
            if retain { ", retain" } else { "" },
            if is_empty { ", empty" } else { "" },
            expiry_s.map_or(String::new(), |seconds| format!(", expires in {seconds} s"))
        ));
        self.transmit(index, id, packet_id);
    }

    fn read_and_answer(&mut self, index: usize) -> Verdict {
        let (read, answers) = (self.random.portion(), self.random.portion());
        let (most, some) = (read.min(9999), answers.min(9999));
        self.note(&format!("c{index} reads {most} packets at most and writes {some} answers"));
        self.read(index, read)?;
        self.answer(index, answers);
        Ok(())
    }

    fn draw_terms(&mut self, is_5: bool, is_shared: bool, identifier: u32) -> Terms {
        let random = &mut self.random;
        let mut terms = Terms {
            qos: random.below(3) as u8,
            no_local: false,
            as_published: false,
            handling: RetainHandling::Always,
            identifier,
        };
        if is_5 {
            // Not with a shared subscription [MQTT-3.8.3-4].
            terms.no_local = !is_shared && random.percent(20);
            terms.as_published = random.percent(30);
            let handlings = [RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never];
            terms.handling = random.pick(&handlings);
        }
        terms
    }

    fn subscribe(&mut self, index: usize) {
        let Some(version) = self.clients[index].link.as_ref().map(|link| link.version) else {
            return;
        };
        let is_5 = version == Version::V5;
        let identifier = match self.random.percent(40) {
            true if is_5 => self.random.between(1, 300) as u32,
            _ => 0,
        };
        let packet_id = self.clients[index].next_id();
        let mut asked: Vec<Asked> = Vec::new();
        let mut requests = Vec::new();
        for _ in 0..self.random.pick(&[1, 1, 2, 3]) {
            let filter = self.random.below(self.audit.names.filter_count());
            if asked.iter().any(|other| other.filter == filter) {
                continue;
            }
            let is_shared = self.audit.names.is_shared(filter);
            let terms = self.draw_terms(is_5, is_shared, identifier);
            let subscriptions = &self.audit.sessions[index].subscriptions;
            let was_absent = subscriptions.is_certainly_absent(filter);
            let place = self.audit.on_request(index, filter, Some(terms));
            asked.push(Asked { filter, place, qos: Some(terms.qos), was_absent });
            let options = SubscriptionOptions {
                qos: QoS::from_bits(terms.qos).expect("a QoS is 0, 1 or 2"),
                no_local: terms.no_local,
                retain_as_published: terms.as_published,
                retain_handling: terms.handling,
            };
            requests.push(FilterRequest { filter: self.audit.names.filter(filter), options });
        }
        self.note(&format!("c{index} subscribes, id {packet_id}, {identifier}: {requests:?}"));
        let mut properties = PropertiesBuf::new();
        if identifier > 0 {
            properties.push(Property::SubscriptionIdentifier(identifier));
        }
        let mut bytes = Vec::new();
        let id = PacketId::new(packet_id).expect("it is not 0");
        Subscribe::encode(version, id, properties.as_properties(), &requests, &mut bytes);
        self.ask(index, packet_id, asked, &bytes);
    }

    fn unsubscribe(&mut self, index: usize) {
        let Some(version) = self.clients[index].link.as_ref().map(|link| link.version) else {
            return;
        };
        let filter = self.random.below(self.audit.names.filter_count());
        let subscriptions = &self.audit.sessions[index].subscriptions;
        let was_absent = subscriptions.is_certainly_absent(filter);
        if was_absent && self.random.percent(80) {
            return;
        }
        let packet_id = self.clients[index].next_id();
        let place = self.audit.on_request(index, filter, None);
        let asked = Asked { filter, place, qos: None, was_absent };
        let name = self.audit.names.filter(filter);
        self.note(&format!("c{index} unsubscribes from {name}, id {packet_id}"));
        let mut bytes = Vec::new();
        let id = PacketId::new(packet_id).expect("it is not 0");
        let properties = PropertiesBuf::new();
        Unsubscribe::encode(version, id, properties.as_properties(), &[name], &mut bytes);
        self.ask(index, packet_id, vec![asked], &bytes);
    }

    fn ask(&mut self, index: usize, packet_id: u16, asked: Vec<Asked>, bytes: &[u8]) {
        let Some(link) = &mut self.clients[index].link else { return };
        link.asked.insert(packet_id, asked);
        link.write(bytes, &mut self.random);
    }

    fn limit(&mut self, index: usize) {
        let bytes = self.random.pick(&[0, 1, 20, 500]);
        self.note(&format!("c{index} reads only {bytes} bytes more"));
        if let Some(link) = &mut self.clients[index].link {
            link.limit(bytes);
        }
    }

    fn hurry(&mut self, index: usize) {
        self.note(&format!("c{index} reads as fast as it can, and sends what it has kept back"));
        if let Some(link) = &mut self.clients[index].link {
            link.unlimit();
            link.complete();
        }
    }

    fn advance(&mut self) -> Verdict {
        // What was sent before is handled before the clock moves.
        self.rest()?;
        let millis = self.random.pick(&[1, 100, 1000, 1000, 3000, 30_000, 61_000, 1_100_000]);
        self.note(&format!("{millis} ms pass"));
        self.audit.tick += 1;
        self.broker.sim().advance_ms(millis);
        // Some of what has come may have been sent early on the way.
        self.gather()?;
        let now_ms = self.audit.now_ms + millis;
        self.audit.on_time(now_ms);
        self.rest()
    }
}
