//! One client's protocol state, without sockets, clock or threads.
//!
//! An [`Offer`] is what a CONNECT asks for, checked against the broker's [`Limits`]. A [`Session`]
//! is what belongs to a client identifier: it lives from an accepted CONNECT to its expiry, over
//! any number of connections.
//!
//! ```text
//!                  attach                       detach, expiry > 0
//!  Session::new ──────────▶ Online ────────────────────────────────────▶ Offline
//!                             ▲  │  detach, expiry = 0                    │   │ expiry
//!                             │  └───────────────▶ (ended)  ◀─────────────┼───┘
//!                             └──────────── attach (resume) ──────────────┘
//! ```
//!
//! Calling order: `attach` once per connection; then for each packet [`Session::on_packet`], whose
//! [`Action`] says what the owner has to do (route, subscribe, …) and report back with
//! [`Session::acknowledge`] or a SUBACK; for each message that is routed to the client
//! [`Session::enqueue`]; then [`Session::poll_publish`] until it is idle. `detach` ends the
//! connection. At [`Session::deadline`], [`Session::on_timer`].
//!
//! A session that is [`durable`](Session::set_durable) says in [`Context::changes`] what of its
//! state has to be written down, and holds back what must not be sent before it is: see [`Change`].
//!
//! Everything to be sent is appended to a buffer the caller owns. A [`PacketError`] means: answer
//! with [`Session::disconnect`] and close.
//!
//! [`PacketError`]: dunlin_packets::PacketError

mod alias;
mod alike;
mod answers;
mod changes;
mod grant;
mod inbound;
mod level;
mod limits;
mod link;
mod offer;
mod outbound;
mod received;
mod session;
mod stored;
mod will;

pub use alike::{Alike, Share};
pub use changes::{Answer, Change};
pub use grant::grant;
pub use inbound::{Action, Refused};
pub use level::Level;
pub use limits::Limits;
pub use offer::{LEVEL_PROPERTY, Offer, Refusal, SYS_PREFIX};
pub use outbound::Polled;
pub use session::{Context, Departure, Dropped, Due, Outcome, Session};
pub use stored::StoredState;
pub use will::Will;
