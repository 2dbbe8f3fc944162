//! The subscriptions of a client to more than one topic, merged by the numbers of the messages.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use crate::config::Topics;
use crate::features::Feature;

use super::cursor::Step;
use super::feed::Feed;
use super::filter::Filter;
use super::ids::EventId;
use super::log::{Log, Replayed, Start};
use super::publication::Publication;

/// The state of a client that subscribes to several topics. Its place is one number: the client has been sent
/// all messages up to it, or has been told that some are missing. A message that several filters match comes
/// once, because it has one number.
///
/// First comes a replay from the logs of the topics, up to the number that was the newest when the replay began.
/// Then the client follows the feeds. If a feed drops its next message, a replay of the retained messages
/// follows, so that a slow client ends with the newest message of every topic.
pub(super) struct Merge {
    sources: Box<[Source]>,
    at: Cell<u64>,
    /// The client has been told that messages up to this number may be missing.
    told: Cell<u64>,
    replay: Cell<Option<Replay>>,
    /// The next messages of the replay, with their numbers, the lowest one first. They are not kept alive for a
    /// client that does not read.
    batch: RefCell<VecDeque<(u64, Weak<Publication>)>>,
    limits: Rc<Topics>,
}

/// The messages of one subscription: the log of a topic, or the feed of a pattern.
pub(super) enum Source {
    Topic(Log),
    Feed(Rc<Feed>),
}

/// A replay of the messages up to the number `until`.
#[derive(Clone, Copy)]
struct Replay {
    kind: ReplayKind,
    until: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReplayKind {
    /// All messages kept, after the id that the client resumed from.
    Resume,
    /// This number of retained messages of each topic.
    Last(usize),
    /// The retained messages of the topics, after the client has fallen behind.
    CatchUp,
}

impl Merge {
    /// Creates the state of a client that begins at `start`. Also returns true if messages that the client
    /// requests are no longer kept. `newest` is the id of the message that was published last.
    pub(super) fn new(
        sources: Vec<Source>,
        start: Start,
        newest: EventId,
        limits: Rc<Topics>,
    ) -> (Self, bool) {
        let until = newest.number;
        let assigned = start.id().filter(|id| id.is_assigned(newest));
        let (at, kind) = match start {
            Start::Live => (until, None),
            Start::Last(count) => (0, Some(ReplayKind::Last(count))),
            Start::After(_) => (assigned.map_or(0, |id| id.number), Some(ReplayKind::Resume)),
        };
        let merge = Self {
            sources: sources.into(),
            at: Cell::new(at),
            told: Cell::new(0),
            replay: Cell::new(kind.map(|kind| Replay { kind, until })),
            batch: RefCell::default(),
            limits,
        };
        let has_gap = match kind {
            Some(ReplayKind::Resume) if assigned.is_none() => {
                merge.told.set(until);
                true
            }
            Some(ReplayKind::Resume) => merge.notes_loss(until),
            _ => false,
        };
        (merge, has_gap)
    }

    /// Returns the state, or `None` in a build in which no client has several topics.
    // Always inlined: otherwise the smallest build contains code that it never runs.
    #[inline(always)]
    pub(super) fn if_built_in(&self) -> Option<&Self> {
        Feature::Full.is_built_in().then_some(self)
    }

    /// Returns the filters.
    pub(super) fn filters(&self) -> impl Iterator<Item = Filter> {
        self.sources.iter().map(Source::filter)
    }

    /// Takes the next step: a notice that messages were missed, or else the message with the lowest number.
    pub(super) fn next(&self) -> Option<Step> {
        let replay = self.replay.get();
        replay.and_then(|replay| self.replayed(replay)).or_else(|| self.follow())
    }

    /// Returns the number of the next message of the replay, if there is one.
    pub(super) fn next_number(&self) -> Option<u64> {
        let replay = self.replay.get()?;
        if self.batch.borrow().is_empty() {
            self.gather(replay);
        }
        self.batch.borrow().front().map(|(number, _)| *number)
    }

    /// Returns the number of messages that are still to be sent, as far as it is known: a message that several
    /// filters match counts for each, and of a replay at most [`BATCH`] count.
    pub(super) fn behind(&self) -> u64 {
        let at = self.replay.get().map_or(self.at.get(), |replay| replay.until);
        let live: usize = self.sources.iter().map(|source| source.count_after(at)).sum();
        (self.batch.borrow().len() + live) as u64
    }

    /// Returns true if nothing is to be sent.
    pub(super) fn is_at_end(&self) -> bool {
        let at = self.at.get();
        let is_at_end =
            |source: &Source| !source.has_lost(at, self.told.get()) && source.next(at).is_none();
        self.replay.get().is_none() && self.sources.iter().all(is_at_end)
    }

    /// Takes the next step of a replay. Returns `None` at its end, from where the client follows the feeds.
    fn replayed(&self, replay: Replay) -> Option<Step> {
        let is_resume = replay.kind == ReplayKind::Resume;
        loop {
            if self.batch.borrow().is_empty() {
                if is_resume && self.notes_loss(replay.until) {
                    return Some(Step::Gap);
                }
                self.gather(replay);
            }
            let Some((number, publication)) = self.batch.borrow_mut().pop_front() else { break };
            match publication.upgrade().filter(|publication| !publication.is_withdrawn()) {
                Some(publication) => {
                    self.at.set(number);
                    return Some(Step::Message(publication));
                }
                // The loss is noted before the next batch.
                None if is_resume => self.batch.borrow_mut().clear(),
                // No longer retained.
                None => self.at.set(number),
            }
        }
        self.batch.take();
        self.replay.set(None);
        self.at.set(self.at.get().max(replay.until));
        None
    }

    /// Takes the next step after the replay.
    fn follow(&self) -> Option<Step> {
        let at = self.at.get();
        if self.sources.iter().any(|source| source.has_lost(at, self.told.get())) {
            self.fall_behind(at);
            return Some(Step::Lagged(None));
        }
        let waiting = self.sources.iter().filter_map(|source| source.next(at));
        let next = waiting.min_by_key(|publication| publication.number())?;
        self.at.set(next.number());
        Some(Step::Message(next))
    }

    /// Notes that messages after the number `at` were missed. If a feed has dropped them, the retained messages
    /// of the topics are replayed.
    fn fall_behind(&self, at: u64) {
        if self.sources.iter().any(|source| source.has_feed_lost(at)) {
            let until = self.sources.iter().map(Source::highest).max().unwrap_or(at);
            self.told.set(until);
            self.replay.set(Some(Replay { kind: ReplayKind::CatchUp, until }));
        } else {
            let dropped = self.sources.iter().map(Source::dropped).max();
            self.told.set(dropped.unwrap_or(at));
        }
    }

    /// Returns true if a message after the place of the client and up to the number `until` is missing, and the
    /// client has not been told. It counts as told from now on.
    fn notes_loss(&self, until: u64) -> bool {
        let at = self.at.get();
        let gone = self.sources.iter().map(|source| source.gone_after(at)).max();
        let gone = gone.unwrap_or(0).min(until);
        let is_new = gone > at.max(self.told.get());
        if is_new {
            self.told.set(gone);
        }
        is_new
    }

    /// Fills the batch with the next messages of a replay.
    fn gather(&self, replay: Replay) {
        let mut batch: Vec<(u64, Weak<Publication>)> = Vec::new();
        let mut offer = |publication: &Rc<Publication>| {
            let number = publication.number();
            let found = batch.binary_search_by_key(&number, |(number, _)| *number);
            if let Err(index) = found.map_err(|index| index.min(BATCH))
                && index < BATCH
            {
                batch.truncate(BATCH - 1);
                batch.insert(index, (number, Rc::downgrade(publication)));
            }
            batch.len() < BATCH || number < batch[BATCH - 1].0
        };
        for source in &self.sources {
            source.replay(replay, self.at.get(), &self.limits, &mut offer);
        }
        self.batch.replace(batch.into());
    }
}

impl Source {
    /// Returns the filter of the subscription.
    pub(super) fn filter(&self) -> Filter {
        match self {
            Self::Topic(log) => Filter::Topic(log.topic().clone()),
            Self::Feed(feed) => Filter::Pattern(feed.pattern().clone()),
        }
    }

    /// Returns the first message kept after the number `at`.
    fn next(&self, at: u64) -> Option<Rc<Publication>> {
        match self {
            Self::Topic(log) => log.entries().after(at).next().cloned(),
            Self::Feed(feed) => {
                feed.entries().after(at).find(|publication| !publication.is_withdrawn()).cloned()
            }
        }
    }

    /// Returns the number of messages kept after the number `at`.
    fn count_after(&self, at: u64) -> usize {
        match self {
            Self::Topic(log) => log.entries().after(at).count(),
            Self::Feed(feed) => feed.entries().after(at).count(),
        }
    }

    /// Returns true if a message after the number `at` was dropped before the client has been sent it, and the
    /// client has not been told.
    fn has_lost(&self, at: u64, told: u64) -> bool {
        self.has_feed_lost(at) || self.dropped() > at.max(told)
    }

    /// Returns true if a feed has dropped a message after the number `at`.
    fn has_feed_lost(&self, at: u64) -> bool {
        matches!(self, Self::Feed(feed) if feed.entries().gone() > at)
    }

    /// Returns the highest number that a topic's log has dropped. Messages that were withdrawn do not count: the
    /// notice of that comes in their place.
    fn dropped(&self) -> u64 {
        match self {
            Self::Topic(log) => log.entries().dropped(),
            Self::Feed(_) => 0,
        }
    }

    /// Returns the highest number of a message that is missing for a client that resumes from the number `at`.
    fn gone_after(&self, at: u64) -> u64 {
        match self {
            Self::Topic(log) => log.entries().gone(),
            Self::Feed(feed) => feed.gone_after(at),
        }
    }

    /// Returns the highest number of a message.
    fn highest(&self) -> u64 {
        match self {
            Self::Topic(log) => log.highest(),
            Self::Feed(feed) => feed.entries().highest(),
        }
    }

    /// Calls `offer` with the messages of a replay after the number `at`. Some of those for which `offer` returns
    /// false are left out.
    fn replay(
        &self,
        replay: Replay,
        at: u64,
        limits: &Topics,
        offer: &mut dyn FnMut(&Rc<Publication>) -> bool,
    ) {
        match self {
            Self::Topic(log) => {
                let replayed = match replay.kind {
                    ReplayKind::Resume => Replayed::Kept,
                    ReplayKind::Last(count) => Replayed::Retained(count),
                    ReplayKind::CatchUp => Replayed::All,
                };
                log.entries().replayed(replayed, at, replay.until, limits).all(offer);
            }
            Self::Feed(feed) => replay_feed(feed, replay, at, limits, offer),
        }
    }
}

/// Calls `offer` with the messages of a replay of a feed, see [`Source::replay`].
fn replay_feed(
    feed: &Feed,
    Replay { kind, until }: Replay,
    at: u64,
    limits: &Topics,
    offer: &mut dyn FnMut(&Rc<Publication>) -> bool,
) {
    let entries = feed.entries();
    let gone = entries.gone();
    let mut recent = entries.replayed(Replayed::All, at.max(gone), until, limits);
    match kind {
        ReplayKind::Resume => {
            // The topics' logs have what the feed has dropped.
            feed.replay(Replayed::Kept, at, until.min(gone), limits, offer);
            recent.all(|publication| publication.is_withdrawn() || offer(publication));
        }
        ReplayKind::Last(count) => {
            feed.replay(Replayed::Retained(count), at, until, limits, offer);
        }
        ReplayKind::CatchUp => {
            feed.replay(Replayed::Retained(usize::MAX), at, until, limits, offer);
            recent.all(|publication| !publication.is_cleared() || offer(publication));
        }
    }
}

/// The number of messages of a replay that are found by one pass over the logs: as many as a session sends in
/// a turn.
const BATCH: usize = 64;
