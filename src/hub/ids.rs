//! Ids of clients and of messages.

use std::fmt;
use std::rc::Rc;
use std::time::SystemTime;

use rustix::rand::{GetRandomFlags, getrandom};

/// The id of one client, valid as long as the server runs.
///
/// Slots are reused and generations are not, so the id of a client that has left never refers to a
/// later client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId {
    pub(super) slot: u32,
    pub(super) generation: u64,
}

impl fmt::Display for ClientId {
    /// Writes the generation: the number of the client's join, counted from 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.generation.fmt(f)
    }
}

/// The id of a user or program, which identifies all its connections: those that sent the same id.
///
/// The id authenticates nobody. Any client may send any id, and ids are in log lines and responses. The
/// rights of a client, and the messages that it may read, must not depend on its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrelationId(Correlation);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Correlation {
    /// A number, whose text is 16 hexadecimal digits. The server generates such an id, with a random number,
    /// for each client that sends none. This form needs no allocation.
    Number(u64),
    Text(Rc<str>),
}

impl CorrelationId {
    /// Parses an id: 1 to 64 of `A–Z a–z 0–9 . _ -`. These characters are safe in headers and log lines.
    pub fn new(id: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let fits = (1..=MAX_CORRELATION_BYTES).contains(&id.len());
        let number = || u64::from_str_radix(id, 16).ok().map(Self::from);
        (fits && id.bytes().all(is_allowed)).then(|| {
            // Only the text that `Display` writes is stored as a number: `0ABC` and `abc` are different ids.
            let number = number().filter(|number| number.to_string() == id);
            number.unwrap_or(Self(Correlation::Text(id.into())))
        })
    }
}

impl From<u64> for CorrelationId {
    /// Returns the id that is this number in 16 hexadecimal digits.
    fn from(number: u64) -> Self {
        Self(Correlation::Number(number))
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Correlation::Number(number) => write!(f, "{number:016x}"),
            Correlation::Text(text) => f.write_str(text),
        }
    }
}

/// The id of one published message: the number of the message, and the epoch that the number belongs to.
///
/// All messages of a server share one counter, so a message that was published later has a higher
/// number, whatever its topic. Numbers are never reused within an epoch. The text form is
/// `EPOCH:NUMBER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    pub(super) epoch: Epoch,
    pub(super) number: u64,
}

/// The part of an [`EventId`] that differs between two runs of the server: 8 of `a-z 0-9`, chosen at random
/// when the server starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch([u8; EPOCH_BYTES]);

impl EventId {
    /// Parses the text form. Returns `None` for any other text, such as an id of another server.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once(':')?;
        let epoch = Epoch(epoch.as_bytes().try_into().ok()?);
        // `parse` alone accepts a sign and leading zeros.
        let parsed: u64 = number.parse().ok()?;
        (parsed.to_string() == number).then_some(Self { epoch, number: parsed })
    }

    /// Returns true if this server has assigned the id, and `newest` is the last one that it has assigned.
    pub(super) fn is_assigned(self, newest: Self) -> bool {
        self.epoch == newest.epoch && self.number <= newest.number
    }

    /// Returns the number of the message: 1 for the first one after the start of the server.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.number)
    }
}

impl Epoch {
    /// Returns a random epoch. If the kernel has no random numbers yet, the epoch is made from the time.
    pub(super) fn random() -> Self {
        let mut seed = [0; 8];
        if getrandom(&mut seed, GetRandomFlags::NONBLOCK).is_err() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            seed = (now.as_nanos() as u64).to_le_bytes();
        }
        let mut rest = u64::from_le_bytes(seed);
        Self([(); EPOCH_BYTES].map(|()| {
            let digit = DIGITS[(rest % DIGITS.len() as u64) as usize];
            rest /= DIGITS.len() as u64;
            digit
        }))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const EPOCH_BYTES: usize = 8;
const MAX_CORRELATION_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_correlation_id_is_equal_to_the_one_parsed_from_its_text() {
        let made = CorrelationId::from(0xabc);
        assert_eq!(made.to_string(), "0000000000000abc");
        assert_eq!(CorrelationId::new(&made.to_string()), Some(made));
        for other in ["abc", "0000000000000ABC", "+000000000000abc", "00000000000000abc", "a-b"] {
            let id = CorrelationId::new(other);
            assert_eq!(
                id.map(|id| id.to_string()).as_deref(),
                (!other.contains('+')).then_some(other)
            );
        }
    }

    #[test]
    fn an_epoch_is_random_text_of_digits_and_lower_case_letters() {
        let epochs: Vec<String> = (0..100).map(|_| Epoch::random().to_string()).collect();
        for (index, epoch) in epochs.iter().enumerate() {
            assert!(epoch.bytes().all(|byte| DIGITS.contains(&byte)), "{epoch}");
            assert_eq!(epoch.len(), EPOCH_BYTES);
            assert!(!epochs[..index].contains(epoch), "{epoch} twice");
        }
    }

    #[test]
    fn an_event_id_is_parsed_only_from_its_own_text() {
        let id = EventId { epoch: Epoch(*b"k3f9x2ab"), number: 120 };
        assert_eq!(id.to_string(), "k3f9x2ab:120");
        assert_eq!(EventId::parse("k3f9x2ab:120"), Some(id));
        for text in ["", "5", "120:", ":120", "k3f9x2ab:", "k3f9x2ab:+120", "k3f9x2ab:0120"] {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
        for text in ["k3f9x2ab:1:2", "k3f9x2a:120", "k3f9x2ab:18446744073709551616", "k3f9x2ab: 1"]
        {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
        assert!(EventId::parse("k3f9x2ab:18446744073709551615").is_some());
    }
}
