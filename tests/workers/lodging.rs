//! Workers that leave their work to the thread of the first while there is little of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::players::{PATIENCE, Player, pairs, play, start};
use dunlin_tests::Connecting;
use dunlin_tests::program::Running;

/// Between one round and the next. It waits for nothing: that there is little to do is the load.
const PAUSE: Duration = Duration::from_millis(10);

/// How often the threads of all workers but the first have gone to sleep so far.
fn sleeps(broker: &Running) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("it runs");
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let task = task.expect("a thread").path();
        let name = std::fs::read_to_string(task.join("comm")).expect("it has a name");
        let number = name.trim().strip_prefix("worker-").filter(|&number| number != "0")?;
        assert!(number.parse::<usize>().is_ok());
        let status = std::fs::read_to_string(task.join("status")).expect("it has a status");
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Some(count.expect("it is counted").trim().parse::<u64>().expect("a number"))
    };
    tasks.filter_map(of_task).sum()
}

/// Has all play a little and slowly, one pair after the other, until that wakes no thread but the
/// first.
fn calm_down(broker: &Running, pairs: &mut [[Player; 2]]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = sleeps(broker);
        for pair in &mut *pairs {
            play(pair, 1);
            std::thread::sleep(PAUSE);
        }
        if sleeps(broker) == before {
            return;
        }
        assert!(Instant::now() < deadline, "threads are woken all the time");
    }
}

fn play_at_once(pairs: &mut [[Player; 2]], rounds: usize) {
    std::thread::scope(|scope| {
        for pair in pairs {
            scope.spawn(|| play(pair, rounds));
        }
    });
}

#[test]
fn one_thread_serves_all_while_there_is_little_to_do_and_all_do_when_there_is_much() {
    let broker = start();
    let mut pairs = pairs(&broker);
    for _ in 0..5 {
        calm_down(&broker, &mut pairs);
        let before = sleeps(&broker);
        let deadline = Instant::now() + PATIENCE;
        while sleeps(&broker) == before {
            play_at_once(&mut pairs, 300);
            assert!(Instant::now() < deadline, "the first does all the work");
        }
    }
    calm_down(&broker, &mut pairs);
    assert!(broker.terminate().success());
}

#[test]
fn the_timers_of_those_who_have_left_their_work_to_the_first_run() {
    let broker = start();
    let mut pairs = pairs(&broker);
    let silent: Vec<TcpStream> = (0..12)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            let name = format!("silent/{number}");
            stream.write_all(&Connecting::v4(&name).keep_alive(2).bytes()).expect("it reads");
            stream.read_exact(&mut [0; 4]).expect("CONNACK");
            stream
        })
        .collect();
    calm_down(&broker, &mut pairs);
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0]).expect("the end in time"), 0);
    }
    play_at_once(&mut pairs, 10);
    assert!(broker.terminate().success());
}
