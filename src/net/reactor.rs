//! The event loop: one thread with one epoll instance.
//!
//! Each socket is registered once, edge-triggered. A [`Source`] keeps the last known readiness of the
//! socket and the waker of the task that waits for it. All deadlines are in one [`Deadlines`] queue; the
//! earliest one is the timeout of the next wait. A waker may be called from any thread: while the loop
//! sleeps, the waker writes to an eventfd.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
compile_error!("falconet needs epoll and eventfd: build it for Linux");

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
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

use crate::features::Feature;

use super::deadlines::Deadlines;
use super::failed::failed;
use super::handshake_queue::HandshakeQueue;
use super::meter::Meter;
use super::pending::Pending;

/// The event loop of one thread.
pub struct Reactor {
    epoll: OwnedFd,
    sources: RefCell<Slab<Source>>,
    /// The keys of the sources that are deferred, each once, in the order in which their tasks are woken.
    deferred: RefCell<VecDeque<u32>>,
    generations: Cell<u32>,
    deadlines: RefCell<Deadlines>,
    handshakes: HandshakeQueue,
    now: Cell<Instant>,
    interrupt: Arc<Interrupt>,
    receive_buffer: RefCell<Vec<u8>>,
    /// Every connection that lingers has a clone.
    lingering: Rc<()>,
    is_stopping: Cell<bool>,
    meter: Meter,
    pending: Rc<Pending>,
}

/// The state of one registered socket.
struct Source {
    /// The waker of the task that waits for readiness. One waker is enough, because only one task uses
    /// a socket.
    waker: Option<Waker>,
    /// Distinguishes this source from earlier ones with the same key.
    generation: u32,
    /// True once the peer has shut down its sending side, or the connection has failed.
    hung_up: bool,
    /// False if a read would block.
    readable: bool,
    /// False if a write would block.
    writable: bool,
    turn: Turn,
}

/// The reason, besides the readiness of its source, why a task waits for a later turn of the loop. One value
/// instead of several flags, so that a source takes 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing.
    Any,
    /// The next step of the TLS handshake waits in the queue.
    HandshakeWaiting,
    /// The next step of the TLS handshake has waited, and was admitted.
    HandshakeAdmitted,
    /// The task has used up its share of a turn. This happens only after the handshake.
    Deferred,
}

/// A direction of data transfer on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

impl Reactor {
    /// Opens the epoll instance and the eventfd.
    ///
    /// # Errors
    /// The error of the system call, for example if the process has no free descriptor.
    pub fn new() -> io::Result<Rc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll_create"))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd = eventfd(0, flags).map_err(failed("eventfd"))?;
        // Edge-triggered: each write is a new event, so the eventfd need not be read.
        let interest = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &eventfd, EventData::new_u64(INTERRUPT), interest)
            .map_err(failed("epoll_ctl"))?;
        Ok(Rc::new(Self {
            epoll,
            sources: RefCell::default(),
            deferred: RefCell::default(),
            generations: Cell::new(0),
            deadlines: RefCell::default(),
            handshakes: HandshakeQueue::default(),
            now: Cell::new(Instant::now()),
            interrupt: Arc::new(Interrupt { asleep: AtomicBool::new(false), eventfd }),
            receive_buffer: RefCell::default(),
            lingering: Rc::default(),
            is_stopping: Cell::new(false),
            meter: Meter::default(),
            pending: Pending::new(),
        }))
    }

    /// Runs the executor's tasks and dispatches socket events and deadlines until `main` has finished.
    /// Returns the output of `main`.
    ///
    /// Events are fetched at least once every 64 task runs, even if tasks keep waking themselves.
    ///
    /// # Errors
    /// The error of epoll_wait(2). An interrupted wait is not an error.
    ///
    /// # Panics
    /// If `main` panicked, resumes that panic.
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
            if idle && self.deferred.borrow().is_empty() {
                self.sleep(executor, now, &mut events)?;
            } else {
                self.wait(Some(Duration::ZERO), &mut events)?;
            }
            self.now.set(Instant::now());
            for event in events.drain(..) {
                self.dispatch(event.data.u64(), event.flags);
            }
            self.wake_expired();
            self.pending.evict(self.now.get());
            if Feature::Tls.is_built_in() {
                self.admit_handshakes();
            }
            if Feature::Full.is_built_in() {
                self.wake_deferred();
            }
        }
    }

    /// Returns the time at which the latest batch of events was fetched. The current time is later by
    /// the duration of the tasks that have run since.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Returns the counters of this reactor.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Returns the budget for the memory of everything that is unfinished.
    pub(crate) fn pending(&self) -> &Rc<Pending> {
        &self.pending
    }

    /// Shortens the time for which closed connections linger, because the server stops.
    pub(crate) fn begin_stop(&self) {
        self.is_stopping.set(true);
    }

    /// Returns true if the server stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    /// Admits one more connection that lingers until it drops the result. Returns `None` if
    /// [`LINGERING_CONNECTIONS`] linger already.
    pub(super) fn linger(&self) -> Option<Rc<()>> {
        let others = Rc::strong_count(&self.lingering) - 1;
        (others < LINGERING_CONNECTIONS).then(|| self.lingering.clone())
    }

    /// Returns the receive buffer that all sockets share, emptied, with at least 32 KiB of capacity.
    /// Received bytes must be consumed before another socket is read.
    pub(super) fn receive_buffer(&self) -> RefMut<'_, Vec<u8>> {
        let mut buffer = self.receive_buffer.borrow_mut();
        buffer.clear();
        buffer.reserve_exact(RECEIVE_BYTES);
        buffer
    }

    /// Registers `fd` for edge-triggered readiness in both directions.
    pub(super) fn register<F: AsFd>(self: &Rc<Self>, fd: F) -> io::Result<Registration<F>> {
        let generation = self.generations.get().wrapping_add(1);
        self.generations.set(generation);
        let key = self.sources.borrow_mut().insert(Source {
            waker: None,
            generation,
            hung_up: false,
            readable: false,
            // A new socket is nearly always writable. If not, the first write clears the flag.
            writable: true,
            turn: Turn::Any,
        });
        let key = key as u32;
        let registration = Registration { reactor: self.clone(), key, fd };
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let data = EventData::new_u64(event_data(generation, key));
        epoll::add(&self.epoll, &registration.fd, data, interest).map_err(failed("epoll_ctl"))?;
        Ok(registration)
    }

    /// Removes `fd` from epoll. This is necessary only if the open file outlives the registration:
    /// otherwise the kernel removes it when its last descriptor is closed.
    pub(super) fn deregister(&self, fd: impl AsFd) {
        // Fails only if the descriptor is not registered.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Sleeps until an event, the first deadline or a waker called from another thread.
    fn sleep(
        &self,
        executor: &StaticLocalExecutor,
        now: Instant,
        events: &mut Vec<epoll::Event>,
    ) -> io::Result<()> {
        // From here on, a waker writes to the eventfd. A task that was woken before is found by polling
        // `tick`. If there is none, the executor keeps our waker until `tick` is dropped, after the wait.
        self.interrupt.asleep.store(true, Ordering::SeqCst);
        let waker = Waker::from(self.interrupt.clone());
        let mut tick = pin!(executor.tick());
        let ran_task = tick.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let timeout = if ran_task { Some(Duration::ZERO) } else { self.until_first_deadline(now) };
        let waited = self.wait(timeout, events);
        self.interrupt.asleep.store(false, Ordering::SeqCst);
        waited
    }

    /// Returns the time until the first deadline, at most [`LONGEST_WAIT`], or `None` if there is no
    /// deadline. Returns zero if a handshake waits for the next turn.
    fn until_first_deadline(&self, now: Instant) -> Option<Duration> {
        if Feature::Tls.is_built_in() && !self.handshakes.is_empty() {
            return Some(Duration::ZERO);
        }
        let first = self.deadlines.borrow().first();
        let first = first.into_iter().chain(self.pending.eviction_at()).min()?;
        Some(first.saturating_duration_since(now).min(LONGEST_WAIT))
    }

    /// Waits for events, and appends them to `events`.
    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let buffer = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(failed("epoll_wait")(error)),
        }
    }

    /// Updates the readiness of the source that an event is for, and wakes the waiting task.
    fn dispatch(&self, data: u64, flags: EventFlags) {
        let mut sources = self.sources.borrow_mut();
        let Some(source) = source_of(&mut sources, data) else { return };
        let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
        source.hung_up |= hung_up;
        source.readable |= hung_up || flags.contains(EventFlags::IN);
        source.writable |= hung_up || flags.contains(EventFlags::OUT);
        let waker = source.waker.take();
        // Released before waking, because the waker may need it.
        drop(sources);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Admits the steps of TLS handshakes that have waited longest, and wakes their tasks.
    fn admit_handshakes(&self) {
        self.handshakes.begin_turn();
        while let Some(data) = self.handshakes.next() {
            let mut sources = self.sources.borrow_mut();
            let Some(source) = source_of(&mut sources, data) else { continue };
            source.turn = Turn::HandshakeAdmitted;
            self.handshakes.count();
            let waker = source.waker.take();
            // Released before waking, because the waker may need it.
            drop(sources);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn wake_expired(&self) {
        // Not a `while let`: it would keep `deadlines` borrowed while the waker is called.
        loop {
            let expired = self.deadlines.borrow_mut().expire(self.now.get());
            let Some(waker) = expired else { break };
            waker.wake();
        }
    }

    /// Wakes the tasks of the sources that have been deferred for the longest time.
    fn wake_deferred(&self) {
        for _ in 0..DEFERRED_PER_TURN {
            let Some(key) = self.deferred.borrow_mut().pop_front() else { break };
            let mut sources = self.sources.borrow_mut();
            let source = &mut sources[key as usize];
            source.turn = Turn::Any;
            let waker = source.waker.take();
            // Released before waking, because the waker may need it.
            drop(sources);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// The registration of a descriptor with the reactor. Dropping it frees the [`Source`]. The kernel
/// removes the socket from epoll when its last descriptor is closed.
pub(super) struct Registration<F: AsFd> {
    reactor: Rc<Reactor>,
    key: u32,
    fd: F,
}

impl<F: AsFd> Registration<F> {
    /// Returns the registered descriptor.
    pub(super) fn fd(&self) -> &F {
        &self.fd
    }

    /// Completes once a system call in `direction` may succeed. Only the last task that polled is woken,
    /// after an event in either direction.
    pub(super) fn poll_ready(&self, direction: Direction, cx: &mut Context<'_>) -> Poll<()> {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = &mut sources[self.key as usize];
        if *source.readiness(direction) {
            return Poll::Ready(());
        }
        let previous = source.set_waker(cx);
        // Dropping the previous waker may drop a task that uses `sources`.
        drop(sources);
        drop(previous);
        Poll::Pending
    }

    /// Completes once a step of the TLS handshake on this socket may be done: at once, or in a later turn if other
    /// steps go before it. Each completion admits one step.
    pub(super) fn poll_handshake_step(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = &mut sources[self.key as usize];
        let is_admitted = match source.turn {
            Turn::Any => {
                self.reactor.handshakes.admit_or_wait(event_data(source.generation, self.key))
            }
            Turn::HandshakeWaiting | Turn::Deferred => false,
            Turn::HandshakeAdmitted => true,
        };
        if is_admitted {
            source.turn = Turn::Any;
            return Poll::Ready(());
        }
        if source.turn == Turn::Any {
            source.turn = Turn::HandshakeWaiting;
        }
        let previous = source.set_waker(cx);
        // Dropping the previous waker may drop a task that uses `sources`.
        drop(sources);
        drop(previous);
        Poll::Pending
    }

    /// Makes [`poll_turn`](Self::poll_turn) wait for a later turn.
    pub(super) fn defer(&self) {
        let source = &mut self.reactor.sources.borrow_mut()[self.key as usize];
        if source.turn == Turn::Any {
            source.turn = Turn::Deferred;
            self.reactor.deferred.borrow_mut().push_back(self.key);
        }
    }

    /// Completes unless the task was [deferred](Self::defer) to a later turn that has not begun. At most
    /// [`DEFERRED_PER_TURN`] tasks are woken a turn.
    pub(super) fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = &mut sources[self.key as usize];
        if source.turn != Turn::Deferred {
            return Poll::Ready(());
        }
        let previous = source.set_waker(cx);
        // Dropping the previous waker may drop a task that uses `sources`.
        drop(sources);
        drop(previous);
        Poll::Pending
    }

    /// Records that a system call in `direction` returned `EWOULDBLOCK`.
    pub(super) fn note_blocked(&self, direction: Direction) {
        *self.reactor.sources.borrow_mut()[self.key as usize].readiness(direction) = false;
    }

    /// Records that a system call transferred fewer bytes than requested. The next one would block,
    /// unless the peer has hung up: then the end of the stream is still to be read, and no further event
    /// reports it.
    pub(super) fn note_partial(&self, direction: Direction) {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = &mut sources[self.key as usize];
        *source.readiness(direction) = source.hung_up;
    }

    /// Makes the next write try, even if no event has reported that it can succeed. The kernel reports that
    /// only when a large part of the send buffer is free, but accepts bytes earlier.
    pub(super) fn assume_writable(&self) {
        self.reactor.sources.borrow_mut()[self.key as usize].writable = true;
    }

    /// Returns the reactor of this registration.
    pub(super) fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }
}

/// Returns the data of a source's events, which identifies the source.
fn event_data(generation: u32, key: u32) -> u64 {
    (u64::from(generation) << 32) | u64::from(key)
}

/// Returns the source that has this data. `None` if it was dropped: its key is free or belongs to a new source.
fn source_of(sources: &mut Slab<Source>, data: u64) -> Option<&mut Source> {
    let (generation, key) = ((data >> 32) as u32, data as u32 as usize);
    sources.get_mut(key).filter(|source| source.generation == generation)
}

impl Source {
    fn readiness(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::Read => &mut self.readable,
            Direction::Write => &mut self.writable,
        }
    }

    /// Registers the task of `cx`. Returns the waker of the task that was registered before, if that was
    /// another one.
    fn set_waker(&mut self, cx: &mut Context<'_>) -> Option<Waker> {
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return None;
        }
        self.waker.replace(cx.waker().clone())
    }
}

impl<F: AsFd> Drop for Registration<F> {
    fn drop(&mut self) {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = sources.remove(self.key as usize);
        if Feature::Full.is_built_in() && source.turn == Turn::Deferred {
            self.reactor.deferred.borrow_mut().retain(|key| *key != self.key);
        }
        if sources.len() <= FEW_SOURCES {
            // Frees the memory that many sources needed before.
            sources.shrink_to_fit();
            // The buffer is borrowed if this registration is dropped during a read of another socket.
            if let Ok(mut buffer) = self.reactor.receive_buffer.try_borrow_mut() {
                *buffer = Vec::new();
            }
        }
        drop(sources);
        drop(source);
    }
}

/// A handle for creating deadlines on the monotonic clock.
#[derive(Clone)]
pub struct Timer {
    reactor: Rc<Reactor>,
}

impl Timer {
    /// Creates a timer on `reactor`.
    pub fn new(reactor: &Rc<Reactor>) -> Self {
        Self { reactor: reactor.clone() }
    }

    /// Returns the reactor of this timer.
    pub fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Returns the time at which the latest batch of events was fetched; see [`Reactor::now`].
    pub fn now(&self) -> Instant {
        self.reactor.now()
    }

    /// Returns a future that completes once `deadline` has passed.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { reactor: self.reactor.clone(), deadline, key: None }
    }

    /// Returns a future that completes once `duration` has passed from now. With `None`, the future
    /// never completes.
    pub fn sleep(&self, duration: Option<Duration>) -> Sleep {
        let never = Instant::now() + NEVER;
        let deadline = duration.and_then(|duration| Instant::now().checked_add(duration));
        self.sleep_until(deadline.unwrap_or(never))
    }

    /// Runs `future` until it completes or `deadline` has passed. Returns `None` if the deadline passed
    /// first.
    ///
    /// # Cancel safety
    /// As cancel safe as `future`.
    // Not an `async fn`: its future would contain `future` twice.
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
        // The future is polled first, so that data that arrives together with the deadline is used.
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        Pin::new(this.deadline).poll(cx).map(|()| None)
    }
}

/// A future that completes once its deadline has passed. Dropping it removes the deadline.
#[must_use = "a sleep does nothing unless awaited"]
pub struct Sleep {
    reactor: Rc<Reactor>,
    deadline: Instant,
    /// The key of the deadline, once the future was polled.
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
            let previous = deadlines.replace(key, waker);
            // Dropping the previous waker may drop a task that uses `deadlines`.
            drop(deadlines);
            drop(previous);
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

/// The waker of the loop, which can be called from any thread.
struct Interrupt {
    /// True while the loop sleeps or is about to sleep, until the first wake-up.
    asleep: AtomicBool,
    eventfd: OwnedFd,
}

impl Wake for Interrupt {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Fails only if the eventfd's counter would overflow, after 2^64 - 2 writes.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }
}

/// The maximum number of tasks that run before events are fetched again.
const TASKS_PER_TURN: usize = 64;
/// The maximum number of deferred tasks that are woken in one turn. Each one does as much as a task may do in
/// a turn, so they take at most about a millisecond together, however many there are.
const DEFERRED_PER_TURN: usize = 4;
/// The number of sources up to which dropping one also frees unused memory. Shrinking is cheap at this
/// size.
const FEW_SOURCES: usize = 16;
/// The maximum number of bytes in one read: enough for a message of 16 KiB, and usually for all bytes that a
/// socket has.
const RECEIVE_BYTES: usize = 32 * 1024;
/// The maximum number of connections that linger at once. Peers that send without end can take no more of the
/// thread than this.
const LINGERING_CONNECTIONS: usize = 64;
/// The maximum number of events from one epoll_wait(2), 12 bytes each.
const EVENTS_PER_WAIT: usize = 256;
/// The longest timeout of one wait, because epoll_wait(2) takes milliseconds in 31 bits. A longer sleep
/// consists of several waits.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// The duration of a sleep that is meant never to end: 100 years.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// The event data of the eventfd. No source has this generation and key.
const INTERRUPT: u64 = u64::MAX;

#[cfg(test)]
mod tests;
