//! Partitioned queues as MQTT sees them: names in topics, wishes in user properties, and back. Pure
//! functions; what a queue does is in `dunlin_queue::partitioned`.
//!
//! * [`address`]: `$queue/<name>/<routing key>`, verbs, subscriptions
//! * [`terms`]: what publishers and consumers ask for
//! * [`compose`]: topics and properties of what consumers get
//! * [`settings`]: what the operator decides

pub mod address;
pub mod compose;
pub mod settings;
pub mod terms;

pub use address::{
    PublishTo, QueueName, SubscribeTo, Verb, check_group, is_queue_topic, publish_to, subscribe_to,
};
pub use compose::{
    DeadInfo, DeliveryInfo, alive_properties, dead_properties, delivery_properties, delivery_topic,
    strip_reserved,
};
pub use settings::{QueueConfig, QueueSettings};
pub use terms::{ConsumerTerms, MessageTerms, RedriveTerms, SettleTerms};

/// What a client wrote that cannot be meant: a text for its reason string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);
