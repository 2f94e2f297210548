//! A worker's thread: waits until something happens, and has a turn.

use std::io;

use super::Happened;
use super::gauge::Gauge;
use super::lodging::{HOST, PATIENCE_US};
use super::seats::{Left, Seats};

/// A worker that was sent home so soon waits longer before it lodges again.
const SHORT_STAY_US: u64 = 1_000_000;
/// But not for longer than this.
const PATIENCE_MAX_US: u64 = 5_000_000;

/// Runs worker `index` until it is finished.
///
/// # Errors
/// When its event queue fails.
pub fn run(seats: &Seats, index: usize) -> io::Result<()> {
    let _ = seats.places[index].thread.set(std::thread::current());
    if index == HOST { run_host(seats) } else { run_at_home(seats, index) }
}

/// The thread of worker 0, for those who lodge with it, too.
fn run_host(seats: &Seats) -> io::Result<()> {
    let (mut happened, mut to_guest) = (Happened::room(), Happened::room());
    let mut gauge = Gauge::start(seats.clock.micros());
    let mut left = Left::More;
    while left != Left::Finished {
        let until = (left == Left::Nothing).then(|| seats.host_sleeps_until());
        seats.wait(HOST, until, &mut happened)?;
        let from = seats.clock.micros();
        seats.lodging.begin();
        let (guests, has_own) = happened.guests();
        let is_time = || seats.sleeps_until(HOST) <= seats.clock.now();
        let mut is_busy = false;
        if left != Left::Nothing || has_own || is_time() {
            let turn = seats.turn(HOST, &happened);
            (left, is_busy) = (turn.left, turn.was_busy);
        }
        if is_busy {
            seats.send_all_home();
        }
        seats.serve_guests(guests, &mut to_guest)?;
        gauge.add(from, seats.clock.micros(), is_busy);
        seats.lodging.end(&gauge);
        if seats.is_crowded(&gauge) {
            seats.send_all_home();
        }
    }
    Ok(())
}

/// Another worker's thread, which leaves the work to the host's when there is little.
fn run_at_home(seats: &Seats, index: usize) -> io::Result<()> {
    let mut happened = Happened::room();
    let mut gauge = Gauge::start(seats.clock.micros());
    let mut patience = PATIENCE_US;
    let mut left = Left::More;
    while left != Left::Finished {
        let until = (left == Left::Nothing).then(|| seats.sleeps_until(index));
        seats.wait(index, until, &mut happened)?;
        let from = seats.clock.micros();
        let turn = seats.turn(index, &happened);
        let to = seats.clock.micros();
        left = turn.left;
        gauge.add(from, to, turn.was_busy);
        if left != Left::Nothing || !seats.lodging.admits(&gauge, patience, to) {
            continue;
        }
        match seats.lodge(index) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(%error, worker = index, "stays in its own thread");
                patience = u64::MAX;
                continue;
            }
        }
        let now = seats.clock.micros();
        patience = match now - to {
            ..SHORT_STAY_US => (2 * patience).min(PATIENCE_MAX_US),
            _ => PATIENCE_US,
        };
        gauge = Gauge::start(now);
        let is_finished = seats.sit_down(index).worker.is_finished();
        left = if is_finished { Left::Finished } else { Left::More };
    }
    Ok(())
}
