//! `rumqttc`, MQTT 3.1.1.

use std::time::Duration;

use dunlin_tests::program::Running;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};

const WAIT: Duration = Duration::from_secs(20);

fn options(broker: &Running, name: &str) -> MqttOptions {
    let mut options = MqttOptions::new(name, "127.0.0.1", broker.port());
    options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(1 << 21, 1 << 21);
    options
}

async fn next(events: &mut EventLoop) -> Packet {
    loop {
        let event = tokio::time::timeout(WAIT, events.poll()).await.expect("in time");
        if let Event::Incoming(packet) = event.expect("connected") {
            return packet;
        }
    }
}

async fn connect(options: MqttOptions) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options, 100);
    assert!(matches!(next(&mut events).await, Packet::ConnAck(_)));
    (client, events)
}

/// Keeps a publisher's connection going until everything it sent has been acknowledged.
async fn acknowledged(events: &mut EventLoop, count: usize) {
    let mut done = 0;
    while done < count {
        if matches!(next(events).await, Packet::PubAck(_) | Packet::PubComp(_)) {
            done += 1;
        }
    }
}

#[tokio::test]
async fn messages_of_every_qos_arrive_in_order() {
    let broker = Running::start(&["--workers", "2"]);
    let (subscriber, mut inbox) = connect(options(&broker, "subscriber")).await;
    subscriber.subscribe("t/+", QoS::ExactlyOnce).await.expect("queued");
    assert!(matches!(next(&mut inbox).await, Packet::SubAck(_)));
    let (publisher, mut outbox) = connect(options(&broker, "publisher")).await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        for number in 0..50 {
            let payload = format!("{number}");
            publisher
                .publish(format!("t/{}", qos as u8), qos, false, payload)
                .await
                .expect("queued");
        }
        acknowledged(&mut outbox, 50).await;
        let mut expected = 0;
        while expected < 50 {
            if let Packet::Publish(publish) = next(&mut inbox).await {
                assert_eq!(publish.payload, format!("{expected}"));
                assert_eq!(publish.qos, qos);
                expected += 1;
            }
        }
    }
}

#[tokio::test]
async fn a_persistent_session_gets_what_it_missed() {
    let broker = Running::start(&["--workers", "2"]);
    let mut persistent = options(&broker, "persistent");
    persistent.set_clean_session(false);
    let (client, mut events) = connect(persistent.clone()).await;
    client.subscribe("offline", QoS::AtLeastOnce).await.expect("queued");
    assert!(matches!(next(&mut events).await, Packet::SubAck(_)));
    drop((client, events));
    let (publisher, mut outbox) = connect(options(&broker, "publisher")).await;
    for number in 0..20 {
        let payload = format!("{number}");
        publisher.publish("offline", QoS::AtLeastOnce, false, payload).await.expect("queued");
    }
    acknowledged(&mut outbox, 20).await;
    let (_client, mut events) = AsyncClient::new(persistent, 100);
    let Packet::ConnAck(connack) = next(&mut events).await else { panic!("no CONNACK") };
    assert!(connack.session_present);
    for number in 0..20 {
        let Packet::Publish(publish) = next(&mut events).await else { panic!("no PUBLISH") };
        assert_eq!(publish.payload, format!("{number}"));
    }
}

#[tokio::test]
async fn a_will_goes_out_when_the_connection_breaks() {
    let broker = Running::start(&["--workers", "2"]);
    let (watcher, mut inbox) = connect(options(&broker, "watcher")).await;
    watcher.subscribe("will", QoS::AtLeastOnce).await.expect("queued");
    assert!(matches!(next(&mut inbox).await, Packet::SubAck(_)));
    let mut doomed = options(&broker, "doomed");
    doomed.set_last_will(LastWill::new("will", "gone", QoS::AtLeastOnce, false));
    drop(connect(doomed).await);
    let Packet::Publish(publish) = next(&mut inbox).await else { panic!("no PUBLISH") };
    assert_eq!(publish.payload, "gone");
}
