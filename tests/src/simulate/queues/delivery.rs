//! A delivery, read from its text.

/// What a consumer got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) packet_id: u16,
    pub(super) is_dup: bool,
    users: Vec<(String, String)>,
}

impl Delivery {
    /// `None` for another packet.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (topic, rest) = text.strip_prefix("PUBLISH ")?.split_once(" \"")?;
        let (payload, rest) = rest.split_once('"')?;
        let (head, properties) = rest.split_once('[').unwrap_or((rest, ""));
        let packet_id = head.split_once(" id=").map(|(_, id)| id.split(' ').next().unwrap_or(id));
        let users = properties.split("UserProperty(\"").skip(1).filter_map(|text| {
            let (name, rest) = text.split_once("\", \"")?;
            Some((name.to_owned(), rest.split('"').next()?.to_owned()))
        });
        Some(Self {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
            packet_id: packet_id.and_then(|id| id.parse().ok()).unwrap_or_default(),
            is_dup: head.contains(" dup"),
            users: users.collect(),
        })
    }

    /// The last user property of a name; empty if there is none.
    pub(super) fn user(&self, name: &str) -> &str {
        self.users.iter().rev().find(|(of, _)| of == name).map_or("", |(_, value)| value)
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        self.user(name).parse().unwrap_or_default()
    }

    /// Empty before 5.0.
    pub(super) fn id(&self) -> &str {
        self.user("message-id")
    }
}

/// The packet identifier of an answer of the kind `name`, and whether it says success.
pub(super) fn answer(text: &str, name: &str) -> Option<(u16, bool)> {
    let rest = text.strip_prefix(name)?.strip_prefix(' ')?;
    let (id, code) = rest.split_once(' ').unwrap_or((rest, ""));
    let is_success =
        code.is_empty() || code.starts_with('[') || code.starts_with("NoMatchingSubscribers");
    Some((id.parse().ok()?, is_success))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_read_from_its_text() {
        let text = "PUBLISH $queue/q/a \"q/a/1\" q1 id=7 dup [UserProperty(\"message-id\", \"q:0:1\"), \
                    UserProperty(\"offset\", \"1\")]";
        let delivery = Delivery::parse(text).unwrap();
        assert_eq!((delivery.topic.as_str(), delivery.payload.as_str()), ("$queue/q/a", "q/a/1"));
        assert_eq!((delivery.packet_id, delivery.is_dup), (7, true));
        assert_eq!((delivery.id(), delivery.number("offset")), ("q:0:1", 1));
        let plain = Delivery::parse("PUBLISH a \"x\" q2 id=9").unwrap();
        assert_eq!((plain.packet_id, plain.is_dup, plain.id()), (9, false, ""));
        assert_eq!(Delivery::parse("PUBACK 1"), None);
    }

    #[test]
    fn an_answer_says_which_and_how() {
        assert_eq!(answer("PUBACK 12", "PUBACK"), Some((12, true)));
        assert_eq!(answer("PUBACK 12 NoMatchingSubscribers", "PUBACK"), Some((12, true)));
        assert_eq!(answer("PUBREC 3 QuotaExceeded [x]", "PUBREC"), Some((3, false)));
        assert_eq!(answer("PUBREC 3", "PUBACK"), None);
    }
}
