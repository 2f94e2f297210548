//! What a client received, against what it may receive.

use super::audit::{Auditor, Verdict, violation};
use super::names::{FilterId, TopicId};
use super::publication::{PubId, Publication, Stage};
use super::subscriptions::Terms;

/// A PUBLISH as a client got it, its alias resolved.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Topic.
    pub topic: TopicId,
    /// The publication; `None` without a payload.
    pub publication: Option<PubId>,
    /// QoS of the delivery.
    pub qos: u8,
    /// Sent before.
    pub dup: bool,
    /// RETAIN.
    pub retain: bool,
    /// At QoS 1 and 2.
    pub packet_id: u16,
    /// Subscription identifiers.
    pub identifiers: Vec<u32>,
    /// Seconds left, as the broker said.
    pub expiry_s: Option<u32>,
    /// Whether the connection speaks 5.0.
    pub has_properties: bool,
    /// When it came in; `None` when the connection has been slow, so that it may have been composed
    /// earlier.
    pub came_ms: Option<u64>,
}

impl Auditor {
    /// A client reads a delivery. `is_new` when its application gets it: not for what QoS 2 has
    /// filtered out as a repetition.
    ///
    /// # Errors
    /// When the client must not get it, not now, or not like that.
    pub fn on_delivery(&mut self, client: usize, delivery: &Delivery, is_new: bool) -> Verdict {
        self.deliveries += 1;
        let Some(id) = delivery.publication else { return self.on_empty(client, delivery) };
        let publication = self.publications.get(id);
        if publication.topic != delivery.topic {
            return violation(format!("c{client} got #{id} under another topic: {delivery:?}"));
        }
        if matches!(publication.stage, Stage::Kept | Stage::Discarded) {
            return violation(format!(
                "c{client} got will #{id}, which is {:?}: {publication:?}",
                publication.stage
            ));
        }
        let live = self.possible_terms(client, id);
        let replays = self.possible_replays(client, id);
        self.check_terms(client, id, delivery, &live, &replays)?;
        self.check_expiry(client, id, delivery)?;
        let is_count = match delivery.qos {
            0 => true,
            1 => !delivery.dup || !self.sessions[client].delivered.contains_key(&id),
            _ => is_new,
        };
        if is_count {
            self.check_count(client, id, delivery, &live, replays.len() as u32)?;
            self.check_order(client, id, delivery, &live, !replays.is_empty())?;
            *self.sessions[client].delivered.entry(id).or_default() += 1;
        }
        self.sessions[client].owed.remove(&id);
        self.on_current(client, id);
        self.on_delivered_to_member(id);
        Ok(())
    }

    /// Empty payloads have no number, so only this is known: there was such a publication, and it
    /// may have come here.
    fn on_empty(&mut self, client: usize, delivery: &Delivery) -> Verdict {
        let topic = delivery.topic;
        let empties = self.empties.get(&topic).map_or(&[][..], |ids| ids);
        let fits = |&&id: &&PubId| {
            let live = self.possible_terms(client, id);
            self.check_terms(client, id, delivery, &live, &[]).is_ok()
        };
        let Some(&id) = empties.iter().rev().find(fits) else {
            return violation(format!("c{client} got an empty message nobody sent: {delivery:?}"));
        };
        self.on_current(client, id);
        Ok(())
    }

    /// A session has got what is retained under a topic, or something newer.
    fn on_current(&mut self, client: usize, id: PubId) {
        let Self { sessions, publications, .. } = self;
        let Publication { topic, places, .. } = *publications.get(id);
        let session = &mut sessions[client];
        let current = session.current.entry(topic).or_default();
        *current = places.1.max(*current);
        session.owed_retained.retain(|&(_, other), owed| {
            other != topic || publications.get(owed.floor).places.0 > places.1
        });
    }

    /// Terms of the subscriptions that may have been sent a publication from the retained store.
    fn possible_replays(&self, client: usize, id: PubId) -> Vec<(FilterId, Terms)> {
        let publication = self.publications.get(id);
        let (topic, is_own) = (publication.topic, publication.publisher == client);
        if !publication.retain || publication.is_empty {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (filter, changes) in self.sessions[client].subscriptions.filters() {
            if self.names.is_shared(filter) || !self.names.matches(filter, topic) {
                continue;
            }
            let changes =
                changes.iter().filter(|change| change.may_replay(topic, publication.places.1));
            let terms = changes.filter_map(|change| change.terms);
            let terms = terms.filter(|terms| !(is_own && terms.no_local));
            found.extend(terms.map(|terms| (filter, terms)));
        }
        found
    }

    fn check_terms(
        &self,
        client: usize,
        id: PubId,
        delivery: &Delivery,
        live: &[(FilterId, Terms)],
        replays: &[(FilterId, Terms)],
    ) -> Verdict {
        let publication = self.publications.get(id);
        let wrong = |what: &str| {
            violation(format!("c{client} got #{id} {what}: {delivery:?} of {publication:?}"))
        };
        let all = || live.iter().chain(replays).map(|(_, terms)| terms);
        if all().next().is_none() {
            return wrong("without a subscription");
        }
        let may_have_flag = !replays.is_empty()
            || publication.retain && live.iter().any(|(_, terms)| terms.as_published);
        let may_lack_flag =
            live.iter().any(|(_, terms)| !publication.retain || !terms.as_published);
        if delivery.retain && !may_have_flag || !delivery.retain && !may_lack_flag {
            return wrong("with the wrong RETAIN flag, or as a retained message that was replaced");
        }
        if !all().any(|terms| self.rules.qos(publication.qos, terms.qos) == delivery.qos) {
            return wrong("at the wrong QoS");
        }
        if !delivery.identifiers.iter().all(|&wanted| all().any(|t| t.identifier == wanted)) {
            return wrong("with an identifier it never gave");
        }
        if delivery.has_properties && all().all(|terms| terms.identifier != 0) {
            let has_identifier = !delivery.identifiers.is_empty();
            // A session may have been offered it before it was subscribed on these terms.
            if !has_identifier {
                return wrong("without its subscription identifier");
            }
        }
        Ok(())
    }

    fn check_expiry(&self, client: usize, id: PubId, delivery: &Delivery) -> Verdict {
        let publication = self.publications.get(id);
        if delivery.has_properties {
            let fits = match (publication.expiry_s, delivery.expiry_s) {
                (_, None) if publication.may_last => true,
                (None, None) => true,
                (Some(whole), Some(left)) => left <= whole,
                _ => false,
            };
            if !fits {
                return violation(format!("c{client} got #{id} with a wrong expiry: {delivery:?}"));
            }
        }
        // What was sent in time is sent again whatever the time [MQTT-4.3.3-7].
        let is_settled = publication.settled.is_some() && publication.open == 0;
        let is_late = delivery.came_ms.is_some_and(|came| came >= publication.expires_max_ms);
        if !delivery.dup && is_settled && is_late && !publication.may_last {
            return violation(format!("c{client} got #{id} after its end: {publication:?}"));
        }
        Ok(())
    }

    fn check_count(
        &mut self,
        client: usize,
        id: PubId,
        delivery: &Delivery,
        live: &[(FilterId, Terms)],
        replays: u32,
    ) -> Verdict {
        let mut filters: Vec<FilterId> = live.iter().map(|(filter, _)| *filter).collect();
        filters.dedup();
        let groups = filters.iter().filter(|&&filter| self.names.is_shared(filter)).count() as u32;
        let ordinary = filters.len() as u32 - groups;
        let copies = if self.rules.separate_copies { ordinary } else { ordinary.min(1) } + groups;
        let crashes = self.crashes;
        let publication = self.publications.get_mut(id);
        let session = &mut self.sessions[client];
        // At QoS 1 each sending is a message of its own, for all the broker knows.
        let routings = if publication.qos == 2 { 1 } else { publication.transmissions };
        let mut allowed = copies * routings + replays;
        let before = if delivery.qos == 2 && publication.qos == 2 {
            let exactly = session.exactly.entry(id).or_default();
            *exactly += 1;
            *exactly - 1
        } else {
            // The broker may have forgotten that it has sent them, or that it has got it.
            allowed *= 1 + crashes - publication.crashes_before;
            session.delivered.get(&id).copied().unwrap_or(0)
        };
        if before >= allowed {
            return violation(format!(
                "c{client} got #{id} {} times, at most {allowed}: {delivery:?} of {publication:?}",
                before + 1
            ));
        }
        let is_only_shared = ordinary == 0 && replays == 0 && crashes == publication.crashes_before;
        if is_only_shared && delivery.qos == 2 && publication.qos == 2 {
            let topic = publication.topic;
            publication.shared_exactly += 1;
            let count = publication.shared_exactly;
            let matching =
                |filter| self.names.is_shared(filter) && self.names.matches(filter, topic);
            if count as usize > (0..self.names.filter_count()).filter(|&f| matching(f)).count() {
                return violation(format!("c{client} is one member too many to get #{id}"));
            }
        }
        Ok(())
    }

    fn check_order(
        &mut self,
        client: usize,
        id: PubId,
        delivery: &Delivery,
        live: &[(FilterId, Terms)],
        may_be_replay: bool,
    ) -> Verdict {
        // What a group gives to another member comes late, and after a crash the store may hold an
        // older message again if the newer one was never acknowledged.
        let is_shared = live.iter().any(|(filter, _)| self.names.is_shared(*filter));
        if is_shared || may_be_replay && self.crashes > 0 {
            return Ok(());
        }
        let Publication { publisher, qos, retain, transmissions, crashes_before, .. } =
            *self.publications.get(id);
        if transmissions > 1 && (qos == 1 || self.crashes > crashes_before) {
            // Its first copy may have come before the subscription, or have been lost on its way
            // at QoS 0: the second one comes behind what was sent since. After a crash, so it is at
            // QoS 2.
            return Ok(());
        }
        let session = &mut self.sessions[client];
        if session.delivered.contains_key(&id) {
            return Ok(());
        }
        let lane = |retain| (publisher, delivery.topic, qos, delivery.qos, retain);
        // What is replayed may be overtaken by what is published without RETAIN meanwhile.
        let is_replay = may_be_replay && delivery.retain;
        for other in [retain, !retain] {
            if let Some(&last) = session.lanes.get(&lane(other))
                && last > id
                && (other || !is_replay)
            {
                return violation(format!("c{client} got #{id} after #{last}: {delivery:?}"));
            }
        }
        session.lanes.insert(lane(retain), id);
        Ok(())
    }
}
