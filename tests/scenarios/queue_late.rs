//! Answers to deliveries whose leases have ended.

use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, puback};

use crate::queues::{consumer, heads, publish, user_property, with_queue};

const AUTO: [(&str, &str); 2] = [("consumer-group", "g"), ("settle", "auto")];
const BY_VERB: [(&str, &str); 1] = [("consumer-group", "g")];

/// Two messages of one key, and a consumer that has had the first one for longer than its lease.
fn late_consumer(workers: usize, asked: &[(&str, &str)]) -> (Sim, Client, String) {
    let declared = "jobs partitions=1 serial=true lease=10s backoff=2s";
    let mut sim = Sim::new(workers, with_queue(declared));
    let publisher = Client::online(&mut sim, &Connecting::v5("p"));
    let late = consumer(&mut sim, "late", "$queue/jobs", asked);
    (1..=2).for_each(|id| publish(&mut sim, &publisher, "$queue/jobs/k", &id.to_string(), id));
    let came = late.take();
    assert_eq!(came.len(), 1, "one at a time");
    sim.advance_s(11);
    assert!(late.take().is_empty(), "the lease has ended, and the backoff has not");
    (sim, late, user_property(&came[0], "message-id"))
}

fn ack(id: &str) -> Vec<u8> {
    Publishing::q1("$queue/jobs/$ack", "", 9)
        .with(Property::UserProperty("message-id", id))
        .with(Property::UserProperty("group-id", "g"))
        .v5()
}

#[test]
fn a_late_acknowledgement_is_too_late_as_long_as_its_consumer_does_not_have_the_message_again() {
    for workers in [1, 3] {
        let (mut sim, late, _) = late_consumer(workers, &AUTO);
        late.send(&mut sim, puback(1));
        assert!(late.take().is_empty());
        sim.advance_s(2);
        assert_eq!(heads(&late), ["PUBLISH $queue/jobs/k \"1\""]);
        let (mut sim, late, id) = late_consumer(workers, &BY_VERB);
        late.send(&mut sim, puback(1));
        late.send(&mut sim, ack(&id));
        assert!(late.take()[0].starts_with("PUBACK 9 NotAuthorized"));
        sim.advance_s(2);
        assert_eq!(heads(&late), ["PUBLISH $queue/jobs/k \"1\""]);
    }
}

/// What is done is the message, by whichever delivery. Otherwise one that is always late would do
/// its work again and again, until what it has done is a dead letter.
#[test]
fn a_consumer_that_has_a_message_again_settles_it_by_a_late_acknowledgement_too() {
    for workers in [1, 3] {
        let (mut sim, late, _) = late_consumer(workers, &AUTO);
        sim.advance_s(2);
        assert_eq!(heads(&late), ["PUBLISH $queue/jobs/k \"1\""]);
        late.send(&mut sim, puback(1));
        assert_eq!(heads(&late), ["PUBLISH $queue/jobs/k \"2\""]);
        [2, 3].into_iter().for_each(|id| late.send(&mut sim, puback(id)));
        sim.advance_s(120);
        assert!(late.take().is_empty());
        assert_eq!(sim.messages_held(), 0, "both are settled");
        let (mut sim, late, id) = late_consumer(workers, &BY_VERB);
        sim.advance_s(2);
        assert_eq!(heads(&late), ["PUBLISH $queue/jobs/k \"1\""]);
        [1, 2].into_iter().for_each(|id| late.send(&mut sim, puback(id)));
        late.send(&mut sim, ack(&id));
        assert_eq!(heads(&late), ["PUBACK 9", "PUBLISH $queue/jobs/k \"2\""]);
    }
}
