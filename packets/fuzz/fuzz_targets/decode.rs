//! Any bytes as a stream of packets, in all versions. What decodes must encode to something that
//! decodes to the same.

#![no_main]

use dunlin_packets::{Frame, Packet, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for version in [Version::V3, Version::V4, Version::V5] {
        let mut rest = bytes;
        while let Ok(Some((frame, len))) = Frame::split(rest, 1 << 20, version) {
            if let Ok(packet) = Packet::decode(&frame, version) {
                check(&packet, version);
            }
            rest = &rest[len..];
        }
    }
});

fn check(packet: &Packet<'_>, version: Version) {
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    if out.is_empty() {
        // A CONNACK with a code the version has no number for.
        return;
    }
    let (frame, len) = Frame::split(&out, 1 << 21, version).expect("well formed").expect("whole");
    assert_eq!(len, out.len());
    let again = Packet::decode(&frame, version).expect("valid");
    let mut twice = Vec::new();
    again.encode(version, &mut twice);
    assert_eq!(out, twice);
}
