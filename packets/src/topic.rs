//! Topic names, topic filters and shared-subscription filters: their grammar and their meaning.
//!
//! Both are plain `&str` elsewhere; these functions decide which strings may be one. The length
//! limit of 65,535 bytes [MQTT-4.7.3-3] is that of every string on the wire.

/// The levels of a topic name or filter. An empty level counts.
#[inline]
pub fn levels(topic: &str) -> std::str::Split<'_, char> {
    topic.split('/')
}

/// Whether `topic` may be published to: not empty, no wildcards, no U+0000
/// \[MQTT-3.3.2-2\] \[MQTT-4.7.3-1\] \[MQTT-4.7.3-2\].
#[inline]
#[must_use]
pub fn is_valid_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.bytes().any(|byte| matches!(byte, b'#' | b'+' | 0))
}

/// Whether `filter` is well formed: `#` only as the whole last level \[MQTT-4.7.1-1\], `+` only
/// as a whole level \[MQTT-4.7.1-2\], not empty, no U+0000. For the part behind `$share/name/` too.
#[must_use]
pub fn is_valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.as_bytes().contains(&0) {
        return false;
    }
    if !has_wildcard(filter) {
        return true;
    }
    let mut rest = levels(filter).peekable();
    while let Some(level) = rest.next() {
        let well_placed = match level {
            "+" => true,
            "#" => rest.peek().is_none(),
            _ => !has_wildcard(level),
        };
        if !well_placed {
            return false;
        }
    }
    true
}

fn has_wildcard(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'#' | b'+'))
}

/// A subscription that a group shares: `$share/<group>/<filter>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFilter<'a> {
    /// The share name.
    pub group: &'a str,
    /// What the group subscribes to.
    pub filter: &'a str,
}

/// Takes a `$share/<group>/<filter>` apart. `None` when `filter` is an ordinary one.
///
/// # Errors
/// `Err(())` when it begins with `$share` as its first level but has no well-formed group and
/// filter behind it \[MQTT-4.8.2-1\] \[MQTT-4.8.2-2\].
#[allow(clippy::result_unit_err)] // the caller knows packet and version, and makes the error
pub fn split_shared(filter: &str) -> Result<Option<SharedFilter<'_>>, ()> {
    let Some(rest) = filter.strip_prefix("$share") else { return Ok(None) };
    let rest = match rest.strip_prefix('/') {
        Some(rest) => rest,
        None if rest.is_empty() => return Err(()),
        None => return Ok(None),
    };
    let (group, filter) = rest.split_once('/').ok_or(())?;
    if group.is_empty() || has_wildcard(group) || !is_valid_filter(filter) {
        return Err(());
    }
    Ok(Some(SharedFilter { group, filter }))
}

/// Whether a well-formed `filter` matches `topic`. `#` and `+` at the start of the filter do not
/// match a topic that begins with `$` \[MQTT-4.7.2-1\]; nothing is normalised \[MQTT-4.7.3-4\].
///
/// This is the definition, level by level; the router answers the same question by index.
#[must_use]
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let mut topic_levels = levels(topic);
    for level in levels(filter) {
        match (level, topic_levels.next()) {
            // `a/#` matches `a` too: `#` stands for the parent and all below.
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(actual)) if wanted == actual => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_alone_in_their_level() {
        for good in ["#", "+", "a/#", "+/#", "/", "/+", "a//b", "+/+/+", "a/+/#", "$SYS/#", " "] {
            assert!(is_valid_filter(good), "{good}");
        }
        for bad in ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+/c", "##", "++", "a\0"] {
            assert!(!is_valid_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn filters_match_as_section_4_7_says() {
        for (filter, topic, expected) in [
            ("sport/tennis/#", "sport/tennis", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
            ("+", "/finance", false),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("a/+/c", "a//c", true),
            ("ACCOUNTS", "Accounts", false),
            ("a/b", "a/b/", false),
        ] {
            assert_eq!(filter_matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_shared_filter_names_a_group_and_a_filter() {
        assert_eq!(
            split_shared("$share/g/a/+"),
            Ok(Some(SharedFilter { group: "g", filter: "a/+" }))
        );
        assert_eq!(split_shared("$share/g//"), Ok(Some(SharedFilter { group: "g", filter: "/" })));
        assert_eq!(split_shared("$shared/g"), Ok(None));
        assert_eq!(split_shared("a/$share/g"), Ok(None));
        for bad in ["$share", "$share/", "$share/g", "$share//a", "$share/g/", "$share/+/a"] {
            assert_eq!(split_shared(bad), Err(()), "{bad}");
        }
    }
}
