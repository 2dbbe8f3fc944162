//! Tokens in requests, and a check that they do not leak.

use super::process::Falconet;

/// Returns the header line that presents `token`.
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Returns the header line that presents a token by HTTP Basic authentication. The argument is `USER:TOKEN`.
pub fn basic(user_and_password: &str) -> String {
    use base64ct::Encoding;
    let encoded = base64ct::Base64::encode_string(user_and_password.as_bytes());
    format!("Authorization: Basic {encoded}\r\n")
}

/// Checks that `token` is neither in the log nor in the arguments of the process.
pub fn assert_no_token_leak(falconet: &Falconet, token: &str) {
    let arguments = std::fs::read(format!("/proc/{}/cmdline", falconet.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(token));
    let log = falconet.log_so_far();
    let leaks: Vec<_> = log.iter().filter(|line| line.contains(token)).collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
