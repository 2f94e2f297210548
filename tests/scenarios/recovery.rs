//! What the simulator has found about the log, made small.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, SimDisk, Subscribing};

fn durable(workers: usize) -> Sim {
    Sim::with_disk(workers, Settings::default(), SimDisk::default(), 7)
}

fn persistent(client_id: &str) -> Connecting<'_> {
    Connecting::v5(client_id).resume().expiry(3600)
}

#[test]
fn what_a_group_elsewhere_sends_back_to_its_publishers_worker_is_delivered() {
    for group in 0..8 {
        let mut sim = durable(2);
        let client = Client::online(&mut sim, &persistent("c"));
        client.send(&mut sim, Subscribing::to(&format!("$share/{group}/t"), 1).v5());
        let _ = client.take();
        client.send(&mut sim, Publishing::q1("t", "m", 1).v5());
        let mut taken = client.take();
        taken.sort();
        assert_eq!(taken, ["PUBACK 1", "PUBLISH t \"m\" q1 id=1"]);
    }
}

#[test]
fn mqtt5_3_14_4_1_no_answer_that_waits_follows_a_disconnect() {
    let mut sim = durable(1);
    let subscriber = Client::online(&mut sim, &persistent("s"));
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    let publisher = Client::online(&mut sim, &persistent("p"));
    publisher.write(Publishing::q1("t", "m", 1).v5());
    sim.run_workers();
    let _second = Client::online(&mut sim, &persistent("p"));
    assert_eq!(publisher.take(), ["DISCONNECT SessionTakenOver", "CLOSED"]);
}
