//! The signals that ask to leave.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_channel::Receiver;
use falconet::signals::StopSignals;
use futures_lite::{Stream, future};

use crate::terminal::RawMode;

/// The first SIGINT, SIGTERM or SIGHUP, received; the second ends the process.
pub(crate) struct Interrupts {
    received: Pin<Box<Receiver<()>>>,
}

impl Interrupts {
    /// Begins to listen; the second signal gives the terminal back and exits with `failure`.
    ///
    /// # Errors
    /// When there is a handler already, or no thread to be had.
    pub(crate) fn listen(raw_mode: Option<&RawMode>, failure: u8) -> Result<Self, ctrlc::Error> {
        let (interrupt, received) = async_channel::bounded(1);
        let terminal = raw_mode.map(RawMode::terminal);
        StopSignals::look().heed(move |before| {
            if before == 0 {
                // There is room for the one there is.
                let _ = interrupt.try_send(());
                return;
            }
            if let Some(terminal) = &terminal {
                terminal.restore();
            }
            std::process::exit(failure.into());
        })?;
        Ok(Self { received: Box::pin(received) })
    }

    /// Is ready, once, when the signal has come.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.received.as_mut().poll_next(cx).map(|_| ())
    }

    /// Waits for the signal.
    pub(crate) async fn next(&mut self) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await;
    }

    /// What comes of `future`; nothing if the signal comes first.
    ///
    /// # Cancel safety
    /// As cancel safe as `future`, which is dropped when the signal comes.
    pub(crate) async fn unless<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let interrupted = async {
            self.next().await;
            None
        };
        future::or(interrupted, async { Some(future.await) }).await
    }
}
