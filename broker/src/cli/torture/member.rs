//! What publishers, subscribers and consumers have in common: a session, and connections to it that
//! come and go.

use super::random::Random;
use super::shared::{Address, Phase, Shared};
use super::wire::{Broken, Greeting, Identity, Link};

/// How long a client tries to connect: a start of the broker and more.
const DIAL_LIMIT_MS: u64 = 120_000;
/// Between two tries.
const RETRY_MS: u64 = 3;
/// Texts of faults that are kept for the report.
const TEXTS_MAX: usize = 5;

/// What went wrong for one client, beside what it did not get.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// CONNACKs without the session that there had to be.
    pub(super) sessions_lost: u64,
    /// Payloads that are no publication of the run, or not at their topic, or at another QoS.
    pub(super) mangled: u64,
    /// Everything else the broker must not do.
    pub(super) other: u64,
    /// What that was, as far as there is room.
    pub(super) texts: Vec<String>,
}

/// A client with a session, which lasts unless its identity says otherwise.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) shared: &'a Shared,
    pub(super) identity: Identity,
    pub(super) random: Random,
    pub(super) faults: Faults,
    /// Whether a CONNACK has come, so that from here on there is a session, if it is to last.
    had_session: bool,
    /// The broker of the latest connection.
    address: Option<Address>,
}

impl<'a> Member<'a> {
    pub(super) fn new(shared: &'a Shared, identity: Identity, stream: u64) -> Self {
        let random = Random::new(shared.seed, stream);
        let faults = Faults::default();
        Self { shared, identity, random, faults, had_session: false, address: None }
    }

    /// Connects as soon as there is a broker. `None` when the run is over, or when it takes too
    /// long, which is a fault.
    pub(super) fn dial(&mut self) -> Option<(Link, Greeting)> {
        let end = self.shared.now().plus_millis(DIAL_LIMIT_MS);
        while self.shared.now() < end {
            self.address = self.shared.address();
            if let Some(address) = self.address {
                match Link::open(address.port, &self.identity) {
                    Ok((link, greeting)) => {
                        self.faults.sessions_lost +=
                            u64::from(self.had_session && !greeting.session_present);
                        self.had_session = self.identity.is_persistent;
                        return Some((link, greeting));
                    }
                    Err(broken) => self.ended(broken),
                }
            }
            if !self.shared.pause(RETRY_MS) {
                return None;
            }
        }
        self.fault("no connection in time");
        None
    }

    /// Which life of the broker the latest connection belongs to.
    pub(super) fn life(&self) -> u32 {
        self.address.map_or(0, |address| address.life)
    }

    /// The connection is over: a fault unless a kill is the reason.
    pub(super) fn ended(&mut self, broken: Broken) {
        match broken {
            Broken::Closed(error) => {
                let address = self.shared.address();
                if address.is_some() && address == self.address {
                    self.fault(&format!("the connection ended without a kill: {error}"));
                }
            }
            Broken::Fault(text) => self.fault(&text),
        }
    }

    pub(super) fn fault(&mut self, text: &str) {
        self.faults.other += 1;
        if self.faults.texts.len() < TEXTS_MAX {
            self.faults.texts.push(format!("{}: {text}", self.identity.client_id));
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.shared.phase() == Phase::Over
    }
}
