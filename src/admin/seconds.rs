//! Times in seconds, as text.

use std::fmt;
use std::time::Duration;

/// A time that is displayed in seconds with six decimals. Formatting a float would add 20 KB of code to the
/// program.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_six_decimals() {
        assert_eq!(Seconds(Duration::from_micros(1_000_020)).to_string(), "1.000020");
    }
}
