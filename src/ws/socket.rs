//! The protocol library's stream over the gate, which is there only while it is needed.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Error};
use futures_lite::Stream;

use super::frame::MAX_CONTROL_BYTES;
use super::gate::Gate;

/// A WebSocket connection. Between two messages it can do without the library's stream and its
/// buffers: then it is asleep, until the next byte comes.
pub(super) struct Socket {
    phase: Option<Phase>,
}

enum Phase {
    Awake(Box<WebSocketStream<Gate>>),
    Asleep(Box<Gate>),
}

impl Socket {
    /// A connection that has brought `early` bytes already; asleep if there are none.
    pub(super) fn new(mut gate: Gate, early: Vec<u8>) -> Self {
        if early.is_empty() {
            return Self { phase: Some(Phase::Asleep(Box::new(gate))) };
        }
        gate.admit(&early);
        Self { phase: Some(awake(gate, early)) }
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

    /// The client's next message, or how its messages ended; wakes up when a byte comes.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<tungstenite::Message, Error>>> {
        if let Some(Phase::Asleep(gate)) = &self.phase {
            ready!(gate.transport().poll_readable(cx));
        }
        Pin::new(self.stream()).poll_next(cx)
    }

    /// The library's stream, woken up if it was asleep.
    pub(super) fn stream(&mut self) -> &mut WebSocketStream<Gate> {
        if let Some(Phase::Asleep(gate)) = self.phase.take_if(|phase| phase.is_asleep()) {
            self.phase = Some(awake(*gate, Vec::new()));
        }
        match self.phase.as_mut().expect(NEVER_WITHOUT) {
            Phase::Awake(stream) => stream,
            Phase::Asleep(_) => unreachable!("it has just been woken up"),
        }
    }

    /// Falls asleep, if no message is under way; says whether it sleeps. To be tried when
    /// [`Self::poll_next`] is pending and all is sent: then the library holds no byte either way.
    pub(super) fn rest(&mut self, cx: &mut Context<'_>) -> bool {
        if self.gate().is_at_rest()
            && let Some(Phase::Awake(stream)) = self.phase.take_if(|phase| !phase.is_asleep())
        {
            let mut gate = stream.into_inner();
            gate.shrinks();
            // Or the library's waker, which it has just left with the socket, would stay.
            if gate.transport().poll_readable(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.phase = Some(Phase::Asleep(Box::new(gate)));
        }
        self.phase.as_ref().is_some_and(Phase::is_asleep)
    }
}

impl Phase {
    fn is_asleep(&self) -> bool {
        matches!(self, Self::Asleep(_))
    }
}

/// Makes the library's stream anew, with the bytes that have come.
fn awake(gate: Gate, bytes: Vec<u8>) -> Phase {
    let message_bytes = gate.message_bytes();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(CONTROL_BUFFER_BYTES)
        .max_message_size(Some(message_bytes))
        // Control frames have a limit of their own, and the gate one for each message's frames.
        .max_frame_size(Some(message_bytes.max(MAX_CONTROL_BYTES)));
    let making = WebSocketStream::from_partially_read(gate, bytes, Role::Server, Some(config));
    match pin!(making).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(stream) => Phase::Awake(Box::new(stream)),
        Poll::Pending => unreachable!("it awaits nothing"),
    }
}

const NEVER_WITHOUT: &str = "a phase is taken out only to put another in its place";
/// How large the library's read buffer is at first: most messages fit. A larger frame makes it grow, and
/// it stays so until the connection sleeps.
const READ_BUFFER_BYTES: usize = 256;
/// The library writes only pongs and Closes, of 127 bytes at most.
const CONTROL_BUFFER_BYTES: usize = 1024;
