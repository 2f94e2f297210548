//! `$ack`, `$nack`, `$reject`, `$extend`, `$commit`, `$redrive`: what consumers say by PUBLISH.

use dunlin_packets::Properties;
use dunlin_queue::MessageRef;
use dunlin_queue::partitioned::{GroupId, MemberId, MessageId, Mode};

use super::publish::{Asker, Receipt};
use super::{QueueKey, Refusal};
use crate::queues::{PublishTo, RedriveTerms, SettleTerms, Verb, publish_to};
use crate::worker::settings::Level;
use crate::worker::{Transport, Worker};

impl<T: Transport> Worker<T> {
    /// Does what a consumer asks for. Only the member that has a message may say what becomes of
    /// it, whatever group and message it names.
    pub(super) fn on_verb(
        &mut self,
        message: &MessageRef,
        (from, asker): (usize, Asker),
    ) -> Result<Receipt, Refusal> {
        let content = self.pool.get(message);
        let Some(Ok(PublishTo::Verb { queue, verb })) = publish_to(content.topic()) else {
            return Err(Refusal::bad_topic("not a request to a queue"));
        };
        let properties = Properties::from_checked(content.properties());
        let name = if queue.is_dead { queue.to_string() } else { queue.name.to_owned() };
        if verb == Verb::Redrive {
            let terms = RedriveTerms::read(properties, queue);
            let terms = terms.map_err(|bad| Refusal::bad_request(bad.0))?;
            let key = self.queues.find(&name);
            let key = key.ok_or(Refusal::bad_topic("there is no such queue"))?;
            self.must_be_safe(key)?;
            return self.redrive(key, terms.message, (from, asker));
        }
        let terms = SettleTerms::read(properties, queue);
        let terms = terms.map_err(|bad| Refusal::bad_request(bad.0))?;
        let key = self.queues.find(&name);
        let key = key.ok_or(Refusal::bad_topic("there is no such queue"))?;
        self.must_be_safe(key)?;
        let slot = self.queues.get(key);
        let group = slot.and_then(|slot| slot.find_group(terms.group)).map(|group| group.id);
        let group = group.ok_or(Refusal::from(dunlin_queue::partitioned::Refused::UnknownGroup))?;
        let member = slot
            .zip(asker.session)
            .and_then(|(slot, session)| slot.by_session.get(&(session, group)).copied());
        let member =
            member.ok_or(Refusal::from(dunlin_queue::partitioned::Refused::UnknownMember))?;
        let (id, delay_ms) = (terms.message, terms.delay_ms);
        let is_lapsed = slot.is_some_and(|slot| slot.lapsed.contains_key(&(group, member)));
        let reason: Option<Box<str>> = terms.reason.map(Into::into);
        let revived = if is_lapsed { self.revive_member(key, group, member) } else { None };
        let member = revived.unwrap_or(member);
        self.settle_message(key, group, member, (verb, id, delay_ms, reason))
    }

    /// Whether what is said of a queue can still be made safe, if only later.
    fn must_be_safe(&self, key: QueueKey) -> Result<(), Refusal> {
        // A log that is full has room for what makes room.
        let refusal = self.refusal_of_log_for(key).filter(|_| self.has_log_failed());
        refusal.map_or(Ok(()), Err)
    }

    fn settle_message(
        &mut self,
        key: QueueKey,
        group: GroupId,
        member: MemberId,
        (verb, id, delay_ms, reason): (Verb, MessageId, Option<u64>, Option<Box<str>>),
    ) -> Result<Receipt, Refusal> {
        let result = self.with_queue(key, |queue, cx| match verb {
            Verb::Ack => queue.ack(group, member, id, cx),
            Verb::Nack if queue.config().mode == Mode::Stream => Ok(()),
            Verb::Nack => queue.nack(group, member, id, delay_ms, cx),
            Verb::Reject => queue.reject(group, member, id, cx),
            Verb::Extend => queue.extend(group, member, id, cx),
            Verb::Commit => {
                // Up to and with the message it names.
                let to = MessageId { offset: id.offset.saturating_add(1), ..id };
                queue.commit(group, member, to, cx)
            }
            Verb::Redrive => Ok(()),
        });
        let is_changed = !self.queues.changes.is_empty() && self.is_durable_queue(key);
        self.absorb(key);
        if verb == Verb::Reject {
            self.note_reject_reason(key, group, id, reason);
        }
        self.queues.list(key, group, member);
        result.ok_or(Refusal::bad_topic("there is no such queue"))??;
        Ok(self.receipt(key, is_changed))
    }

    /// What an answer about a queue has to wait for.
    pub(super) fn receipt(&mut self, key: QueueKey, is_changed: bool) -> Receipt {
        if !is_changed {
            return Receipt::default();
        }
        let level = self.queues.get(key).map_or(Level::Fsync, |slot| slot.level);
        let must_sync = level == Level::Fsync;
        if let Some(journal) = &mut self.journal {
            journal.wait_for_frame(must_sync);
        }
        Receipt { is_recorded: true, must_sync, is_later: false }
    }
}
