//! What a PUBLISH to a consumer says about its message.

use std::fmt;

use dunlin_packets::{Properties, Property};

use super::Group;
use crate::cli::torture::publication::{Publication, QUEUE};

/// A message of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MessageId {
    pub(super) partition: u32,
    pub(super) offset: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{QUEUE}:{}:{}", self.partition, self.offset)
    }
}

impl MessageId {
    fn read(text: &str) -> Option<Self> {
        let (partition, offset) = text.strip_prefix(QUEUE)?.strip_prefix(':')?.split_once(':')?;
        Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
    }
}

/// Which message it is, for the how manieth time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) message: MessageId,
    /// From 1.
    pub(super) number: u32,
}

impl Attempt {
    /// Reads the properties of a delivery to `group`; `None` if they are not complete.
    pub(super) fn read(group: Group, properties: Properties<'_>) -> Option<Self> {
        let find = |name: &str| {
            properties.iter().find_map(|property| match property {
                Property::UserProperty(key, value) if key == name => Some(value),
                _ => None,
            })
        };
        let message = MessageId::read(find("message-id")?)?;
        let number = find("attempt")?.parse().ok()?;
        (find("group-id")? == group.name()).then_some(Self { message, number })
    }
}

/// A delivery as a consumer got it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivery {
    pub(super) publication: Publication,
    /// Before 5.0 nobody is told.
    pub(super) attempt: Option<Attempt>,
    /// The same packet as before by its flag, or one about which the consumer has said something
    /// already, so that others may have gone on.
    pub(super) is_repeated: bool,
    /// Which life of the broker the connection belongs to.
    pub(super) life: u32,
}

#[cfg(test)]
mod tests {
    use dunlin_packets::PropertiesBuf;

    use super::*;

    #[test]
    fn properties_say_which_message_of_which_group_it_is() {
        let read = |id: &str, group: &str| {
            let mut properties = PropertiesBuf::new();
            for (key, value) in [("message-id", id), ("group-id", group), ("attempt", "2")] {
                properties.push_user(key, value);
            }
            Attempt::read(Group::Auto, properties.as_properties())
        };
        let message = MessageId { partition: 3, offset: 17 };
        assert_eq!(read("torture:3:17", "auto"), Some(Attempt { message, number: 2 }));
        assert_eq!(message.to_string(), "torture:3:17");
        for (id, group) in
            [("torture:3:17", "verbs"), ("other:3:17", "auto"), ("torture:3", "auto")]
        {
            assert_eq!(read(id, group), None);
        }
    }
}
