//! The disk fails or is full, before the broker crashes.

use dunlin::worker::Level;
use dunlin_packets::AckKind;

use super::audit::{Auditor, Verdict, Violation};
use super::link::Incoming;
use super::session::Departure;
use super::world::World;

/// The broker looks for space again in time.
const FULL_PAUSE_MS: u64 = 1000;

/// What happens to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A sync fails: from there on the broker takes nothing that it would have to keep.
    Sync,
    /// There is no more space: nothing new is taken.
    Space,
}

impl World {
    /// Mostly none.
    pub(super) fn draw_fault(&mut self) -> Fault {
        match self.random.below(100) {
            // Without syncs nothing is safe from that.
            0..12 if self.settings.durability.level == Level::Fsync => Fault::Sync,
            12..25 => Fault::Space,
            _ => Fault::None,
        }
    }

    /// The disk fails, clients publish, and the broker does something about it. Says how much had
    /// come for each client before.
    pub(super) fn suffer(&mut self, fault: Fault) -> Result<Vec<usize>, Violation> {
        if fault == Fault::None {
            return Ok(Vec::new());
        }
        self.gather()?;
        let arrived = |client: &super::client::SimClient| {
            client.link.as_ref().map_or(0, |link| link.arrived.len())
        };
        let arrived = self.clients.iter().map(arrived).collect();
        let count = self.random.below(4);
        let disk = self.broker.sim().disk();
        if fault == Fault::Sync {
            disk.fail_syncs_after(count);
        } else {
            let bytes = disk.bytes() as usize + 300 * count;
            disk.limit_capacity(bytes);
        }
        for _ in 0..5 {
            for index in 0..self.clients.len() {
                if self.random.percent(30) {
                    self.publish(index);
                }
            }
            if self.random.percent(50) {
                self.broker.run();
            } else {
                self.broker.run_a_little(&mut self.random);
            }
        }
        Ok(arrived)
    }

    /// There is space again, and nothing is lost. All connections are given up: some have been
    /// ended, and nobody is to know which.
    pub(super) fn recover(&mut self, arrived: &[usize]) -> Verdict {
        self.note("the disk was full, and has space again");
        self.hear_the_last(Fault::Space, arrived)?;
        for index in 0..self.clients.len() {
            let count = self.random.portion();
            self.read(index, count)?;
            let Some(link) = self.clients[index].link.take() else { continue };
            link.client.close();
            self.let_go(index, &link, Departure::Broken);
        }
        self.broker.sim().disk().heal();
        self.audit.tick += 1;
        self.broker.sim().advance_ms(FULL_PAUSE_MS);
        self.audit.on_time(self.audit.now_ms + FULL_PAUSE_MS);
        self.rest()
    }

    /// What came last before the broker ended, the end of connections included. When the log had
    /// failed, deliveries and their ends went out that it did not have: they are as good as lost
    /// here.
    pub(super) fn hear_the_last(&mut self, fault: Fault, arrived: &[usize]) -> Verdict {
        let Self { clients, audit, .. } = self;
        for client in clients.iter_mut() {
            let Some(link) = &mut client.link else { continue };
            link.receive(&audit.names, &audit.publications, audit.now_ms)?;
            let mut place = 0;
            let known = arrived.get(client.index).copied().unwrap_or(0);
            let mut was_refused = false;
            link.arrived.retain(|incoming| {
                place += 1;
                match incoming {
                    Incoming::Disconnect(_) => false,
                    Incoming::Publish(_)
                    | Incoming::Ack(AckKind::PubRel | AckKind::PubComp, ..) => {
                        fault != Fault::Sync || place <= known
                    }
                    // A subscription that cannot be kept is as if it had not been asked for.
                    Incoming::Answer(_, codes) => {
                        was_refused |= codes.iter().any(|code| matches!(code, 0x80 | 0x83 | 0x97));
                        !was_refused
                    }
                    _ => true,
                }
            });
        }
        if fault != Fault::None {
            self.audit.on_refusals();
        }
        Ok(())
    }
}

impl Auditor {
    /// Connections may have ended whose clients could not be told otherwise, with their wills.
    fn on_refusals(&mut self) {
        for client in 0..self.sessions.len() {
            if let Some(will) = self.sessions[client].will.take() {
                self.on_will_unclear(will.publication);
            }
        }
    }
}
