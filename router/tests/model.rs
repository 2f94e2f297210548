//! The index against a naive matcher, over random sequences of subscribe, unsubscribe and route.

use std::collections::BTreeMap;

use dunlin_packets::{QoS, SubscriptionOptions, filter_matches};
use dunlin_router::{RetainedIndex, SubscriberId, Subscription, Subscriptions, Target};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    Subscribe { filter: String, subscriber: u32, identifier: u32 },
    Unsubscribe { filter: String, subscriber: u32 },
    Route { topic: String },
}

fn level() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just(""), Just("$s"), Just("long-level-name")]
}

fn topic() -> impl Strategy<Value = String> {
    vec(level(), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("not empty", |t| !t.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    (vec(prop_oneof![3 => level(), 2 => Just("+")], 0..5), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash || levels.is_empty() {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("not empty", |filter| !filter.is_empty())
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (filter(), 0..6u32, 0..9u32).prop_map(|(filter, subscriber, identifier)| {
            Operation::Subscribe { filter, subscriber, identifier }
        }),
        (filter(), 0..6u32)
            .prop_map(|(filter, subscriber)| Operation::Unsubscribe { filter, subscriber }),
        topic().prop_map(|topic| Operation::Route { topic }),
    ]
}

fn wanted(identifier: u32) -> Subscription {
    let qos = QoS::from_bits((identifier % 3) as u8).unwrap_or_default();
    let no_local = identifier % 2 == 1;
    Subscription {
        options: SubscriptionOptions { qos, no_local, ..Default::default() },
        identifier,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn routes_are_those_of_a_naive_matcher(operations in vec(operation(), 1..150)) {
        let mut index = Subscriptions::default();
        let mut model: BTreeMap<(String, u32), u32> = BTreeMap::new();
        for operation in operations {
            match operation {
                Operation::Subscribe { filter, subscriber, identifier } => {
                    let target = Target::Session(SubscriberId(subscriber));
                    let first = !model.keys().any(|(known, _)| *known == filter);
                    let added = index.subscribe(&filter, target, wanted(identifier));
                    prop_assert_eq!(added.is_first, first);
                    let replaced = model.insert((filter, subscriber), identifier);
                    prop_assert_eq!(added.is_new, replaced.is_none());
                    prop_assert_eq!(index.get(added.filter, target), Some(wanted(identifier)));
                }
                Operation::Unsubscribe { filter, subscriber } => {
                    let target = Target::Session(SubscriberId(subscriber));
                    let mut gone = false;
                    let existed = index
                        .find(&filter)
                        .is_some_and(|id| index.unsubscribe(id, target, |_| gone = true));
                    prop_assert_eq!(model.remove(&(filter.clone(), subscriber)).is_some(), existed);
                    let last = existed && !model.keys().any(|(known, _)| *known == filter);
                    prop_assert_eq!(gone, last);
                }
                Operation::Route { topic } => {
                    let route = index.route(&topic, &mut ());
                    let mut found: Vec<_> = route
                        .matches
                        .iter()
                        .map(|m| (m.target(), m.subscription()))
                        .collect();
                    let expected = model.iter().filter(|((f, _), _)| filter_matches(f, &topic));
                    let mut expected: Vec<_> = expected
                        .map(|((_, s), &i)| (Target::Session(SubscriberId(*s)), wanted(i)))
                        .collect();
                    prop_assert!(found.is_sorted_by_key(|(target, _)| *target));
                    let key = |(target, s): &(Target, Subscription)| (*target, s.identifier);
                    found.sort_by_key(key);
                    expected.sort_by_key(key);
                    prop_assert!(found.windows(2).all(|w| w[0].0 != w[1].0) || route.may_overlap);
                    prop_assert_eq!(found, expected);
                }
            }
            prop_assert_eq!(index.len(), model.len());
        }
    }

    #[test]
    fn retained_search_in_bites_finds_what_one_pass_would(
        topics in vec(topic(), 0..60),
        filter in filter(),
        limit in 1..7usize,
    ) {
        let mut index = RetainedIndex::default();
        for topic in &topics {
            index.insert(topic, ());
        }
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        while {
            let next = index.search(&filter, after.as_deref(), limit, |topic, ()| {
                found.push(topic.to_owned());
            });
            after = next.map(str::to_owned);
            after.is_some()
        } {}
        let mut expected: Vec<_> =
            topics.into_iter().filter(|topic| filter_matches(&filter, topic)).collect();
        expected.sort();
        expected.dedup();
        found.sort();
        prop_assert_eq!(found, expected);
    }
}
