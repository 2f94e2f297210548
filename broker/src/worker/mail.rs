//! What workers send each other.

use std::sync::Arc;

use dunlin_packets::{QoS, SubscriptionOptions};
use dunlin_queue::Message;
use dunlin_queue::mailbox::Outbox;
use dunlin_router::Subscription;
use dunlin_session::Offer;

use super::conn::{ConnId, Peer};
use super::open_acks::HomeAnswered;
use super::queues::{
    QueueAnswer, QueueDeliver, QueueJoin, QueueJoined, QueueLeave, QueueLeft, QueuePublish, Refusal,
};
use super::retained::RetainAsker;
use super::sessions::SessionKey;
use super::{Transport, Worker};
use crate::store::{Chunk, Loaded};

/// One item of a batch.
#[derive(Debug)]
pub enum Mail<L> {
    /// A connection whose session belongs to the receiver.
    Adopt(Box<Adoption<L>>),
    /// A message for the receiver's subscribers.
    Publish {
        /// The message; what comes home is a spare buffer.
        message: Message,
        /// The connection it came from, to hold it back if need be.
        publisher: Option<ConnId>,
        /// The sender has to know who must get it even after a crash.
        ticket: Option<Ticket>,
    },
    /// A retained message for the receiver's part of the store.
    Retain {
        /// The message; what comes home is a spare buffer.
        message: Message,
        /// The workers it was routed to, a bit each.
        routed: u64,
        /// Who has to know when it is written down, or that there is no room.
        asker: Option<RetainAsker>,
    },
    /// A retained search for a subscription of the sender.
    RetainedSearch(Box<RetainedSearch>),
    /// What one bite of the search found.
    RetainedFound(Box<RetainedFound>),
    /// A session of the sender joins a group that lives with the receiver, or changes in it.
    GroupJoin(Box<GroupJoin>),
    /// It has joined: a SUBACK may go out.
    GroupJoined {
        /// Which SUBACK.
        ticket: u64,
    },
    /// A session of the sender leaves a group.
    GroupLeave {
        /// `$share/<group>/<filter>`.
        name: Box<str>,
        /// Which session.
        member: SessionKey,
    },
    /// A member came online or went offline.
    GroupOnline {
        /// `$share/<group>/<filter>`.
        name: Box<str>,
        /// Which session.
        member: SessionKey,
        /// Whether it is online now.
        online: bool,
    },
    /// A message that a group's home has picked a session of the receiver for.
    GroupDeliver(Box<GroupDeliver>),
    /// A message that the picked session did not take.
    GroupReturn(Box<GroupReturn>),
    /// What the receiver asked for by a ticket.
    Answer(Box<Answer>),
    /// A message that the receiver holds is in the log.
    Kept {
        /// Its number.
        id: u64,
        /// Where it is.
        position: u64,
    },
    /// The log is further, or in another state.
    LogProgress,
    /// Old records: what the receiver still needs of them is to be written down again.
    Clean(Arc<Chunk>),
    /// Messages that the receiver has asked for.
    Loaded(Vec<Loaded>),
    /// A publication to a queue at home with the receiver.
    QueuePublish(Box<QueuePublish>),
    /// What a home has to say to a publication, where there is no log.
    HomeAnswered(HomeAnswered),
    /// A session of the sender consumes a queue of the receiver, or comes back.
    QueueJoin(Box<QueueJoin>),
    /// The queue has taken it, or not.
    QueueJoined(QueueJoined),
    /// A session consumes a queue no longer, or has gone offline.
    QueueLeave(Box<QueueLeave>),
    /// The queue's home knows of it.
    QueueLeft(QueueLeft),
    /// A delivery from a queue to a session of the receiver.
    QueueDeliver(Box<QueueDeliver>),
    /// What has become of deliveries from queues of the receiver.
    QueueAnswers(Vec<QueueAnswer>),
    /// Stop reading from this connection of the receiver: a consumer cannot keep up.
    Pause(ConnId),
    /// Read on.
    Resume(ConnId),
    /// The sender shuts down and has nothing more of its own; the second time, nothing at all.
    Quiet,
    /// Begin to shut down.
    Shutdown,
    /// Nothing: the item has been worked off.
    Spent,
}

/// A connection on its way to the worker of its session.
#[derive(Debug)]
pub struct Adoption<L> {
    pub(super) link: L,
    pub(super) peer: Peer,
    pub(super) offer: Offer,
    /// Bytes that were read behind the CONNECT.
    pub(super) unread: Vec<u8>,
    /// There may be more to read in the socket.
    pub(super) is_readable: bool,
    /// The peer has closed its half.
    pub(super) is_hung_up: bool,
}

/// One bite of a retained search.
#[derive(Debug)]
pub struct RetainedSearch {
    pub(super) replay: u64,
    pub(super) filter: Box<str>,
    pub(super) after: Option<Box<str>>,
    /// Topics to look at.
    pub(super) limit: usize,
}

/// What it found.
#[derive(Debug)]
pub struct RetainedFound {
    pub(super) replay: u64,
    pub(super) messages: Vec<Message>,
    pub(super) next: Option<Box<str>>,
}

/// A new member.
#[derive(Debug)]
pub struct GroupJoin {
    pub(super) name: Box<str>,
    pub(super) member: SessionKey,
    pub(super) options: SubscriptionOptions,
    pub(super) identifier: u32,
    /// Whether it has a connection.
    pub(super) online: bool,
    /// Which SUBACK waits; 0 for none.
    pub(super) ticket: u64,
}

impl GroupJoin {
    pub(super) fn subscription(&self) -> Subscription {
        Subscription { options: self.options, identifier: self.identifier }
    }
}

/// A picked delivery.
#[derive(Debug)]
pub struct GroupDeliver {
    pub(super) message: Message,
    pub(super) member: SessionKey,
    /// The group at its home, as queue entries carry it; 0 for the last attempt.
    pub(super) group: u32,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) identifier: u32,
    pub(super) publisher: Option<PublisherKey>,
    /// Somebody has to know whether the member must get it even after a crash.
    pub(super) ticket: Option<Ticket>,
}

/// A delivery that needs another member.
#[derive(Debug)]
pub struct GroupReturn {
    pub(super) message: Message,
    pub(super) group: u32,
    pub(super) except: SessionKey,
    /// The member cannot take it at all, so it must not come back there.
    pub(super) never_again: bool,
    /// As in [`GroupDeliver`]: nobody has answered yet.
    pub(super) ticket: Option<Ticket>,
    /// The session of the log that was to get it, and that is done with it when somebody else is.
    pub(super) instead_of: Option<u64>,
}

/// What a worker gives out with a message it is going to write down, for the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub(super) worker: u16,
    pub(super) number: u64,
}

/// Deliveries of a message under another number: to a session that gets it more than once, or may.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) id: u64,
    /// The session, encoded as a delivery.
    pub(super) refs: Vec<u8>,
}

/// What was found out about a message for the worker that writes it down.
#[derive(Debug, Default)]
pub struct Answer {
    pub(super) ticket: u64,
    /// Deliveries to sessions of the sender that outlive a crash, encoded.
    pub(super) refs: Vec<u8>,
    /// Those under numbers of their own.
    pub(super) copies: Vec<Copied>,
    /// So many more answers are to come, from workers the message was passed on to.
    pub(super) delegated: u32,
    /// This is one of those.
    pub(super) is_delegated: bool,
    /// The sender has written something down for it itself, and submitted it.
    pub(super) is_recorded: bool,
    /// It went to a group.
    pub(super) is_shared: bool,
    /// What was written down has to be synced.
    pub(super) must_sync: bool,
    /// It was refused, by a queue or the retained store.
    pub(super) refusal: Option<Refusal>,
}

/// A publishing connection on any worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PublisherKey {
    pub(super) worker: u16,
    pub(super) conn: ConnId,
}

/// What a small item counts against the credit.
const ITEM_BYTES: usize = 64;

impl<T: Transport> Worker<T> {
    /// Puts an item into this turn's batch for another worker.
    pub(super) fn mail(&mut self, to: usize, item: Mail<T::Link>) {
        let bytes = match &item {
            Mail::Publish { message, .. } | Mail::Retain { message, .. } => message.len(),
            Mail::GroupDeliver(deliver) => deliver.message.len(),
            Mail::GroupReturn(back) => back.message.len(),
            Mail::QueuePublish(publish) => publish.message.len(),
            Mail::QueueDeliver(deliver) => deliver.message.len(),
            Mail::QueueAnswers(answers) => size_of_val(&answers[..]),
            Mail::RetainedFound(found) => found.messages.iter().map(Message::len).sum(),
            _ => 0,
        };
        let outbox = self.outboxes[to].as_mut().expect("a worker does not mail itself");
        outbox.push(item, (bytes + ITEM_BYTES).max(self.mail_item_bytes));
        self.is_out_of_credit |= !self.shutdown.is_begun() && outbox.is_exhausted();
    }

    /// Whether some worker has too much on its way already.
    pub(super) fn any_outbox_exhausted(&self) -> bool {
        self.outboxes.iter().flatten().any(Outbox::is_exhausted)
    }

    pub(super) fn collect_mail_that_came_home(&mut self) {
        let Self { outboxes, pool, .. } = self;
        for outbox in outboxes.iter_mut().flatten() {
            outbox.collect(|item| match item {
                Mail::Publish { message, .. } | Mail::Retain { message, .. } => {
                    pool.take_back(message);
                }
                Mail::GroupDeliver(deliver) => pool.take_back(deliver.message),
                Mail::QueuePublish(publish) => pool.take_back(publish.message),
                Mail::QueueDeliver(deliver) => pool.take_back(deliver.message),
                _ => {}
            });
        }
    }

    /// Works off what has come, and says whether there may be more.
    pub(super) fn receive_mail(&mut self) -> bool {
        // Enough for everybody's batch of a turn: what has come since has its turn next.
        for _ in 0..self.outboxes.len() * 2 {
            let Some(mut batch) = self.inbox.receive() else { return false };
            let from = batch.from;
            for item in &mut batch.items {
                self.on_mail(from, item);
            }
            self.settle_run();
            self.received.push(batch);
        }
        true
    }

    pub(super) fn send_batches_home(&mut self) {
        for batch in self.received.drain(..) {
            let from = batch.from;
            // The control thread, behind the last worker, has no inbox to be woken at.
            if self.inbox.send_home(batch)
                && let Some(Some(outbox)) = self.outboxes.get(from)
            {
                outbox.wake();
            }
        }
    }

    fn on_mail(&mut self, from: usize, item: &mut Mail<T::Link>) {
        if !matches!(item, Mail::Publish { .. }) {
            // It may change who there is to deliver to.
            self.settle_run();
        }
        match item {
            // Their buffers go home with the batch.
            Mail::Publish { message, publisher, ticket } => {
                let (publisher, ticket) = (*publisher, *ticket);
                let message = self.pool.adopt(message);
                let publisher = publisher.map(|conn| PublisherKey { worker: from as u16, conn });
                if ticket.is_some() {
                    self.begin_recording_for(&message, ticket);
                }
                self.route_here(&message, None, publisher);
                if ticket.is_some() {
                    self.answer_recording(false);
                }
                self.pool.release(message);
            }
            Mail::Retain { message, routed, asker } => {
                let (routed, asker) = (*routed, *asker);
                let message = self.pool.adopt(message);
                self.on_retain(message, routed, asker);
            }
            Mail::GroupDeliver(deliver) => self.on_group_deliver(deliver),
            Mail::QueuePublish(publish) => self.on_queue_publish_mail(from, publish),
            Mail::QueueDeliver(deliver) => self.on_queue_deliver(deliver),
            Mail::QueueAnswers(answers) => self.on_queue_answers(answers),
            _ => self.on_rare_mail(from, std::mem::replace(item, Mail::Spent)),
        }
    }

    fn on_rare_mail(&mut self, from: usize, item: Mail<T::Link>) {
        match item {
            Mail::Adopt(adoption) => self.on_adoption(*adoption),
            Mail::RetainedSearch(search) => self.on_retained_search(from, &search),
            Mail::RetainedFound(found) => self.on_retained_found(*found),
            Mail::GroupJoin(join) => self.on_group_join(from, &join),
            Mail::GroupJoined { ticket } => self.on_group_joined(ticket),
            Mail::GroupLeave { name, member } => self.leave_group_here(&name, member),
            Mail::GroupOnline { name, member, online } => {
                self.set_member_online_here(&name, member, online);
            }
            Mail::GroupReturn(back) => self.on_group_return(*back),
            Mail::Answer(answer) => self.on_answer(from, *answer),
            Mail::Kept { id, position } => self.on_kept_here(id, position),
            Mail::LogProgress => self.on_log_progress(),
            Mail::Clean(chunk) => self.on_chunk(&chunk),
            Mail::Loaded(loaded) => self.on_loaded(loaded),
            Mail::Pause(conn) => self.pause(conn),
            Mail::Resume(conn) => self.resume(conn),
            Mail::Quiet => self.shutdown.on_quiet(),
            Mail::Shutdown => self.begin_shutdown(),
            Mail::HomeAnswered(answered) => self.on_home_answered(answered),
            Mail::QueueJoin(join) => self.on_queue_join(from, &join),
            Mail::QueueJoined(joined) => self.settle_suback(joined),
            Mail::QueueLeave(leave) => self.on_queue_leave(from, &leave),
            Mail::QueueLeft(left) => self.on_queue_left(left),
            Mail::Publish { .. }
            | Mail::Retain { .. }
            | Mail::GroupDeliver(_)
            | Mail::QueuePublish(_)
            | Mail::QueueDeliver(_)
            | Mail::QueueAnswers(_)
            | Mail::Spent => {}
        }
    }
}
