//! PUBLISH to a queue: a message for it, or a request about one.

use dunlin_packets::PacketId;
use dunlin_queue::{DropReason, Message, MessageRef};

use super::Refusal;
use crate::queues::{PublishTo, QueueName, publish_to};
use crate::worker::acknowledge::Acknowledgement;
use crate::worker::conn::ConnId;
use crate::worker::deliver::Publisher;
use crate::worker::mail::{Answer, Mail};
use crate::worker::open_acks::HomeAnswered;
use crate::worker::recording::Pending;
use crate::worker::sessions::SessionKey;
use crate::worker::then::Then;
use crate::worker::{Transport, Worker};

/// A publication to a queue at home elsewhere.
#[derive(Debug)]
pub struct QueuePublish {
    pub(in crate::worker) message: Message,
    asker: Asker,
}

/// Who published to a queue, and waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    /// The client's, if it is one and not its will.
    pub(super) session: Option<SessionKey>,
    /// The number of the acknowledgement that waits, a ticket where there is a log, and for whom.
    number: Option<u64>,
    conn: Option<ConnId>,
    /// At QoS 2, of a session that outlives a crash: its number in the log, and the identifier that
    /// is written down with the message.
    pub(super) received: Option<(u64, PacketId)>,
}

/// What has become of what was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Receipt {
    /// Something was written down that has to be safe before the answer.
    pub(super) is_recorded: bool,
    /// And synced.
    pub(super) must_sync: bool,
    /// Nothing has become of it yet: something has to be read first, and then there is an answer.
    pub(super) is_later: bool,
}

impl<T: Transport> Worker<T> {
    /// The worker a queue is at home on: that of its name, so that the dead letters of a queue are
    /// with it and one frame can have both.
    pub(super) fn queue_home(&self, queue: QueueName<'_>) -> usize {
        self.shared.worker_of(queue.name, self.outboxes.len())
    }

    /// A client's PUBLISH to a topic of queues.
    pub(in crate::worker) fn on_queue_publish(
        &mut self,
        publisher: Publisher,
        message: MessageRef,
        packet_id: Option<PacketId>,
    ) {
        let session = self.sessions.key(self.index, publisher.session);
        let content = self.pool.get(&message);
        let ack = packet_id
            .map(|packet_id| Acknowledgement::new(publisher, session, packet_id, content.qos));
        let home = match publish_to(content.topic()) {
            Some(Ok(PublishTo::Message { queue, .. } | PublishTo::Verb { queue, .. })) => {
                Ok(self.queue_home(queue))
            }
            Some(Err(malformed)) => Err(Refusal::bad_topic(malformed.0)),
            None => Err(Refusal::bad_topic("not the topic of a queue")),
        };
        let home = match home {
            Ok(home) => home,
            Err(refusal) => {
                self.pool.release(message);
                self.counters.drop(DropReason::QueueRefused);
                if let Some(ack) = ack {
                    self.acknowledge(ack.refused(refusal));
                }
                return;
            }
        };
        let durable = self.sessions.get(publisher.session).durable.as_deref();
        let received = durable.zip(packet_id).map(|(durable, id)| (durable.sid, id));
        let is_twice = ack.is_some_and(|ack| ack.is_exactly_once());
        let received = received.filter(|_| is_twice);
        // Without a log there is nothing to wait for here.
        let waits = home != self.index || self.journal.is_some();
        let number = ack.filter(|_| waits).map(|ack| self.open_ack(ack));
        let conn = Some(publisher.conn);
        let asker = Asker { session: Some(session), number, conn, received };
        if home != self.index {
            let copy = self.pool.copy(&message);
            self.pool.release(message);
            let publish = QueuePublish { message: copy, asker };
            return self.mail(home, Mail::QueuePublish(Box::new(publish)));
        }
        let result = self.publish_here(self.index, message, &asker);
        match ack {
            // Nothing to wait for.
            Some(ack) if number.is_none() => {
                let ack = result.err().map_or(ack, |refusal| ack.refused(refusal));
                self.acknowledge(ack);
            }
            _ => self.answer_publish(self.index, &asker, result),
        }
    }

    /// A publication has come from another worker.
    pub(in crate::worker) fn on_queue_publish_mail(
        &mut self,
        from: usize,
        publish: &mut QueuePublish,
    ) {
        let message = self.pool.adopt(&mut publish.message);
        let result = self.publish_here(from, message, &publish.asker);
        self.answer_publish(from, &publish.asker, result);
    }

    /// Does what a publication to a queue at home here asks for.
    fn publish_here(
        &mut self,
        from: usize,
        message: MessageRef,
        asker: &Asker,
    ) -> Result<Receipt, Refusal> {
        let topic = self.pool.get(&message).topic();
        let result = match publish_to(topic) {
            Some(Ok(PublishTo::Message { .. })) => self.enqueue_published(message),
            Some(Ok(PublishTo::Verb { .. })) => {
                let result = self.on_verb(&message, (from, *asker));
                self.pool.release(message);
                result
            }
            Some(Err(_)) | None => {
                self.pool.release(message);
                Err(Refusal::bad_topic("not the topic of a queue"))
            }
        };
        self.note_result(asker, &result);
        result
    }

    fn note_result(&mut self, asker: &Asker, result: &Result<Receipt, Refusal>) {
        match result {
            Ok(receipt) if receipt.is_recorded => self.record_received(asker.received),
            Ok(_) => {}
            Err(_) => self.counters.drop(DropReason::QueueRefused),
        }
    }

    /// What was asked for has been done now, or not.
    pub(super) fn answer_later(
        &mut self,
        askers: Vec<(usize, Asker)>,
        result: Result<Receipt, Refusal>,
    ) {
        for (from, asker) in askers {
            self.note_result(&asker, &result);
            self.answer_publish(from, &asker, result);
        }
    }

    /// Tells the worker of the publisher.
    fn answer_publish(&mut self, to: usize, asker: &Asker, result: Result<Receipt, Refusal>) {
        let Some(number) = asker.number else { return };
        let refusal = result.err();
        let Receipt { is_recorded, must_sync, is_later } = result.unwrap_or_default();
        if is_later {
            return;
        }
        let Some(journal) = &mut self.journal else {
            if let Some(conn) = asker.conn {
                self.mail(to, Mail::HomeAnswered(HomeAnswered { conn, number, refusal }));
            }
            return;
        };
        let answer =
            Answer { ticket: number, is_recorded, must_sync, refusal, ..Answer::default() };
        if to != self.index && is_recorded {
            // It says that this turn's frame is on its way.
            return journal.late_answers.push((to, answer));
        }
        self.answer(to, answer);
    }

    /// The will of a client, to a queue. `then` is written down behind it.
    pub(in crate::worker) fn publish_will_to_queue(
        &mut self,
        message: MessageRef,
        then: Option<Then>,
    ) {
        let home = match publish_to(self.pool.get(&message).topic()) {
            Some(Ok(PublishTo::Message { queue, .. })) => self.queue_home(queue),
            _ => {
                self.counters.drop(DropReason::QueueRefused);
                self.pool.release(message);
                if let Some(then) = then {
                    self.write_then(then);
                }
                return;
            }
        };
        let number = self.journal.as_mut().map(|journal| {
            let ticket = journal.first_ticket + journal.pending.len() as u64;
            journal.pending.push_back(Pending::of_will(then));
            ticket
        });
        let asker = Asker { session: None, number, conn: None, received: None };
        if home == self.index {
            let result = self.publish_here(self.index, message, &asker);
            return self.answer_publish(self.index, &asker, result);
        }
        let copy = self.pool.copy(&message);
        self.pool.release(message);
        self.mail(home, Mail::QueuePublish(Box::new(QueuePublish { message: copy, asker })));
    }
}
