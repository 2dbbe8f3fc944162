//! One thread, one epoll.
//!
//! Each socket is registered once, edge-triggered; a [`Source`] keeps what is known of its readiness
//! and who waits for it. Deadlines lie in one ordered list, whose first entry is epoll's timeout.
//! A waker may be called from any thread: while the loop sleeps, that writes an eventfd.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
compile_error!("falconet stands on epoll and eventfd: build it for Linux");

use std::cell::{Cell, RefCell, RefMut};
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use async_executor::StaticLocalExecutor;
use pin_project_lite::pin_project;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use slab::Slab;
use smol::Task;

use super::deadlines::Deadlines;
use super::meter::Meter;

/// The event loop of one thread.
pub struct Reactor {
    epoll: OwnedFd,
    sources: RefCell<Slab<Source>>,
    generations: Cell<u32>,
    deadlines: RefCell<Deadlines>,
    now: Cell<Instant>,
    interrupt: Arc<Interrupt>,
    received: RefCell<Vec<u8>>,
    meter: Meter,
}

/// What is known of one registered socket: whether an attempt is worth a system call, and who waits
/// until one is. One task has a socket, so one waker is enough.
struct Source {
    waiting: Option<Waker>,
    generation: u32,
    hung_up: bool,
    readable: bool,
    writable: bool,
}

/// Which half of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl Reactor {
    /// Opens the epoll instance and the eventfd.
    ///
    /// # Errors
    /// What the kernel says when it has no descriptor to give.
    pub fn new() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered, every write to the eventfd is an event of its own: it is never read.
        let interest = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &eventfd, EventData::new_u64(INTERRUPT), interest)?;
        Ok(Rc::new(Self {
            epoll,
            sources: RefCell::default(),
            generations: Cell::new(0),
            deadlines: RefCell::default(),
            now: Cell::new(Instant::now()),
            interrupt: Arc::new(Interrupt { asleep: AtomicBool::new(false), eventfd }),
            received: RefCell::default(),
            meter: Meter::default(),
        }))
    }

    /// Runs the executor's tasks and the sockets' events until `main` has finished.
    ///
    /// Events are looked at at least every 64 tasks, however many tasks keep waking themselves.
    ///
    /// # Errors
    /// What `epoll_wait` fails with; an interrupted wait is not an error.
    ///
    /// # Panics
    /// If `main` panicked, with its panic.
    pub fn run<T>(&self, executor: &StaticLocalExecutor, mut main: Task<T>) -> io::Result<T> {
        let mut noop = Context::from_waker(Waker::noop());
        let mut events = Vec::with_capacity(EVENTS_PER_WAIT);
        loop {
            let idle = !(0..TASKS_PER_TURN).all(|_| executor.try_tick());
            if main.is_finished()
                && let Poll::Ready(output) = pin!(&mut main).poll(&mut noop)
            {
                return Ok(output);
            }
            let now = Instant::now();
            self.meter.turns.add(now.saturating_duration_since(self.now.get()));
            if idle {
                self.sleep(executor, now, &mut events)?;
            } else {
                self.wait(Some(Duration::ZERO), &mut events)?;
            }
            self.now.set(Instant::now());
            for event in events.drain(..) {
                self.raise(event.data.u64(), event.flags);
            }
            self.wake_expired();
        }
    }

    /// The time of the newest batch of events: monotonic, and as old as the tasks run since.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// What it has counted.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The buffer all sockets are read into, one at a time, empty: what is for one of them must be taken
    /// out before the next is read.
    pub(super) fn received(&self) -> RefMut<'_, Vec<u8>> {
        let mut received = self.received.borrow_mut();
        received.clear();
        received.reserve_exact(RECEIVE_BYTES);
        received
    }

    /// Registers `fd` for edge-triggered readiness in both directions.
    pub(super) fn register<F: AsFd>(self: &Rc<Self>, fd: F) -> io::Result<Registration<F>> {
        let generation = self.generations.get().wrapping_add(1);
        self.generations.set(generation);
        let key = self.sources.borrow_mut().insert(Source {
            waiting: None,
            generation,
            hung_up: false,
            readable: false,
            // A fresh socket can nearly always be written; if not, the attempt says so.
            writable: true,
        });
        let key = key as u32;
        let registration = Registration { reactor: self.clone(), key, fd };
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64((u64::from(generation) << 32) | u64::from(key));
        epoll::add(&self.epoll, &registration.fd, data, interest)?;
        Ok(registration)
    }

    /// Makes the kernel forget `fd`, which outlives its place here.
    pub(super) fn forget(&self, fd: impl AsFd) {
        // It can fail only when it was never registered.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Sleeps until an event, the first deadline or a waker called from another thread.
    fn sleep(
        &self,
        executor: &StaticLocalExecutor,
        now: Instant,
        events: &mut Vec<epoll::Event>,
    ) -> io::Result<()> {
        // From here on a waker writes the eventfd; a task woken before is found by the tick, which
        // otherwise leaves our waker with the executor for as long as it lives.
        self.interrupt.asleep.store(true, Ordering::SeqCst);
        let waker = Waker::from(self.interrupt.clone());
        let mut tick = pin!(executor.tick());
        let found = tick.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let timeout = if found { Some(Duration::ZERO) } else { self.until_first_deadline(now) };
        let waited = self.wait(timeout, events);
        self.interrupt.asleep.store(false, Ordering::SeqCst);
        waited
    }

    fn until_first_deadline(&self, now: Instant) -> Option<Duration> {
        let first = self.deadlines.borrow().first()?;
        Some(first.saturating_duration_since(now).min(LONGEST_WAIT))
    }

    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let buffer = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes the readiness an event tells of and wakes who waited for it.
    fn raise(&self, data: u64, flags: EventFlags) {
        let (generation, key) = ((data >> 32) as u32, data as u32 as usize);
        let mut sources = self.sources.borrow_mut();
        // An event of a source dropped earlier in this batch finds its key empty or reused.
        let Some(source) = sources.get_mut(key).filter(|s| s.generation == generation) else {
            return;
        };
        let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
        source.hung_up |= broken;
        source.readable |= broken || flags.contains(EventFlags::IN);
        source.writable |= broken || flags.contains(EventFlags::OUT);
        let waiting = source.waiting.take();
        drop(sources);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    fn wake_expired(&self) {
        // No `while let`, which would hold the deadlines while somebody is woken.
        loop {
            let expired = self.deadlines.borrow_mut().expire(self.now.get());
            let Some(waker) = expired else { break };
            waker.wake();
        }
    }
}

/// A socket's place in the reactor; dropping it ends the place. The kernel forgets the socket itself
/// when its last descriptor is closed.
pub(super) struct Registration<F: AsFd> {
    reactor: Rc<Reactor>,
    key: u32,
    fd: F,
}

impl<F: AsFd> Registration<F> {
    /// What is registered.
    pub(super) fn fd(&self) -> &F {
        &self.fd
    }

    /// Is ready when an attempt in `direction` is worth a system call. The task that asked last is woken
    /// when there is news of either direction.
    pub(super) fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = &mut sources[self.key as usize];
        if *source.ready(direction) {
            return Poll::Ready(());
        }
        if source.waiting.as_ref().is_none_or(|waiting| !waiting.will_wake(cx.waker())) {
            let displaced = source.waiting.replace(cx.waker().clone());
            // Whatever its last waker holds may need the slab.
            drop(sources);
            drop(displaced);
        }
        Poll::Pending
    }

    /// Notes that an attempt would have blocked.
    pub(super) fn blocked(&self, direction: Direction) {
        *self.reactor.sources.borrow_mut()[self.key as usize].ready(direction) = false;
    }

    /// Notes that an attempt moved less than it could have: the next one would block, unless the peer
    /// has hung up; then the end is still to be read and no further edge tells of it.
    pub(super) fn fell_short(&self, direction: Direction) {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = &mut sources[self.key as usize];
        *source.ready(direction) = source.hung_up;
    }

    /// The reactor this is a place of.
    pub(super) fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }
}

impl Source {
    fn ready(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::Read => &mut self.readable,
            Direction::Write => &mut self.writable,
        }
    }
}

impl<F: AsFd> Drop for Registration<F> {
    fn drop(&mut self) {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = sources.remove(self.key as usize);
        if sources.len() <= FEW_SOURCES {
            // Gives the memory of a crowd back when hardly more than the listeners are left.
            sources.shrink_to_fit();
            // Unless somebody is just reading, and only happens to drop this one.
            if let Ok(mut received) = self.reactor.received.try_borrow_mut() {
                *received = Vec::new();
            }
        }
        drop(sources);
        drop(source);
    }
}

/// Gives deadlines on the monotonic clock.
#[derive(Clone)]
pub struct Timer {
    reactor: Rc<Reactor>,
}

impl Timer {
    /// A timer on `reactor`'s list of deadlines.
    pub fn new(reactor: &Rc<Reactor>) -> Self {
        Self { reactor: reactor.clone() }
    }

    /// The reactor whose deadlines these are.
    pub fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// The time of the newest batch of events.
    pub fn now(&self) -> Instant {
        self.reactor.now()
    }

    /// Completes once `deadline` has passed.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { reactor: self.reactor.clone(), deadline, key: None }
    }

    /// Completes once `duration` has passed from now; a `duration` of `None` never passes.
    pub fn sleep(&self, duration: Option<Duration>) -> Sleep {
        let never = Instant::now() + NEVER;
        let deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
        self.sleep_until(deadline.unwrap_or(never))
    }

    /// Runs `future`, or gives it up when `deadline` comes first.
    ///
    /// # Cancel safety
    /// As cancel safe as `future`.
    // No `async fn`, whose future would have room for the other twice.
    pub fn until<F: Future>(
        &self,
        deadline: Sleep,
        future: F,
    ) -> impl Future<Output = Option<F::Output>> + use<F> {
        Until { future, deadline }
    }
}

pin_project! {
    struct Until<F> {
        #[pin]
        future: F,
        deadline: Sleep,
    }
}

impl<F: Future> Future for Until<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // The future first: data that came with the deadline counts.
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        Pin::new(this.deadline).poll(cx).map(|()| None)
    }
}

/// Completes at its deadline; dropped earlier, it leaves nothing behind.
#[must_use = "a sleep does nothing unless awaited"]
pub struct Sleep {
    reactor: Rc<Reactor>,
    deadline: Instant,
    /// Its key in the list of deadlines, if it is there.
    key: Option<usize>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.reactor.now() >= self.deadline {
            return Poll::Ready(());
        }
        let (key, waker) = (self.key, cx.waker().clone());
        let mut deadlines = self.reactor.deadlines.borrow_mut();
        if let Some(key) = key {
            let displaced = deadlines.replace(key, waker);
            // Whatever it holds may need the deadlines.
            drop(deadlines);
            drop(displaced);
        } else {
            let key = deadlines.insert(self.deadline, waker);
            drop(deadlines);
            self.key = Some(key);
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.reactor.deadlines.borrow_mut().remove(key);
            drop(waker);
        }
    }
}

/// Wakes the loop from another thread.
struct Interrupt {
    asleep: AtomicBool,
    eventfd: OwnedFd,
}

impl Wake for Interrupt {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // It can fail only when 2^64 wake-ups are waiting already.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

/// How many tasks may run before events are looked at again.
const TASKS_PER_TURN: usize = 64;
/// With no more sources than this, it takes no time to look for memory to give back.
const FEW_SOURCES: usize = 16;
/// How much one read may bring: a message of 16 KiB, and more than one socket mostly has.
const RECEIVE_BYTES: usize = 32 * 1024;
/// How many events one `epoll_wait` may return: 12 bytes each.
const EVENTS_PER_WAIT: usize = 256;
/// epoll takes milliseconds in 31 bits; a longer sleep is waited for in parts.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// A deadline nobody lives to see.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The eventfd's event; no source has generation and key of all ones.
const INTERRUPT: u64 = u64::MAX;

#[cfg(test)]
mod tests;
