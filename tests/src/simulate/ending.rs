//! The end of a run: everybody comes back and gets what is owed; then the broker has nothing left.

use std::sync::atomic::Ordering;

use dunlin_packets::{
    Connect, FilterRequest, PacketId, Properties, QoS, RetainHandling, Subscribe,
    SubscriptionOptions, Version,
};

use super::audit::{Verdict, violation};
use super::connecting::Wish;
use super::link::{Diligence, Incoming, Link};
use super::publication::PubId;
use super::world::World;
use crate::{Client, Connecting, Publishing, Subscribing, puback};

/// A topic that no filter of the clients matches.
const CHURN_TOPIC: &str = "$churn";
/// Messages that are sent at the end to have the log cleaned up, and their bytes.
const CHURN: u16 = 100;
const CHURN_BYTES: usize = 10_000;
/// Bytes of a log in which nothing is alive: below that it may not be worth it to clean it up.
const LOG_BYTES_MAX: u64 = 500_000;

/// Rounds until everything must have come: with a receive maximum of 1 each takes one message.
const ROUNDS_MAX: usize = 200_000;

impl World {
    /// Ends the run.
    ///
    /// # Errors
    /// When something is missing, or left.
    pub fn finish(&mut self) -> Verdict {
        self.note("everybody comes back");
        self.may_crash = false;
        self.audit.tick += 1;
        self.rest()?;
        for index in 0..self.clients.len() {
            if self.clients[index].link.is_none() {
                if !self.audit.sessions[index].exists() {
                    continue;
                }
                self.connect(index, &Wish::to_resume())?;
            }
            if let Some(link) = &mut self.clients[index].link {
                link.unlimit();
                link.complete();
                link.diligence = Diligence::Prompt;
            }
        }
        self.drain()?;
        for client in &self.clients {
            let Some(link) = &client.link else { continue };
            if let Some(outgoing) = client.outgoing.front() {
                return violation(format!("c{} waits for ever for {outgoing:?}", client.index));
            }
            if !link.asked.is_empty() {
                return violation(format!("c{} waits for a SUBACK for ever", client.index));
            }
        }
        self.audit.check_nothing_owed()?;
        self.check_left_over()?;
        self.check_retained()?;
        self.check_log()
    }

    /// The log does not grow for ever with what nobody needs any more.
    fn check_log(&mut self) -> Verdict {
        let sim = self.broker.sim();
        let client = Client::online(sim, &Connecting::v5("churner").resume().expiry(100));
        client.send(sim, Subscribing::to(CHURN_TOPIC, 1).v5());
        for number in 1..=CHURN {
            let payload = "x".repeat(CHURN_BYTES);
            client.send(sim, Publishing::q1(CHURN_TOPIC, &payload, number).v5());
            client.send(sim, puback(number));
            client.discard();
        }
        sim.advance_s(1);
        let figures = &sim.log().figures;
        let (bytes, removed) =
            (figures.bytes.load(Ordering::Relaxed), figures.removed.load(Ordering::Relaxed));
        let live = sim.live_log_bytes();
        if bytes > LOG_BYTES_MAX + 3 * live {
            return violation(format!(
                "the log has {bytes} bytes of which {live} are alive; {removed} segments removed"
            ));
        }
        Ok(())
    }

    /// Until nobody has anything to say any more.
    fn drain(&mut self) -> Verdict {
        for _ in 0..ROUNDS_MAX {
            self.rest()?;
            let mut is_quiet = true;
            for client in &mut self.clients {
                let Some(link) = &mut client.link else { continue };
                link.complete();
                is_quiet &= link.is_taken() && link.pending.is_empty() && link.arrived.is_empty();
            }
            if is_quiet {
                return Ok(());
            }
        }
        violation("it never comes to an end")
    }

    /// All that the broker holds now is what it retains.
    fn check_left_over(&mut self) -> Verdict {
        let sessions = self.audit.sessions.iter().filter(|session| session.exists()).count();
        let sim = self.broker.sim();
        let (stats, held) = (sim.stats(), sim.messages_held());
        if stats.sessions != sessions as u64 {
            return violation(format!("{} sessions, not {sessions}", stats.sessions));
        }
        if stats.retained != held as u64 {
            return violation(format!("{held} messages are held, {} retained", stats.retained));
        }
        Ok(())
    }

    /// What somebody gets who subscribes to everything now.
    fn check_retained(&mut self) -> Verdict {
        let mut bytes = Vec::new();
        let client_id = "auditor";
        Connect {
            version: Version::V4,
            clean_start: true,
            keep_alive_s: 0,
            client_id,
            properties: Properties::default(),
            will: None,
            user_name: None,
            password: None,
        }
        .encode(&mut bytes);
        let options = SubscriptionOptions {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        };
        let request = FilterRequest { filter: "#", options };
        let id = PacketId::new(1).expect("it is not 0");
        Subscribe::encode(Version::V4, id, Properties::default(), &[request], &mut bytes);
        let mut link = Link::new(self.broker.connect(), Version::V4, u16::MAX, 0);
        link.client.write(bytes);
        self.broker.run();
        link.receive(&self.audit.names, &self.audit.publications, self.audit.now_ms)?;
        let mut found: Vec<Option<PubId>> = vec![None; self.audit.names.topics.len()];
        for incoming in &link.arrived {
            if let Incoming::Publish(delivery) = incoming
                && found[delivery.topic].replace(delivery.publication.unwrap_or(0)).is_some()
            {
                return violation(format!("retained twice: {delivery:?}"));
            }
        }
        for (topic, found) in found.into_iter().enumerate() {
            self.check_retained_under(topic, found)?;
        }
        Ok(())
    }

    fn check_retained_under(&self, topic: usize, found: Option<PubId>) -> Verdict {
        let audit = &self.audit;
        let floor = audit.floor(topic);
        let all = audit.retained.get(&topic).map_or(&[][..], |ids| ids);
        // What may be the last: the last that is certain, and whatever came after it.
        let mut last = all
            .iter()
            .copied()
            .filter(|&id| floor.is_none_or(|floor| audit.is_not_older(id, floor)));
        let fits = match found {
            Some(found) => last.any(|id| {
                id == found && {
                    let publication = audit.publications.get(id);
                    publication.may_last || publication.expires_max_ms > audit.now_ms
                }
            }),
            None => {
                floor.is_none()
                    || last.any(|id| {
                        let publication = audit.publications.get(id);
                        publication.is_empty || publication.expires_min_ms <= audit.now_ms
                    })
            }
        };
        if fits {
            return Ok(());
        }
        let name = &audit.names.topics[topic];
        violation(format!(
            "under {name}, #{found:?} is retained; the last certain one is {floor:?}"
        ))
    }
}
