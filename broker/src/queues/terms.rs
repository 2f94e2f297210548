//! What publishers and consumers ask for, in user properties. Of equal names the last counts; names
//! that are not known here are the application's own.

use std::fmt::{self, Write as _};

use dunlin_packets::{Properties, Property};
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Commit, MessageId, Start};

use super::Malformed;
use super::address::{QueueName, check_group};

/// Messages a consumer may ask for ahead of its answers.
pub const PREFETCH_MAX: u32 = 10_000;

/// What a publisher asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageTerms<'a> {
    /// `partition-key`: messages with the same one keep their order. An empty one is none.
    pub partition_key: Option<&'a str>,
    /// `priority`: 0 to 9, which is first.
    pub priority: u8,
    /// `deliver-at`: milliseconds since 1970. Not before that.
    pub deliver_at: Option<Time>,
    /// `delay`: as [`parse_duration`] takes it. Not before so many milliseconds have passed.
    pub delay_ms: Option<u64>,
}

impl<'a> MessageTerms<'a> {
    /// Reads the properties of a publication.
    ///
    /// # Errors
    /// When a value is none of those above.
    pub fn read(properties: Properties<'a>) -> Result<Self, Malformed> {
        let [key, priority, deliver_at, delay] =
            last_values(properties, ["partition-key", "priority", "deliver-at", "delay"]);
        let priority = match priority.map(str::as_bytes) {
            None => 0,
            Some([digit @ b'0'..=b'9']) => digit - b'0',
            Some(_) => return Err(Malformed("priority is not a digit from 0 to 9")),
        };
        let deliver_at = deliver_at.map(|text| {
            let at = parse_digits(text).map(Time::from_millis);
            at.ok_or(Malformed("deliver-at is not a number of milliseconds since 1970"))
        });
        Ok(Self {
            partition_key: key.filter(|key| !key.is_empty()),
            priority,
            deliver_at: deliver_at.transpose()?,
            delay_ms: read_delay(delay)?,
        })
    }

    /// When the message is due, if not at once: of two wishes the later.
    #[must_use]
    pub fn due(&self, now: Time) -> Option<Time> {
        self.deliver_at.max(self.delay_ms.map(|delay| now.plus_millis(delay)))
    }
}

/// What a consumer says of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleTerms<'a> {
    /// `message-id` of the delivery.
    pub message: MessageId,
    /// The queue in it, which is the one that is addressed.
    pub queue: &'a str,
    /// `group-id` of the delivery.
    pub group: &'a str,
    /// `delay`: as [`parse_duration`] takes it, in milliseconds.
    pub delay_ms: Option<u64>,
    /// `reason`: why it was rejected.
    pub reason: Option<&'a str>,
}

impl<'a> SettleTerms<'a> {
    /// Reads the properties of a verb to `queue`.
    ///
    /// # Errors
    /// When message or group is missing, the message is another queue's, or a value is none of
    /// those above.
    pub fn read(properties: Properties<'a>, queue: QueueName<'_>) -> Result<Self, Malformed> {
        let [id, group, delay, reason] =
            last_values(properties, ["message-id", "group-id", "delay", "reason"]);
        let id = id.ok_or(Malformed("message-id is missing"))?;
        let group = group.ok_or(Malformed("group-id is missing"))?;
        check_group(group)?;
        let (name, message) = read_message_id(id, queue)?;
        Ok(Self { message, queue: name, group, delay_ms: read_delay(delay)?, reason })
    }
}

/// Which dead letters are to go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedriveTerms {
    /// `message-id`, of the dead letter; `None` for all of the queue.
    pub message: Option<MessageId>,
}

impl RedriveTerms {
    /// Reads the properties of a `$redrive` to `queue`.
    ///
    /// # Errors
    /// When the message is none, or another queue's.
    pub fn read(properties: Properties<'_>, queue: QueueName<'_>) -> Result<Self, Malformed> {
        let [id] = last_values(properties, ["message-id"]);
        let message = id.map(|id| read_message_id(id, queue)).transpose()?;
        Ok(Self { message: message.map(|(_, message)| message) })
    }
}

/// What a subscriber to a queue asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerTerms<'a> {
    /// `consumer-group`, as [`check_group`] allows it. `None`: the client identifier, of which that
    /// has to be asked too.
    pub group: Option<&'a str>,
    /// `settle`: `auto`, then PUBACK and PUBREC are the answer, or `manual`.
    pub is_auto_settled: Option<bool>,
    /// `commit`: `auto` or `explicit`. For streams.
    pub commit: Commit,
    /// `stream-offset`: `earliest`, `latest`, an offset, or `timestamp:` and milliseconds since
    /// 1970. A number of exactly 13 digits is a timestamp too, from 2001 to 2286: that is how EMQX
    /// has it, and no offset is that large.
    pub start: Option<Start>,
    /// `stream-replay`: `true`, then a group that exists begins at [`Self::start`] too.
    pub is_replay: bool,
    /// `prefetch`: 1 to [`PREFETCH_MAX`].
    pub prefetch: Option<u32>,
}

impl<'a> ConsumerTerms<'a> {
    /// Reads the properties of a subscription.
    ///
    /// # Errors
    /// When a value is none of those above.
    pub fn read(properties: Properties<'a>) -> Result<Self, Malformed> {
        let [group, settle, commit, start, replay, prefetch] = last_values(
            properties,
            ["consumer-group", "settle", "commit", "stream-offset", "stream-replay", "prefetch"],
        );
        let is_replay = match replay {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Malformed("stream-replay is neither true nor false")),
        };
        group.map(check_group).transpose()?;
        let is_auto_settled = match settle {
            None => None,
            Some("auto") => Some(true),
            Some("manual") => Some(false),
            Some(_) => return Err(Malformed("settle is neither auto nor manual")),
        };
        let commit = match commit {
            None | Some("auto") => Commit::Auto,
            Some("explicit") => Commit::Explicit,
            Some(_) => return Err(Malformed("commit is neither auto nor explicit")),
        };
        let start = start.map(|text| {
            parse_start(text).ok_or(Malformed(
                "stream-offset is none of earliest, latest, an offset, timestamp:<milliseconds>",
            ))
        });
        let prefetch = prefetch.map(|text| {
            let number = parse_digits(text).and_then(|number| u32::try_from(number).ok());
            let number = number.filter(|number| (1..=PREFETCH_MAX).contains(number));
            number.ok_or(Malformed("prefetch is not between 1 and 10000"))
        });
        let (start, prefetch) = (start.transpose()?, prefetch.transpose()?);
        Ok(Self { group, is_auto_settled, commit, start, is_replay, prefetch })
    }
}

/// Digits of a time in milliseconds between 2001 and 2286.
const TIMESTAMP_DIGITS: usize = 13;

fn parse_start(text: &str) -> Option<Start> {
    let timestamp = |millis| Start::Timestamp(Time::from_millis(millis));
    match text {
        "earliest" => return Some(Start::Earliest),
        "latest" => return Some(Start::Latest),
        _ => {}
    }
    if let Some(millis) = text.strip_prefix("timestamp:") {
        return parse_digits(millis).map(timestamp);
    }
    let number = parse_digits(text)?;
    Some(if text.len() == TIMESTAMP_DIGITS { timestamp(number) } else { Start::Offset(number) })
}

/// A message as clients are told of it: `<queue>:<partition>:<offset>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageName<'a> {
    /// Of which queue.
    pub queue: QueueName<'a>,
    /// Which of its messages.
    pub id: MessageId,
}

impl fmt::Display for MessageName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.queue, self.id.partition, self.id.offset)
    }
}

/// Appends a [`MessageName`].
pub fn write_message_id(queue: QueueName<'_>, id: MessageId, out: &mut String) {
    // Writing to a string does not fail.
    let _ = write!(out, "{}", MessageName { queue, id });
}

/// Reads what [`write_message_id`] writes: the queue's name as it stands there, and the message.
///
/// # Errors
/// When it is not that.
pub fn parse_message_id(text: &str) -> Result<(&str, MessageId), Malformed> {
    let read = || {
        let (rest, offset) = text.rsplit_once(':')?;
        let (queue, partition) = rest.rsplit_once(':')?;
        let partition = u16::try_from(parse_digits(partition)?).ok()?;
        Some((queue, MessageId { partition, offset: parse_digits(offset)? }))
    };
    read().ok_or(Malformed("message-id is not <queue>:<partition>:<offset>"))
}

fn read_message_id<'a>(
    text: &'a str,
    queue: QueueName<'_>,
) -> Result<(&'a str, MessageId), Malformed> {
    let (name, id) = parse_message_id(text)?;
    if QueueName::parse(name) != Ok(queue) {
        return Err(Malformed("message-id is of another queue"));
    }
    Ok((name, id))
}

fn read_delay(text: Option<&str>) -> Result<Option<u64>, Malformed> {
    text.map(|text| {
        parse_duration(text)
            .ok_or(Malformed("delay is not a number of milliseconds, or one with ms, s, m, h or d"))
    })
    .transpose()
}

/// Milliseconds: a number of them, or of units: `500`, `500ms`, `30s`, `5m`, `2h`, `7d`. `None`
/// when it is something else, or does not fit.
#[must_use]
pub fn parse_duration(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    let factor = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 24 * 3600 * 1000,
        _ => return None,
    };
    parse_digits(digits)?.checked_mul(factor)
}

/// A number of nothing but digits; the standard library allows a sign.
fn parse_digits(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// The last value of each of these user properties.
fn last_values<'a, const N: usize>(
    properties: Properties<'a>,
    names: [&str; N],
) -> [Option<&'a str>; N] {
    let mut values = [None; N];
    for property in properties.iter() {
        if let Property::UserProperty(name, value) = property
            && let Some(at) = names.iter().position(|known| *known == name)
        {
            values[at] = Some(value);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use dunlin_packets::PropertiesBuf;

    use super::*;

    const ORDERS: QueueName<'_> = QueueName { name: "orders", is_dead: false };

    fn properties(pairs: &[(&str, &str)]) -> PropertiesBuf {
        let mut buf = PropertiesBuf::new();
        buf.push(Property::ContentType("priority"));
        for (name, value) in pairs {
            buf.push(Property::UserProperty(name, value));
        }
        buf
    }

    fn message_error(name: &str, value: &str) -> &'static str {
        let buf = properties(&[(name, value)]);
        MessageTerms::read(buf.as_properties()).expect_err(value).0
    }

    #[test]
    fn without_properties_nothing_is_asked_for() {
        assert_eq!(MessageTerms::read(Properties::default()), Ok(MessageTerms::default()));
        assert_eq!(ConsumerTerms::read(Properties::default()), Ok(ConsumerTerms::default()));
        let others = properties(&[("Priority", "x"), ("", ""), ("delays", "x"), ("PREFETCH", "0")]);
        assert_eq!(MessageTerms::read(others.as_properties()), Ok(MessageTerms::default()));
        let auto = ConsumerTerms::read(others.as_properties()).expect("nothing asked for");
        assert_eq!(auto.is_auto_settled, None);
    }

    #[test]
    fn a_publisher_asks_for_key_priority_and_time() {
        let buf = properties(&[
            ("partition-key", "customer 7"),
            ("priority", "9"),
            ("deliver-at", "1790000000000"),
            ("delay", "5m"),
        ]);
        let terms = MessageTerms {
            partition_key: Some("customer 7"),
            priority: 9,
            deliver_at: Some(Time::from_millis(1_790_000_000_000)),
            delay_ms: Some(300_000),
        };
        assert_eq!(MessageTerms::read(buf.as_properties()), Ok(terms));
    }

    #[test]
    fn the_last_of_equal_names_counts_even_if_the_first_is_bad() {
        let buf = properties(&[("priority", "bad"), ("partition-key", "a"), ("priority", "3")]);
        assert_eq!(MessageTerms::read(buf.as_properties()).expect("the last is good").priority, 3);
        let buf = properties(&[("priority", "3"), ("priority", "bad")]);
        assert!(MessageTerms::read(buf.as_properties()).is_err());
        let buf = properties(&[("partition-key", "a"), ("partition-key", "")]);
        assert_eq!(MessageTerms::read(buf.as_properties()), Ok(MessageTerms::default()));
    }

    #[test]
    fn what_a_publisher_cannot_mean_is_refused() {
        for priority in ["", "10", "-1", "+1", " 1", "1 ", "1.0", "٣", "99999999999999999999"] {
            assert!(message_error("priority", priority).starts_with("priority"), "{priority}");
        }
        for at in ["", "now", "-1", "+5", "5s", "1.5", "18446744073709551616", "2026-11-25"] {
            assert!(message_error("deliver-at", at).starts_with("deliver-at"), "{at}");
        }
        for delay in ["", "s", "-1s", "+1s", "5 s", "5S", "1w", "1.5s", "é", "5µs", "s5"] {
            assert!(message_error("delay", delay).starts_with("delay"), "{delay}");
        }
        for delay in ["18446744073709551616", "18446744073709551615s", "213503982335d"] {
            assert!(message_error("delay", delay).starts_with("delay"), "{delay}");
        }
    }

    #[test]
    fn a_duration_has_a_unit_or_is_in_milliseconds() {
        let millis = [("0", 0), ("7", 7), ("7ms", 7), ("30s", 30_000), ("5m", 300_000)];
        let long = [("2h", 7_200_000), ("7d", 604_800_000), ("18446744073709551615", u64::MAX)];
        for (text, expected) in millis.into_iter().chain(long) {
            assert_eq!(parse_duration(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn of_two_times_the_later_is_when_a_message_is_due() {
        let now = Time::from_millis(1000);
        let due = |deliver_at: Option<u64>, delay_ms| {
            let deliver_at = deliver_at.map(Time::from_millis);
            let terms = MessageTerms { deliver_at, delay_ms, ..MessageTerms::default() };
            terms.due(now).map(Time::as_millis)
        };
        assert_eq!(due(None, None), None);
        assert_eq!(due(Some(5), None), Some(5));
        assert_eq!(due(None, Some(5)), Some(1005));
        assert_eq!(due(Some(1004), Some(5)), Some(1005));
        assert_eq!(due(Some(1006), Some(5)), Some(1006));
        assert_eq!(due(None, Some(u64::MAX)), Some(u64::MAX));
    }

    #[test]
    fn a_message_id_is_read_as_it_is_written() {
        let last = MessageId { partition: u16::MAX, offset: u64::MAX };
        for queue in [ORDERS, ORDERS.dead(), QueueName { name: "a:1:2", is_dead: false }] {
            for id in [MessageId::default(), last] {
                let mut text = String::new();
                write_message_id(queue, id, &mut text);
                assert_eq!(parse_message_id(&text), Ok((queue.to_string().as_str(), id)));
                assert_eq!(read_message_id(&text, queue).map(|(_, id)| id), Ok(id));
            }
        }
        let mut text = String::new();
        write_message_id(ORDERS.dead(), MessageId { partition: 3, offset: 77 }, &mut text);
        assert_eq!(text, "$dlq/orders:3:77");
    }

    #[test]
    fn what_is_not_a_message_id_is_refused() {
        let long = format!("{}:1:2", "n".repeat(60_000));
        let bad = ["", ":", "::", "orders", "orders:1", "orders:1:", "orders::1", "orders:+1:1"];
        let also =
            ["orders:1:-1", "orders:65536:0", "orders:0:18446744073709551616", "orders:1:2 "];
        for text in bad.into_iter().chain(also) {
            let refused = read_message_id(text, ORDERS).expect_err(text);
            assert!(refused.0.contains("is not <queue>"), "{text}");
        }
        for text in [":1:2", "order:1:2", "$dlq/orders:1:2", "$queue/orders:1:2", &long] {
            let refused = read_message_id(text, ORDERS).expect_err(text);
            assert!(refused.0.contains("another queue"), "{text}");
        }
        assert!(read_message_id("orders:1:2", ORDERS.dead()).is_err());
    }

    #[test]
    fn an_answer_says_which_message_and_for_which_group() {
        let buf = properties(&[
            ("reason", "no such customer"),
            ("message-id", "orders:1:2"),
            ("group-id", "billing"),
            ("delay", "10s"),
        ]);
        let terms = SettleTerms {
            message: MessageId { partition: 1, offset: 2 },
            queue: "orders",
            group: "billing",
            delay_ms: Some(10_000),
            reason: Some("no such customer"),
        };
        assert_eq!(SettleTerms::read(buf.as_properties(), ORDERS), Ok(terms));
        let refused = |pairs: &[(&str, &str)]| {
            SettleTerms::read(properties(pairs).as_properties(), ORDERS).expect_err("refused").0
        };
        let id = ("message-id", "orders:1:2");
        assert_eq!(refused(&[("group-id", "billing")]), "message-id is missing");
        assert_eq!(refused(&[id]), "group-id is missing");
        assert!(refused(&[id, ("group-id", "")]).contains("empty"));
        assert!(refused(&[id, ("group-id", "g"), ("delay", "soon")]).starts_with("delay"));
        assert!(refused(&[("message-id", "x:1:2"), ("group-id", "g")]).contains("another queue"));
    }

    #[test]
    fn redrive_is_of_one_or_all() {
        let read = |pairs: &[(&str, &str)]| {
            RedriveTerms::read(properties(pairs).as_properties(), ORDERS.dead())
        };
        assert_eq!(read(&[]), Ok(RedriveTerms { message: None }));
        let one = Some(MessageId { partition: 1, offset: 2 });
        assert_eq!(read(&[("message-id", "$dlq/orders:1:2")]), Ok(RedriveTerms { message: one }));
        // A slip must not mean all.
        for bad in ["", "all", "orders:1:2"] {
            assert!(read(&[("message-id", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_consumer_asks_for_group_settling_commit_start_and_prefetch() {
        let buf = properties(&[
            ("consumer-group", "billing"),
            ("settle", "auto"),
            ("commit", "explicit"),
            ("stream-offset", "latest"),
            ("stream-replay", "true"),
            ("prefetch", "10000"),
        ]);
        let terms = ConsumerTerms {
            group: Some("billing"),
            is_auto_settled: Some(true),
            commit: Commit::Explicit,
            start: Some(Start::Latest),
            is_replay: true,
            prefetch: Some(10_000),
        };
        assert_eq!(ConsumerTerms::read(buf.as_properties()), Ok(terms));
        let manual = properties(&[("settle", "manual"), ("commit", "auto")]);
        let terms = ConsumerTerms::read(manual.as_properties());
        let asked = ConsumerTerms { is_auto_settled: Some(false), ..ConsumerTerms::default() };
        assert_eq!(terms, Ok(asked));
    }

    #[test]
    fn what_a_consumer_cannot_mean_is_refused() {
        let long = "g".repeat(256);
        let bad = [
            ("consumer-group", ["", &long, "a\nb", "\u{9f}"]),
            ("settle", ["", "Auto", "none", "true"]),
            ("commit", ["", "manual", "never", "auto "]),
            ("stream-offset", ["", "first", "-1", "18446744073709551616"]),
            ("stream-offset", ["timestamp:", "timestamp:x", "timestamp:+1", "+1"]),
            ("stream-replay", ["", "yes", "1", "True"]),
            ("prefetch", ["", "0", "10001", "4294967297"]),
        ];
        for (name, values) in bad {
            for value in values {
                let buf = properties(&[(name, value)]);
                assert!(ConsumerTerms::read(buf.as_properties()).is_err(), "{name}={value}");
            }
        }
    }

    #[test]
    fn a_start_of_thirteen_digits_is_a_time() {
        let time = |millis| Some(Start::Timestamp(Time::from_millis(millis)));
        assert_eq!(parse_start("0"), Some(Start::Offset(0)));
        assert_eq!(parse_start("999999999999"), Some(Start::Offset(999_999_999_999)));
        assert_eq!(parse_start("1790000000000"), time(1_790_000_000_000));
        assert_eq!(parse_start("17900000000000"), Some(Start::Offset(17_900_000_000_000)));
        assert_eq!(parse_start("timestamp:12"), time(12));
        assert_eq!(parse_start("earliest"), Some(Start::Earliest));
    }
}
