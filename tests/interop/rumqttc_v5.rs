//! `rumqttc`, MQTT 5.0.

use std::time::Duration;

use dunlin_tests::program::Running;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{ConnectProperties, Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};

const WAIT: Duration = Duration::from_secs(20);

fn options(broker: &Running, name: &str) -> MqttOptions {
    let mut options = MqttOptions::new(name, "127.0.0.1", broker.port());
    options.set_keep_alive(Duration::from_secs(30));
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

#[tokio::test]
async fn properties_arrive_as_they_were_sent() {
    let broker = Running::start(&["--workers", "2"]);
    let (subscriber, mut inbox) = connect(options(&broker, "subscriber")).await;
    subscriber.subscribe("t", QoS::AtLeastOnce).await.expect("queued");
    assert!(matches!(next(&mut inbox).await, Packet::SubAck(_)));
    let (publisher, mut outbox) = connect(options(&broker, "publisher")).await;
    let sent = PublishProperties {
        user_properties: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        content_type: Some("text/plain".into()),
        response_topic: Some("reply".into()),
        correlation_data: Some("id".into()),
        ..PublishProperties::default()
    };
    publisher
        .publish_with_properties("t", QoS::AtLeastOnce, false, "x", sent.clone())
        .await
        .expect("queued");
    assert!(matches!(next(&mut outbox).await, Packet::PubAck(_)));
    let Packet::Publish(publish) = next(&mut inbox).await else { panic!("no PUBLISH") };
    let got = publish.properties.expect("properties");
    assert_eq!(got.user_properties, sent.user_properties);
    assert_eq!(got.content_type, sent.content_type);
    assert_eq!(got.response_topic, sent.response_topic);
    assert_eq!(got.correlation_data, sent.correlation_data);
}

#[tokio::test]
async fn a_small_receive_maximum_gets_everything_in_order() {
    let broker = Running::start(&["--workers", "2"]);
    let mut small = options(&broker, "small");
    let properties = ConnectProperties { receive_maximum: Some(2), ..ConnectProperties::new() };
    small.set_connect_properties(properties);
    let (subscriber, mut inbox) = connect(small).await;
    subscriber.subscribe("t", QoS::ExactlyOnce).await.expect("queued");
    assert!(matches!(next(&mut inbox).await, Packet::SubAck(_)));
    let (publisher, mut outbox) = connect(options(&broker, "publisher")).await;
    let publishing = tokio::spawn(async move { while outbox.poll().await.is_ok() {} });
    for number in 0..100 {
        let payload = format!("{number}");
        publisher.publish("t", QoS::ExactlyOnce, false, payload).await.expect("queued");
    }
    let mut expected = 0;
    while expected < 100 {
        if let Packet::Publish(publish) = next(&mut inbox).await {
            assert_eq!(publish.payload, format!("{expected}"));
            expected += 1;
        }
    }
    publishing.abort();
}
