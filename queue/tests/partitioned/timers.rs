//! What a queue does when time passes, and when it says so.

use dunlin_queue::Time;
use dunlin_queue::partitioned::limits::{CHUNK_LEN, DELAY_MS_MAX};
use dunlin_queue::partitioned::{Config, Mode, NewMessage, Refused};

use super::scenes::Desk;
use crate::call;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Passes the time, and has the queue look whenever it wants to.
fn pass(desk: &mut Desk, ms: u64) {
    let end = desk.now.plus_millis(ms);
    while let Some(at) = desk.queue.deadline().filter(|&at| at <= end) {
        desk.now = desk.now.max(at);
        call!(desk, on_timer);
    }
    desk.now = end;
}

#[test]
fn a_slow_stream_loses_what_is_too_old_without_consumers() {
    let mut config = Config { partitions: 1, mode: Mode::Stream, ..Config::default() };
    config.retention.age_ms_max = DAY_MS;
    let mut desk = Desk::new(config);
    // Not a chunk in a day, so the first timer finds nothing that could go.
    for key in 0..2 * CHUNK_LEN {
        desk.put_key(key);
        pass(&mut desk, DAY_MS / 100);
    }
    pass(&mut desk, DAY_MS);
    assert_eq!(desk.queue.stats(desk.now).depth, CHUNK_LEN);
}

#[test]
fn a_queue_that_has_nothing_to_do_wants_no_timer() {
    let mut config = Config { partitions: 4, ..Config::default() };
    config.retention.age_ms_max = 0;
    let mut desk = Desk::new(config);
    let group = desk.group();
    let member = desk.join(group);
    for round in 0..100 {
        (0..20).for_each(|key| _ = desk.put_key(key * 7919 + round));
        for (at, delivery) in desk.poll(group, member, 20).iter().enumerate() {
            let id = delivery.id;
            match at % 3 {
                0 => call!(&mut desk, nack, group, member, id, Some(at as u64)).unwrap(),
                1 => call!(&mut desk, extend, group, member, id).unwrap(),
                _ => call!(&mut desk, ack, group, member, id).unwrap(),
            }
        }
        pass(&mut desk, 5);
    }
    call!(&mut desk, remove_group, group).unwrap();
    assert_eq!(desk.queue.deadline(), None);
}

#[test]
fn a_delay_is_kept_to_the_millisecond_or_refused() {
    for (age_ms_max, longest_ms) in [(0, DELAY_MS_MAX), (DAY_MS, DAY_MS - 1)] {
        let mut config = Config { partitions: 1, ..Config::default() };
        config.retention.age_ms_max = age_ms_max;
        let mut desk = Desk::new(config);
        let group = desk.group();
        let member = desk.join(group);
        let after = |at: Time, ms| NewMessage {
            deliver_at: Some(at.plus_millis(ms)),
            ..NewMessage::default()
        };
        let too_long = after(desk.now, longest_ms + 1);
        assert_eq!(call!(&mut desk, enqueue, &too_long), Err(Refused::DelayTooLong));
        let id = desk.put(after(desk.now, longest_ms));
        pass(&mut desk, longest_ms - 1);
        assert!(desk.poll(group, member, 1).is_empty());
        pass(&mut desk, 1);
        assert_eq!(desk.poll(group, member, 1)[0].id, id);
    }
}

#[test]
fn a_message_cannot_be_put_back_for_longer_than_any_may_be_delayed() {
    let mut desk = Desk::new(Config { partitions: 1, ..Config::default() });
    let group = desk.group();
    let member = desk.join(group);
    let id = desk.put_key(1);
    desk.poll(group, member, 1);
    let too_long = Some(DELAY_MS_MAX + 1);
    assert_eq!(call!(&mut desk, nack, group, member, id, too_long), Err(Refused::DelayTooLong));
    call!(&mut desk, nack, group, member, id, Some(DELAY_MS_MAX)).unwrap();
}
