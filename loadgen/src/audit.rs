//! Whether everything came, once, and in order.

use serde::{Deserialize, Serialize};

/// What the subscribers saw, against what the publishers sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Deliveries that were due: messages sent, times those they were for.
    pub(crate) expected: u64,
    /// Different deliveries that came.
    pub(crate) received: u64,
    /// Deliveries that never came.
    pub(crate) lost: u64,
    /// Deliveries that came again.
    pub(crate) duplicated: u64,
    /// Deliveries behind a later one of the same publisher at the same subscriber.
    pub(crate) out_of_order: u64,
    /// Publications that carried no stamp of this run.
    pub(crate) foreign: u64,
}

/// How a sequence number compares with those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    InOrder,
    Late,
    Again,
}

/// The highest sequence number so far, and which of the 64 up to it have come.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    highest: u32,
    bits: u64,
}

impl Window {
    #[inline]
    fn note(&mut self, sequence: u32) -> Seen {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.bits = if ahead < 64 { self.bits << ahead | 1 } else { 1 };
            self.highest = sequence;
            return Seen::InOrder;
        }
        let behind = self.highest - sequence;
        if behind >= 64 {
            // Further back than we remember: taken for a straggler.
            return Seen::Late;
        }
        let bit = 1 << behind;
        let seen = if self.bits & bit == 0 { Seen::Late } else { Seen::Again };
        self.bits |= bit;
        seen
    }
}

/// Who gets what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Every subscriber gets every publisher's messages.
    Everybody,
    /// Subscriber `n` gets those of publisher `n`.
    Partner,
    /// One of the subscribers gets each message.
    OneOf,
}

/// Follows the deliveries of a run.
#[derive(Debug)]
pub(crate) struct Audit {
    audience: Audience,
    publishers: usize,
    subscribers: usize,
    /// By subscriber and publisher.
    orders: Vec<Window>,
    /// By publisher, where subscribers share.
    shared: Vec<Window>,
    /// Deliveries still to come, by publisher and sequence number modulo the window.
    open: Vec<u32>,
    window: usize,
    /// By publisher: messages sent, and how many of them, from the first on, everybody has.
    sent: Vec<u32>,
    done: Vec<u32>,
    account: Account,
}

impl Audit {
    /// For publishers that have at most `window` messages under way each.
    pub(crate) fn new(
        audience: Audience,
        publishers: usize,
        subscribers: usize,
        window: usize,
    ) -> Self {
        let orders = match audience {
            Audience::Partner => subscribers,
            Audience::Everybody | Audience::OneOf => publishers * subscribers,
        };
        Self {
            audience,
            publishers,
            subscribers,
            orders: vec![Window::default(); orders],
            shared: vec![Window::default(); publishers],
            open: vec![0; publishers * window],
            window,
            sent: vec![0; publishers],
            done: vec![0; publishers],
            account: Account::default(),
        }
    }

    fn audience_len(&self) -> u32 {
        match self.audience {
            Audience::Everybody => self.subscribers as u32,
            Audience::Partner | Audience::OneOf => 1,
        }
    }

    /// Counts a message and returns its sequence number.
    #[inline]
    pub(crate) fn send(&mut self, publisher: usize) -> u32 {
        self.sent[publisher] += 1;
        let sequence = self.sent[publisher];
        let audience = self.audience_len();
        if self.window > 0 {
            let place = publisher * self.window + sequence as usize % self.window;
            self.open[place] = audience;
        }
        self.account.expected += u64::from(audience);
        sequence
    }

    /// Messages of the publisher that the slowest of its subscribers does not have yet.
    #[inline]
    pub(crate) fn under_way(&self, publisher: usize) -> u32 {
        self.sent[publisher] - self.done[publisher]
    }

    /// Counts a delivery; `false` when it came before.
    #[inline]
    pub(crate) fn receive(&mut self, subscriber: usize, publisher: usize, sequence: u32) -> bool {
        if publisher >= self.publishers || sequence == 0 || sequence > self.sent[publisher] {
            self.account.foreign += 1;
            return false;
        }
        let place = match self.audience {
            Audience::Partner if publisher != subscriber => {
                self.account.foreign += 1;
                return false;
            }
            Audience::Partner => subscriber,
            Audience::Everybody | Audience::OneOf => subscriber * self.publishers + publisher,
        };
        let mut seen = self.orders[place].note(sequence);
        if seen == Seen::Late {
            self.account.out_of_order += 1;
        }
        if self.audience == Audience::OneOf && self.shared[publisher].note(sequence) == Seen::Again
        {
            seen = Seen::Again;
        }
        if seen == Seen::Again {
            self.account.duplicated += 1;
            return false;
        }
        self.account.received += 1;
        if self.window > 0 {
            self.settle(publisher, sequence);
        }
        true
    }

    #[inline]
    fn settle(&mut self, publisher: usize, sequence: u32) {
        let base = publisher * self.window;
        let open = &mut self.open[base + sequence as usize % self.window];
        *open = open.saturating_sub(1);
        if *open > 0 {
            return;
        }
        while self.done[publisher] < self.sent[publisher] {
            let next = self.done[publisher] + 1;
            if self.open[base + next as usize % self.window] > 0 {
                return;
            }
            self.done[publisher] = next;
        }
    }

    /// Stops waiting for what is under way: it counts as lost unless it still comes.
    pub(crate) fn give_up(&mut self) {
        self.done.copy_from_slice(&self.sent);
        self.open.fill(0);
    }

    /// Deliveries that have come, each counted once.
    #[inline]
    pub(crate) fn received(&self) -> u64 {
        self.account.received
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.account.received >= self.account.expected
    }

    pub(crate) fn foreign(&mut self) {
        self.account.foreign += 1;
    }

    /// The balance as it is now.
    pub(crate) fn account(&self) -> Account {
        let lost = self.account.expected.saturating_sub(self.account.received);
        Account { lost, ..self.account }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_is_lost_and_what_comes_twice_is_a_duplicate() {
        let mut audit = Audit::new(Audience::Everybody, 1, 2, 4);
        for _ in 0..3 {
            audit.send(0);
        }
        for sequence in [1, 3, 2, 3] {
            audit.receive(0, 0, sequence);
        }
        audit.receive(1, 0, 1);
        let account = audit.account();
        assert_eq!((account.expected, account.received, account.lost), (6, 4, 2));
        assert_eq!((account.duplicated, account.out_of_order, account.foreign), (1, 1, 0));
    }

    #[test]
    fn a_message_is_under_way_until_the_slowest_subscriber_has_it() {
        let mut audit = Audit::new(Audience::Everybody, 1, 2, 4);
        audit.send(0);
        audit.send(0);
        audit.receive(0, 0, 1);
        audit.receive(0, 0, 2);
        assert_eq!(audit.under_way(0), 2);
        audit.receive(1, 0, 2);
        assert_eq!(audit.under_way(0), 2, "the first is still missing");
        audit.receive(1, 0, 1);
        assert_eq!(audit.under_way(0), 0);
    }

    #[test]
    fn those_who_share_get_each_message_once_between_them() {
        let mut audit = Audit::new(Audience::OneOf, 1, 3, 4);
        audit.send(0);
        audit.send(0);
        assert!(audit.receive(0, 0, 2));
        assert!(audit.receive(1, 0, 1));
        assert!(!audit.receive(2, 0, 1), "another member had it");
        let account = audit.account();
        assert_eq!((account.lost, account.duplicated, account.out_of_order), (0, 1, 0));
    }

    #[test]
    fn a_message_for_somebody_else_is_foreign() {
        let mut audit = Audit::new(Audience::Partner, 2, 2, 4);
        audit.send(0);
        assert!(!audit.receive(1, 0, 1));
        assert!(!audit.receive(0, 0, 2), "never sent");
        assert_eq!(audit.account().foreign, 2);
    }
}
