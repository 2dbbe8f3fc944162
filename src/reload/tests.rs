use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, mknodat};
use rustix::process::geteuid;

use super::*;

/// A file, removed on drop, and a value that is made from it: its text, unless the text is `invalid`.
struct Watched {
    path: PathBuf,
    reload: Reload,
    now: Instant,
}

impl Watched {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("falconet-{name}-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        fs::write(&path, "old").unwrap();
        let reload = Reload::new("the texts", EVERY, &FileContent::read(&path).unwrap());
        let mut watched = Self { path, reload, now: Instant::now() };
        assert_eq!(watched.after(Duration::ZERO), None, "nothing has changed");
        watched
    }

    /// Uses the value when this time has passed, and returns the new value if there is one.
    fn after(&mut self, time: Duration) -> Option<String> {
        self.renew_after(time, false)
    }

    fn renew_after(&mut self, time: Duration, is_expired: bool) -> Option<String> {
        self.now += time;
        let make = |content: FileContent| match String::from_utf8(content.bytes).unwrap() {
            text if text == "invalid" => Err(io::Error::other("invalid")),
            text => Ok(text),
        };
        self.reload.renew(self.now, is_expired, || FileContent::read(&self.path), make)
    }

    fn has_failed(&self) -> bool {
        self.reload.failure.borrow().is_some()
    }

    /// Puts a file of another kind in the place of the file.
    fn replace(&self, create: impl FnOnce(&Path)) {
        self.remove();
        create(&self.path);
    }

    fn remove(&self) {
        if fs::remove_file(&self.path).is_err() {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.remove();
    }
}

#[test]
fn every_kind_of_failure_keeps_the_value_and_is_retried_until_the_file_is_mended() {
    let failures: [(&str, Fail); 9] = [
        ("missing", |file| file.remove()),
        ("a directory", |file| file.replace(|path| fs::create_dir(path).unwrap())),
        ("a pipe without a writer", |file| file.replace(make_pipe)),
        ("a device", |file| file.replace(|path| symlink("/dev/null", path).unwrap())),
        ("a broken link", |file| file.replace(|path| symlink("/nowhere", path).unwrap())),
        ("a circle of links", |file| file.replace(|path| symlink(path, path).unwrap())),
        ("a read error", |file| file.replace(|path| symlink("/proc/self/mem", path).unwrap())),
        ("no permission", |file| {
            fs::set_permissions(&file.path, Permissions::from_mode(0o000)).unwrap();
        }),
        ("invalid", |file| fs::write(&file.path, "invalid").unwrap()),
    ];
    for (kind, fail) in failures {
        if kind == "no permission" && geteuid().is_root() {
            // Root can read every file.
            continue;
        }
        for mended in ["old", "new"] {
            let mut file = Watched::new("reload-failures");
            fail(&file);
            assert_eq!(file.after(EVERY), None, "{kind}");
            assert!(file.has_failed(), "{kind}");
            assert_eq!(file.after(SECOND), None, "{kind}");
            assert!(file.has_failed(), "{kind}: a failure is not remembered as the new state");
            file.replace(|path| fs::write(path, mended).unwrap());
            assert_eq!(file.after(SECOND - MILLISECOND), None, "{kind}: not yet");
            let renewed = file.after(MILLISECOND);
            assert_eq!(renewed.as_deref(), Some(mended).filter(|text| *text == "new"), "{kind}");
            assert!(!file.has_failed(), "{kind}");
        }
    }
}

/// Makes a file unusable.
type Fail = fn(&Watched);

fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

#[test]
fn a_file_is_read_at_most_once_per_interval_if_it_is_valid() {
    let mut file = Watched::new("reload-interval");
    fs::write(&file.path, "new").unwrap();
    assert_eq!(file.after(EVERY - MILLISECOND), None);
    assert_eq!(file.after(MILLISECOND).as_deref(), Some("new"));
    fs::write(&file.path, "newer").unwrap();
    assert_eq!(file.after(EVERY - MILLISECOND), None);
    assert_eq!(file.after(MILLISECOND).as_deref(), Some("newer"));
}

#[test]
fn a_change_that_keeps_size_and_times_is_noticed() {
    let mut file = Watched::new("reload-times");
    let modified = fs::metadata(&file.path).unwrap().modified().unwrap();
    fs::write(&file.path, "new").unwrap();
    let times = FileTimes::new().set_modified(modified);
    File::options().write(true).open(&file.path).unwrap().set_times(times).unwrap();
    assert_eq!(file.after(EVERY).as_deref(), Some("new"));
}

#[test]
fn new_permissions_are_noticed() {
    let mut file = Watched::new("reload-mode");
    fs::set_permissions(&file.path, Permissions::from_mode(0o666)).unwrap();
    assert_eq!(file.after(EVERY).as_deref(), Some("old"));
    assert_eq!(file.after(EVERY), None);
}

#[test]
fn an_expired_value_is_made_again_from_an_unchanged_source() {
    let mut file = Watched::new("reload-expired");
    assert_eq!(file.renew_after(Duration::ZERO, true).as_deref(), Some("old"));
    assert_eq!(file.after(EVERY), None);
    // While attempts fail, the next attempt is a second later all the same.
    file.remove();
    assert_eq!(file.after(EVERY), None);
    fs::write(&file.path, "old").unwrap();
    assert_eq!(file.renew_after(SECOND - MILLISECOND, true), None);
    assert_eq!(file.after(MILLISECOND).as_deref(), Some("old"));
}

const EVERY: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
