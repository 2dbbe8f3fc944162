//! Access tokens: a file lists them with the rights that each one has.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};

use crate::http::RequestHead;
use crate::hub::{TOPICS_PATH, TopicName};

use super::authorize::{Action, Authorize, Denied};

/// An [`Authorize`] that checks requests against the tokens in a file.
///
/// A line of the file is `TOKEN [subscribe|publish|admin|all] [TOPIC]`; `#` begins a comment. A token is
/// 1 to 128 of `A–Z a–z 0–9 - . _ ~`. Without a right, the token has all rights. With a topic, it has the
/// right for this topic and the topics below it. The rights of several lines with the same token add up.
///
/// The file is checked for changes at most once per second, when a request arrives, and is read again after a
/// change. If the file cannot be read then, or if a line is invalid, an error is logged and the old lines
/// stay valid. A last line without a newline is invalid.
///
/// A request sends its token as `Authorization: Bearer`, as the password of `Authorization: Basic`, in a
/// subprotocol `bearer.TOKEN`, or, if [allowed](Self::allow_in_query), as `?token=` in the URL.
pub struct TokenFile {
    path: PathBuf,
    in_query: bool,
    grants: RefCell<Vec<Grant>>,
    /// The version of the file at the last check; `None` if the file could not be read.
    version: Cell<Option<Version>>,
    /// The time of the last check.
    checked: Cell<Instant>,
}

/// A token, padded with zeros. All tokens have the same size, so comparing two of them always takes the same
/// time.
#[derive(Clone)]
pub struct Token([u8; MAX_TOKEN_BYTES]);

/// The rights that one line grants.
struct Grant {
    token: Token,
    right: Right,
    /// The topic for which, and for the topics below which, the right holds; `None` for all topics.
    topic: Option<TopicName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Subscribe,
    Publish,
    Admin,
    All,
}

/// The properties of a file by which a change is detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    /// Device and inode.
    file: (u64, u64),
    bytes: u64,
    /// The time of the last change of the content, in seconds and nanoseconds.
    modified: (i64, i64),
    /// The time of the last change of the content or the properties, in seconds and nanoseconds.
    changed: (i64, i64),
}

impl TokenFile {
    /// Reads the tokens of a file.
    ///
    /// # Errors
    /// [`TokenFileError`], if the file cannot be read or a line is invalid. The error does not contain the
    /// text of the line.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TokenFileError> {
        let path = path.into();
        let version = Version::of(&path)?;
        let grants = read(&path)?;
        Ok(Self {
            path,
            in_query: false,
            grants: RefCell::new(grants),
            version: Cell::new(Some(version)),
            checked: Cell::new(Instant::now()),
        })
    }

    /// Sets whether a token may be sent as `?token=`. Default: false, because many programs store URLs.
    /// falconet's log does not contain the token.
    pub fn allow_in_query(mut self, allowed: bool) -> Self {
        self.in_query = allowed;
        self
    }

    /// Reads the file again if it has changed. Does nothing if the last check was less than a second ago.
    fn refresh(&self, now: Instant) {
        if now.saturating_duration_since(self.checked.get()) < CHECK_EVERY {
            return;
        }
        self.checked.set(now);
        let version = Version::of(&self.path);
        if self.version.get() == version.as_ref().ok().copied() {
            return;
        }
        // Set before the file is read, so that the next check finds a change during the read.
        self.version.set(version.as_ref().ok().copied());
        match version.and_then(|_| read(&self.path)) {
            Ok(grants) => {
                log::info!(target: "falconet::access", lines = grants.len(); "tokens read again");
                self.grants.replace(grants);
            }
            Err(error) => {
                log::error!(target: "falconet::access", "can't reload the tokens, so the old ones stay valid: {error}");
            }
        }
    }

    /// Returns the token that a request sends, if any.
    fn sent_token(&self, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        let authorization = head.single("authorization").and_then(read_authorization);
        authorization.or_else(|| read_subprotocol(head)).or_else(|| {
            let token = head.query_value("token").filter(|_| self.in_query)?;
            Some(token.as_bytes().to_vec())
        })
    }
}

impl Authorize for TokenFile {
    type Identity = Token;

    fn identify(&self, head: &RequestHead<'_>) -> Result<Token, Denied> {
        let token = self.sent_token(head).and_then(|token| Token::new(&token));
        token.ok_or(Denied::Unauthenticated(CHALLENGE))
    }

    fn may(&self, token: &Token, action: Action<'_>) -> Result<(), Denied> {
        self.refresh(Instant::now());
        let (mut is_known, mut may) = (false, false);
        // Compares all lines, so that the time does not reveal which line matches.
        for grant in self.grants.borrow().iter() {
            let is_same = grant.token.is_same(token);
            is_known |= is_same;
            may |= is_same & grant.allows(action);
        }
        match (is_known, may) {
            (_, true) => Ok(()),
            (true, false) => Err(Denied::Forbidden),
            (false, false) => Err(Denied::Unauthenticated(CHALLENGE)),
        }
    }
}

impl Token {
    /// Pads a token. Returns `None` if the bytes are not a valid token.
    fn new(token: &[u8]) -> Option<Self> {
        let is_token = (1..=MAX_TOKEN_BYTES).contains(&token.len())
            && token.iter().all(|byte| is_token_byte(*byte));
        is_token.then(|| {
            let mut padded = [0; MAX_TOKEN_BYTES];
            padded[..token.len()].copy_from_slice(token);
            Self(padded)
        })
    }

    /// Returns true if both tokens are equal. The time does not depend on the position of a difference.
    fn is_same(&self, other: &Self) -> bool {
        let pairs = self.0.iter().zip(&other.0);
        pairs.fold(0, |bits, (one, other)| bits | black_box(one ^ other)) == 0
    }
}

impl Grant {
    /// Returns true if the grant allows an action.
    fn allows(&self, action: Action<'_>) -> bool {
        let subscribes = matches!(self.right, Right::Subscribe | Right::All);
        match action {
            // The list of topics reveals all their names.
            Action::Read(path) if path == TOPICS_PATH => subscribes && self.topic.is_none(),
            Action::Read(_) => true,
            // Every client of an endpoint subscribes to `broadcast`.
            Action::Connect(_) => subscribes && self.covers(TopicName::broadcast().as_str()),
            Action::Subscribe(topic) => subscribes && self.covers(topic),
            Action::Publish(topic) => {
                matches!(self.right, Right::Publish | Right::All) && self.covers(topic)
            }
            Action::Admin(_) => {
                matches!(self.right, Right::Admin | Right::All) && self.topic.is_none()
            }
        }
    }

    /// Returns true if the grant is for all topics, for this topic, or for one above it.
    fn covers(&self, topic: &str) -> bool {
        self.topic.as_ref().is_none_or(|root| {
            let rest = topic.strip_prefix(root.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

impl Version {
    /// Returns the current version of a file.
    ///
    /// # Errors
    /// [`TokenFileError::Unreadable`], if stat(2) fails or this is not a regular file.
    fn of(path: &Path) -> Result<Self, TokenFileError> {
        let unreadable = |error| TokenFileError::Unreadable { path: path.to_owned(), error };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            // Reading a pipe would wait for a writer.
            return Err(unreadable(io::Error::other("not a regular file")));
        }
        Ok(Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Reads and parses a file of tokens.
fn read(path: &Path) -> Result<Vec<Grant>, TokenFileError> {
    let text = fs::read_to_string(path)
        .map_err(|error| TokenFileError::Unreadable { path: path.to_owned(), error })?;
    parse(&text, path)
}

/// Parses the text of a file of tokens.
fn parse(text: &str, path: &Path) -> Result<Vec<Grant>, TokenFileError> {
    let wrong = |line, expected| TokenFileError::Line { path: path.to_owned(), line, expected };
    if !text.is_empty() && !text.ends_with('\n') {
        // The file may still be being written, and a part of a line may grant more than the whole line.
        return Err(wrong(text.lines().count(), NO_NEWLINE));
    }
    let mut grants = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let words: Vec<&str> = words.collect();
        let grant = match words[..] {
            [] => continue,
            [token] => parse_grant(token, "all", None),
            [token, right] => parse_grant(token, right, None),
            [token, right, topic] => parse_grant(token, right, Some(topic)),
            _ => Err("expected no more than TOKEN, RIGHT and TOPIC"),
        };
        grants.push(grant.map_err(|expected| wrong(index + 1, expected))?);
    }
    Ok(grants)
}

/// Parses the words of one line.
///
/// # Errors
/// A text that says what is expected. It does not quote the line, because a token may be in the wrong place.
fn parse_grant(token: &str, right: &str, topic: Option<&str>) -> Result<Grant, &'static str> {
    let expected = "expected first a token of 1 to 128 of A-Z a-z 0-9 - . _ ~";
    let token = Token::new(token.as_bytes()).ok_or(expected)?;
    let right = match right {
        "subscribe" => Right::Subscribe,
        "publish" => Right::Publish,
        "admin" => Right::Admin,
        "all" => Right::All,
        _ => return Err("expected second one of subscribe, publish, admin, all"),
    };
    let topic = topic.map(|topic| TopicName::new(topic.strip_suffix('/').unwrap_or(topic)));
    let topic = topic.transpose().map_err(|_| "expected third the name of a topic")?;
    Ok(Grant { token, right, topic })
}

/// Returns true for a byte that may be in a token: it needs no escape in a URL, a header or a subprotocol
/// (RFC 3986 §2.3).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Returns the token in an Authorization header: a bearer token (RFC 6750 §2.1), or the password of any
/// user (RFC 7617 §2).
fn read_authorization(value: &[u8]) -> Option<Vec<u8>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, credentials) = (&value[..space], value[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(credentials.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let user_and_password = Base64::decode_vec(str::from_utf8(credentials).ok()?).ok()?;
    let colon = user_and_password.iter().position(|byte| *byte == b':')?;
    Some(user_and_password[colon + 1..].to_vec())
}

/// Returns the token in a subprotocol. This is the only header that a page can set on a WebSocket.
fn read_subprotocol(head: &RequestHead<'_>) -> Option<Vec<u8>> {
    let offers = head.items("sec-websocket-protocol");
    let mut tokens = offers.filter_map(|offer| offer.strip_prefix(b"bearer."));
    tokens.next().map(<[u8]>::to_vec)
}

/// The reason why the tokens cannot be read.
#[derive(Debug)]
pub enum TokenFileError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A line is invalid.
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line, counted from 1.
        line: usize,
        /// The text that is expected there.
        expected: &'static str,
    },
}

impl fmt::Display for TokenFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "can't read the tokens in {}: {error}", path.display())
            }
            Self::Line { path, line, expected } => {
                write!(f, "{}:{line}: {expected}", path.display())
            }
        }
    }
}

impl std::error::Error for TokenFileError {}

/// The challenge of a response 401. Basic comes first: browsers that read only the first challenge of a
/// header know this one and ask the user for a password.
const CHALLENGE: &str = "Basic realm=\"falconet\", charset=\"UTF-8\", Bearer realm=\"falconet\"";
const MAX_TOKEN_BYTES: usize = 128;
const NO_NEWLINE: &str =
    "expected a newline at the end of the file: without it, this line may be incomplete";
/// The shortest time between two checks of the file.
const CHECK_EVERY: Duration = Duration::from_secs(1);

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;
