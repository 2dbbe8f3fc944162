//! The token that authenticates the client to a server.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A token and its source. `Debug` writes only the source, so that the token is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    text: String,
    source: String,
}

impl Token {
    /// Reads the first token in the file at `path`. The file may be the token file of a server: the rest of the
    /// token's line is ignored, and so are comments, which begin with `#`.
    ///
    /// # Errors
    /// [`TokenError`], if the file can't be read or does not begin with a valid token.
    pub(crate) fn in_file(path: &Path) -> Result<Self, TokenError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
            .map_err(|error| TokenError::Unreadable { path: path.to_owned(), error })?;
        let source = format!("--token-file {}", path.display());
        let words = text.lines().filter_map(|line| line.split_whitespace().next());
        match words.into_iter().find(|word| !word.starts_with('#')) {
            Some(word) => Self::new(word, source),
            None => Err(TokenError::Empty { source }),
        }
    }

    /// Reads the token from `value`, the value of the environment variable [`VARIABLE`]. Returns `None` if the
    /// value is empty.
    ///
    /// # Errors
    /// [`TokenError`], if the value is not a valid token.
    pub(crate) fn in_environment(value: Option<&OsStr>) -> Result<Option<Self>, TokenError> {
        let value = value.filter(|value| !value.is_empty());
        value.map(|value| Self::new(&value.to_string_lossy(), VARIABLE.to_owned())).transpose()
    }

    fn new(text: &str, source: String) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_BYTES || !text.bytes().all(is_token_byte) {
            return Err(TokenError::Invalid { source });
        }
        Ok(Self { text: text.to_owned(), source })
    }

    /// Returns the value of the header `Authorization` for this token (RFC 6750 §2.1).
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.text)
    }

    /// Returns `text` with every occurrence of the token replaced, in case the server repeated the token.
    pub(crate) fn redact(&self, text: &str) -> String {
        text.replace(&self.text, "(the token)")
    }
}

/// Returns advice for a request that was sent with `token` and answered with the status `code`.
pub(crate) fn advice(code: u16, token: Option<&Token>) -> Option<String> {
    match (code, token) {
        (401, None) => Some(format!("expected a token, with --token-file FILE or {VARIABLE}")),
        (401, Some(Token { source, .. })) => {
            Some(format!("expected a token that the server accepts, unlike the one in {source}"))
        }
        (403, Some(Token { source, .. })) => {
            Some(format!("expected a token with the right to do this, unlike the one in {source}"))
        }
        _ => None,
    }
}

/// Returns true if a bearer token may contain this byte (RFC 6750 §2.1).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token from {}", self.source)
    }
}

/// The error that there is no valid token. It never contains the text that was read, which may be a secret.
#[derive(Debug)]
pub(crate) enum TokenError {
    /// The file can't be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of reading it.
        error: io::Error,
    },
    /// The file contains no token.
    Empty {
        /// The option and the file.
        source: String,
    },
    /// The text is not a valid token.
    Invalid {
        /// The source of the text.
        source: String,
    },
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                let path = path.display();
                write!(f, "--token-file {path}: {error}: expected a file that begins with a token")
            }
            Self::Empty { source } => {
                write!(f, "{source} contains no token: expected a file that begins with a token")
            }
            Self::Invalid { source } => write!(
                f,
                "{source} is not a valid token: expected 1 to {MAX_TOKEN_BYTES} of A-Z a-z 0-9 - . _ ~ + / ="
            ),
        }
    }
}

impl std::error::Error for TokenError {}

/// The name of the environment variable.
pub(crate) const VARIABLE: &str = "FALCONET_TOKEN";
/// Longer tokens would not fit into the request head that servers accept.
const MAX_TOKEN_BYTES: usize = 4096;
/// The number of bytes read of a file; the rest is ignored.
const MAX_FILE_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a token from a file with this text.
    fn read(name: &str, text: &str) -> Result<Token, String> {
        let path = std::env::temp_dir().join(format!("falconet-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let token = Token::in_file(&path);
        std::fs::remove_file(&path).unwrap();
        token.map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_token_of_a_file_is_used() {
        for text in ["abc", "abc\n", "abc\r\n", "\n# one\n  abc publish garden # two\ndef\n"] {
            assert_eq!(read("first", text).unwrap().authorization(), "Bearer abc", "{text:?}");
        }
        assert_eq!(read("jwt", "a.b-c_d~e+f/g==\n").unwrap().text, "a.b-c_d~e+f/g==");
    }

    #[test]
    fn a_file_without_a_valid_token_is_refused() {
        for (text, expected) in [
            ("", "contains no token: expected a file that begins with a token"),
            ("\n# secret\n", "contains no token: expected"),
            ("secret:secret", "is not a valid token: expected 1 to 4096 of A-Z"),
            ("s\u{e9}cret", "is not a valid token"),
            (&"secret".repeat(1000), "is not a valid token"),
        ] {
            let error = read("without", text).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(error.starts_with("--token-file /") && !error.contains("cret"), "{error}");
        }
        let error = Token::in_file(Path::new("/nowhere/token")).unwrap_err().to_string();
        assert!(error.starts_with("--token-file /nowhere/token: No such file"), "{error}");
        assert!(error.ends_with("expected a file that begins with a token"), "{error}");
    }

    #[test]
    fn an_empty_variable_means_no_token_and_an_invalid_one_is_refused_by_name() {
        assert!(matches!(Token::in_environment(None), Ok(None)));
        assert!(matches!(Token::in_environment(Some("".as_ref())), Ok(None)));
        let token = Token::in_environment(Some("secret".as_ref())).unwrap().unwrap();
        assert_eq!(token.authorization(), "Bearer secret");
        assert_eq!(format!("{token:?}"), "Token from FALCONET_TOKEN");
        let error = Token::in_environment(Some("secret\r\nX: y".as_ref())).unwrap_err().to_string();
        assert!(error.starts_with("FALCONET_TOKEN is not a valid token"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
