//! Consumers leave a queue, and may be back before the queue's home knows of it.

use dunlin_packets::Property;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback, unsubscribe};

use crate::queues::{consumer, heads, subscribe, user_property, with_queue};

const QUEUE: &str = "$queue/jobs";
const GROUP: [(&str, &str); 1] = [("consumer-group", "g")];
const AUTO: [(&str, &str); 2] = [("consumer-group", "g"), ("settle", "auto")];
/// More batches of mail than a worker takes in one turn.
const ON_THE_WAY: u16 = 8;

/// Which of two workers the client's session is on.
fn worker_of(sim: &mut Sim, client: &Client) -> usize {
    client.write([0xc0, 0]);
    sim.turn(0);
    let is_first = !client.take().is_empty();
    sim.run();
    assert!(is_first || !client.take().is_empty());
    usize::from(!is_first)
}

/// A client whose session is on this worker.
fn client_on(sim: &mut Sim, worker: usize, name: &str) -> (Client, String) {
    let names = (0..64).map(|at| format!("{name}-{worker}-{at}"));
    for name in names {
        let client = Client::online(sim, &Connecting::v5(&name).resume().expiry(1000));
        if worker_of(sim, &client) == worker {
            return (client, name);
        }
        client.drop_connection(sim);
    }
    panic!("no session comes to worker {worker}");
}

/// Where the queue is at home: there a publication is answered in the turn it is read in.
fn home_of_queue(sim: &mut Sim) -> usize {
    let publishers = [0, 1].map(|worker| client_on(sim, worker, "finds-home").0);
    let reader = consumer(sim, "finds-home", QUEUE, &[("settle", "auto")]);
    let home = publishers.iter().enumerate().position(|(worker, publisher)| {
        publisher.write(Publishing::q1(QUEUE, "x", 1).v5());
        sim.turn(worker);
        let is_home = !publisher.take().is_empty();
        sim.run();
        is_home
    });
    [1, 2].into_iter().for_each(|id| reader.send(sim, puback(id)));
    reader.drop_connection(sim);
    home.expect("a home")
}

/// A queue, its home, a consumer on the other worker that has it all, and one that waits for it.
struct Race {
    sim: Sim,
    home: usize,
    leaver: Client,
    leaver_name: String,
    other: Client,
}

impl Race {
    fn new(declaration: &str) -> Self {
        let mut sim = Sim::with_hash_seed(2, with_queue(declaration), 7);
        let home = home_of_queue(&mut sim);
        let (leaver, leaver_name) = client_on(&mut sim, 1 - home, "leaver");
        subscribe(&mut sim, &leaver, QUEUE, &GROUP);
        let other = consumer(&mut sim, "other", QUEUE, &GROUP);
        assert_eq!(leaver.take().len(), 1, "a SUBACK");
        Self { sim, home, leaver, leaver_name, other }
    }

    /// Messages are published, and sent to the one consumer: more than its worker takes in a turn.
    fn send_more_than_is_taken_in_a_turn(&mut self) {
        let (publisher, _) = client_on(&mut self.sim, self.home, "publisher");
        for id in 1..=ON_THE_WAY {
            publisher.write(Publishing::q1(QUEUE, &format!("m{id}"), id).v5());
            self.sim.turn(self.home);
        }
        assert_eq!(publisher.take().len(), usize::from(ON_THE_WAY));
    }
}

fn subscribing(asked: &[(&str, &str)]) -> Vec<u8> {
    let mut subscribing = Subscribing::to(QUEUE, 1);
    for (name, value) in asked {
        subscribing = subscribing.with(Property::UserProperty(name, value));
    }
    subscribing.v5()
}

/// What came up to an answer, and behind it.
fn split_at(texts: &[String], answer: &str) -> (Vec<String>, Vec<String>) {
    let at = texts.iter().position(|text| text.starts_with(answer));
    let (before, behind) = texts.split_at(at.unwrap_or_else(|| panic!("no {answer}: {texts:?}")));
    (before.to_vec(), behind[1..].to_vec())
}

#[test]
fn what_was_on_its_way_to_a_consumer_that_left_does_not_reach_it_when_it_is_back() {
    let mut race = Race::new("jobs partitions=1");
    race.send_more_than_is_taken_in_a_turn();
    race.leaver.write(unsubscribe(7, &[QUEUE]));
    race.leaver.write(subscribing(&GROUP));
    race.sim.turn(1 - race.home);
    race.sim.run();
    let (before, behind) = split_at(&race.leaver.take(), "UNSUBACK 7");
    assert!(before.is_empty(), "its worker has taken some, and sent none: {before:?}");
    assert_eq!(heads(&race.other).len(), usize::from(ON_THE_WAY), "the other has all of it");
    assert_eq!(behind, ["SUBACK 1 [01]"], "nothing that the other has");
}

#[test]
fn mqtt5_3_10_4_2_what_was_on_its_way_to_a_consumer_does_not_come_behind_the_unsuback() {
    let mut race = Race::new("jobs partitions=1");
    race.send_more_than_is_taken_in_a_turn();
    race.leaver.write(unsubscribe(7, &[QUEUE]));
    race.sim.turn(1 - race.home);
    race.sim.run();
    let (before, behind) = split_at(&race.leaver.take(), "UNSUBACK 7");
    assert!(behind.is_empty(), "{} and {behind:?}", before.len());
    assert_eq!(heads(&race.other).len(), usize::from(ON_THE_WAY));
}

#[test]
fn what_was_on_its_way_to_a_lost_connection_does_not_reach_the_next_one() {
    let mut race = Race::new("jobs partitions=1");
    race.send_more_than_is_taken_in_a_turn();
    // It takes the old connection over.
    let connecting = Connecting::v5(&race.leaver_name).resume().expiry(1000);
    let back = race.sim.client_at(1 - race.home);
    back.write(connecting.bytes());
    race.sim.turn(1 - race.home);
    race.sim.run();
    assert!(race.leaver.is_closed());
    let came = back.take();
    assert!(came.len() == 1 && came[0].starts_with("CONNACK Success"), "{came:?}");
    assert_eq!(heads(&race.other).len(), usize::from(ON_THE_WAY));
}

#[test]
fn what_a_consumer_was_not_sent_when_it_unsubscribes_goes_to_others_and_was_no_attempt() {
    for workers in [1, 2, 3] {
        let mut sim = Sim::new(workers, with_queue("jobs partitions=1"));
        let connecting = Connecting::v5("leaver").with(Property::ReceiveMaximum(1));
        let leaver = Client::online(&mut sim, &connecting);
        subscribe(&mut sim, &leaver, QUEUE, &GROUP);
        let other = consumer(&mut sim, "other", QUEUE, &GROUP);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        for id in 1..=4 {
            publisher.send(&mut sim, Publishing::q1(QUEUE, &format!("m{id}"), id).v5());
        }
        assert_eq!(leaver.take().len(), 2, "SUBACK and the first");
        leaver.send(&mut sim, unsubscribe(7, &[QUEUE]));
        leaver.send(&mut sim, puback(1));
        assert_eq!(leaver.take(), ["UNSUBACK 7 [00]"], "{workers}");
        let came = other.take();
        let attempts: Vec<_> = came.iter().map(|text| user_property(text, "attempt")).collect();
        assert_eq!(attempts, ["2", "1", "1", "1"], "{workers}: {came:?}");
    }
}

#[test]
fn what_a_consumer_acknowledged_right_before_it_unsubscribes_is_settled() {
    for workers in [1, 2, 3] {
        let mut sim = Sim::new(workers, with_queue("jobs partitions=1"));
        let leaver = consumer(&mut sim, "leaver", QUEUE, &AUTO);
        let other = consumer(&mut sim, "other", QUEUE, &AUTO);
        let publisher = Client::online(&mut sim, &Connecting::v5("p"));
        publisher.send(&mut sim, Publishing::q1(QUEUE, "m1", 1).v5());
        assert_eq!(leaver.take().len(), 1);
        leaver.write(puback(1));
        leaver.send(&mut sim, unsubscribe(7, &[QUEUE]));
        assert_eq!(leaver.take(), ["UNSUBACK 7 [00]"]);
        assert_eq!(heads(&other), Vec::<String>::new(), "{workers}");
        assert_eq!(sim.messages_held(), 0, "{workers}");
    }
}

fn assert_the_other_is_the_only_one_of_its_group(race: &mut Race) {
    let (publisher, _) = client_on(&mut race.sim, race.home, "publisher");
    publisher.send(&mut race.sim, Publishing::q1(QUEUE, "m1", 1).v5());
    assert_eq!(heads(&race.other), ["PUBLISH $queue/jobs \"m1\""]);
}

#[test]
fn a_group_that_a_consumer_was_to_leave_for_another_is_left_when_the_connection_is_lost_before() {
    let mut race = Race::new("jobs partitions=1");
    race.leaver.write(subscribing(&[("consumer-group", "h")]));
    race.sim.turn(1 - race.home);
    race.leaver.drop_connection(&mut race.sim);
    assert_the_other_is_the_only_one_of_its_group(&mut race);
}

#[test]
fn a_group_is_left_by_an_unsubscribe_though_another_one_that_is_refused_was_asked_for_meanwhile() {
    let mut race = Race::new("jobs partitions=1");
    race.leaver.write(subscribing(&[("consumer-group", "h"), ("stream-offset", "earliest")]));
    race.leaver.write(unsubscribe(7, &[QUEUE]));
    race.sim.turn(1 - race.home);
    race.sim.run();
    let came = race.leaver.take();
    assert!(came[0] == "UNSUBACK 7 [00]" && came[1].starts_with("SUBACK 1 [83]"), "{came:?}");
    assert_the_other_is_the_only_one_of_its_group(&mut race);
    assert!(race.leaver.take().is_empty());
}

#[test]
fn a_group_is_left_for_another_though_one_that_is_refused_was_asked_for_in_between() {
    let mut race = Race::new("jobs partitions=1");
    race.leaver.write(subscribing(&[("consumer-group", "h"), ("stream-offset", "earliest")]));
    race.leaver.write(subscribing(&[("consumer-group", "i")]));
    race.sim.turn(1 - race.home);
    race.sim.run();
    let came = race.leaver.take();
    assert!(came[0].starts_with("SUBACK 1 [83]") && came[1] == "SUBACK 1 [01]", "{came:?}");
    assert_the_other_is_the_only_one_of_its_group(&mut race);
    let came = race.leaver.take();
    assert!(came.len() == 1 && user_property(&came[0], "group-id") == "i", "{came:?}");
}
