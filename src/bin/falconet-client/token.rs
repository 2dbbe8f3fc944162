//! What shows a server who we are.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A token, and where it came from. It is shown to servers only: `Debug` tells no more than the latter.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    text: String,
    source: String,
}

impl Token {
    /// Reads the first token in the file at `path`, which may be a server's own: what follows the token in
    /// its line does not count, nor does `#` with what follows.
    ///
    /// # Errors
    /// [`TokenError`], which says what would be right.
    pub(crate) fn in_file(path: &Path) -> Result<Self, TokenError> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
            .map_err(|error| TokenError::Unreadable { path: path.to_owned(), error })?;
        let source = format!("--token-file {}", path.display());
        let words = text.lines().filter_map(|line| line.split_whitespace().next());
        match words.into_iter().find(|word| !word.starts_with('#')) {
            Some(word) => Self::new(word, source),
            None => Err(TokenError::Nothing { source }),
        }
    }

    /// Reads a token that the environment has under [`VARIABLE`]; there is none in an empty one.
    ///
    /// # Errors
    /// [`TokenError`], if it can be none.
    pub(crate) fn in_environment(value: Option<&OsStr>) -> Result<Option<Self>, TokenError> {
        let value = value.filter(|value| !value.is_empty());
        value.map(|value| Self::new(&value.to_string_lossy(), VARIABLE.to_owned())).transpose()
    }

    fn new(text: &str, source: String) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_BYTES || !text.bytes().all(is_of_token) {
            return Err(TokenError::Wrong { source });
        }
        Ok(Self { text: text.to_owned(), source })
    }

    /// The value of the header `Authorization` that shows it (RFC 6750 §2.1).
    pub(crate) fn authorization(&self) -> String {
        format!("Bearer {}", self.text)
    }

    /// `text` without the token, if a server has put it there.
    pub(crate) fn cut_from(&self, text: &str) -> String {
        text.replace(&self.text, "(the token)")
    }
}

/// What would be right where a server has answered with `code` who has shown `token`.
pub(crate) fn advice(code: u16, token: Option<&Token>) -> Option<String> {
    match (code, token) {
        (401, None) => Some(format!("expected a token, by --token-file FILE or {VARIABLE}")),
        (401, Some(Token { source, .. })) => {
            Some(format!("expected a token that the server knows, unlike that of {source}"))
        }
        (403, Some(Token { source, .. })) => {
            Some(format!("expected a token that may do this, unlike that of {source}"))
        }
        _ => None,
    }
}

/// Whether a byte can be in a bearer's token (RFC 6750 §2.1).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token of {}", self.source)
    }
}

/// Why there is no token to show. What was read is not in it, for it may be one all the same.
#[derive(Debug)]
pub(crate) enum TokenError {
    /// The file can't be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is none in the file.
    Nothing {
        /// Which.
        source: String,
    },
    /// What is there can be none.
    Wrong {
        /// Where.
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
            Self::Nothing { source } => {
                write!(f, "{source} is empty: expected a file that begins with a token")
            }
            Self::Wrong { source } => write!(
                f,
                "{source} is no token: expected 1 to {MAX_TOKEN_BYTES} of A-Z a-z 0-9 - . _ ~ + / ="
            ),
        }
    }
}

impl std::error::Error for TokenError {}

/// The name of the environment's variable.
pub(crate) const VARIABLE: &str = "FALCONET_TOKEN";
/// The request head it goes into is small.
const MAX_TOKEN_BYTES: usize = 4096;
/// What is in a longer file than this is read by nobody.
const MAX_FILE_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file with this text is read as.
    fn read(name: &str, text: &str) -> Result<Token, String> {
        let path = std::env::temp_dir().join(format!("falconet-{name}-{}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        let token = Token::in_file(&path);
        std::fs::remove_file(&path).unwrap();
        token.map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_token_of_a_file_is_shown() {
        for text in ["abc", "abc\n", "abc\r\n", "\n# one\n  abc publish garden # two\ndef\n"] {
            assert_eq!(read("first", text).unwrap().authorization(), "Bearer abc", "{text:?}");
        }
        assert_eq!(read("jwt", "a.b-c_d~e+f/g==\n").unwrap().text, "a.b-c_d~e+f/g==");
    }

    #[test]
    fn a_file_without_a_token_is_refused_with_what_would_be_right() {
        for (text, expected) in [
            ("", "is empty: expected a file that begins with a token"),
            ("\n# secret\n", "is empty: expected"),
            ("secret:secret", "is no token: expected 1 to 4096 of A-Z"),
            ("s\u{e9}cret", "is no token"),
            (&"secret".repeat(1000), "is no token"),
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
    fn an_empty_variable_is_none_and_a_wrong_one_is_refused_by_its_name() {
        assert!(matches!(Token::in_environment(None), Ok(None)));
        assert!(matches!(Token::in_environment(Some("".as_ref())), Ok(None)));
        let token = Token::in_environment(Some("secret".as_ref())).unwrap().unwrap();
        assert_eq!(token.authorization(), "Bearer secret");
        assert_eq!(format!("{token:?}"), "Token of FALCONET_TOKEN");
        let error = Token::in_environment(Some("secret\r\nX: y".as_ref())).unwrap_err().to_string();
        assert!(error.starts_with("FALCONET_TOKEN is no token"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
