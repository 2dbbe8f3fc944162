//! The server's own certificate, signed by its own certificate authority and renewed while the server runs.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Instant, SystemTime};

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::authority::{Authority, Validity, octets, permits_address};
use super::der::{DNS_NAME, IP_ADDRESS, der};
use super::host_names::HostNames;
use super::pem::fingerprint;
use super::setup::TlsError;

/// The source of a server's certificates. They are kept in memory only.
pub(super) struct SelfSigned {
    authority: Authority,
    /// The hosts in the listen URLs.
    hosts: Vec<String>,
    current: RefCell<Option<Current>>,
}

/// What decides how long a certificate stays in use.
struct Current {
    /// The names and addresses in the certificate, in DER.
    names: Vec<u8>,
    signed_at: Time,
    /// In seconds since 1970.
    renewed_at: u64,
}

/// A moment on both clocks.
#[derive(Clone, Copy)]
pub(super) struct Time {
    instant: Instant,
    /// The time of the system's clock, which may be wrong, in seconds since 1970.
    clock: u64,
}

impl SelfSigned {
    /// Loads or creates the certificate authority, in memory if there is no `state_dir`. Certificates are for
    /// this host and for `hosts`.
    pub(super) fn new(state_dir: Option<&Path>, hosts: &[String]) -> Result<Self, TlsError> {
        let today = Time::now(Instant::now()).date();
        // Valid from the build date, because the clock may be set back to the right time later.
        let validity = [BUILT, today + CA_DAYS * DAY];
        let authority = match state_dir {
            Some(directory) => Authority::find_or_create(directory, validity, today + DAYS * DAY)?,
            None => Authority::generate(validity)?,
        };
        let fingerprint = fingerprint(authority.certificate());
        log::info!("TLS certificate authority in use, SHA-256 fingerprint {fingerprint}");
        Ok(Self { authority, hosts: hosts.to_vec(), current: RefCell::default() })
    }

    /// Returns a new certificate and its key if there is none yet, if the last one is due for renewal, or
    /// if the clock was set since. With `checks_names`, also if this host's names or addresses have changed.
    pub(super) fn renew(
        &self,
        now: Time,
        checks_names: bool,
    ) -> Result<Option<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>)>, TlsError> {
        let mut current = self.current.borrow_mut();
        let is_due = current.as_ref().is_none_or(|current| current.is_due(now));
        if !is_due && !checks_names {
            return Ok(None);
        }
        let host = HostNames::of_this_host(&self.hosts);
        let (names, left_out) = match &*current {
            // Perhaps all descriptors are in use. The addresses are known from before.
            Some(current) if !host.is_complete => (current.names.clone(), Vec::new()),
            _ => self.permitted(host),
        };
        if !is_due && current.as_ref().is_some_and(|current| current.names == names) {
            return Ok(None);
        }
        let [begin, end] = validity(now);
        let signed = self.authority.sign(&names, [begin, end])?;
        if !left_out.is_empty() {
            log::info!(
                "left out of the TLS certificate, because its authority may not sign for them: {}",
                left_out.join(", ")
            );
        }
        *current = Some(Current { names, signed_at: now, renewed_at: end - DAYS_LEFT * DAY });
        Ok(Some(signed))
    }

    /// Returns the names and addresses that the authority may sign, in DER, and the other ones.
    fn permitted(&self, host: HostNames) -> (Vec<u8>, Vec<String>) {
        let (mut permitted, mut left_out) = (Vec::new(), Vec::new());
        for name in host.names {
            match self.authority.permits_name(&name) {
                true => permitted.extend(der(DNS_NAME, name.as_bytes())),
                false => left_out.push(name),
            }
        }
        for address in host.addresses {
            match permits_address(address) {
                true => permitted.extend(der(IP_ADDRESS, &octets(address))),
                false => left_out.push(address.to_string()),
            }
        }
        (permitted, left_out)
    }
}

impl Current {
    fn is_due(&self, now: Time) -> bool {
        let elapsed = now.instant.saturating_duration_since(self.signed_at.instant).as_secs();
        let expected = self.signed_at.clock.saturating_add(elapsed);
        // The certificate tolerates a smaller jump.
        let has_jumped = now.clock.abs_diff(expected) >= DAY;
        has_jumped || now.date() >= self.renewed_at
    }
}

impl Time {
    /// Reads the system's clock at `instant`.
    pub(super) fn now(instant: Instant) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self { instant, clock: since_1970.map_or(0, |since| since.as_secs()) }
    }

    /// Returns the time for certificates, in seconds since 1970. It is not before the build date: a host
    /// without a battery starts with a clock in the past.
    fn date(self) -> u64 {
        self.clock.max(BUILT)
    }
}

/// Returns the validity of a certificate that is signed at `now`. It begins a day earlier, for clients whose
/// clock is slow.
fn validity(now: Time) -> Validity {
    let begin = now.date().saturating_sub(DAY);
    // Both seconds are included.
    [begin, begin + DAYS * DAY - 1]
}

/// When this program was built, in seconds since 1970, as the build script says.
const BUILT: u64 = match u64::from_str_radix(env!("FALCONET_BUILT"), 10) {
    Ok(seconds) => seconds,
    Err(_) => 0,
};

/// Seconds.
const DAY: u64 = 24 * 60 * 60;
/// How long the certificate authority is valid: ten years.
const CA_DAYS: u64 = 3652;
/// How long a certificate is valid. Browsers refuse more than 398 days, Apple's systems even of one's own
/// authority more than 825.
const DAYS: u64 = 397;
/// How long before its end a certificate is renewed.
const DAYS_LEFT: u64 = 30;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A moment `days` after the build, whose clock shows `clock_days` after the build.
    fn after(start: Instant, days: u64, clock_days: i64) -> Time {
        let clock = BUILT.saturating_add_signed(clock_days * DAY.cast_signed());
        Time { instant: start + Duration::from_secs(days * DAY), clock }
    }

    /// Signs at `first`, and returns whether a certificate is signed anew at `second`.
    fn is_renewed(first: Time, second: Time) -> bool {
        let source = SelfSigned::new(None, &[]).unwrap();
        assert!(source.renew(first, true).unwrap().is_some());
        assert!(source.renew(first, true).unwrap().is_none(), "nothing has changed");
        source.renew(second, false).unwrap().is_some()
    }

    #[test]
    fn a_certificate_is_renewed_when_a_month_is_left() {
        let start = Instant::now();
        let first = after(start, 0, 5);
        assert!(!is_renewed(first, after(start, 365, 370)));
        assert!(is_renewed(first, after(start, 366, 371)));
    }

    #[test]
    fn a_certificate_is_renewed_when_the_clock_jumps() {
        let start = Instant::now();
        for (before, since, renews) in [
            (5, 100, true),
            (100, 5, true),
            (-20_000, 3, true),
            (-20_000, -20_000, false),
            (5, 5, false),
        ] {
            assert_eq!(
                is_renewed(after(start, 0, before), after(start, 0, since)),
                renews,
                "{before} {since}"
            );
        }
    }

    #[test]
    fn a_clock_before_the_build_date_counts_as_that_date() {
        let start = Instant::now();
        let expected = [BUILT - DAY, BUILT + 396 * DAY - 1];
        assert_eq!(validity(after(start, 0, -20_000)), expected);
        assert_eq!(validity(after(start, 0, 0)), expected);
        // The clock of this host is still in the past a year later.
        assert!(!is_renewed(after(start, 0, -20_000), after(start, 365, -20_000 + 365)));
    }

    #[test]
    fn public_names_and_addresses_are_left_out() {
        let hosts = ["example.org", "2001:db8::1", "10.9.9.9", "tv.local"].map(str::to_owned);
        let source = SelfSigned::new(None, &hosts).unwrap();
        let (names, left_out) = source.permitted(HostNames::of_this_host(&hosts));
        for host in &hosts[..2] {
            assert!(left_out.contains(host), "{left_out:?}");
        }
        for host in [&b"tv.local"[..], &[10, 9, 9, 9], b"localhost"] {
            assert!(names.windows(host.len()).any(|part| part == host), "{host:?}");
        }
    }
}
