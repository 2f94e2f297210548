//! Nothing depends on how many workers there are.

use dunlin::worker::Settings;
use dunlin_tests::{Client, Connecting, Publishing, Sim, Subscribing, puback};

/// A day in the life of a few clients: what each of them got, sorted where workers may differ.
fn history(workers: usize) -> Vec<Vec<String>> {
    let mut sim = Sim::new(workers, Settings::default());
    let names: Vec<String> = (0..12).map(|number| format!("client-{number}")).collect();
    let clients: Vec<_> = names
        .iter()
        .map(|name| Client::online(&mut sim, &Connecting::v5(name).expiry(60)))
        .collect();
    for (number, client) in clients.iter().enumerate() {
        let exact = format!("t/{}", number % 4);
        let filters = Subscribing::to(&exact, 1).and("t/+", 0).and("all/#", 2).id(3);
        client.send(&mut sim, filters.v5());
    }
    for (number, client) in clients.iter().enumerate() {
        let topic = format!("t/{}", number % 4);
        client.send(&mut sim, Publishing::q1(&topic, &names[number], 1).retain().v5());
        client.send(&mut sim, Publishing::q0("all/x", &names[number]).v5());
    }
    clients[3].drop_connection(&mut sim);
    clients[0].send(&mut sim, Publishing::q1("t/3", "while away", 9).v5());
    let back = Client::connect(&mut sim, &Connecting::v5("client-3").resume());
    back.send(&mut sim, puback(1));
    let late = Client::online(&mut sim, &Connecting::v5("late"));
    late.send(&mut sim, Subscribing::to("t/#", 0).v5());
    let all = clients.iter().chain([&back, &late]);
    all.map(|client| {
        let mut texts = client.take();
        texts.sort();
        // Identifiers follow the order of arrival, which is only fixed per publisher.
        texts
            .iter_mut()
            .for_each(|text| *text = text.split(" id=").next().unwrap_or("").to_owned());
        texts.sort();
        texts
    })
    .collect()
}

#[test]
fn every_number_of_workers_tells_the_same_story() {
    let expected = history(1);
    assert!(expected.iter().all(|texts| texts.len() > 4), "{expected:?}");
    for workers in [2, 3, 8] {
        assert_eq!(history(workers), expected, "{workers} workers");
    }
}
