//! MQTT wire types and their codec, for 3.1, 3.1.1 and 5.0 in one type family.
//!
//! [`Frame::split`] cuts one packet off a byte stream, [`Packet::decode`] reads it, and
//! [`Packet::encode`] writes one. The [`Version`] is an argument of both, never a second type:
//! what a version does not have on the wire is empty in the struct.
//!
//! Decoding borrows from the input and allocates nothing. Every length is checked against the
//! bytes that are really there before it is used; every error is a [`PacketError`] that carries
//! the reason code for the peer and the clause of the standard that was broken.
//!
//! This crate knows no sessions, no sockets and no clock.
//!
//! ```
//! use dunlin_packets::{Frame, Packet, Version};
//!
//! let bytes = b"\x30\x06\x00\x03a/bhi!";
//! let (frame, _) = Frame::split(&bytes[..8], 1024, Version::V4).unwrap().unwrap();
//! let Packet::Publish(publish) = Packet::decode(&frame, Version::V4).unwrap() else { panic!() };
//! assert_eq!((publish.topic, publish.payload), ("a/b", &b"h"[..]));
//! ```

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod error;
mod frame;
mod packet;
mod property;
mod publish;
mod reason;
mod subscribe;
mod topic;
mod unsubscribe;
mod version;
mod wire;

pub use ack::{Ack, AckKind};
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::Disconnect;
pub use error::{ConnectError, PacketError};
pub use frame::{Frame, Kind};
pub use packet::Packet;
pub use property::{Properties, PropertiesBuf, Property};
pub use publish::{Delivery, Publish};
pub use reason::ReasonCode;
pub use subscribe::{
    FilterRequest, FilterRequests, RetainHandling, SubAck, Subscribe, SubscriptionOptions,
};
pub use topic::{
    SharedFilter, filter_matches, is_valid_filter, is_valid_topic, levels, split_shared,
};
pub use unsubscribe::{FilterNames, UnsubAck, Unsubscribe};
pub use version::{PacketId, QoS, Version};

/// The largest value of a variable byte integer, and so of a packet's remaining length.
pub const VARINT_MAX: u32 = 268_435_455;
