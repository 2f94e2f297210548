//! Shared subscriptions, loosely: some member gets each message. Which one is the broker's choice,
//! so wherever a message may have gone to a member that is allowed to lose it, nothing is owed.

use super::audit::{Auditor, Verdict, violation};
use super::names::FilterId;
use super::publication::{PubId, Tick};
use super::subscriptions::{is_certain, possible};

impl Auditor {
    /// Enters which groups have to get an acknowledged publication: those with a member all the
    /// time, and none that might have taken it at QoS 0.
    pub(super) fn promise_groups(&mut self, id: PubId) {
        for filter in 0..self.names.filter_count() {
            let publication = self.publications.get(id);
            if !self.names.is_shared(filter) || !self.names.matches(filter, publication.topic) {
                continue;
            }
            let (sent, settled) = (publication.sent, publication.settled.unwrap_or(Tick::MAX));
            if self.members_gone.get(&filter).is_some_and(|&gone| gone >= sent) {
                // Its member may have had it, and taken it along.
                continue;
            }
            let qos = publication.qos;
            let (mut has_member, mut may_lose) = (false, false);
            for session in &self.sessions {
                for (_, changes) in session.subscriptions.filters().filter(|(f, _)| *f == filter) {
                    let good = |granted: u8| self.rules.qos(qos, granted) > 0;
                    has_member |= session.exists_for_certain(self.now_ms)
                        && is_certain(changes, sent, settled, |terms| good(terms.qos));
                    // A member may have joined since, and have got it from one that left.
                    may_lose |= possible(changes, sent, Tick::MAX).any(|terms| !good(terms.qos));
                }
            }
            let is_delivered = self.sessions.iter().any(|s| s.delivered.contains_key(&id));
            if has_member && !may_lose && !is_delivered {
                self.group_owed.insert((filter, id), ());
            }
        }
    }

    /// A session gets a publication: whatever group it is for has got it.
    pub(super) fn on_delivered_to_member(&mut self, id: PubId) {
        if self.group_owed.is_empty() {
            return;
        }
        for filter in 0..self.names.filter_count() {
            self.group_owed.remove(&(filter, id));
        }
    }

    /// A session leaves a group or changes its terms. What waits in its queue stays there, and is
    /// lost if the session ends; what goes round may come to a member at QoS 0. So with the last
    /// certain member, or with a member at QoS 0, nothing is owed any more.
    pub(super) fn on_membership(&mut self, client: usize, filter: FilterId, qos: Option<u8>) {
        match qos {
            None => {
                self.sessions[client].left.insert(filter, self.tick);
                if !self.has_certain_member(filter, client) {
                    self.members_gone.insert(filter, self.tick);
                    self.group_owed.retain(|&(other, _), ()| other != filter);
                }
            }
            Some(0) => self.group_owed.retain(|&(other, _), ()| other != filter),
            Some(_) => {}
        }
    }

    /// A session ends. What it was sent at QoS 2 ends with it \[MQTT-4.8.2-5\], and so does what it
    /// had in its queue of a group it had left; the rest goes to another member, if there is one.
    pub(super) fn forget_member(&mut self, client: usize) {
        let session = &self.sessions[client];
        let groups: Vec<FilterId> = session
            .subscriptions
            .filters()
            .map(|(filter, _)| filter)
            .filter(|&filter| self.names.is_shared(filter))
            .collect();
        for filter in groups {
            self.members_gone.insert(filter, self.tick);
            let has_left = self.sessions[client].left.contains_key(&filter);
            let goes_on = self.has_certain_member(filter, client) && !has_left;
            let publications = &self.publications;
            // At QoS 1 for certain, that is.
            let is_raised = self.rules.upgrade_qos;
            // After a crash, what a member has is no longer known as its group's.
            let crashes = self.crashes;
            let stays = |id: PubId| {
                let publication = publications.get(id);
                goes_on
                    && publication.qos == 1
                    && !is_raised
                    && publication.crashes_before == crashes
            };
            self.group_owed.retain(|&(other, id), ()| other != filter || stays(id));
        }
    }

    /// A session is gone, and nobody was there to give what it had from its groups to others.
    pub(super) fn forget_groups(&mut self, client: usize) {
        let subscriptions = &self.sessions[client].subscriptions;
        self.group_owed
            .retain(|&(group, _), ()| subscriptions.filters().all(|(filter, _)| filter != group));
    }

    fn has_certain_member(&self, filter: FilterId, except: usize) -> bool {
        self.sessions.iter().enumerate().any(|(client, session)| {
            client != except
                && session.exists_for_certain(self.now_ms)
                && session.subscriptions.filters().any(|(other, changes)| {
                    other == filter && is_certain(changes, self.tick, Tick::MAX, |t| t.qos > 0)
                })
        })
    }

    /// Whether every group has got what it was owed.
    ///
    /// # Errors
    /// When one has not.
    pub(super) fn check_groups(&self) -> Verdict {
        let missing = self.group_owed.keys().find(|&&(filter, id)| {
            self.publications.get(id).expires_min_ms > self.now_ms
                && self.has_certain_member(filter, usize::MAX)
        });
        let Some(&(filter, id)) = missing else { return Ok(()) };
        let (filter, publication) = (self.names.filter(filter), self.publications.get(id));
        violation(format!("no member of {filter} got #{id}: {publication:?}"))
    }
}
