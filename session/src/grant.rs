//! What a subscription request gets.

use dunlin_packets::{FilterRequest, QoS, ReasonCode, split_shared};

use crate::Limits;

/// The QoS that is granted, or the code that refuses. `has_identifier` says whether the SUBSCRIBE
/// carries a subscription identifier. Any QoS may be asked for \[MQTT-3.2.2-10\].
///
/// # Errors
/// The code for the SUBACK.
pub fn grant(
    request: &FilterRequest<'_>,
    has_identifier: bool,
    limits: &Limits,
) -> Result<QoS, ReasonCode> {
    let has_wildcard = request.filter.contains(['+', '#']);
    match split_shared(request.filter) {
        Err(()) => Err(ReasonCode::TopicFilterInvalid),
        Ok(Some(_)) if !limits.shared_available => Err(ReasonCode::SharedSubscriptionsNotSupported),
        _ if has_wildcard && !limits.wildcards_available => {
            Err(ReasonCode::WildcardSubscriptionsNotSupported)
        }
        _ if has_identifier && !limits.identifiers_available => {
            Err(ReasonCode::SubscriptionIdentifiersNotSupported)
        }
        _ => Ok(request.options.qos.min(limits.qos_max)),
    }
}
