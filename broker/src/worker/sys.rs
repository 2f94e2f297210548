//! `$SYS`: the broker about itself, as retained messages.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dunlin_packets::{Properties, QoS};
use dunlin_queue::{DropReason, MessageFields};

use super::timers::Timer;
use super::{StatsTotal, Transport, Worker};

impl<T: Transport> Worker<T> {
    /// Publishes the figures of all workers.
    pub(super) fn publish_sys(&mut self) {
        let interval_ms = self.shared.settings.sys_interval_ms;
        if interval_ms == 0 {
            return;
        }
        let total = StatsTotal::of(&self.shared.stats);
        let uptime_s = self.now.millis_since(self.shared.started) / 1000;
        self.publish_text("version", concat!("dunlin ", env!("CARGO_PKG_VERSION")));
        for (name, value) in [
            ("uptime", uptime_s),
            ("clients/connected", total.online),
            ("clients/total", total.sessions),
            ("subscriptions/count", total.subscriptions),
            ("retained messages/count", total.retained),
            ("messages/received", total.publishes_received),
            ("messages/sent", total.publishes_sent),
            ("messages/stored", total.messages_held),
            ("messages/stored/bytes", total.message_bytes_held),
            ("bytes/received", total.bytes_received),
            ("bytes/sent", total.bytes_sent),
            ("connections/accepted", total.connects),
            ("connections/refused", total.refused),
            ("publishers/paused", total.paused),
            ("messages/acknowledged/fsync", total.acknowledged_fsync),
            ("messages/acknowledged/interval", total.acknowledged_interval),
            ("messages/acknowledged/memory", total.acknowledged_memory),
        ] {
            self.publish_text(name, &value.to_string());
        }
        self.publish_storage();
        for reason in DropReason::ALL {
            let name = format!("messages/dropped/{}", reason.name());
            self.publish_text(&name, &total.dropped[reason as usize].to_string());
        }
        self.timers.add(self.now.plus_millis(interval_ms), Timer::Sys);
    }

    /// How the log is, and what was acknowledged at which level.
    fn publish_storage(&mut self) {
        let Some(port) = self.journal.as_ref().map(|journal| Arc::clone(&journal.port)) else {
            return self.publish_text("storage/state", "none");
        };
        self.publish_text("storage/state", port.state().name());
        let figures = &port.figures;
        for (name, figure) in [
            ("bytes", &figures.bytes),
            ("segments", &figures.segments),
            ("segments removed", &figures.removed),
            ("bytes written", &figures.written),
            ("frames written", &figures.frames),
            ("syncs", &figures.syncs),
        ] {
            self.publish_text(
                &format!("storage/{name}"),
                &figure.load(Ordering::Relaxed).to_string(),
            );
        }
    }

    pub(super) fn publish_text(&mut self, name: &str, value: &str) {
        let topic = format!("$SYS/broker/{name}");
        let fields = MessageFields {
            topic: &topic,
            payload: value.as_bytes(),
            properties: Properties::default(),
            qos: QoS::AtMostOnce,
            retain: true,
            publisher: 0,
        };
        let message = self.pool.insert(&fields, self.now);
        self.publish(&message, None);
        self.pool.release(message);
    }
}
