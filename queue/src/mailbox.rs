//! Mail between workers, in batches.
//!
//! Each worker has one [`Inbox`] that all others post to, so that mail arrives in the order it was
//! caused: what A posted before it answered a client, whose next request made B post, arrives
//! before B's. A [`Outbox`] gathers what one worker has for one other during a turn and posts it
//! as one batch. Who posts to a worker that sleeps has to see to it that the mail is worked off,
//! and nobody else has to until it sleeps again. The batch, with the buffers in it, is sent back
//! when it has been worked off: nothing is allocated in steady state.
//!
//! Nobody ever blocks on a mailbox. What is under way to a worker is counted in bytes against a
//! credit; out of credit, the sender stops reading its publishers and goes on when batches return.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;

/// Batches an inbox takes before senders have to keep theirs for a turn.
const BATCHES_MAX: usize = 1024;
/// Items a batch keeps room for when it goes back.
const ITEMS_KEPT: usize = 4096;

/// What one worker sends another in a turn.
#[derive(Debug)]
pub struct Batch<T> {
    /// The sending worker.
    pub from: usize,
    /// The mail, in order.
    pub items: Vec<T>,
    bytes: usize,
}

/// Wakes a worker that may be asleep.
pub type Wake = Box<dyn Fn() + Send + Sync>;

struct Shared<T> {
    batches: ArrayQueue<Batch<T>>,
    /// Its owner sleeps or is about to, and nobody has seen to it yet that it wakes up.
    is_asleep: AtomicBool,
    /// Its owner has ended: what is posted goes nowhere.
    is_closed: AtomicBool,
    wake: Wake,
    /// For each sender: bytes under way from it.
    under_way: Box<[AtomicUsize]>,
    /// For each sender: it found its credit used up and wants to be woken.
    waiting: Box<[AtomicBool]>,
    /// For each sender: batches that come home.
    returned: Box<[ArrayQueue<Batch<T>>]>,
}

/// Where a worker's mail arrives.
pub struct Inbox<T> {
    shared: Arc<Shared<T>>,
}

/// How mail is posted to one worker: cheap to clone, for anybody.
pub struct Address<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Address<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Inbox<T> {
    /// An inbox that `senders` workers post to; `wake` ends the sleep of its owner, which is awake
    /// until it says otherwise.
    #[must_use]
    pub fn new(senders: usize, wake: Wake) -> Self {
        let shared = Shared {
            batches: ArrayQueue::new(BATCHES_MAX),
            is_asleep: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            wake,
            under_way: (0..senders).map(|_| AtomicUsize::new(0)).collect(),
            waiting: (0..senders).map(|_| AtomicBool::new(false)).collect(),
            returned: (0..senders).map(|_| ArrayQueue::new(64)).collect(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Where to post for this inbox.
    #[must_use]
    pub fn address(&self) -> Address<T> {
        Address { shared: Arc::clone(&self.shared) }
    }

    /// The next batch, if there is one.
    #[must_use]
    pub fn receive(&self) -> Option<Batch<T>> {
        self.shared.batches.pop()
    }

    /// The owner is going to sleep: whoever posts from here on has to wake it. `false` when there
    /// is mail already.
    #[must_use]
    pub fn fall_asleep(&self) -> bool {
        // A sender pushes first and looks then, so that one of the two sees the other.
        self.shared.is_asleep.store(true, Ordering::SeqCst);
        let sleeps = self.shared.batches.is_empty();
        if !sleeps {
            self.wake_up();
        }
        sleeps
    }

    /// The owner is awake, whatever has woken it, and works off its mail before it sleeps again.
    pub fn wake_up(&self) {
        self.shared.is_asleep.swap(false, Ordering::SeqCst);
    }

    /// Nothing is received any more: what is posted goes nowhere.
    pub fn close(&self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
    }

    /// Sends a batch that was worked off home, with its items as the receiver left them. `true`
    /// when its sender waits for credit and has to be woken ([`Outbox::wake`]).
    #[must_use]
    pub fn send_home(&self, batch: Batch<T>) -> bool {
        let from = batch.from;
        self.shared.under_way[from].fetch_sub(batch.bytes, Ordering::SeqCst);
        // Above 64 batches at once their buffers are let go.
        let _ = self.shared.returned[from].push(batch);
        self.shared.waiting[from].swap(false, Ordering::SeqCst)
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        self.close();
    }
}

/// What became of a batch that was to be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Posted {
    /// Nothing more is to be done.
    Done,
    /// Its receiver sleeps: it has to be woken, or its mail be worked off for it.
    Unheard,
    /// The inbox has no room, and the batch waits for the next turn.
    NoRoom,
}

/// What one worker has for another.
pub struct Outbox<T> {
    from: usize,
    to: Address<T>,
    items: Vec<T>,
    bytes: usize,
    credit: usize,
}

impl<T> Outbox<T> {
    /// From worker `from` to the inbox at `to`, with at most `credit` bytes under way.
    #[must_use]
    pub fn new(from: usize, to: Address<T>, credit: usize) -> Self {
        Self { from, to, items: Vec::new(), bytes: 0, credit }
    }

    /// Adds an item that counts for so many bytes to this turn's batch.
    #[inline]
    pub fn push(&mut self, item: T, bytes: usize) {
        self.items.push(item);
        self.bytes += bytes;
    }

    /// Items of this turn.
    #[inline]
    #[must_use]
    pub fn items(&self) -> usize {
        self.items.len()
    }

    /// Whether the credit is used up: no more reading from publishers until a batch comes home.
    #[inline]
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let shared = &self.to.shared;
        let used = || shared.under_way[self.from].load(Ordering::SeqCst) + self.bytes;
        if used() < self.credit {
            return false;
        }
        shared.waiting[self.from].store(true, Ordering::SeqCst);
        used() >= self.credit
    }

    /// Ends the sleep of the worker at the other end.
    pub fn wake(&self) {
        (self.to.shared.wake)();
    }

    /// Posts the batch, and wakes its receiver. `false` when the inbox has no room and the batch
    /// waits for the next turn.
    pub fn post(&mut self) -> bool {
        let posted = self.post_quietly();
        if posted == Posted::Unheard {
            self.wake();
        }
        posted != Posted::NoRoom
    }

    /// Posts the batch. With [`Posted::Unheard`] its receiver sleeps on, and nobody else is going
    /// to wake it: [`Self::wake`].
    pub fn post_quietly(&mut self) -> Posted {
        if self.items.is_empty() {
            return Posted::Done;
        }
        let shared = &self.to.shared;
        if shared.is_closed.load(Ordering::SeqCst) {
            self.items.clear();
            self.bytes = 0;
            return Posted::Done;
        }
        let batch =
            Batch { from: self.from, items: std::mem::take(&mut self.items), bytes: self.bytes };
        shared.under_way[self.from].fetch_add(batch.bytes, Ordering::AcqRel);
        let bytes = std::mem::take(&mut self.bytes);
        if let Err(batch) = shared.batches.push(batch) {
            shared.under_way[self.from].fetch_sub(bytes, Ordering::AcqRel);
            (self.items, self.bytes) = (batch.items, bytes);
            return Posted::NoRoom;
        }
        let is_asleep = &shared.is_asleep;
        if is_asleep.load(Ordering::SeqCst) && is_asleep.swap(false, Ordering::SeqCst) {
            return Posted::Unheard;
        }
        Posted::Done
    }

    /// Takes batches that have come home; `each` gets the items as the receiver left them.
    pub fn collect(&mut self, mut each: impl FnMut(T)) {
        while let Some(mut batch) = self.to.shared.returned[self.from].pop() {
            batch.items.drain(..).for_each(&mut each);
            if self.items.capacity() == 0 && batch.items.capacity() <= ITEMS_KEPT {
                self.items = batch.items;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    fn pair(credit: usize) -> (Inbox<u32>, Outbox<u32>, Arc<AtomicU32>) {
        let wakes = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&wakes);
        let inbox = Inbox::new(
            1,
            Box::new(move || {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
        );
        let outbox = Outbox::new(0, inbox.address(), credit);
        (inbox, outbox, wakes)
    }

    #[test]
    fn batches_arrive_in_order_and_who_sleeps_is_woken_once() {
        let (inbox, mut outbox, wakes) = pair(1000);
        assert!(inbox.fall_asleep());
        for turn in 0..3 {
            outbox.push(turn * 2, 1);
            outbox.push(turn * 2 + 1, 1);
            assert!(outbox.post());
        }
        inbox.wake_up();
        let mut received: Vec<u32> = Vec::new();
        while let Some(batch) = inbox.receive() {
            received.extend(&batch.items);
            assert!(!inbox.send_home(batch));
        }
        assert_eq!(received, [0, 1, 2, 3, 4, 5]);
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        // Who is awake looks for itself, and does not fall asleep over its mail.
        outbox.push(6, 1);
        assert_eq!(outbox.post_quietly(), Posted::Done);
        assert!(!inbox.fall_asleep());
        outbox.push(7, 1);
        assert_eq!(outbox.post_quietly(), Posted::Done);
        while let Some(batch) = inbox.receive() {
            assert!(!inbox.send_home(batch));
        }
        assert!(inbox.fall_asleep());
        outbox.push(8, 1);
        assert_eq!(outbox.post_quietly(), Posted::Unheard);
        outbox.push(9, 1);
        assert_eq!((outbox.post_quietly(), wakes.load(Ordering::SeqCst)), (Posted::Done, 1));
    }

    #[test]
    fn credit_is_used_up_until_the_batch_comes_home() {
        let (inbox, mut outbox, _) = pair(100);
        outbox.push(1, 100);
        assert!(outbox.is_exhausted());
        outbox.post();
        assert!(outbox.is_exhausted());
        let batch = inbox.receive().unwrap();
        assert!(inbox.send_home(batch), "the sender waits for credit");
        assert!(!outbox.is_exhausted());
        let mut home = Vec::new();
        outbox.collect(|item| home.push(item));
        assert_eq!(home, [1]);
    }

    #[test]
    fn a_full_inbox_leaves_the_batch_with_the_sender() {
        let (inbox, mut outbox, _) = pair(usize::MAX);
        for item in 0..BATCHES_MAX as u32 {
            outbox.push(item, 1);
            assert!(outbox.post());
        }
        outbox.push(7, 1);
        assert!(!outbox.post());
        let batch = inbox.receive().unwrap();
        assert!(!inbox.send_home(batch));
        assert!(outbox.post());
    }
}
