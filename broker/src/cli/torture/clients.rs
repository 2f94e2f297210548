//! The clients of a run: who they are, and a thread for each.

use std::thread::{Scope, ScopedJoinHandle};

use dunlin_packets::{QoS, Version};

use super::args::TortureArgs;
use super::member::{Faults, Member};
use super::publication::{QUEUE_SOURCE, RETAINED_SOURCE};
use super::publisher::{Publisher, PublisherRecord};
use super::queues::{Consumer, Group};
use super::receipts::Interest;
use super::shared::Shared;
use super::subscriber::{Manner, Subscriber, SubscriberRecord};
use super::wire::Identity;

/// Streams of random numbers, by user; the killer's is below them.
const PUBLISHER_STREAM: u64 = 1 << 20;
const SUBSCRIBER_STREAM: u64 = 2 << 20;
const QUEUE_STREAM: u64 = 3 << 20;
const CONSUMER_STREAM: u64 = 4 << 20;

/// Who publishes to the queue.
const QUEUE_PUBLISHERS: u16 = 2;

/// Clients that run, and what each leaves behind.
pub(super) type Handles<'scope, T> = Vec<ScopedJoinHandle<'scope, T>>;

pub(super) fn spawn_publishers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    args: &TortureArgs,
    shared: &'scope Shared,
) -> Handles<'scope, PublisherRecord> {
    (0..=args.publishers)
        .map(|index| {
            let is_last = index == args.publishers;
            let source = if is_last { RETAINED_SOURCE } else { index };
            let version = if index % 3 == 1 { Version::V4 } else { Version::V5 };
            let identity = identity('p', index, version, 0);
            let member = Member::new(shared, identity, PUBLISHER_STREAM + u64::from(index));
            let publisher = Publisher::new(member, source, index % 2 == 1);
            scope.spawn(|| publisher.run())
        })
        .collect()
}

pub(super) fn spawn_subscribers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    args: &TortureArgs,
    shared: &'scope Shared,
) -> Handles<'scope, SubscriberRecord> {
    let online = (0..args.subscribers).map(|index| {
        let manner = if index % 2 == 1 { Manner::Flaky } else { Manner::Steady };
        (manner, index, 's')
    });
    let offline = (0..args.offline).map(|index| (Manner::Offline, index, 'o'));
    online
        .chain(offline)
        .zip(0..)
        .map(|((manner, index, letter), stream)| {
            // Every combination of QoS and version among the first four, and one publisher alone.
            let qos = if index % 4 == 1 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            let version = if index % 4 < 2 { Version::V5 } else { Version::V4 };
            let source = (index % 4 == 2).then_some(index / 4 % args.publishers);
            let receive_maximum = [0, 100, 0, 20][usize::from(index / 2 % 4)];
            let identity = identity(letter, index, version, receive_maximum);
            let member = Member::new(shared, identity, SUBSCRIBER_STREAM + stream);
            let subscriber = Subscriber::new(member, manner, Interest { source, qos });
            scope.spawn(|| subscriber.run())
        })
        .collect()
}

/// How many publish to the queue.
pub(super) fn queue_publishers(args: &TortureArgs) -> u16 {
    if args.queue_consumers == 0 { 0 } else { QUEUE_PUBLISHERS }
}

pub(super) fn spawn_queue_publishers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    args: &TortureArgs,
    shared: &'scope Shared,
) -> Handles<'scope, PublisherRecord> {
    (0..queue_publishers(args))
        .map(|index| {
            let version = if index % 2 == 1 { Version::V4 } else { Version::V5 };
            let identity = identity('q', index, version, 0);
            let member = Member::new(shared, identity, QUEUE_STREAM + u64::from(index));
            scope.spawn(move || {
                shared.queue.wait_for_groups(shared);
                Publisher::new(member, QUEUE_SOURCE + index, true).run()
            })
        })
        .collect()
}

/// The members of both groups: half of them come and go, and half have sessions that last.
pub(super) fn spawn_consumers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    args: &TortureArgs,
    shared: &'scope Shared,
) -> Handles<'scope, Faults> {
    let each = |group| (0..args.queue_consumers).map(move |index| (group, index));
    Group::ALL
        .into_iter()
        .flat_map(each)
        .zip(0..)
        .map(|((group, index), stream)| {
            let is_flaky = index % 2 == 1;
            // Verbs need properties.
            let is_old = group == Group::Auto && index % 4 == 1;
            let version = if is_old { Version::V4 } else { Version::V5 };
            let mut identity = identity('c', stream, version, 0);
            identity.is_persistent = stream / 2 % 2 == 0 || index % 3 == 0;
            let member = Member::new(shared, identity, CONSUMER_STREAM + u64::from(stream));
            scope.spawn(move || Consumer::new(member, group, is_flaky).run())
        })
        .collect()
}

fn identity(letter: char, index: u16, version: Version, receive_maximum: u16) -> Identity {
    let client_id = format!("torture-{}-{letter}{index}", std::process::id());
    Identity { client_id, version, receive_maximum, is_persistent: true }
}
