//! Tokens: who has one may do what its line in a file says.

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
use crate::http::route::TOPICS;
use crate::hub::TopicName;
use crate::sha1::sha1;

use super::authorize::{Action, Authorize, Denied};

/// Lets pass who shows a token of a file, for what the file says.
///
/// A line of the file is `TOKEN [subscribe|publish|admin|all] [TOPIC]`, and `#` begins a comment. A token
/// is 1 to 128 of `A–Z a–z 0–9 - . _ ~`. Without a right it has all; with a topic only for that one
/// and those below it. Several lines with one token add up. The file is read again when it has changed,
/// which is looked for once a second at most, when a request comes; if it can't be read then, or a line
/// is wrong, that is logged and the old lines hold. A last line without a newline is wrong, too.
///
/// A token comes as `Authorization: Bearer`, as the password of `Authorization: Basic`, in a subprotocol
/// `bearer.TOKEN`, or, if [allowed](Self::allow_in_query), as `?token=` in the URL.
pub struct TokenFile {
    path: PathBuf,
    key: [u8; KEY_BYTES],
    in_query: bool,
    grants: RefCell<Vec<Grant>>,
    seen: Cell<Option<Version>>,
    looked: Cell<Instant>,
}

/// What one line grants.
struct Grant {
    digest: Digest,
    right: Right,
    topic: Option<TopicName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    Subscribe,
    Publish,
    Admin,
    All,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    file: (u64, u64),
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl TokenFile {
    /// Reads the tokens of a file.
    ///
    /// # Errors
    /// [`TokenFileError`], if it can't be read or a line is wrong. It does not tell what the line says.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TokenFileError> {
        let path = path.into();
        let failed = |error| TokenFileError::Unreadable { path: path.clone(), error };
        let mut key = [0; KEY_BYTES];
        let flags = rustix::rand::GetRandomFlags::empty();
        rustix::rand::getrandom(&mut key, flags).map_err(|error| failed(error.into()))?;
        let version = Version::of(&path).map_err(failed)?;
        let grants = read(&path, &key)?;
        Ok(Self {
            path,
            key,
            in_query: false,
            grants: RefCell::new(grants),
            seen: Cell::new(Some(version)),
            looked: Cell::new(Instant::now()),
        })
    }

    /// Whether a token may come as `?token=`. Default false: a URL is written down in many places, though
    /// in no log of ours.
    pub fn allow_in_query(mut self, allowed: bool) -> Self {
        self.in_query = allowed;
        self
    }

    /// Reads the file again if it has changed, and has not been looked at within the last second.
    fn refresh(&self, now: Instant) {
        if now.saturating_duration_since(self.looked.get()) < LOOK_EVERY {
            return;
        }
        self.looked.set(now);
        let version = Version::of(&self.path);
        if self.seen.get() == version.as_ref().ok().copied() {
            return;
        }
        // Taken before the file is read: what is written meanwhile is found the next time.
        self.seen.set(version.as_ref().ok().copied());
        let unreadable = |error| TokenFileError::Unreadable { path: self.path.clone(), error };
        match version.map_err(unreadable).and_then(|_| read(&self.path, &self.key)) {
            Ok(grants) => {
                log::info!(target: "falconet::access", lines = grants.len(); "tokens read again");
                self.grants.replace(grants);
            }
            Err(error) => log::error!(target: "falconet::access", "the old tokens hold: {error}"),
        }
    }

    /// The token that a request shows.
    fn shown(&self, head: &RequestHead<'_>) -> Option<Vec<u8>> {
        let authorization = head.single("authorization").and_then(read_authorization);
        authorization.or_else(|| read_subprotocol(head)).or_else(|| {
            let token = head.query_value("token").filter(|_| self.in_query)?;
            Some(token.as_bytes().to_vec())
        })
    }
}

impl Authorize for TokenFile {
    fn authorize(&self, head: &RequestHead<'_>, action: Action<'_>) -> Result<(), Denied> {
        self.refresh(Instant::now());
        let token = self.shown(head).ok_or(Denied::Unauthenticated(CHALLENGE))?;
        let digest = digest(&self.key, &token);
        let (mut is_known, mut may) = (false, false);
        // All of them, whichever it is.
        for grant in self.grants.borrow().iter() {
            let is_its = are_equal(&grant.digest, &digest);
            is_known |= is_its;
            may |= is_its & grant.allows(action);
        }
        match (is_known, may) {
            (_, true) => Ok(()),
            (true, false) => Err(Denied::Forbidden),
            (false, false) => Err(Denied::Unauthenticated(CHALLENGE)),
        }
    }
}

impl Grant {
    fn allows(&self, action: Action<'_>) -> bool {
        let subscribes = matches!(self.right, Right::Subscribe | Right::All);
        match action {
            // The names of all topics.
            Action::Read(path) if path == TOPICS => subscribes && self.topic.is_none(),
            Action::Read(_) => true,
            // Whoever is connected to an endpoint subscribes this topic.
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

    fn covers(&self, topic: &str) -> bool {
        self.topic.as_ref().is_none_or(|root| {
            let rest = topic.strip_prefix(root.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            // To read a pipe is to wait for who writes it.
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn read(path: &Path, key: &[u8; KEY_BYTES]) -> Result<Vec<Grant>, TokenFileError> {
    let text = fs::read_to_string(path)
        .map_err(|error| TokenFileError::Unreadable { path: path.to_owned(), error })?;
    let wrong = |line, expected| TokenFileError::Line { path: path.to_owned(), line, expected };
    if !text.is_empty() && !text.ends_with('\n') {
        // The half of a line may grant more than all of it does.
        return Err(wrong(text.lines().count(), UNENDED));
    }
    let mut grants = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let words: Vec<&str> = words.collect();
        let grant = match words[..] {
            [] => continue,
            [token] => parse_grant(key, token, "all", None),
            [token, right] => parse_grant(key, token, right, None),
            [token, right, topic] => parse_grant(key, token, right, Some(topic)),
            _ => Err("expected no more than TOKEN, RIGHT and TOPIC"),
        };
        grants.push(grant.map_err(|expected| wrong(index + 1, expected))?);
    }
    Ok(grants)
}

/// Reads what one line says.
///
/// # Errors
/// What would be right; not what is there, which may be a token at the wrong place.
fn parse_grant(
    key: &[u8; KEY_BYTES],
    token: &str,
    right: &str,
    topic: Option<&str>,
) -> Result<Grant, &'static str> {
    if token.len() > MAX_TOKEN_BYTES || !token.bytes().all(is_of_token) {
        return Err("expected first a token of 1 to 128 of A-Z a-z 0-9 - . _ ~");
    }
    let right = match right {
        "subscribe" => Right::Subscribe,
        "publish" => Right::Publish,
        "admin" => Right::Admin,
        "all" => Right::All,
        _ => return Err("expected second one of subscribe, publish, admin, all"),
    };
    let topic = topic.map(|topic| TopicName::new(topic.strip_suffix('/').unwrap_or(topic)));
    let topic = topic.transpose().map_err(|_| "expected third the name of a topic")?;
    Ok(Grant { digest: digest(key, token.as_bytes()), right, topic })
}

/// Whether a byte can stand in a URL, a header and a subprotocol as it is (RFC 3986 §2.3).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// The token in an Authorization header: a bearer's (RFC 6750 §2.1), or anybody's password (RFC 7617 §2).
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

/// The token in a subprotocol: a browser's WebSocket can bring nothing else.
fn read_subprotocol(head: &RequestHead<'_>) -> Option<Vec<u8>> {
    let offered = head
        .values("sec-websocket-protocol")
        .flat_map(|value| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    let mut tokens = offered.filter_map(|offer| offer.strip_prefix(b"bearer."));
    tokens.next().map(<[u8]>::to_vec)
}

/// What is kept and compared instead of a token. Its key, which nobody knows, makes the digest of a guess
/// unpredictable, so that neither the time a comparison takes nor a collision of SHA-1 helps a guesser.
fn digest(key: &[u8; KEY_BYTES], token: &[u8]) -> Digest {
    sha1(&[key, token])
}

/// Compares in the same time, wherever they differ.
fn are_equal(one: &Digest, other: &Digest) -> bool {
    let differing =
        one.iter().zip(other).fold(0, |bits, (one, other)| bits | black_box(one ^ other));
    differing == 0
}

/// Why there are no tokens to read.
#[derive(Debug)]
pub enum TokenFileError {
    /// The file can't be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A line is wrong.
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: usize,
        /// What would be right.
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

type Digest = [u8; 20];

/// Basic first: browsers that know only one challenge a line know this one, and ask the user.
const CHALLENGE: &str = "Basic realm=\"falconet\", charset=\"UTF-8\", Bearer realm=\"falconet\"";
/// As long as the digest's block, so that it is all of its first one.
const KEY_BYTES: usize = 64;
const MAX_TOKEN_BYTES: usize = 128;
const UNENDED: &str =
    "expected a newline at the end of the file: without one this line may be half written";
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
