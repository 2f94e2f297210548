//! What a subscription costs in memory: a million of them, as a fleet of devices has them.

use dunlin_router::{SubscriberId, Subscription, Subscriptions, Target};

const COUNT: u32 = 1_000_000;

/// Bytes of heap for each of a million subscriptions to filters that `filter` makes.
fn bytes_each(filter: impl Fn(u32) -> String) -> u64 {
    let mut index = None;
    let info = allocation_counter::measure(|| {
        let mut subscriptions = Subscriptions::default();
        for number in 0..COUNT {
            let target = Target::Session(SubscriberId(number));
            subscriptions.subscribe(&filter(number), target, Subscription::default());
        }
        index = Some(subscriptions);
    });
    assert_eq!(index.map(|index| index.len()), Some(COUNT as usize));
    info.bytes_current as u64 / u64::from(COUNT)
}

#[test]
fn a_subscription_to_a_topic_of_its_own_takes_at_most_80_bytes() {
    let each = bytes_each(|n| format!("site/{}/device/{n}/cmd", n % 1000));
    assert!(each <= 80, "{each} bytes");
}

#[test]
fn a_subscription_to_a_filter_many_share_takes_at_most_80_bytes() {
    let each = bytes_each(|n| format!("site/{}/+/state", n % 1000));
    assert!(each <= 80, "{each} bytes");
}
