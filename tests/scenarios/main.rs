//! Scenarios: a broker with a virtual clock, clients that send raw packets, and what they get.
//!
//! A file per subject, a sentence per test; the name begins with the statement it proves.
//! `scripts/statements.py` makes docs/statements.md from the names.

mod acknowledgement;
mod aliases;
mod authentication;
mod backpressure;
mod bursts;
mod connecting;
mod durability;
mod expiry;
mod failed_disk;
mod flow_control;
mod full_disk;
mod hostile;
mod interleavings;
mod keep_alive;
mod malformed;
mod ordering;
mod overlap;
mod packet_size;
mod properties;
mod publishing;
mod qos2;
mod queue_figures;
mod queue_hostile;
mod queue_joining;
mod queue_late;
mod queue_leaving;
mod queue_limits;
mod queue_recovery;
mod queues;
mod recovery;
mod resume;
mod retained;
mod session_life;
mod shared;
mod shutdown;
mod storage;
mod subscribing;
mod takeover;
mod wills;
mod workers;
