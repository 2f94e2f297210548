//! Where workers sit. Whoever has a turn for a worker takes its seat for that time: as a rule its
//! own thread; another worker's that has posted to it while it slept, and has little else to do;
//! or that of the host while it lodges ([`Lodging`]). To wake a thread for one message costs more
//! than the message does, and is most of the time it takes to arrive.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use dunlin_queue::Time;
use parking_lot::{Mutex, MutexGuard};

use super::lodging::{FEW_EVENTS, HOST, Lodging};
use super::{Entrance, EventQueue, Happened, TcpTransport};
use crate::clock::Clock;
use crate::worker::Worker;

/// A worker and its listening sockets.
pub struct Seat {
    /// The worker.
    pub worker: Worker<TcpTransport>,
    /// Its listening sockets.
    pub entrance: Entrance,
}

/// All there is of a worker.
pub(super) struct Place {
    /// What wakes it. Whoever waits for that, or has it watched elsewhere, holds it.
    pub(super) queue: Mutex<EventQueue>,
    pub(super) seat: Mutex<Seat>,
    /// Until then it can sleep if nothing happens, in milliseconds.
    sleeps_until: AtomicU64,
    /// Its own.
    pub(super) thread: OnceLock<Thread>,
}

/// What a turn leaves to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// Nothing: the worker sleeps.
    Nothing,
    /// Mail that has come meanwhile.
    Mail,
    /// More than a turn's worth.
    More,
    /// Nothing ever.
    Finished,
}

/// How a turn was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) left: Left,
    /// It was more than a little.
    pub(super) was_busy: bool,
}

/// The workers of a broker.
pub struct Seats {
    pub(super) places: Vec<Place>,
    pub(super) lodging: Lodging,
    pub(super) clock: Clock,
}

impl Seats {
    /// For all workers of a broker, in their order.
    ///
    /// # Errors
    /// When the system has no descriptor to give.
    pub fn new(
        places: impl IntoIterator<Item = (EventQueue, Seat)>,
        clock: Clock,
    ) -> io::Result<Self> {
        let place = |(queue, seat)| Place {
            queue: Mutex::new(queue),
            seat: Mutex::new(seat),
            sleeps_until: AtomicU64::new(0),
            thread: OnceLock::new(),
        };
        let places: Vec<Place> = places.into_iter().map(place).collect();
        let book = places[HOST].queue.lock().guest_book()?;
        Ok(Self { places, lodging: Lodging::new(book), clock })
    }

    /// Takes a worker's seat.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn sit_down(&self, index: usize) -> MutexGuard<'_, Seat> {
        self.places[index].seat.lock()
    }

    /// Has a turn for a worker to which so much has happened.
    pub(super) fn turn(&self, index: usize, happened: &Happened) -> Turn {
        let mut seat = self.sit_down(index);
        let Seat { worker, entrance } = &mut *seat;
        worker.wake_up();
        // Who comes too late to stand in does not get in between two turns.
        self.places[index].sleeps_until.store(0, Ordering::SeqCst);
        happened.tell(worker, entrance);
        let now = self.clock.now();
        entrance.accept(worker, now);
        // Sleepers are heard before the own flush: of the two ends of a message, it is the
        // subscriber that waits for it, and not the publisher for its acknowledgement.
        let has_much = worker.begin_turn(now);
        self.hear(index, worker, has_much);
        let has_more = worker.end_turn();
        self.hear(index, worker, has_more);
        if index == HOST && worker.is_shutting_down() {
            self.close_lodging();
        }
        let left = if worker.is_finished() {
            worker.close_inbox();
            Left::Finished
        } else if has_more {
            Left::More
        } else if worker.fall_asleep() {
            let until = worker.next_deadline().min(entrance.wakes_at());
            self.places[index].sleeps_until.store(until.as_millis(), Ordering::SeqCst);
            Left::Nothing
        } else {
            Left::Mail
        };
        let was_busy = has_much || has_more || happened.count() > FEW_EVENTS;
        Turn { left, was_busy }
    }

    /// Until when a worker that sleeps can do so.
    pub(super) fn sleeps_until(&self, index: usize) -> Time {
        Time::from_millis(self.places[index].sleeps_until.load(Ordering::SeqCst))
    }

    /// Waits until something happens to a worker, or it is that time; not at all without one.
    pub(super) fn wait(
        &self,
        index: usize,
        until: Option<Time>,
        happened: &mut Happened,
    ) -> io::Result<()> {
        let timeout = match until {
            None => Some(Duration::ZERO),
            Some(Time::NEVER) => None,
            Some(time) => Some(Duration::from_millis(time.millis_since(self.clock.now()))),
        };
        self.places[index].queue.lock().wait(happened, timeout)
    }

    /// After each half of a turn of a worker: sees to it that what it has posted to others is
    /// worked off. With little else to do it does that itself.
    fn hear(&self, index: usize, worker: &mut Worker<TcpTransport>, is_busy: bool) {
        // Several are to work beside each other, if they have threads for it.
        let mut is_alone = true;
        for sleeper in worker.take_unheard() {
            let is_guest = self.lodging.has(sleeper);
            if is_busy && is_guest && (index == HOST || self.lodging.has(index)) {
                // It is this thread that it would have to wait for.
                self.send_home(sleeper);
            } else if is_busy || !is_alone && !is_guest || !self.stand_in(sleeper) {
                worker.wake(sleeper);
            }
            is_alone = false;
        }
    }

    /// Has a turn for a worker whose thread sleeps. `false` when it has to be woken: it is not
    /// asleep after all, or has more to do, or earlier than it knows.
    fn stand_in(&self, sleeper: usize) -> bool {
        let Some(mut seat) = self.places[sleeper].seat.try_lock() else { return false };
        let (now, until) = (self.clock.now(), self.sleeps_until(sleeper));
        // Timers are not to run before somebody has seen what is in its sockets: a client that has
        // sent something is not silent.
        if now >= until || seat.worker.is_finished() {
            return false;
        }
        let is_busy = seat.worker.turn(now);
        seat.worker.wake_unheard();
        // The end of a worker begins in its own thread.
        let sleeps_on =
            !is_busy && !seat.worker.is_shutting_down() && seat.worker.next_deadline() >= until;
        sleeps_on && seat.worker.fall_asleep()
    }
}
