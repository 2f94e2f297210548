//! SUBSCRIBE and UNSUBSCRIBE: what they change, and which retained messages they ask for.

use dunlin_packets::RetainHandling;

use super::audit::Auditor;
use super::names::{FilterId, TopicId};
use super::publication::{PubId, Publication, Tick};
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
        let is_absent = self.sessions[client].subscriptions.is_certainly_absent(filter);
        let wants_retained = terms.is_some_and(|terms| match terms.handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => is_absent,
            RetainHandling::Never => false,
        });
        let is_owed =
            |id| wants_retained && terms.is_some_and(|terms| self.is_owed(client, terms, id));
        let owed: Vec<(TopicId, PubId)> = floors
            .iter()
            .map(|&(topic, id, _)| (topic, id))
            .filter(|&(_, id)| is_owed(id))
            .collect();
        let session = &mut self.sessions[client];
        // The broker stops what it still had to replay on the old terms.
        session.owed_retained.retain(|&(other, _), _| other != filter);
        let change = Change { sent: self.tick, acked: None, terms, wants_retained, floors };
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

    /// A publication is retained for certain. Who subscribed while it was on its way has to get it
    /// as well, live or from the store, unless something newer has come.
    pub(super) fn promise_retained(&mut self, id: PubId) {
        let Publication { topic, places, .. } = *self.publications.get(id);
        let settled = self.publications.get(id).settled.unwrap_or(Tick::MAX);
        for client in 0..self.sessions.len() {
            let session = &self.sessions[client];
            let has_newer = session.current.get(&topic).is_some_and(|&place| place >= places.0);
            if has_newer || session.is_doubtful {
                continue;
            }
            let mut owed = Vec::new();
            for (filter, changes) in session.subscriptions.filters() {
                let Some(last) = changes.last() else { continue };
                let is_match = !self.names.is_shared(filter) && self.names.matches(filter, topic);
                // Later ones are told by what was certain when they were sent.
                let is_concurrent =
                    last.wants_retained && last.sent <= settled && last.sent > self.crashed;
                let fits = |terms| self.is_owed(client, terms, id);
                if is_match && is_concurrent && last.terms.is_some_and(fits) {
                    let (place, is_granted) = (changes.len() - 1, last.acked.is_some());
                    owed.push(((filter, topic), OwedRetained { floor: id, place, is_granted }));
                }
            }
            self.sessions[client].owed_retained.extend(owed);
        }
    }

    /// Whether a subscription on these terms has to be sent what is retained as `id`, or something
    /// newer.
    fn is_owed(&self, client: usize, terms: Terms, id: PubId) -> bool {
        let publication = self.publications.get(id);
        let is_kept = publication.expiry_s.is_none() && !publication.is_empty;
        let is_hidden = publication.publisher == client && terms.no_local;
        let is_durable = self.rules.qos(publication.qos, terms.qos) > 0;
        // Something newer may be there, or on its way, see `on_retained`.
        let mut ids = self.retained.get(&publication.topic).map_or(&[][..], |ids| ids).iter();
        let is_newest = ids.all(|&other| other == id || !self.is_not_older(other, id));
        is_kept && !is_hidden && is_durable && is_newest
    }
}
