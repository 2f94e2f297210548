//! In steady state a published message costs no allocation: not in the codec, not in the session,
//! not in routing, queueing or sending, at QoS 0 and at QoS 1, on one worker and on two.

use allocation_counter::AllocationInfo;
use dunlin::worker::Settings;
use dunlin_packets::{Property, Version};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

struct Scene {
    sim: Sim,
    publisher: Client,
    subscribers: Vec<Client>,
    publish: Vec<u8>,
    acks: Vec<u8>,
}

/// 1000 subscribers, half of them of each version, and a publisher.
fn scene(workers: usize, qos: u8) -> Scene {
    let mut sim = Sim::new(workers, Settings::default());
    let subscribers: Vec<_> = (0..1000)
        .map(|number| {
            let name = format!("s{number}");
            if number % 2 == 0 {
                let client = Client::online(&mut sim, &Connecting::v5(&name));
                client.send(&mut sim, Subscribing::to("t/+/x", qos).identifier(7).v5());
                client
            } else {
                let client = Client::online(&mut sim, &Connecting::v4(&name));
                client.send(&mut sim, Subscribing::to("t/a/x", qos).v4());
                client
            }
        })
        .collect();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let payload = [b'x'; 64];
    let publishing = match qos {
        0 => Publishing::q0("t/a/x", &payload),
        _ => Publishing::q1("t/a/x", &payload, 1),
    };
    let publish = publishing.with(Property::UserProperty("k", "v")).bytes_for(Version::V5);
    Scene { sim, publisher, subscribers, publish, acks: Vec::with_capacity(64) }
}

impl Scene {
    /// One message to everybody, acknowledged where that is due.
    fn publish(&mut self) {
        self.publisher.write(&self.publish);
        self.sim.run();
        self.publisher.discard();
        for subscriber in &self.subscribers {
            self.acks.clear();
            subscriber.acknowledge_into(&mut self.acks);
            subscriber.write(&self.acks);
        }
        self.sim.run();
    }
}

fn allocations(workers: usize, qos: u8) -> AllocationInfo {
    let mut scene = scene(workers, qos);
    // Until every buffer has the size it needs.
    for _ in 0..200 {
        scene.publish();
    }
    let sent = scene.sim.stats().publishes_sent;
    let info = allocation_counter::measure(|| {
        for _ in 0..50 {
            scene.publish();
        }
    });
    assert_eq!(scene.sim.stats().publishes_sent - sent, 50 * 1000, "all were delivered");
    info
}

#[test]
fn a_publish_to_1000_subscribers_at_qos_0_allocates_nothing() {
    assert_eq!(allocations(1, 0), AllocationInfo::default());
}

#[test]
fn a_publish_to_1000_subscribers_at_qos_1_allocates_nothing() {
    assert_eq!(allocations(1, 1), AllocationInfo::default());
}

#[test]
fn a_publish_over_two_workers_allocates_nothing() {
    assert_eq!(allocations(2, 0), AllocationInfo::default());
    assert_eq!(allocations(2, 1), AllocationInfo::default());
}

#[test]
fn the_counter_counts() {
    let info = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!((info.count_total, info.bytes_total), (1, 100));
}
