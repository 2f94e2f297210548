//! Properties as people read them. Those of a message are what passes the broker unaltered; a will
//! has its own two beside them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dunlin_packets::{Properties, Property};
use serde::{Deserialize, Serialize};

/// One property.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PropertyLine {
    PayloadFormatIndicator(u8),
    MessageExpiryInterval(u32),
    ContentType(String),
    ResponseTopic(String),
    CorrelationDataBase64(String),
    WillDelayInterval(u32),
    UserProperty(String, String),
}

/// The properties of a message or a will, in their order. Others have no business there.
pub(super) fn describe(properties: &[u8]) -> Option<Vec<PropertyLine>> {
    let properties = Properties::from_checked(properties);
    properties.iter().map(describe_one).collect()
}

fn describe_one(property: Property<'_>) -> Option<PropertyLine> {
    Some(match property {
        Property::PayloadFormatIndicator(is_text) => {
            PropertyLine::PayloadFormatIndicator(u8::from(is_text))
        }
        Property::MessageExpiryInterval(seconds) => PropertyLine::MessageExpiryInterval(seconds),
        Property::ContentType(text) => PropertyLine::ContentType(text.into()),
        Property::ResponseTopic(topic) => PropertyLine::ResponseTopic(topic.into()),
        Property::CorrelationData(bytes) => {
            PropertyLine::CorrelationDataBase64(BASE64_STANDARD.encode(bytes))
        }
        Property::WillDelayInterval(seconds) => PropertyLine::WillDelayInterval(seconds),
        Property::UserProperty(name, value) => {
            PropertyLine::UserProperty(name.into(), value.into())
        }
        _ => return None,
    })
}
