//! Many clients in one thread and one event queue.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_packets::Version;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{Client, Greeting, Login, Observer};
use crate::clock::{Clock, MILLISECOND, SECOND};
use crate::stream::{Stream, Tls};

/// The broker.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) version: Version,
    pub(crate) tls: Option<Tls>,
    pub(crate) login: Login,
}

const TIMER: Token = Token(usize::MAX);
const READ_BYTES: usize = 256 << 10;
/// CONNECTs without a CONNACK at a time, unless a rate is asked for.
const CONNECTING_MAX: usize = 200;
/// Longest wait for a broker that does not answer.
const PATIENCE_NS: u64 = 15 * SECOND;

/// The clients of a run, by number.
#[derive(Debug)]
pub(crate) struct Swarm {
    target: Target,
    pub(crate) clock: Clock,
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    /// What the timer is set to.
    timer_at: u64,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    scratch: Box<[u8]>,
    /// Somebody wants an end.
    is_over: Arc<AtomicBool>,
    /// Connections that ended without being told to, and why the last one did.
    pub(crate) broken: u64,
    pub(crate) last_error: Option<String>,
}

impl Swarm {
    /// Nothing goes on once `is_over` is set.
    pub(crate) fn new(target: Target, clock: Clock, is_over: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        // The event queue's own timeout has a grain of a millisecond: too coarse for a schedule.
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let fd = timer.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), TIMER, Interest::READABLE)?;
        Ok(Self {
            target,
            clock,
            poll,
            events: Events::with_capacity(1024),
            timer,
            timer_at: 0,
            clients: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            is_over,
            broken: 0,
            last_error: None,
        })
    }

    pub(crate) fn client(&mut self, number: usize) -> Option<&mut Client> {
        self.clients.get_mut(number)?.as_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len() - self.free.len()
    }

    /// Begins a connection and returns its number. Numbers of closed ones are used again.
    ///
    /// # Errors
    /// When no connection can be made at all.
    pub(crate) fn open(&mut self, greeting: Greeting) -> io::Result<usize> {
        self.open_due(greeting, self.clock.now_ns())
    }

    /// Begins a connection that was due at `due_ns`: from then on it is waited for.
    ///
    /// # Errors
    /// When no connection can be made at all.
    pub(crate) fn open_due(&mut self, greeting: Greeting, due_ns: u64) -> io::Result<usize> {
        let socket = connect(self.target.address, self.clients.len())
            .map_err(|error| io::Error::other(format!("connecting: {error}")))?;
        let mut stream = match &self.target.tls {
            Some(tls) => tls.wrap(socket)?,
            None => Stream::Plain(socket),
        };
        let number = self.free.pop().unwrap_or(self.clients.len());
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(stream.socket(), Token(number), interest)?;
        let (version, login) = (self.target.version, &self.target.login);
        let client = Client::new(stream, version, greeting, login, due_ns);
        if number == self.clients.len() {
            self.clients.push(Some(client));
        } else {
            self.clients[number] = Some(client);
        }
        Ok(number)
    }

    /// Ends a connection, with a DISCONNECT or without.
    pub(crate) fn close(&mut self, number: usize, with_disconnect: bool) {
        let Some(mut client) = self.clients.get_mut(number).and_then(Option::take) else { return };
        if with_disconnect {
            client.disconnect();
            // What the socket does not take is not worth waiting for: it is being closed.
            let _ = client.flush();
        }
        // With its socket closed the event queue forgets it.
        drop(client);
        self.free.push(number);
    }

    pub(crate) fn close_all(&mut self) {
        for number in 0..self.clients.len() {
            self.close(number, true);
        }
        self.clients.clear();
        self.free.clear();
    }

    /// Sends what a client has to send.
    #[inline]
    pub(crate) fn flush(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number).and_then(Option::as_mut) else { return };
        if let Err(error) = client.flush() {
            self.break_off(number, &error);
        }
    }

    fn break_off(&mut self, number: usize, error: &io::Error) {
        self.broken += 1;
        self.last_error = Some(error.to_string());
        self.close(number, false);
    }

    /// Waits until something comes, at most until `until`, and works it off.
    ///
    /// # Errors
    /// When the event queue fails, or somebody wants an end.
    pub(crate) fn poll(&mut self, until: u64, observer: &mut impl Observer) -> io::Result<()> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "told to end"));
        }
        let now = self.clock.now_ns();
        let timeout = if until <= now {
            Some(Duration::ZERO)
        } else {
            if until != self.timer_at || self.timer_at <= now {
                self.set_timer(until - now)?;
                self.timer_at = until;
            }
            None
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            if event.token() == TIMER {
                continue;
            }
            let (number, writable) = (event.token().0, event.is_writable());
            self.on_event(number, event.is_readable() || event.is_error(), writable, observer);
        }
        self.events = events;
        Ok(())
    }

    fn set_timer(&self, nanos: u64) -> io::Result<()> {
        let at = Timespec { tv_sec: (nanos / SECOND) as i64, tv_nsec: (nanos % SECOND) as i64 };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: never, it_value: at };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    #[inline]
    fn on_event(
        &mut self,
        number: usize,
        readable: bool,
        writable: bool,
        observer: &mut impl Observer,
    ) {
        let Some(client) = self.clients.get_mut(number).and_then(Option::as_mut) else { return };
        if writable {
            client.is_blocked = false;
        }
        let mut result = Ok(());
        if readable {
            let now = self.clock.now_ns();
            result = client.read(number, &mut self.scratch, now, observer);
        }
        if result.is_ok() && (writable || !client.output.is_empty()) {
            result = client.flush();
        }
        if let Err(error) = result {
            self.break_off(number, &error);
        }
    }

    /// Connects everybody and waits until all are online. `rate` is connections per second, at
    /// their time whether earlier ones are online or not; without one, some at a time.
    ///
    /// # Errors
    /// When a connection fails or the broker stops answering.
    pub(crate) fn connect_all(
        &mut self,
        greetings: impl IntoIterator<Item = Greeting>,
        rate: Option<f64>,
        observer: &mut impl Observer,
        mut tick: impl FnMut(u64, usize),
    ) -> io::Result<()> {
        let started = self.clock.now_ns();
        let broken = self.broken;
        let mut waiting = greetings.into_iter().peekable();
        let mut arrivals = Arrivals { inner: observer, online: 0 };
        let (mut opened, mut last_arrival, mut online) = (0usize, started, 0);
        while waiting.peek().is_some() || arrivals.online < opened {
            let now = self.clock.now_ns();
            let due = match rate {
                Some(rate) => ((now - started) as f64 * rate / 1e9) as usize + 1,
                None => arrivals.online + CONNECTING_MAX,
            };
            let due_at = |number: usize| match rate {
                Some(rate) => started + (number as f64 * 1e9 / rate) as u64,
                None => now,
            };
            while opened < due {
                let Some(greeting) = waiting.next() else { break };
                if arrivals.online == opened {
                    // Nobody was awaited until now.
                    last_arrival = now;
                }
                self.open_due(greeting, due_at(opened))?;
                opened += 1;
            }
            let next = if rate.is_some() { due_at(opened) } else { now + 10 * MILLISECOND };
            // All are on their way: only their answers are awaited.
            let is_last = waiting.peek().is_none();
            self.poll(if is_last { now + 10 * MILLISECOND } else { next }, &mut arrivals)?;
            if self.broken > broken {
                let why = self.last_error.take().unwrap_or_default();
                return Err(io::Error::other(format!(
                    "client {} of {opened}: {why}",
                    arrivals.online + 1
                )));
            }
            if arrivals.online > online {
                (online, last_arrival) = (arrivals.online, now);
            } else if now.saturating_sub(last_arrival) > PATIENCE_NS {
                return Err(io::Error::other(format!(
                    "{} of {opened} clients got no answer within {} s",
                    opened - online,
                    PATIENCE_NS / SECOND
                )));
            }
            tick(now, online);
        }
        Ok(())
    }
}

/// Connections from one address, before the next one of the loopback network is taken: among ports
/// that are mostly taken the kernel searches long for a free one.
const CONNECTIONS_PER_ADDRESS: usize = 2_000;

const ADDRESSES: usize = 200;

/// Whether connections to it can come from any of the loopback network's addresses.
fn is_loopback_v4(to: SocketAddr) -> bool {
    matches!(to.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

/// How many addresses of our own connections can come from.
pub(crate) fn own_addresses(to: SocketAddr) -> usize {
    if is_loopback_v4(to) { ADDRESSES } else { 1 }
}

/// Begins a connection; `number` are there already.
fn connect(to: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if is_loopback_v4(to) && number >= CONNECTIONS_PER_ADDRESS {
        let last = 1 + (number / CONNECTIONS_PER_ADDRESS) % ADDRESSES;
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last as u8), 0));
        socket.bind(&from.into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// Counts those who are online, and passes everything on.
struct Arrivals<'a, O: Observer> {
    inner: &'a mut O,
    online: usize,
}

impl<O: Observer> Observer for Arrivals<'_, O> {
    fn on_publish(&mut self, client: usize, payload: &[u8], now: u64) {
        self.inner.on_publish(client, payload, now);
    }

    fn on_online(&mut self, client: usize, since_ns: u64, now: u64) {
        self.online += 1;
        self.inner.on_online(client, since_ns, now);
    }
}
