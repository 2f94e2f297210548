//! What `dunlin storage stats` counts.

use dunlin_tests::{Connecting, Publishing, Subscribing};
use serde_json::{Value, json};

use super::{Client, bytes, done, fresh, offline_subscriber, persistent, publish, start, stop};

#[test]
fn stats_count_what_is_there() {
    let data = fresh("stats");
    let broker = start(&data);
    offline_subscriber(&broker, "few");
    publish(&broker, 1, 3);
    offline_subscriber(&broker, "none");
    let mut online = Client::connect(&broker, &persistent("on\nline").will("w", "gone", 1, false));
    online.ask(Subscribing::to("b/#", 1).and("u/+", 0).v5(), "SUBACK");
    let mut publisher = Client::connect(&broker, &Connecting::v5("p"));
    publisher.ask(Publishing::q1("b/y", "12345", 1).retain().v5(), "PUBACK");
    publisher.ask(Publishing::q1("other", "1234567890", 2).retain().v5(), "PUBACK");
    assert!(online.next().starts_with("PUBLISH b/y"));
    let stats: Value = serde_json::from_str(&done(&["stats", "--json"], &data)).expect("JSON");
    for (name, expected) in [
        ("sessions", 3),
        ("sessions_online", 1),
        ("sessions_offline", 2),
        ("subscriptions", 4),
        ("wills", 1),
        ("messages", 4),
        ("message_bytes", 3 * 1003 + 8),
        ("retained", 2),
        ("retained_bytes", 8 + 15),
        ("missing_parts", 0),
    ] {
        assert_eq!(stats[name], json!(expected), "{name} of {stats}");
    }
    // What was sent at QoS 1 need not be written down as such.
    let of = |name: &str| stats[name].as_u64().expect("a number");
    assert_eq!(of("queued") + of("in_flight"), 6);
    let backlogs: Vec<_> = stats["largest_backlogs"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|backlog| (backlog["client_id"].as_str(), backlog["bytes"].as_u64()))
        .collect();
    let (few, one) = (Some(3 * 1003 + 8), Some(8));
    assert_eq!(backlogs, [(Some("few"), few), (Some("none"), one), (Some("on\nline"), one)]);
    assert_eq!(stats["bytes"], json!(bytes(&data)));
    let text = done(&["stats"], &data);
    assert!(text.contains("sessions         3 (1 online, 2 offline)"), "{text}");
    assert!(text.contains("on\\nline"), "{text}");
    drop((online, publisher));
    stop(broker);
}
