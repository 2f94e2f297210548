//! What was published.
//!
//! * What nobody published, or was refused, is delivered to nobody.
//! * Nothing is delivered before its time, or when its time is over.

use std::collections::BTreeMap;

use dunlin_queue::Time;

use super::super::LOOK_MS;
use super::super::delivery::Delivery;

/// How far a publication is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Stage {
    /// Nobody knows.
    Out,
    Acknowledged,
    Refused,
}

/// A publication.
#[derive(Clone, Debug)]
pub(in super::super) struct Sent {
    pub(in super::super) topic: String,
    pub(in super::super) not_before: Time,
    expiry_s: u32,
    /// It may be delivered until then.
    pub(in super::super) expires: Time,
    pub(in super::super) stage: Stage,
}

impl Sent {
    pub(in super::super) fn new(now: Time) -> Self {
        let (topic, stage) = (String::new(), Stage::Out);
        Self { topic, not_before: now, expiry_s: 0, expires: Time::NEVER, stage }
    }

    pub(in super::super) fn expire_after(&mut self, now: Time, seconds: u32) {
        (self.expiry_s, self.expires) = (seconds, now.plus_seconds(seconds));
    }
}

/// All publications, by their payloads: `queue/key/number`.
#[derive(Debug, Default)]
pub(in super::super) struct Publications(BTreeMap<String, Sent>);

impl Publications {
    pub(in super::super) fn send(&mut self, payload: &str, sent: Sent) {
        self.0.insert(payload.to_owned(), sent);
    }

    /// The same, later.
    pub(super) fn send_again(&mut self, payload: &str, now: Time) {
        if let Some(sent) = self.0.get_mut(payload).filter(|sent| sent.expiry_s > 0) {
            sent.expire_after(now, sent.expiry_s);
        }
    }

    pub(super) fn set_stage(&mut self, payload: &str, stage: Stage) {
        if let Some(sent) = self.0.get_mut(payload) {
            sent.stage = stage;
        }
    }

    /// Whether a delivery may be.
    pub(super) fn check(&self, delivery: &Delivery, now: Time) -> Result<(), String> {
        let payload = &delivery.payload;
        let Some(sent) = self.0.get(payload) else {
            return Err(format!("{payload} was published by nobody"));
        };
        if sent.stage == Stage::Refused {
            return Err(format!("{payload} was refused, and is delivered"));
        }
        if now < sent.not_before {
            return Err(format!("{payload} comes {} ms early", sent.not_before.millis_since(now)));
        }
        let source = delivery.user("x-source-topic");
        let key = sent.topic.strip_prefix("$queue/").and_then(|rest| rest.split_once('/'));
        let (queue, key) = key.unwrap_or(("m", &sent.topic));
        if delivery.topic != format!("$queue/{queue}/{key}") {
            return Err(format!("{payload} has the topic {}", delivery.topic));
        }
        if !delivery.id().is_empty() && (queue == "m") != (source == sent.topic) {
            return Err(format!("{payload} has the source {source}, published to {}", sent.topic));
        }
        Ok(())
    }

    /// Whether a delivery is in time.
    pub(super) fn check_expiry(&self, delivery: &Delivery, now: Time) -> Result<(), String> {
        let payload = &delivery.payload;
        let expires = self.0.get(payload).map_or(Time::NEVER, |sent| sent.expires);
        match expires.plus_millis(LOOK_MS) < now {
            true => Err(format!("{payload} comes {} ms late", now.millis_since(expires))),
            false => Ok(()),
        }
    }

    /// What of a queue has to be there for everybody.
    pub(super) fn owed<'a>(&'a self, queue: &str) -> impl Iterator<Item = &'a String> {
        let prefix = format!("{queue}/");
        let is_owed =
            |sent: &Sent| sent.stage == Stage::Acknowledged && sent.expires == Time::NEVER;
        self.0
            .iter()
            .filter(move |(payload, sent)| payload.starts_with(&prefix) && is_owed(sent))
            .map(|(payload, _)| payload)
    }
}
