//! Access tokens: a file lists them with the rights that each one has.

use std::cell::RefCell;
use std::fmt;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};

use crate::http::RequestHead;
use crate::hub::TopicName;
use crate::reload::{FileContent, Reload};

use super::authorize::{Action, Authorize, Denied};

/// An [`Authorize`] that checks requests against the tokens in a file.
///
/// A line of the file is `TOKEN [subscribe|publish|admin|all] [TOPIC]`; `#` begins a comment. A token is
/// 1 to 128 of `A–Z a–z 0–9 - . _ ~`. Without a right, the token has all rights. With a topic, whose name is
/// percent-encoded as in a URL, it has the right for this topic and the topics below it. The rights of several lines with the same token add up.
///
/// The file is read again at most once per second, when a request arrives: no request is checked against lines
/// that are older than a second. If the file cannot be read then, or if a line is invalid, an error is logged
/// once, the old lines stay valid, and the next request a second later reads the file again. A last line
/// without a newline is invalid. A warning is logged for a file that every user of the host can read or
/// change, and for tokens of fewer than 16 characters.
///
/// A request sends its token as `Authorization: Bearer`, as the password of `Authorization: Basic`, in a
/// subprotocol `bearer.TOKEN`, or, if [allowed](Self::allow_in_query), as `?token=` in the URL.
pub struct TokenFile {
    path: PathBuf,
    in_query: bool,
    grants: RefCell<Vec<Grant>>,
    reload: Reload,
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

impl TokenFile {
    /// Reads the tokens of a file.
    ///
    /// # Errors
    /// [`TokenFileError`], if the file cannot be read or a line is invalid. The error does not contain the
    /// text of the line.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TokenFileError> {
        let path = path.into();
        let content = read(&path)?;
        let reload = Reload::new("the tokens", READ_EVERY, &content);
        let grants = RefCell::new(load(&path, content)?);
        Ok(Self { path, in_query: false, grants, reload })
    }

    /// Sets whether a token may be sent as `?token=`. Default: false, because many programs store URLs.
    /// falconet's log does not contain the token.
    pub fn allow_in_query(mut self, allowed: bool) -> Self {
        self.in_query = allowed;
        self
    }

    /// Reads the file again, unless it was read less than a second ago.
    fn refresh(&self, now: Instant) {
        let load = |content| load(&self.path, content);
        if let Some(grants) = self.reload.renew(now, false, || read(&self.path), load) {
            log::info!(target: "falconet::access", lines = grants.len(); "tokens read again");
            self.grants.replace(grants);
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

    fn name<'i>(&self, token: &'i Token) -> Option<&'i [u8]> {
        Some(&token.0)
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

    /// Returns true if the token is so short that it can be guessed.
    fn is_short(&self) -> bool {
        self.0[MIN_SAFE_BYTES - 1] == 0
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

    /// Returns true if the grant is for all topics, for this topic, or for one above it; with a filter, if that
    /// is so for all topics that the filter matches. A wildcard is no part of the name of a grant's topic.
    fn covers(&self, topic: &str) -> bool {
        self.topic.as_ref().is_none_or(|root| {
            let rest = topic.strip_prefix(root.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// Reads a file of tokens.
fn read(path: &Path) -> Result<FileContent, TokenFileError> {
    let unreadable = |error| TokenFileError::Unreadable { path: path.to_owned(), error };
    FileContent::read(path).map_err(unreadable)
}

/// Parses a file of tokens, and logs why they are unsafe, if they are valid.
fn load(path: &Path, content: FileContent) -> Result<Vec<Grant>, TokenFileError> {
    let grants = parse(path, &content.bytes)?;
    content.warn_if_public(path);
    let short = grants.iter().filter(|grant| grant.token.is_short()).count();
    if short > 0 {
        log::warn!(
            target: "falconet::access", lines = short;
            "tokens in {} can be guessed, because they have fewer than {MIN_SAFE_BYTES} characters; \
             expected 32 random hexadecimal digits, for example", path.display()
        );
    }
    Ok(grants)
}

/// Parses the content of a file of tokens.
fn parse(path: &Path, content: &[u8]) -> Result<Vec<Grant>, TokenFileError> {
    let text = str::from_utf8(content).map_err(|error| TokenFileError::Unreadable {
        path: path.to_owned(),
        error: io::Error::new(io::ErrorKind::InvalidData, error),
    })?;
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
    let topic = topic.map(|topic| {
        let topic = TopicName::decode(topic.strip_suffix('/').unwrap_or(topic));
        topic.ok_or("expected third the name of a topic, percent-encoded: `%20` for a space")
    });
    let topic = topic.transpose()?;
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
/// Tokens with fewer bytes cause a warning.
const MIN_SAFE_BYTES: usize = 16;
/// The shortest time between two readings of the file.
const READ_EVERY: Duration = Duration::from_secs(1);

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
#[cfg(test)]
mod tests;
