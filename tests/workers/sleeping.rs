//! Workers that sleep, and messages for them from others: nothing else wakes them here, so what nobody
//! sees to never arrives.

use super::players::{pairs, play, start};

#[test]
fn a_message_for_a_worker_that_sleeps_arrives_when_nothing_else_happens() {
    let broker = start();
    for pair in &mut pairs(&broker) {
        play(pair, 200);
    }
    assert!(broker.terminate().success());
}

#[test]
fn messages_for_workers_that_fall_asleep_and_wake_up_all_the_time_arrive() {
    let broker = start();
    let mut pairs = pairs(&broker);
    std::thread::scope(|scope| {
        for pair in &mut pairs {
            scope.spawn(|| play(pair, 2000));
        }
    });
    assert!(broker.terminate().success());
}
