//! Order: per publisher, topic and QoS, over workers, and from offline to online.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

fn payloads(texts: &[String]) -> Vec<u32> {
    let publishes = texts.iter().filter(|text| text.starts_with("PUBLISH"));
    publishes
        .map(|text| text.split('"').nth(1).expect("a payload").parse().expect("a number"))
        .collect()
}

#[test]
fn mqtt5_4_6_0_6_messages_of_a_publisher_arrive_in_order_on_every_worker() {
    let mut sim = Sim::new(4, Settings::default());
    let subscribers: Vec<_> = (0..8)
        .map(|number| {
            let client = Client::online(&mut sim, &Connecting::v5(&format!("s{number}")));
            client.send(&mut sim, Subscribing::to("t", 2).v5());
            client
        })
        .collect();
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for number in 0..500u32 {
        publisher.write(Publishing::q0("t", &number.to_string()).v5());
    }
    sim.run();
    for subscriber in &subscribers {
        assert_eq!(payloads(&subscriber.take()), (0..500).collect::<Vec<_>>());
    }
}

#[test]
fn mqtt5_4_6_0_5_the_order_holds_over_a_switch_from_offline_to_online() {
    let mut sim = Sim::new(2, Settings::default());
    let connecting = Connecting::v5("s").resume().expiry(600);
    let subscriber = Client::online(&mut sim, &connecting);
    subscriber.send(&mut sim, Subscribing::to("t", 1).v5());
    subscriber.drop_connection(&mut sim);
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    for number in 0..300u16 {
        publisher.write(Publishing::q1("t", &number.to_string(), number + 1).v5());
    }
    let subscriber = Client::connect(&mut sim, &connecting);
    for number in 300..400u16 {
        publisher.write(Publishing::q1("t", &number.to_string(), number + 1).v5());
    }
    sim.run();
    assert_eq!(payloads(&subscriber.take()), (0..400).collect::<Vec<_>>());
}
