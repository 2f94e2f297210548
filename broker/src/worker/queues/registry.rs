//! The queues at home here: made, opened, and removed when nobody uses them.

use std::sync::Arc;

use dunlin_packets::ReasonCode;
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Config, Queue};
use dunlin_router::{QueueId, Subscription, Target};

use super::consume::is_dead;
use super::{Burials, QueueKey, QueueSlot, Queues, Refusal, SparseMap};
use crate::queues::{QueueConfig, QueueName};
use crate::store::record::Record;
use crate::worker::settings::Level;
use crate::worker::{Transport, Worker};

/// What the core goes by.
pub(super) fn core_config(config: &QueueConfig) -> Config {
    Config { member_timeout_ms: config.member_timeout_ms(), ..config.core }
}

impl<T: Transport> Worker<T> {
    /// A queue that somebody named and that is not there.
    pub(super) fn create_asked_for(&mut self, name: &str) -> Result<QueueKey, Refusal> {
        if !self.shared.settings.queues.auto_create && !is_dead(name) {
            return Err(Refusal::bad_topic("there is no such queue"));
        }
        if let Some(code) = self.log_refusal() {
            return Err(Refusal::of_storage(code));
        }
        if self.is_counted(name) && !self.shared.try_add_queue() {
            return Err(Refusal::new(ReasonCode::QuotaExceeded, "as many queues as there may be"));
        }
        let config = self.queue_config(name);
        Ok(self.create_queue(name, &config))
    }

    /// Whether a queue counts when it is made and when it is removed.
    pub(super) fn is_counted(&self, name: &str) -> bool {
        !is_dead(name) && !self.shared.settings.queues.is_declared(name)
    }

    /// The configuration of a queue: its own, that of its origin for dead letters, or the usual.
    pub(super) fn queue_config(&self, name: &str) -> Arc<QueueConfig> {
        let Ok(QueueName { name, is_dead }) = QueueName::parse(name) else {
            return Arc::clone(&self.queues.defaults);
        };
        let declared = &self.shared.settings.queues.declared;
        let own = declared.iter().find(|(declared, _)| declared == name);
        match own {
            None if !is_dead => Arc::clone(&self.queues.defaults),
            None => Arc::new(self.queues.defaults.dead_letter_config()),
            Some((_, config)) if is_dead => Arc::new(config.dead_letter_config()),
            Some((_, config)) => Arc::new(config.clone()),
        }
    }

    /// Makes a queue.
    pub(super) fn create_queue(&mut self, name: &str, config: &Arc<QueueConfig>) -> QueueKey {
        let core = self.queues.share(core_config(config));
        let queue = Queue::new(core).unwrap_or_else(|bad| {
            unreachable!("the configuration was checked at the start: {bad:?}");
        });
        let qid = match &self.journal {
            Some(journal) => journal.port.session_number(),
            None => {
                self.queues.last_qid += 1;
                self.queues.last_qid
            }
        };
        let key = self.insert_queue(qid, name, config, queue);
        tracing::info!(queue = name, "a queue was made");
        self.record_queue(key);
        key
    }

    /// Takes a queue in.
    pub(super) fn insert_queue(
        &mut self,
        qid: u64,
        name: &str,
        config: &Arc<QueueConfig>,
        queue: Queue,
    ) -> QueueKey {
        let topic = if is_dead(name) { name.to_owned() } else { format!("$queue/{name}") };
        let durability = &self.shared.settings.durability;
        let level = config.level.unwrap_or_else(|| durability.level(&topic));
        let entry = self.queues.slots.vacant_entry();
        let key = QueueKey { slot: entry.key() as u32, qid };
        let captures = config.capture.clone();
        entry.insert(Box::new(QueueSlot {
            key,
            name: name.into(),
            config: Arc::clone(config),
            level,
            queue,
            groups: Vec::new(),
            members: SparseMap::default(),
            lapsed: SparseMap::default(),
            by_session: SparseMap::default(),
            contents: Vec::new(),
            timer_at: Time::NEVER,
            counted_bytes: 0,
            counted_drops: 0,
            counted_expired: 0,
            state_at: 0,
            idle_looks: 0,
            burials: Burials::default(),
            said: 0,
        }));
        self.queues.directory.add(key.slot, &self.queues.slots);
        let is_counted = config.is_capture_acknowledged && level != Level::Memory;
        for filter in &captures {
            let target = Target::Queue(QueueId(key.slot));
            let added = self.subscriptions.subscribe(filter, target, Subscription::default());
            if added.is_first
                && let Some(interest) = &self.interest
            {
                interest.add(filter);
            }
            if let Some(journal) = self.journal.as_ref().filter(|_| is_counted) {
                // As a session would: publications are written down for it.
                journal.port.add_durable_session();
            }
        }
        key
    }

    /// Makes the queues of the configuration that are not there yet, and more partitions where it
    /// says more.
    pub(super) fn open_queues(&mut self) {
        self.queues.is_open = true;
        let shared = Arc::clone(&self.shared);
        for (name, config) in &shared.settings.queues.declared {
            if self.queue_home(QueueName { name, is_dead: false }) != self.index {
                continue;
            }
            match self.queues.find(name) {
                None => {
                    self.create_queue(name, &Arc::new(config.clone()));
                }
                Some(key) => self.grow_queue(key, config),
            }
        }
    }

    fn grow_queue(&mut self, key: QueueKey, config: &QueueConfig) {
        let Some(slot) = self.queues.get(key) else { return };
        let (now, wanted) = (slot.queue.partitions(), config.core.partitions);
        let name = &slot.name;
        if slot.queue.config().mode != config.core.mode {
            tracing::error!(queue = %name, "its mode stays as it was: messages are in it");
        }
        if wanted < now {
            tracing::warn!(queue = %name, partitions = now, "partitions cannot become fewer");
        }
        if wanted > now {
            tracing::info!(queue = %name, from = now, to = wanted, "more partitions");
            self.with_queue(key, |queue, cx| queue.grow(wanted, cx));
            self.absorb(key);
        }
    }

    /// Ends a queue that was made because somebody named it, and that nobody uses.
    pub(super) fn remove_queue(&mut self, key: QueueKey) {
        let is_durable = self.is_durable_queue(key);
        let Queues { slots, directory, log_bytes, .. } = &mut self.queues;
        let Some(slot) = slots.try_remove(key.slot as usize) else { return };
        directory.remove(key.slot, &slot);
        *log_bytes = log_bytes.saturating_sub(slot.counted_bytes);
        if let Some(journal) = self.journal.as_mut().filter(|_| is_durable) {
            journal.write(&Record::QueueEnd { qid: key.qid });
        }
        for filter in &slot.config.capture {
            let Some(id) = self.subscriptions.find(filter) else { continue };
            let interest = &self.interest;
            self.subscriptions.unsubscribe(id, Target::Queue(QueueId(key.slot)), |gone| {
                if let Some(interest) = interest {
                    interest.remove(gone);
                }
            });
            if slot.config.is_capture_acknowledged
                && slot.level != Level::Memory
                && let Some(journal) = &self.journal
            {
                journal.port.remove_durable_session();
            }
        }
        if self.is_counted(&slot.name) {
            self.shared.remove_queue();
        }
        tracing::info!(queue = %slot.name, "a queue that nobody used was removed");
        if slot.said != 0 {
            self.publish_text(&format!("queues/{}", slot.name), "");
        }
    }
}
