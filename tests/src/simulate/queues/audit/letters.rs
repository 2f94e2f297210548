//! Dead letters.
//!
//! * Each is of a message that a consumer has rejected, or that has had its attempts; there is one
//!   for a message and group, and the group does not get the message any more.
//! * What was rejected, and confirmed, has a letter.
//! * What is put back, and confirmed, comes to every group again, and is no letter any more.

use std::collections::{BTreeMap, BTreeSet};

use super::super::delivery::Delivery;
use super::super::{ATTEMPTS, GROUPS, LONER};
use super::Place;
use super::work::Work;

/// A letter that an undertaker has put back.
#[derive(Clone, Debug, Default)]
struct Redriven {
    asked: usize,
    confirmed: usize,
}

#[derive(Debug, Default)]
pub(in super::super) struct Letters {
    rejected: BTreeSet<Place>,
    rejected_safely: BTreeSet<Place>,
    /// The letter of a message.
    letters: BTreeMap<Place, String>,
    /// Letters that are none any more.
    gone: BTreeSet<String>,
    /// Settled by an acknowledgement: a power cut may undo that.
    acknowledged: BTreeSet<String>,
    /// By payload.
    redriven: BTreeMap<String, Redriven>,
    /// All there are were put back at least once, so nobody knows which.
    pub(in super::super) all_were_redriven: bool,
}

fn group_of(name: &str) -> Option<&'static str> {
    GROUPS.into_iter().chain([LONER]).find(|group| *group == name)
}

impl Letters {
    pub(in super::super) fn ask_reject(&mut self, place: Place) {
        self.rejected.insert(place);
    }

    pub(in super::super) fn confirm_reject(&mut self, place: Place) {
        self.rejected_safely.insert(place);
    }

    pub(super) fn receive(
        &mut self,
        queue: &str,
        letter: &Delivery,
        work: &Work,
    ) -> Result<(), String> {
        let payload = &letter.payload;
        let Some(group) = group_of(letter.user("x-dead-group")) else {
            return Err(format!("{payload} died in no group: {letter:?}"));
        };
        if letter.user("x-dead-queue") != queue || !payload.starts_with(queue) {
            return Err(format!("{payload} is a letter of {queue}: {letter:?}"));
        }
        let place = (group, letter.user("x-dead-message-id").to_owned());
        let is_right = match letter.user("x-dead-reason") {
            "rejected" => self.rejected.contains(&place),
            "exhausted" => work.most_attempts(&place, payload) >= u64::from(ATTEMPTS),
            _ => false,
        };
        if !is_right {
            return Err(format!("{payload} should not be dead: {letter:?}"));
        }
        if work.is_settled(&place) {
            return Err(format!("{payload} is dead, though {group} settled it"));
        }
        if self.gone.contains(letter.id()) || self.acknowledged.contains(letter.id()) {
            return Err(format!("{payload} is a letter again: {letter:?}"));
        }
        let known = self.letters.entry(place).or_insert_with(|| letter.id().to_owned());
        if known != letter.id() {
            return Err(format!("{payload} is dead twice: {known} and {}", letter.id()));
        }
        Ok(())
    }

    /// Whether a message has a letter.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.letters.contains_key(place)
    }

    /// The broker is at rest and has an undertaker's acknowledgement.
    pub(in super::super) fn acknowledge(&mut self, letter: String) {
        self.acknowledged.insert(letter);
    }

    pub(super) fn restarted(&mut self, is_cut: bool) {
        if is_cut {
            self.acknowledged.clear();
        }
    }

    pub(in super::super) fn ask_redrive(&mut self, payload: &str) {
        self.redriven.entry(payload.to_owned()).or_default().asked += 1;
    }

    /// A letter was put back, and that is safe.
    pub(in super::super) fn confirm_redrive(&mut self, letter: String, payload: &str) {
        // Who asks twice is told so twice.
        if self.gone.insert(letter) {
            self.redriven.entry(payload.to_owned()).or_default().confirmed += 1;
        }
    }

    /// How many messages of a payload there may be in its queue.
    pub(super) fn copies(&self, payload: &str) -> usize {
        match self.redriven.get(payload) {
            _ if self.all_were_redriven => usize::MAX,
            Some(redriven) => 1 + redriven.asked,
            None => 1,
        }
    }

    pub(super) fn received(&self) -> usize {
        self.letters.len()
    }

    pub(super) fn check_end(&self, work: &Work) -> Result<(), String> {
        if self.all_were_redriven {
            return Ok(());
        }
        let is_missing =
            |place: &&Place| !self.letters.contains_key(place) && !work.may_drop(&place.1);
        let missing: Vec<_> = self.rejected_safely.iter().filter(is_missing).collect();
        if !missing.is_empty() {
            return Err(format!("rejected, and without a letter: {missing:?}"));
        }
        for (payload, redriven) in &self.redriven {
            for group in GROUPS {
                let copies = work.copies(group, payload);
                if copies < redriven.confirmed {
                    let Redriven { confirmed, .. } = redriven;
                    return Err(format!(
                        "{payload} was put back {confirmed} times, and {group} got it {copies} times"
                    ));
                }
            }
        }
        Ok(())
    }
}
