//! The signals that end the program.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_channel::Receiver;
use falconet::signals::StopSignals;
use futures_lite::{Stream, future};

use crate::terminal::RawMode;

/// A receiver of the first SIGINT, SIGTERM or SIGHUP. The second signal ends the process.
pub(crate) struct Interrupts {
    received: Pin<Box<Receiver<()>>>,
}

impl Interrupts {
    /// Starts to listen for signals. The second signal restores the terminal and exits with `failure`.
    ///
    /// # Errors
    /// [`ctrlc::Error`], if the process already has a handler or can't start a thread.
    pub(crate) fn listen(raw_mode: Option<&RawMode>, failure: u8) -> Result<Self, ctrlc::Error> {
        let (interrupt, received) = async_channel::bounded(1);
        let terminal = raw_mode.map(RawMode::terminal);
        StopSignals::detect().handle(move |before| {
            if before == 0 {
                // The channel has room for the only message ever sent.
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

    /// Completes, once, when the first signal has been received.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.received.as_mut().poll_next(cx).map(|_| ())
    }

    /// Waits for the first signal.
    pub(crate) async fn next(&mut self) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await;
    }

    /// Returns the output of `future`, or `None` if the signal comes first.
    ///
    /// # Cancel safety
    /// As cancel safe as `future`, which is dropped if the signal comes first.
    pub(crate) async fn unless_interrupted<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let interrupted = async {
            self.next().await;
            None
        };
        future::or(interrupted, async { Some(future.await) }).await
    }
}
