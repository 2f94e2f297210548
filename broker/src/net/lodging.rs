//! One thread for all workers while there is little to do.
//!
//! ```text
//! at home ── calm for a while, and its host, too ──▶ lodging: its thread is parked, and the
//!    ▲                                               │  host's waits for what happens to it
//!    └── it has more to do than a little, or the host ┘
//! ```
//!
//! A message between two workers wakes two threads, and its acknowledgement one of them again; on
//! a machine with little to do that is most of what the message costs. So a worker that is calm
//! leaves its seat to the thread of worker 0, the host, which then waits for its sockets as well
//! as for its own. When there is more to do than one thread does at ease, each goes home.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_queue::Time;

use super::Happened;
use super::event_queue::GuestBook;
use super::gauge::Gauge;
use super::seats::{Left, Seats, Turn};
use crate::worker::workers_in;

/// The worker whose thread is the host's.
pub(super) const HOST: usize = 0;
/// Events that a thread works off without being taken for busy.
pub(super) const FEW_EVENTS: usize = 8;
/// A host that is awake for more than this share of its time, in percent, sends its guests home.
const SHARE_MAX: u64 = 50;
/// Who would have it be awake for more than this share, does not come.
const SHARE_WANTED: u64 = 25;
/// How long all has to be calm before a guest comes.
pub(super) const PATIENCE_US: u64 = 50_000;
/// Between one guest and the next the host is watched for so long, as its share has to be known.
const BETWEEN_GUESTS_US: u64 = 2 * Gauge::WINDOW_US;
/// A host that has not ended a turn for so long is asleep.
const ASLEEP_US: u64 = 4 * Gauge::WINDOW_US;
/// Mail that comes during turns of a guest is worked off so often before it is a lot.
const TURNS_IN_A_ROW: usize = 8;
/// In place of the host, which is no guest: nobody comes any more.
const CLOSED: u64 = 1 << HOST;

/// Who lodges with the host, and how that does. Times are in microseconds.
pub(super) struct Lodging {
    /// A bit for each. But for [`CLOSED`] and for who fails to come, the host's thread clears them.
    guests: AtomicU64,
    book: GuestBook,
    /// When the last guest came.
    came_at: AtomicU64,
    host_share: AtomicU64,
    host_seen_at: AtomicU64,
    /// In the future during a turn.
    host_busy_at: AtomicU64,
}

impl Lodging {
    pub(super) fn new(book: GuestBook) -> Self {
        Self {
            guests: AtomicU64::new(0),
            book,
            came_at: AtomicU64::new(0),
            host_share: AtomicU64::new(100),
            host_seen_at: AtomicU64::new(0),
            host_busy_at: AtomicU64::new(u64::MAX),
        }
    }

    /// Whether worker `index` lodges.
    pub(super) fn has(&self, index: usize) -> bool {
        self.guests() & 1 << index != 0
    }

    fn guests(&self) -> u64 {
        self.guests.load(Ordering::SeqCst) & !CLOSED
    }

    /// The host has something to do, for nobody knows how long.
    pub(super) fn begin(&self) {
        self.host_busy_at.store(u64::MAX, Ordering::Relaxed);
    }

    /// It is done, and does as `host` says.
    pub(super) fn end(&self, host: &Gauge) {
        self.host_share.store(host.share(), Ordering::Relaxed);
        self.host_seen_at.store(host.window_began(), Ordering::Relaxed);
        self.host_busy_at.store(host.busy_at(), Ordering::Relaxed);
    }

    /// Whether a worker that does as `own` says can come. If so, the next has to wait a while.
    pub(super) fn admits(&self, own: &Gauge, patience_us: u64, now: u64) -> bool {
        let since = |time: &AtomicU64| now.saturating_sub(time.load(Ordering::Relaxed));
        let is_asleep = since(&self.host_seen_at) > ASLEEP_US;
        let share = if is_asleep { 0 } else { self.host_share.load(Ordering::Relaxed) };
        let last = self.came_at.load(Ordering::Relaxed);
        own.calm_us(now) >= patience_us
            && since(&self.host_busy_at) >= PATIENCE_US
            && own.share() + share <= SHARE_WANTED
            && now.saturating_sub(last) >= BETWEEN_GUESTS_US
            && self
                .came_at
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Seats {
    /// Leaves a worker that sleeps to the host's thread, and comes back when that has sent it home.
    /// `false` if there is no host any more.
    ///
    /// # Errors
    /// When the system refuses to watch it there.
    pub(super) fn lodge(&self, index: usize) -> io::Result<bool> {
        let (place, bit) = (&self.places[index], 1 << index);
        // While it is held, the host has to wait to see whether the guest comes.
        let queue = place.queue.lock();
        let enter = |guests: u64| (guests & CLOSED == 0).then_some(guests | bit);
        let guests = &self.lodging.guests;
        if guests.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enter).is_err() {
            return Ok(false);
        }
        if let Err(error) = self.lodging.book.enter(&queue, index) {
            guests.fetch_and(!bit, Ordering::SeqCst);
            return Err(error);
        }
        drop(queue);
        // It may sleep for longer than its guest can.
        place.seat.lock().worker.wake(HOST);
        while self.lodging.has(index) {
            std::thread::park();
        }
        Ok(true)
    }

    /// When the host has to do something if nothing happens.
    pub(super) fn host_sleeps_until(&self) -> Time {
        let guests = workers_in(self.lodging.guests()).map(|guest| self.sleeps_until(guest));
        guests.fold(self.sleeps_until(HOST), Time::min)
    }

    /// The host serves its guests, those to whom something has happened (a bit each) and those
    /// whose time has come.
    ///
    /// # Errors
    /// When an event queue fails.
    pub(super) fn serve_guests(&self, to_whom: u64, happened: &mut Happened) -> io::Result<()> {
        let guests = self.lodging.guests();
        if guests == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let is_due = |&guest: &usize| to_whom & 1 << guest != 0 || self.sleeps_until(guest) <= now;
        for guest in workers_in(guests).filter(is_due) {
            let mut turns = 0;
            // Another guest may have sent it home meanwhile.
            while self.look_after(guest, happened)? {
                let Turn { left, was_busy } = self.turn(guest, happened);
                turns += 1;
                match left {
                    Left::Nothing if !was_busy => break,
                    Left::Mail if !was_busy && turns < TURNS_IN_A_ROW => {}
                    _ => self.send_home(guest),
                }
            }
        }
        Ok(())
    }

    /// What has happened to a guest. `false` if it is none.
    fn look_after(&self, guest: usize, happened: &mut Happened) -> io::Result<bool> {
        // One that is at home holds its queue while it sleeps.
        if !self.lodging.has(guest) {
            return Ok(false);
        }
        let mut queue = self.places[guest].queue.lock();
        // One that could not come after all has taken its bit back meanwhile.
        if !self.lodging.has(guest) {
            return Ok(false);
        }
        queue.wait(happened, Some(Duration::ZERO))?;
        Ok(true)
    }

    /// Guests work beside the host from here on. Only for the host's thread.
    pub(super) fn send_all_home(&self) {
        workers_in(self.lodging.guests()).for_each(|guest| self.send_home(guest));
    }

    /// The guest works beside the host from here on. Only for the host's thread.
    pub(super) fn send_home(&self, guest: usize) {
        let place = &self.places[guest];
        let queue = place.queue.lock();
        if self.lodging.guests.fetch_and(!(1 << guest), Ordering::SeqCst) & 1 << guest == 0 {
            return;
        }
        if let Err(error) = self.lodging.book.leave(&queue) {
            // The host's thread looks after it in vain from time to time; no more than that.
            tracing::error!(%error, worker = guest, "cannot stop watching a worker");
        }
        drop(queue);
        if let Some(thread) = place.thread.get() {
            thread.unpark();
        }
    }

    /// Nobody comes any more. Only for the host's thread.
    pub(super) fn close_lodging(&self) {
        if self.lodging.guests.fetch_or(CLOSED, Ordering::SeqCst) & CLOSED == 0 {
            self.send_all_home();
        }
    }

    /// Whether the host has so much to do that its guests should go.
    pub(super) fn is_crowded(&self, host: &Gauge) -> bool {
        self.lodging.guests() != 0 && host.share() > SHARE_MAX
    }
}
