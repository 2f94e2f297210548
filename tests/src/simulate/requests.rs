//! SUBSCRIBE and UNSUBSCRIBE: what they change, and which retained messages they ask for.

use dunlin_packets::RetainHandling;

use super::audit::Auditor;
use super::names::{FilterId, TopicId};
use super::publication::PubId;
use super::session::OwedRetained;
use super::subscriptions::{Change, Terms};

impl Auditor {
    /// A client asks for new terms, or none. Returns the place of the request in its history.
    pub fn on_request(&mut self, client: usize, filter: FilterId, terms: Option<Terms>) -> usize {
        let is_shared = self.names.is_shared(filter);
        let floors = match terms {
            Some(_) if !is_shared => self.floors(filter),
            _ => Vec::new(),
        };
        if is_shared {
            self.on_membership(client, filter, terms.map(|terms| terms.qos));
        }
        let owed: Vec<(TopicId, PubId)> = floors
            .iter()
            .map(|&(topic, id, _)| (topic, id))
            .filter(|&(_, id)| terms.is_some_and(|terms| self.is_owed(client, filter, terms, id)))
            .collect();
        let session = &mut self.sessions[client];
        // The broker stops what it still had to replay on the old terms.
        session.owed_retained.retain(|&(other, _), _| other != filter);
        let change = Change { sent: self.tick, acked: None, terms, floors };
        let place = session.subscriptions.request(filter, change);
        for (topic, floor) in owed {
            let owed = OwedRetained { floor, place, is_granted: false };
            session.owed_retained.insert((filter, topic), owed);
        }
        place
    }

    /// The request at `place` was granted. What was retained may have come before its answer.
    pub fn on_granted(&mut self, client: usize, filter: FilterId, place: usize) {
        let session = &mut self.sessions[client];
        session.subscriptions.acknowledge(filter, place, self.tick);
        for (&(other, _), owed) in &mut session.owed_retained {
            owed.is_granted |= other == filter && owed.place == place;
        }
    }

    /// What is certainly retained, or certainly deleted, under topics that `filter` matches.
    fn floors(&self, filter: FilterId) -> Vec<(TopicId, PubId, u64)> {
        let topics = self.retained.keys().copied();
        let topics = topics.filter(|&topic| self.names.matches(filter, topic));
        topics
            .filter_map(|topic| {
                let floor = self.floor(topic)?;
                Some((topic, floor, self.publications.get(floor).places.0))
            })
            .collect()
    }

    /// Whether a subscription on these terms has to be sent what is retained as `id`, or something
    /// newer.
    fn is_owed(&self, client: usize, filter: FilterId, terms: Terms, id: PubId) -> bool {
        let is_wanted = match terms.handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => {
                self.sessions[client].subscriptions.is_certainly_absent(filter)
            }
            RetainHandling::Never => false,
        };
        let publication = self.publications.get(id);
        let is_kept = publication.expiry_s.is_none() && !publication.is_empty;
        let is_hidden = publication.publisher == client && terms.no_local;
        let is_durable = self.rules.qos(publication.qos, terms.qos) > 0;
        // Something newer may be on its way, see `on_retained`.
        let ids = self.retained.get(&publication.topic).map_or(&[][..], |ids| ids);
        let newest = ids.iter().max_by_key(|&&id| self.publications.get(id).places.1);
        is_wanted && is_kept && !is_hidden && is_durable && newest == Some(&id)
    }
}
