//! The server's own certificate, signed by its own certificate authority and renewed while the server runs.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
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

/// The names and addresses for a certificate. Only the permitted ones are hashed: the other ones do not
/// change the certificate.
pub(super) struct Names {
    /// Those that the authority may sign, in DER.
    permitted: Vec<u8>,
    /// The other ones, as text.
    left_out: Vec<String>,
}

/// The names and times of the certificate in use. They decide how long it stays in use.
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

    /// Returns true if the last certificate is due for renewal, or if the clock was set since it was signed.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.current.borrow().as_ref().is_none_or(|current| current.is_due(now))
    }

    /// Reads the names and addresses of this host. If they can't be read, and a new certificate is due anyway,
    /// returns those of the last certificate.
    ///
    /// # Errors
    /// [`TlsError`], if the addresses can't be read, for example because all descriptors are in use, and are
    /// known from before.
    pub(super) fn names(&self, now: Time) -> Result<Names, TlsError> {
        let host = HostNames::of_this_host(&self.hosts);
        match (&*self.current.borrow(), &host.failure) {
            (Some(current), Some(_)) if current.is_due(now) => {
                Ok(Names { permitted: current.names.clone(), left_out: Vec::new() })
            }
            (Some(_), Some(failure)) => Err(TlsError::new(failure)),
            _ => Ok(self.permitted(host)),
        }
    }

    /// Signs a certificate for `names`. Returns it with its key.
    pub(super) fn sign(
        &self,
        names: Names,
        now: Time,
    ) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), TlsError> {
        let [begin, end] = validity(now);
        let signed = self.authority.sign(&names.permitted, [begin, end])?;
        if !names.left_out.is_empty() {
            log::info!(
                "left out of the TLS certificate, because its authority may not sign for them: {}",
                names.left_out.join(", ")
            );
        }
        let renewed_at = end - DAYS_LEFT * DAY;
        *self.current.borrow_mut() =
            Some(Current { names: names.permitted, signed_at: now, renewed_at });
        Ok(signed)
    }

    /// Divides the names and addresses by whether the authority may sign them.
    fn permitted(&self, host: HostNames) -> Names {
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
        Names { permitted, left_out }
    }
}

impl Hash for Names {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.permitted.hash(state);
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

/// The time at which this program was built, in seconds since 1970. The build script sets it.
const BUILT: u64 = match u64::from_str_radix(env!("FALCONET_BUILT"), 10) {
    Ok(seconds) => seconds,
    Err(_) => 0,
};

/// Seconds.
const DAY: u64 = 24 * 60 * 60;
/// The number of days, from its creation, for which the certificate authority is valid: ten years.
const CA_DAYS: u64 = 3652;
/// The number of days for which a certificate is valid. Browsers refuse more than 398 days. Apple's systems refuse
/// more than 825 days even if the user has installed the authority.
const DAYS: u64 = 397;
/// The number of days before its end at which a certificate is renewed.
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
        assert!(source.is_due(first), "there is no certificate yet");
        source.sign(source.names(first).unwrap(), first).unwrap();
        assert!(!source.is_due(first), "nothing has changed");
        source.is_due(second)
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
        let Names { permitted, left_out } = source.permitted(HostNames::of_this_host(&hosts));
        for host in &hosts[..2] {
            assert!(left_out.contains(host), "{left_out:?}");
        }
        for host in [&b"tv.local"[..], &[10, 9, 9, 9], b"localhost"] {
            assert!(permitted.windows(host.len()).any(|part| part == host), "{host:?}");
        }
    }
}
