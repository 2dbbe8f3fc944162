//! URLs of servers.

use std::fmt;
use std::str::FromStr;

use falconet::Feature;
use falconet::net::ListenUrl;

/// A URL of a WebSocket or HTTP server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    /// The socket to connect to.
    pub(crate) address: ListenUrl,
    /// The value of the Host header: host and port as in the URL.
    pub(crate) host: String,
    /// The request target: path and query.
    pub(crate) target: String,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let bad = |expected| UrlError { text: text.to_owned(), expected };
        if text.starts_with("unix:") {
            let address = text.parse().map_err(|_| bad("a path after `unix:`"))?;
            let (host, target) = ("localhost".to_owned(), "/".to_owned());
            return Ok(Self { text: text.to_owned(), address, host, target });
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Err(bad(EXPECTED)) };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => "http",
            "wss" | "https" => match Feature::Tls.require() {
                Ok(()) => "https",
                Err(_) => {
                    return Err(bad(
                        "ws://, since this build has no TLS: it needs the cargo feature `tls`",
                    ));
                }
            },
            _ => return Err(bad(EXPECTED)),
        };
        // The target and the host go into the request head and must not break its lines.
        if !rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(bad("visible ASCII without `#`; percent-encode the rest"));
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let address = format!("{scheme}://{authority}").parse().map_err(|_| bad(EXPECTED))?;
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{target}");
        Ok(Self { text: text.to_owned(), address, host: authority.to_owned(), target })
    }
}

impl Url {
    /// Parses the URL of a server, without a path or query.
    ///
    /// # Errors
    /// [`UrlError`], if the text is not a URL or has a path or query.
    pub(crate) fn of_server(text: &str) -> Result<Self, UrlError> {
        let url: Self = text.parse()?;
        if url.target != "/" {
            let expected = "http(s)://HOST[:PORT] or unix:PATH, without a path after the port";
            return Err(UrlError { text: text.to_owned(), expected });
        }
        Ok(url)
    }
}

/// Writes the URL without its query, which may contain a token.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.text.split_once('?')) {
            (ListenUrl::Unix(_), _) | (_, None) => f.write_str(&self.text),
            (_, Some((shown, _))) => f.write_str(shown),
        }
    }
}

/// The error that a text is not the URL of a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UrlError {
    text: String,
    expected: &'static str,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, expected } = self;
        write!(f, "`{}` is not the URL of a server: expected {expected}", text.escape_debug())
    }
}

impl std::error::Error for UrlError {}

const EXPECTED: &str = "ws://HOST[:PORT][/PATH], wss://… or unix:PATH";

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "tls")]
    #[test]
    fn a_url_is_split_into_address_host_and_target() {
        for (text, address, host, target) in [
            ("ws://localhost:8080/", "http://localhost:8080", "localhost:8080", "/"),
            ("wss://pi/chat", "https://pi:443", "pi", "/chat"),
            ("https://[::1]:9", "https://[::1]:9", "[::1]:9", "/"),
            ("ws://pi", "http://pi:80", "pi", "/"),
            ("WS://pi/a/b?c=d", "http://pi:80", "pi", "/a/b?c=d"),
            ("http://[::1]:9?x", "http://[::1]:9", "[::1]:9", "/?x"),
            ("unix:/run/falconet.sock", "unix:/run/falconet.sock", "localhost", "/"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.address.to_string(), address);
            assert_eq!((url.host.as_str(), url.target.as_str()), (host, target));
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        for (text, shown) in [
            ("ws://pi/a?token=b?c", "ws://pi/a"),
            ("http://pi?token=b", "http://pi"),
            ("unix:/run/what?", "unix:/run/what?"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), shown);
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn an_invalid_url_is_refused_with_the_expected_form() {
        for (text, expected) in [
            ("localhost:8080", "ws://HOST"),
            ("ftp://x", "ws://HOST"),
            ("ws://", "ws://HOST"),
            ("ws://user@pi/", "ws://HOST"),
            ("ws://pi:99999/", "ws://HOST"),
            ("wss:///", "ws://HOST"),
            ("ws://pi/#top", "without `#`"),
            ("ws://pi/a b", "visible ASCII"),
            ("ws://pi/\r\nX-Evil: 1", "visible ASCII"),
            ("unix:", "a path"),
        ] {
            let error = text.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("expected"), "{text}: {error}");
        }
    }

    #[test]
    fn a_servers_url_has_no_path() {
        for text in ["http://pi:8080", "http://pi/", "ws://[::1]:9", "unix:/run/falconet.sock"] {
            assert_eq!(Url::of_server(text).unwrap().target, "/", "{text}");
        }
        for text in ["http://pi/chat", "ws://pi?x"] {
            let error = Url::of_server(text).unwrap_err().to_string();
            assert!(error.contains("without a path"), "{error}");
        }
    }
}
