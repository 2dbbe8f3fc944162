//! A WebSocket connection: the gate, and over it the protocol library's stream while that is needed.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Error};
use futures_lite::Stream;

use super::frame::MAX_CONTROL_BYTES;
use super::gate::Gate;

/// A WebSocket connection. A message that comes whole, in one frame and one piece, is taken as it is; for
/// all else it wakes the library's stream, which sleeps again once nothing is under way.
pub(super) struct Socket {
    phase: Option<Phase>,
}

enum Phase {
    Awake(Box<WebSocketStream<Gate>>),
    Asleep(Box<Gate>),
}

impl Socket {
    /// A connection on which nothing has been read yet.
    pub(super) fn new(gate: Gate) -> Self {
        Self { phase: Some(Phase::Asleep(Box::new(gate))) }
    }

    pub(super) fn gate(&self) -> &Gate {
        match self.phase.as_ref().expect(NEVER_WITHOUT) {
            Phase::Awake(stream) => stream.get_ref(),
            Phase::Asleep(gate) => gate,
        }
    }

    pub(super) fn gate_mut(&mut self) -> &mut Gate {
        match self.phase.as_mut().expect(NEVER_WITHOUT) {
            Phase::Awake(stream) => stream.get_mut(),
            Phase::Asleep(gate) => gate,
        }
    }

    /// The client's next message, or how its messages ended.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<tungstenite::Message, Error>>> {
        if let Some(Phase::Asleep(gate)) = &mut self.phase {
            match ready!(gate.poll_whole(cx)) {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message.into()))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        Pin::new(self.stream()).poll_next(cx)
    }

    /// The library's stream, woken up if it was asleep.
    pub(super) fn stream(&mut self) -> &mut WebSocketStream<Gate> {
        if let Some(Phase::Asleep(gate)) = self.phase.take_if(|phase| phase.is_asleep()) {
            self.phase = Some(awake(*gate));
        }
        match self.phase.as_mut().expect(NEVER_WITHOUT) {
            Phase::Awake(stream) => stream,
            Phase::Asleep(_) => unreachable!("it has just been woken up"),
        }
    }

    /// Falls asleep, if no message is under way. To be tried when [`Self::poll_next`] is pending and all
    /// is sent: then the library holds no byte either way.
    pub(super) fn rest(&mut self, cx: &mut Context<'_>) {
        if self.gate().is_at_rest()
            && let Some(Phase::Awake(stream)) = self.phase.take_if(|phase| !phase.is_asleep())
        {
            let gate = stream.into_inner();
            // Or the library's waker, which it has just left with the socket, would stay.
            if gate.transport().poll_readable(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.phase = Some(Phase::Asleep(Box::new(gate)));
        }
    }
}

impl Phase {
    fn is_asleep(&self) -> bool {
        matches!(self, Self::Asleep(_))
    }
}

/// Makes the library's stream anew.
fn awake(gate: Gate) -> Phase {
    let message_bytes = gate.message_bytes();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(CONTROL_BUFFER_BYTES)
        .max_message_size(Some(message_bytes))
        // Control frames have a limit of their own, and the gate one for each message's frames.
        .max_frame_size(Some(message_bytes.max(MAX_CONTROL_BYTES)));
    let making = WebSocketStream::from_raw_socket(gate, Role::Server, Some(config));
    match pin!(making).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(stream) => Phase::Awake(Box::new(stream)),
        Poll::Pending => unreachable!("it awaits nothing"),
    }
}

const NEVER_WITHOUT: &str = "a phase is taken out only to put another in its place";
/// How large the library's read buffer is at first; a larger frame makes it grow.
const READ_BUFFER_BYTES: usize = 256;
/// The library writes only pongs and Closes, of 127 bytes at most.
const CONTROL_BUFFER_BYTES: usize = 1024;
