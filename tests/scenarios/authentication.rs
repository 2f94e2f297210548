//! Enhanced authentication, of which no method is built in yet.

use dunlin_packets::{Auth, Properties, PropertiesBuf, Property, ReasonCode};
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing};

fn auth(properties: Properties<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Auth { code: ReasonCode::ContinueAuthentication, properties }.encode(&mut out);
    out
}

#[test]
fn mqtt5_4_12_0_1_an_unknown_method_is_refused_with_0x8c() {
    let mut sim = Sim::default();
    let asking = Connecting::v5("c").with(Property::AuthenticationMethod("no-such-method"));
    let client = Client::connect(&mut sim, &asking);
    let texts = client.take();
    assert!(texts[0].starts_with("CONNACK BadAuthenticationMethod"), "{texts:?}");
    assert_eq!(texts[1], "CLOSED");
}

#[test]
fn mqtt5_3_1_2_30_nothing_of_a_client_with_an_unknown_method_is_handled() {
    let mut sim = Sim::default();
    let watcher = Client::online(&mut sim, &Connecting::v5("w"));
    watcher.send(&mut sim, Subscribing::to("#", 0).v5());
    let client = sim.client();
    let asking = Connecting::v5("c").with(Property::AuthenticationMethod("no-such-method"));
    let mut bytes = asking.bytes();
    bytes.extend(Publishing::q0("t", "x").v5());
    client.send(&mut sim, bytes);
    assert_eq!(watcher.take(), ["SUBACK 1 [00]"]);
}

#[test]
fn mqtt5_4_12_0_7_auth_without_a_method_is_a_protocol_error() {
    let mut sim = Sim::default();
    let client = Client::online(&mut sim, &Connecting::v5("c"));
    let mut properties = PropertiesBuf::new();
    properties.push(Property::AuthenticationMethod("m"));
    client.send(&mut sim, auth(properties.as_properties()));
    assert_eq!(client.take(), ["DISCONNECT ProtocolError", "CLOSED"]);
}

#[test]
fn section_3_1_2_11_10_authentication_data_without_a_method_is_a_protocol_error() {
    let mut sim = Sim::default();
    let asking = Connecting::v5("c").with(Property::AuthenticationData(b"x"));
    let client = Client::connect(&mut sim, &asking);
    assert_eq!(client.take(), ["CONNACK ProtocolError", "CLOSED"]);
}

#[test]
fn mqtt311_3_1_2_22_a_password_without_a_user_name_is_refused_before_5_0() {
    let mut sim = Sim::default();
    let client = Client::connect(&mut sim, &Connecting::v4("c").login(None, Some(b"secret")));
    assert_eq!(client.take(), ["CLOSED"]);
    let client = Client::connect(&mut sim, &Connecting::v5("c").login(None, Some(b"secret")));
    assert!(client.take()[0].starts_with("CONNACK Success"));
}
