//! Where workers sit. Each has a thread of its own, which has it in its hands but for the time it
//! sleeps. Another worker's thread that has posted to it, and has nothing else to do, takes its
//! place for a turn: to wake a thread for one message costs more than the message does, and is most
//! of the time it takes to arrive.

use dunlin_queue::Time;
use parking_lot::{Mutex, MutexGuard};

use super::TcpTransport;
use crate::clock::Clock;
use crate::worker::Worker;

/// A worker, and how long its thread is going to sleep.
pub struct Seat {
    /// The worker.
    pub worker: Worker<TcpTransport>,
    /// Its thread wakes up by itself at this time.
    pub sleeps_until: Time,
}

/// The workers of a broker.
pub struct Seats {
    seats: Vec<Mutex<Seat>>,
}

impl Seats {
    /// For all workers of a broker, in their order.
    #[must_use]
    pub fn new(workers: impl IntoIterator<Item = Worker<TcpTransport>>) -> Self {
        let seat = |worker| Mutex::new(Seat { worker, sleeps_until: Time::default() });
        Self { seats: workers.into_iter().map(seat).collect() }
    }

    /// Takes a worker into the hands of its own thread.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn sit_down(&self, index: usize) -> MutexGuard<'_, Seat> {
        self.seats[index].lock()
    }

    /// After each half of a turn of `worker`: sees to it that what it has posted to others is
    /// worked off. With little else to do it does that itself.
    pub fn hear(&self, worker: &mut Worker<TcpTransport>, is_busy: bool, clock: Clock) {
        if is_busy {
            return worker.wake_unheard();
        }
        let mut sleepers = worker.take_unheard();
        let Some(first) = sleepers.next() else { return };
        // Several are to work beside each other.
        sleepers.for_each(|sleeper| worker.wake(sleeper));
        if !self.stand_in(first, clock) {
            worker.wake(first);
        }
    }

    /// Has a turn for a worker whose thread sleeps. `false` when it has to be woken: it is not
    /// asleep after all, or has more to do, or earlier than it knows.
    fn stand_in(&self, sleeper: usize, clock: Clock) -> bool {
        let Some(mut seat) = self.seats[sleeper].try_lock() else { return false };
        let now = clock.now();
        // Timers are not to run before its own thread has seen what is in its sockets: a client
        // that has sent something is not silent.
        if now >= seat.sleeps_until || seat.worker.is_finished() {
            return false;
        }
        let is_busy = seat.worker.turn(now);
        seat.worker.wake_unheard();
        let sleeps_on = !is_busy
            && !seat.worker.is_finished()
            && seat.worker.next_deadline() >= seat.sleeps_until;
        sleeps_on && seat.worker.fall_asleep()
    }
}
