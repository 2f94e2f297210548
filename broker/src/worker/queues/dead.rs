//! Dead letters: to `$dlq/<queue>`, and back.

use std::collections::{BTreeMap, HashMap, VecDeque};

use ahash::RandomState;
use dunlin_packets::{Properties, PropertiesBuf};
use dunlin_queue::MessageRef;
use dunlin_queue::partitioned::{GroupId, MessageId};

use super::contents::Content;
use super::enqueue::Terms;
use super::load::Dead;
use super::publish::{Asker, Receipt};
use super::{QueueKey, Refusal};
use crate::queues::{DeadInfo, MessageTerms, QueueName, alive_properties, dead_properties};
use crate::worker::{Transport, Worker};

/// Dead letters that one `$redrive` puts back.
const REDRIVEN_MAX: usize = 10_000;

pub(super) const NO_LETTER: Refusal = Refusal::bad_request("there is no such dead letter");

/// Messages on their way to the dead letters, and back.
#[derive(Debug, Default)]
pub(super) struct Undertaking {
    /// Those whose pieces of the index are being read.
    unburied: Vec<(QueueKey, Dead)>,
    /// Why consumers rejected them.
    reject_reasons: HashMap<(QueueKey, GroupId, MessageId), Box<str>, RandomState>,
    /// Dead letters that are to be read and put back, however often that is asked for.
    pub(super) redriven: BTreeMap<(QueueKey, MessageId), Redriven>,
    /// Those that have not been asked for yet.
    pub(super) unread: VecDeque<(QueueKey, MessageId)>,
    /// How many are being read.
    pub(super) being_read: usize,
}

/// How a queue's dead letters fare that are to go where those are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Burials {
    /// Tries for which there was no room.
    pub(super) failures: u32,
    /// The last one has failed.
    is_stuck: bool,
}

impl Burials {
    fn succeeded(&mut self) {
        self.is_stuck = false;
    }

    /// Says whether that is news: there is a try for each dead letter and minute, maybe for days.
    fn failed(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        !std::mem::replace(&mut self.is_stuck, true)
    }
}

/// A dead letter that is to be put back when it has been read.
#[derive(Debug)]
pub(super) struct Redriven {
    pub(super) origin: QueueKey,
    /// Its piece of the index is being read.
    pub(super) is_away: bool,
    /// Who asked for this one, and from which worker.
    pub(super) askers: Vec<(usize, Asker)>,
}

impl<T: Transport> Worker<T> {
    /// A message has had its attempts, or was rejected.
    pub(super) fn bury(&mut self, key: QueueKey, dead: Dead) {
        match self.content(key, dead.id) {
            Some(content) => {
                self.bury_content(key, dead, &content);
                self.pool.release(content.message);
            }
            None => self.load_dead(key, dead),
        }
    }

    /// Puts a message where dead letters go and takes it off its queue, in one frame.
    pub(super) fn bury_content(&mut self, key: QueueKey, dead: Dead, content: &Content) {
        let result = self.write_dead_letter(key, dead, content);
        let is_buried = result.is_ok();
        let done = self.with_queue(key, |queue, cx| match is_buried {
            true => queue.bury(dead.group, dead.id, cx),
            false => queue.bury_failed(dead.group, dead.id, cx),
        });
        self.absorb(key);
        if is_buried || done != Some(Ok(())) {
            self.queues.undertaking.reject_reasons.remove(&(key, dead.group, dead.id));
        }
        let Some(slot) = self.queues.get_mut(key) else { return };
        match result {
            Ok(_) => slot.burials.succeeded(),
            Err(Refusal { reason, .. }) => {
                if slot.burials.failed() {
                    tracing::warn!(queue = %slot.name, reason, "dead letters have to wait");
                }
            }
        }
    }

    fn write_dead_letter(
        &mut self,
        key: QueueKey,
        dead: Dead,
        content: &Content,
    ) -> Result<Receipt, Refusal> {
        let gone = Refusal::bad_topic("there is no such queue");
        let slot = self.queues.get(key).ok_or(gone)?;
        let origin: Box<str> = slot.name.clone();
        let group = slot.group(dead.group).map(|group| group.name.clone()).unwrap_or_default();
        let reasons = &self.queues.undertaking.reject_reasons;
        let detail = reasons.get(&(key, dead.group, dead.id)).cloned();
        let queue = QueueName::parse(&origin).map_err(|_| gone)?;
        let name = queue.dead().to_string();
        let graves = match self.queues.find(&name) {
            Some(graves) => graves,
            None => self.create_asked_for(&name)?,
        };
        let original = self.pool.get(&content.message);
        let mut properties = PropertiesBuf::new();
        let info = DeadInfo {
            reason: dead.reason,
            attempts: dead.attempts,
            group: &group,
            id: dead.id,
            queue,
            at: self.now,
            detail: detail.as_deref(),
        };
        dead_properties(Properties::from_checked(original.properties()), &info, &mut properties);
        let topic = original.topic();
        let routing_key = topic.get(usize::from(content.key_at)..).unwrap_or_default().to_owned();
        let letter = self.with_properties(content, &routing_key, &properties);
        // An expiry was for its delivery, not for what is to be looked into.
        self.pool.set_expiry(&letter, dunlin_queue::Time::NEVER);
        let terms = Terms {
            key_hash: self.shared.hash(&routing_key),
            is_captured: content.is_captured,
            ..Terms::default()
        };
        self.enqueue_here(graves, letter, terms)
    }

    fn with_properties(
        &mut self,
        content: &Content,
        routing_key: &str,
        properties: &PropertiesBuf,
    ) -> MessageRef {
        let qos = self.pool.get(&content.message).qos;
        let now = self.now;
        self.pool.derive(&content.message, routing_key, properties.as_properties(), qos, now)
    }

    /// What a consumer said when it rejected a message, for its dead letter.
    pub(super) fn note_reject_reason(
        &mut self,
        key: QueueKey,
        group: GroupId,
        id: MessageId,
        reason: Option<Box<str>>,
    ) {
        if let Some(reason) = reason
            && self.queues.todo.iter().any(|(of, action)| {
                let is_it = matches!(action, dunlin_queue::partitioned::Action::DeadLetter {
                    group: of_group, id: of_id, ..
                } if (*of_group, *of_id) == (group, id));
                *of == key && is_it
            })
        {
            self.queues.undertaking.reject_reasons.insert((key, group, id), reason);
        }
    }

    /// A dead letter whose piece of the index is being read.
    pub(super) fn bury_later(&mut self, key: QueueKey, dead: Dead) {
        self.queues.undertaking.unburied.push((key, dead));
    }

    pub(super) fn bury_again(&mut self, key: QueueKey) {
        let (now, later) = std::mem::take(&mut self.queues.undertaking.unburied)
            .into_iter()
            .partition(|(of, _)| *of == key);
        self.queues.undertaking.unburied = later;
        let now: Vec<_> = now;
        for (key, dead) in now {
            self.bury(key, dead);
        }
    }

    /// Puts dead letters back where they came from: one, or as many as there are.
    pub(super) fn redrive(
        &mut self,
        graves: QueueKey,
        one: Option<MessageId>,
        asker: (usize, Asker),
    ) -> Result<Receipt, Refusal> {
        let gone = Refusal::bad_topic("there is no such queue");
        let slot = self.queues.get(graves).ok_or(gone)?;
        let name = QueueName::parse(&slot.name).map_err(|_| gone)?.name.to_owned();
        let origin = match self.queues.find(&name) {
            Some(origin) => origin,
            None => self.create_asked_for(&name)?,
        };
        let slot = self.queues.get(graves).ok_or(gone)?;
        let ids = match one {
            Some(id) if !slot.queue.is_needed(id) => {
                return Err(NO_LETTER);
            }
            Some(id) => vec![id],
            None => slot.queue.first_ids(REDRIVEN_MAX),
        };
        let mut done = Ok(Receipt::default());
        for id in ids {
            let Some(content) = self.content(graves, id) else {
                // Of many nobody waits for the last.
                let asker = one.is_some().then_some(asker);
                done = done.map(|all| Receipt { is_later: asker.is_some(), ..all });
                self.load_redriven(graves, origin, id, asker);
                continue;
            };
            let result = self.redrive_content(graves, origin, id, &content);
            self.pool.release(content.message);
            done = done.and_then(|all: Receipt| {
                let Receipt { is_recorded, must_sync, .. } = result?;
                let is_recorded = all.is_recorded || is_recorded;
                Ok(Receipt { is_recorded, must_sync: all.must_sync || must_sync, ..all })
            });
            if done.is_err() {
                break;
            }
        }
        self.read_redriven();
        done
    }

    /// Puts one dead letter back, in one frame with its end as such.
    pub(super) fn redrive_content(
        &mut self,
        graves: QueueKey,
        origin: QueueKey,
        id: MessageId,
        content: &Content,
    ) -> Result<Receipt, Refusal> {
        if !self.queues.get(graves).is_some_and(|slot| slot.queue.is_needed(id)) {
            // Put back or settled while it was read.
            return Err(NO_LETTER);
        }
        let original = self.pool.get(&content.message);
        let mut properties = PropertiesBuf::new();
        alive_properties(Properties::from_checked(original.properties()), &mut properties);
        let topic = original.topic();
        let routing_key = topic.get(usize::from(content.key_at)..).unwrap_or_default().to_owned();
        let asked = MessageTerms::read(properties.as_properties()).unwrap_or_default();
        let terms = Terms {
            key_hash: self.shared.hash(asked.partition_key.unwrap_or(&routing_key)),
            priority: asked.priority,
            is_captured: content.is_captured,
            ..Terms::default()
        };
        let message = self.with_properties(content, &routing_key, &properties);
        let receipt = self.enqueue_here(origin, message, terms)?;
        let _ = self.with_queue(graves, |queue, cx| queue.discard(id, cx));
        self.absorb(graves);
        Ok(receipt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_stuck_with_dead_letters_says_so_once_until_one_goes() {
        let mut burials = Burials::default();
        let news: Vec<bool> = (0..3).map(|_| burials.failed()).collect();
        assert_eq!(news, [true, false, false]);
        burials.succeeded();
        assert!(burials.failed());
        assert_eq!(burials.failures, 4);
    }
}
