//! What all have in common that are sent messages.

use super::audit::Audit;
use crate::{Client, Sim};

/// A client with one connection at a time.
pub(super) trait Connected {
    fn client(&self) -> Option<&Client>;

    /// The connection is gone, and what was on its way with it.
    fn end(&mut self, audit: &mut Audit) -> Result<(), String>;

    fn drop_connection(&mut self, sim: &mut Sim, audit: &mut Audit) -> Result<(), String> {
        if let Some(client) = self.client() {
            client.drop_connection(sim);
        }
        self.end(audit)
    }

    /// What has come since the last look.
    fn take(&self) -> Vec<String> {
        self.client().map(Client::take).unwrap_or_default()
    }

    /// Takes note of the end of the connection, if the last of `texts` says so. No broker gives one
    /// up without need.
    fn note_end(&mut self, texts: &[String], audit: &mut Audit) -> Result<(), String> {
        match texts.last() {
            Some(last) if last == "CLOSED" && audit.may_close => self.end(audit),
            Some(last) if last == "CLOSED" => Err(format!("a connection was closed: {texts:?}")),
            _ => Ok(()),
        }
    }
}
