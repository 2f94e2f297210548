//! Queues in topic names and topic filters.
//!
//! ```text
//! publish     $queue/<name>[/<routing key…>]
//!             $queue/<name>[/<routing key…>]/<verb>       $ack $nack $reject $extend $commit
//!             $dlq/<name>[/<routing key…>]/<verb>         these, and $redrive
//! subscribe   [$share/<group>/]$queue/<name>[/<filter>]
//!             [$share/<group>/]$dlq/<name>[/<filter>]
//! ```
//!
//! A verb in any other place than the last level is refused, and so is every other level that
//! begins with `$`: a slip would otherwise put a message into the queue that was to be
//! acknowledged.

use std::fmt;

use dunlin_packets::{is_valid_filter, levels, split_shared};

use super::Malformed;

/// Bytes of a queue's name.
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a consumer group's name.
pub const GROUP_BYTES_MAX: usize = 255;

/// What the topics of queues begin with.
pub const QUEUE_PREFIX: &str = "$queue/";
/// What the topics of dead-letter queues begin with.
pub const DEAD_PREFIX: &str = "$dlq/";

/// A queue, or the queue of its dead letters. Written `orders` or `$dlq/orders`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueName<'a> {
    /// One level, as [`QueueName::new`] allows it.
    pub name: &'a str,
    /// The dead letters of the queue of this name.
    pub is_dead: bool,
}

impl<'a> QueueName<'a> {
    /// The queue `name`: 1 to [`NAME_BYTES_MAX`] bytes without `/`, `+`, `#` and control
    /// characters, and no `$` at the beginning.
    ///
    /// # Errors
    /// When no queue can have this name.
    pub fn new(name: &'a str) -> Result<Self, Malformed> {
        if name.is_empty() {
            return Err(Malformed("the name of the queue is empty"));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(Malformed("the name of the queue is longer than 255 bytes"));
        }
        if name.starts_with('$') {
            return Err(Malformed("the name of a queue cannot begin with $"));
        }
        if name.contains(['+', '#']) {
            return Err(Malformed("the name of a queue cannot have wildcards"));
        }
        if name.contains(|letter: char| letter == '/' || letter.is_control()) {
            return Err(Malformed("the name of a queue cannot have / or control characters"));
        }
        Ok(Self { name, is_dead: false })
    }

    /// Reads what `Display` writes.
    ///
    /// # Errors
    /// When no queue can have this name.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        match text.strip_prefix(DEAD_PREFIX) {
            Some(name) => Self::new(name).map(Self::dead),
            None => Self::new(text),
        }
    }

    /// Where its dead letters go. Those of a dead-letter queue go nowhere else.
    #[must_use]
    pub fn dead(self) -> Self {
        Self { is_dead: true, ..self }
    }
}

impl fmt::Display for QueueName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_dead {
            f.write_str(DEAD_PREFIX)?;
        }
        f.write_str(self.name)
    }
}

/// What a consumer says to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// The message is done.
    Ack,
    /// It is to be delivered again.
    Nack,
    /// It is a dead letter.
    Reject,
    /// It takes longer.
    Extend,
    /// A stream's cursor moves.
    Commit,
    /// Dead letters go back where they came from.
    Redrive,
}

impl Verb {
    const ALL: [Self; 6] =
        [Self::Ack, Self::Nack, Self::Reject, Self::Extend, Self::Commit, Self::Redrive];

    /// As the last level of a topic says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ack => "$ack",
            Self::Nack => "$nack",
            Self::Reject => "$reject",
            Self::Extend => "$extend",
            Self::Commit => "$commit",
            Self::Redrive => "$redrive",
        }
    }

    fn parse(level: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == level)
    }
}

/// What a publication with a topic of this module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishTo<'a> {
    /// A message for a queue.
    Message {
        /// Never a dead-letter queue.
        queue: QueueName<'a>,
        /// The levels behind the name; may be empty.
        key: &'a str,
    },
    /// Something said to a queue.
    Verb {
        /// To which.
        queue: QueueName<'a>,
        /// What. [`Verb::Redrive`] to dead-letter queues only.
        verb: Verb,
    },
}

/// Whether queues are concerned at all: what every publication is asked.
#[inline]
#[must_use]
pub fn is_queue_topic(topic: &[u8]) -> bool {
    topic.first() == Some(&b'$')
        && (topic.starts_with(QUEUE_PREFIX.as_bytes()) || topic.starts_with(DEAD_PREFIX.as_bytes()))
}

/// What a publication to `topic` is; `None` when it does not concern queues.
pub fn publish_to(topic: &str) -> Option<Result<PublishTo<'_>, Malformed>> {
    let (is_dead, rest) = split_prefix(topic)?;
    Some(read_publish(is_dead, rest))
}

fn read_publish(is_dead: bool, rest: &str) -> Result<PublishTo<'_>, Malformed> {
    let (queue, key) = split_name(is_dead, rest)?;
    let (before, last) = key.rsplit_once('/').unwrap_or(("", key));
    if levels(before).any(|level| level.starts_with('$')) {
        return Err(Malformed("only the last level of a queue's topic can begin with $"));
    }
    if last.starts_with('$') {
        let verb = Verb::parse(last).ok_or(Malformed(
            "the last level is none of $ack, $nack, $reject, $extend, $commit and $redrive",
        ))?;
        if verb == Verb::Redrive && !is_dead {
            return Err(Malformed("$redrive is for $dlq/<queue>"));
        }
        return Ok(PublishTo::Verb { queue, verb });
    }
    if is_dead {
        return Err(Malformed("dead letters come from the broker; publish to $queue/<queue>"));
    }
    Ok(PublishTo::Message { queue, key })
}

/// What a subscription to a filter of this module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeTo<'a> {
    /// Which queue.
    pub queue: QueueName<'a>,
    /// Which routing keys, by [`filter_matches`](dunlin_packets::filter_matches); empty for all,
    /// those that begin with `$` included.
    pub filter: &'a str,
    /// The consumer group, if the filter is a shared one: the way of clients before 5.0.
    pub group: Option<&'a str>,
}

/// What a subscription to `filter` is; `None` when it does not concern queues, or is a shared one
/// that is malformed anyway.
pub fn subscribe_to(filter: &str) -> Option<Result<SubscribeTo<'_>, Malformed>> {
    let shared = split_shared(filter).ok()?;
    let (group, filter) =
        shared.map_or((None, filter), |shared| (Some(shared.group), shared.filter));
    let (is_dead, rest) = split_prefix(filter)?;
    Some(read_subscribe(is_dead, rest, group))
}

fn read_subscribe<'a>(
    is_dead: bool,
    rest: &'a str,
    group: Option<&'a str>,
) -> Result<SubscribeTo<'a>, Malformed> {
    let (queue, filter) = split_name(is_dead, rest)?;
    if !filter.is_empty() && !is_valid_filter(filter) {
        return Err(Malformed("what follows the name of the queue is not a topic filter"));
    }
    group.map(check_group).transpose()?;
    Ok(SubscribeTo { queue, filter: if filter == "#" { "" } else { filter }, group })
}

/// Whether a consumer group can have this name: 1 to [`GROUP_BYTES_MAX`] bytes, no control
/// characters.
///
/// # Errors
/// When it cannot.
pub fn check_group(group: &str) -> Result<(), Malformed> {
    if group.is_empty() {
        return Err(Malformed("the name of the consumer group is empty"));
    }
    if group.len() > GROUP_BYTES_MAX {
        return Err(Malformed("the name of the consumer group is longer than 255 bytes"));
    }
    if group.contains(char::is_control) {
        return Err(Malformed("the name of a consumer group cannot have control characters"));
    }
    Ok(())
}

/// Whether it is a dead-letter queue, and what follows the prefix.
fn split_prefix(topic: &str) -> Option<(bool, &str)> {
    if !topic.starts_with('$') {
        return None;
    }
    let queue = topic.strip_prefix(QUEUE_PREFIX).map(|rest| (false, rest));
    queue.or_else(|| topic.strip_prefix(DEAD_PREFIX).map(|rest| (true, rest)))
}

/// The queue, and the levels behind its name.
fn split_name(is_dead: bool, rest: &str) -> Result<(QueueName<'_>, &str), Malformed> {
    let (name, behind) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((QueueName { is_dead, ..QueueName::new(name)? }, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: QueueName<'_> = QueueName { name: "orders", is_dead: false };

    fn message(topic: &str) -> (&str, &str) {
        match publish_to(topic) {
            Some(Ok(PublishTo::Message { queue, key })) if !queue.is_dead => (queue.name, key),
            other => panic!("{topic}: {other:?}"),
        }
    }

    fn refusal(topic: &str) -> &'static str {
        publish_to(topic).unwrap_or_else(|| panic!("{topic}")).expect_err(topic).0
    }

    #[test]
    fn a_message_has_a_queue_and_perhaps_a_key() {
        assert_eq!(message("$queue/orders"), ("orders", ""));
        assert_eq!(message("$queue/orders/"), ("orders", ""));
        assert_eq!(message("$queue/orders/eu/42"), ("orders", "eu/42"));
        assert_eq!(message("$queue/orders//42"), ("orders", "/42"));
        assert_eq!(message("$queue/a:b c/x$ack"), ("a:b c", "x$ack"));
        assert_eq!(message("$queue/größe/ключ"), ("größe", "ключ"));
    }

    #[test]
    fn other_topics_are_none_of_its_business() {
        let topics =
            ["", "$", "$queue", "$dlq", "$queues/a", "$dlqs/a", "queue/a", "/$queue/a", "$SYS/a"];
        for topic in topics {
            assert_eq!(publish_to(topic), None, "{topic}");
            assert_eq!(subscribe_to(topic), None, "{topic}");
            assert!(!is_queue_topic(topic.as_bytes()), "{topic}");
        }
        for topic in ["$queue/", "$queue/a", "$dlq/", "$dlq/a/$redrive"] {
            assert!(is_queue_topic(topic.as_bytes()), "{topic}");
        }
    }

    #[test]
    fn a_verb_is_the_last_level() {
        for verb in Verb::ALL {
            let name = verb.name();
            let dead = PublishTo::Verb { queue: ORDERS.dead(), verb };
            assert_eq!(publish_to(&format!("$dlq/orders/{name}")), Some(Ok(dead)));
            let misplaced = refusal(&format!("$queue/orders/{name}/b"));
            assert!(misplaced.contains("last level"), "{misplaced}");
            if verb != Verb::Redrive {
                let alive = PublishTo::Verb { queue: ORDERS, verb };
                assert_eq!(publish_to(&format!("$queue/orders/{name}")), Some(Ok(alive)));
                assert_eq!(publish_to(&format!("$queue/orders/eu/42/{name}")), Some(Ok(alive)));
            }
        }
        assert!(refusal("$queue/orders/$redrive").contains("$dlq"));
    }

    #[test]
    fn levels_with_a_dollar_are_verbs_or_slips() {
        for topic in ["$queue/a/$ack/", "$queue/a/$ack/$ack", "$queue/a/$x/b", "$queue/a/b/$/c"] {
            assert!(refusal(topic).contains("last level of"), "{topic}");
        }
        for topic in ["$queue/a/$", "$queue/a/$acks", "$queue/a/$ACK", "$queue/a/b/$foo"] {
            assert!(refusal(topic).contains("none of $ack"), "{topic}");
        }
        assert!(refusal("$queue/$ack").contains("begin with $"));
        assert!(refusal("$queue/$share/a").contains("begin with $"));
    }

    #[test]
    fn nobody_publishes_dead_letters() {
        assert!(refusal("$dlq/orders").contains("from the broker"));
        assert!(refusal("$dlq/orders/eu/42").contains("from the broker"));
        assert!(refusal("$dlq/").contains("empty"));
    }

    #[test]
    fn names_have_limits() {
        assert!(refusal("$queue/").contains("empty"));
        assert!(refusal("$queue//x").contains("empty"));
        assert!(refusal("$queue//").contains("empty"));
        assert!(refusal("$queue/a\nb").contains("control"));
        let longest = "n".repeat(NAME_BYTES_MAX);
        assert_eq!(message(&format!("$queue/{longest}/k")), (longest.as_str(), "k"));
        assert!(refusal(&format!("$queue/{longest}n/k")).contains("255"));
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for queue in [ORDERS, ORDERS.dead()] {
            assert_eq!(QueueName::parse(&queue.to_string()), Ok(queue));
        }
        assert_eq!(ORDERS.dead().to_string(), "$dlq/orders");
        assert_eq!(ORDERS.dead().dead(), ORDERS.dead());
        for bad in ["", "$dlq/", "$dlq/$dlq/a", "$queue/a", "a/b", "a+", "#", "$dlq"] {
            assert!(QueueName::parse(bad).is_err(), "{bad}");
        }
    }

    fn subscription(filter: &str) -> (String, &str, Option<&str>) {
        let SubscribeTo { queue, filter, group } =
            subscribe_to(filter).unwrap_or_else(|| panic!("{filter}")).expect(filter);
        (queue.to_string(), filter, group)
    }

    #[test]
    fn a_subscription_has_a_queue_a_filter_and_perhaps_a_group() {
        let orders = || "orders".to_owned();
        for all in ["$queue/orders", "$queue/orders/", "$queue/orders/#"] {
            assert_eq!(subscription(all), (orders(), "", None), "{all}");
        }
        assert_eq!(subscription("$queue/orders/eu/#"), (orders(), "eu/#", None));
        assert_eq!(subscription("$queue/orders/+"), (orders(), "+", None));
        assert_eq!(subscription("$queue/orders/$SYS/#"), (orders(), "$SYS/#", None));
        assert_eq!(subscription("$dlq/orders/eu"), ("$dlq/orders".into(), "eu", None));
        assert_eq!(subscription("$share/g/$queue/orders/eu"), (orders(), "eu", Some("g")));
        assert_eq!(subscription("$share/g/$dlq/orders"), ("$dlq/orders".into(), "", Some("g")));
    }

    #[test]
    fn a_subscription_names_one_queue() {
        let refused = |filter: &str| subscribe_to(filter).expect(filter).expect_err(filter).0;
        for filter in ["$queue/#", "$queue/+", "$queue/+/x", "$dlq/#", "$share/g/$queue/+/x"] {
            assert!(refused(filter).contains("wildcards"), "{filter}");
        }
        assert!(refused("$queue/").contains("empty"));
        assert!(refused("$share/g/$queue//x").contains("empty"));
        assert!(refused("$queue/a/b#").contains("topic filter"));
        assert!(refused("$queue/a/#/b").contains("topic filter"));
        assert!(refused(&format!("$share/{}/$queue/a", "g".repeat(256))).contains("255"));
        assert!(refused("$share/g\u{7}/$queue/a").contains("control"));
        for ordinary in ["$share/$queue/a", "$share/g/a", "$share//$queue/a", "$share/g/$queue"] {
            assert_eq!(subscribe_to(ordinary), None, "{ordinary}");
        }
    }
}
