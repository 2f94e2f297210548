//! Wills: when they go out, when they do not.

use dunlin_packets::{Disconnect, Properties, Property, ReasonCode, Version};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

fn watcher(sim: &mut Sim) -> Client {
    let watcher = Client::online(sim, &Connecting::v5("watcher"));
    watcher.send(sim, Subscribing::to("will/#", 1).v5());
    assert_eq!(watcher.take(), ["SUBACK 1 [01]"]);
    watcher
}

fn with_delay(expiry_s: u32, delay_s: u32) -> Connecting<'static> {
    let connecting = Connecting::v5("c").expiry(expiry_s).will("will/c", "gone", 0, false);
    connecting.will_with(Property::WillDelayInterval(delay_s))
}

fn disconnect(code: ReasonCode) -> Vec<u8> {
    let mut out = Vec::new();
    Disconnect { code, properties: Properties::default() }.encode(Version::V5, &mut out);
    out
}

#[test]
fn mqtt5_3_1_2_8_a_will_goes_out_when_the_connection_breaks() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    let client = Client::online(&mut sim, &Connecting::v5("c").will("will/c", "gone", 1, false));
    client.drop_connection(&mut sim);
    assert_eq!(watcher.take(), ["PUBLISH will/c \"gone\" q1 id=1"]);
}

#[test]
fn mqtt5_3_1_2_8_a_will_waits_for_its_delay() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    Client::online(&mut sim, &with_delay(100, 30)).drop_connection(&mut sim);
    sim.advance_s(29);
    assert!(watcher.take().is_empty());
    sim.advance_s(2);
    assert_eq!(watcher.take(), ["PUBLISH will/c \"gone\""]);
    sim.advance_s(100);
    assert!(watcher.take().is_empty(), "once");
}

#[test]
fn mqtt5_3_1_2_8_the_end_of_the_session_comes_before_a_longer_delay() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    Client::online(&mut sim, &with_delay(10, 300)).drop_connection(&mut sim);
    sim.advance_s(11);
    assert_eq!(watcher.take(), ["PUBLISH will/c \"gone\""]);
    Client::online(&mut sim, &with_delay(0, 300)).drop_connection(&mut sim);
    assert_eq!(watcher.take(), ["PUBLISH will/c \"gone\""]);
}

#[test]
fn mqtt5_3_1_3_9_a_reconnect_in_time_keeps_the_will_in() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    Client::online(&mut sim, &with_delay(100, 30)).drop_connection(&mut sim);
    sim.advance_s(10);
    let _client = Client::online(&mut sim, &Connecting::v5("c").resume().expiry(100));
    sim.advance_s(100);
    assert!(watcher.take().is_empty());
}

#[test]
fn mqtt5_3_14_4_3_a_normal_disconnect_discards_the_will() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    Client::online(&mut sim, &with_delay(0, 0)).send(&mut sim, disconnect(ReasonCode::Success));
    assert!(watcher.take().is_empty());
    let leaving = disconnect(ReasonCode::DisconnectWithWill);
    Client::online(&mut sim, &with_delay(0, 0)).send(&mut sim, leaving);
    assert_eq!(watcher.take(), ["PUBLISH will/c \"gone\""]);
}

#[test]
fn mqtt5_3_1_2_8_a_takeover_of_a_session_without_expiry_sends_the_will() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    let _old = Client::online(&mut sim, &with_delay(0, 300));
    let _new = Client::online(&mut sim, &Connecting::v5("c"));
    assert_eq!(watcher.take(), ["PUBLISH will/c \"gone\""]);
}

#[test]
fn mqtt5_3_1_3_9_a_takeover_that_resumes_keeps_a_delayed_will_in() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    let _old = Client::online(&mut sim, &with_delay(100, 30));
    let _new = Client::online(&mut sim, &Connecting::v5("c").resume().expiry(100));
    sim.advance_s(200);
    assert!(watcher.take().is_empty());
}

#[test]
fn mqtt5_3_1_2_8_a_clean_start_ends_the_session_and_sends_its_delayed_will() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    Client::online(&mut sim, &with_delay(100, 60)).drop_connection(&mut sim);
    assert!(watcher.take().is_empty());
    let _new = Client::online(&mut sim, &Connecting::v5("c"));
    assert_eq!(watcher.take(), ["PUBLISH will/c \"gone\""]);
}

#[test]
fn mqtt5_3_1_2_15_a_retained_will_is_stored_with_its_properties_in_order() {
    let mut sim = Sim::default();
    let connecting = Connecting::v5("c")
        .will("will/c", "gone", 0, true)
        .will_with(Property::UserProperty("b", "1"))
        .will_with(Property::ContentType("text"))
        .will_with(Property::UserProperty("a", "2"));
    Client::online(&mut sim, &connecting).drop_connection(&mut sim);
    let late = Client::online(&mut sim, &Connecting::v5("late"));
    late.send(&mut sim, Subscribing::to("will/c", 0).v5());
    assert_eq!(
        late.take()[1..],
        ["PUBLISH will/c \"gone\" retain [UserProperty(\"b\", \"1\"), ContentType(\"text\"), \
         UserProperty(\"a\", \"2\")]"]
    );
}

#[test]
fn mqtt311_3_1_2_8_a_protocol_error_of_3_1_1_sends_the_will_at_once() {
    let mut sim = Sim::default();
    let watcher = watcher(&mut sim);
    let client = Client::online(&mut sim, &Connecting::v4("c").will("will/c", "gone", 0, false));
    client.send(&mut sim, Publishing::q0("t/#", "x").v4());
    assert_eq!(client.take(), ["CLOSED"]);
    assert_eq!(watcher.take(), ["PUBLISH will/c \"gone\""]);
}
