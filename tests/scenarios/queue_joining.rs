//! Consumers join a queue, and when they are told.

use dunlin::store::Submission;
use dunlin::worker::Settings;
use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Sim, SimDisk, Subscribing};

use crate::queues::verb;

/// Gives the log so much to write that workers keep what they have for later.
fn fill_log(sim: &Sim) {
    while sim.log().has_room() {
        let frame = sim.log().frame();
        let (address, must_sync, worker, cleaned) = (0, false, 0, 0);
        sim.log().submit(Submission { address, frame, must_sync, worker, cleaned });
    }
}

#[test]
fn a_suback_is_not_sent_before_the_group_it_is_about_is_safe() {
    let mut told = 0;
    for (name, home) in (0..16).flat_map(|name| [(name, 0), (name, 1)]) {
        let mut sim = Sim::with_disk(2, Settings::default(), SimDisk::default(), 7);
        let consumers = ["a", "b"].map(|half| {
            let client_id = format!("{half}{name}");
            Client::online(&mut sim, &Connecting::v5(&client_id))
        });
        for consumer in &consumers {
            let subscribing = Subscribing::to("$queue/jobs", 1);
            consumer.write(subscribing.with(Property::UserProperty("consumer-group", "g")).v5());
        }
        sim.turn(1 - home);
        fill_log(&sim);
        // It may be that the home has made the group, and could not submit that.
        sim.turn(home);
        for _ in 0..2 {
            while sim.run_storage_step() {}
            sim.turn(1 - home);
        }
        let is_told = consumers.iter().any(|consumer| !consumer.take().is_empty());
        told += usize::from(is_told);
        let mut sim = Sim::with_disk(2, Settings::default(), sim.crash(1), 7);
        let client = Client::online(&mut sim, &Connecting::v5("other"));
        let about = [("message-id", "jobs:0:0"), ("group-id", "g")];
        let answer = verb(&mut sim, &client, "$queue/jobs/$ack", &about);
        let is_there = answer.contains("not a consumer of this group");
        assert!(is_there || !is_told, "{name}, {home}: {answer}");
    }
    assert!((1..32).contains(&told), "{told} of 32");
}
