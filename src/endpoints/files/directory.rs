//! Finds the file for a URL path in a directory, and opens the file. A returned file has been
//! checked and only needs to be read.
//!
//! Two checks keep a request inside the directory. First, the URL path is parsed, and refused if it
//! could mean anything but a name below the directory. Second, the kernel restricts the resolution
//! of the path to the directory (RESOLVE_BENEATH of openat2(2)): links within the directory work
//! and no link leads out of it, even while another process moves files.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A directory whose files are served.
#[derive(Debug)]
pub(crate) struct Files {
    root: OwnedFd,
}

/// A file that was found, with its properties at the time of opening.
#[derive(Debug)]
pub(crate) struct FoundFile {
    /// The file, open for reading at its start.
    pub(crate) file: File,
    /// The length in bytes. The file may shrink or grow while it is sent.
    pub(crate) length: u64,
    /// The time of the last modification.
    pub(crate) modified: SystemTime,
    /// The media type for the extension of the file's name: the value of the Content-Type header.
    pub(crate) content_type: &'static str,
}

impl Files {
    /// Opens a directory. If the directory is renamed or replaced later, the one that was opened is
    /// still served.
    ///
    /// # Errors
    /// If the directory can't be opened, or if the kernel is older than Linux 5.6.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let files = Self { root: rustix::fs::open(dir, flags, Mode::empty())? };
        match files.open_beneath(".", OFlags::PATH) {
            Ok(_) => Ok(files),
            // Some sandboxes return EPERM for system calls that they do not know.
            Err(error @ (Errno::NOSYS | Errno::PERM)) => {
                let text =
                    format!("can't call openat2: {error}; serving files needs Linux 5.6 or later");
                Err(io::Error::new(io::ErrorKind::Unsupported, text))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Finds and opens the file for a URL path. A path that ends with a slash stands for the file
    /// `index.html` in that directory. `path` begins with a slash, has no query, and is not
    /// percent-decoded.
    ///
    /// # Errors
    /// [`FileError`]. If a slash at the end of `path` would find an `index.html`, the error is
    /// [`FileError::IsDirectory`].
    pub(crate) fn find(&self, path: &str) -> Result<FoundFile, FileError> {
        let relative = RelativePath::parse(path)?;
        // Opening a device can have side effects, such as rewinding a tape or resetting a board. So
        // the type of the file is checked through an O_PATH descriptor first, which opens nothing.
        // The file may be replaced before it is opened for reading: then O_NONBLOCK prevents
        // waiting for the writer of a FIFO, O_NOCTTY prevents a terminal from becoming the
        // controlling terminal, and the type is checked again.
        let checked = self.open_regular(&relative, OFlags::PATH);
        if matches!(checked, Err(FileError::IsDirectory)) && !self.has_index(path) {
            return Err(FileError::NotFound);
        }
        checked?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let (file, metadata) = self.open_regular(&relative, flags)?;
        let modified = metadata.modified().map_err(|error| FileError::from(&error))?;
        let content_type = content_type(&relative.0);
        Ok(FoundFile { file, length: metadata.len(), modified, content_type })
    }

    /// Returns true if the directory at `path` has an `index.html`. False if `path` ends with a
    /// slash.
    fn has_index(&self, path: &str) -> bool {
        // If `path` ends with a slash, a second slash makes an empty segment, which is refused.
        let index = RelativePath::parse(&format!("{path}/"));
        index.and_then(|index| self.open_regular(&index, OFlags::PATH)).is_ok()
    }

    /// Opens a file and checks that it is a regular file.
    fn open_regular(
        &self,
        path: &RelativePath,
        flags: OFlags,
    ) -> Result<(File, Metadata), FileError> {
        let file = File::from(self.open_beneath(&path.0, flags)?);
        let metadata = file.metadata().map_err(|error| FileError::from(&error))?;
        match metadata.file_type() {
            kind if kind.is_file() => Ok((file, metadata)),
            kind if kind.is_dir() => Err(FileError::IsDirectory),
            _ => Err(FileError::NotRegular),
        }
    }

    fn open_beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        // BENEATH implies NO_MAGICLINKS today, but openat2(2) does not promise that for the future.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            let opened = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve);
            attempts += 1;
            match opened {
                // EAGAIN: a directory is being renamed somewhere on the system, and the kernel
                // can't resolve `..` safely.
                Err(Errno::AGAIN | Errno::INTR) if attempts < OPEN_ATTEMPTS => {}
                opened => return opened,
            }
        }
    }
}

/// A path below a directory: names that are separated by single slashes. No name begins with a dot.
#[derive(Debug, PartialEq, Eq)]
struct RelativePath(String);

impl RelativePath {
    /// Percent-decodes each segment of a URL path once (RFC 3986 §2.4) and checks it.
    fn parse(path: &str) -> Result<Self, FileError> {
        let path = path.strip_prefix('/').ok_or(FileError::BadPath("no slash at its start"))?;
        let mut segments: Vec<&str> = path.split('/').collect();
        if let Some(last @ &mut "") = segments.last_mut() {
            *last = INDEX;
        }
        let names: Result<Vec<String>, FileError> =
            segments.into_iter().map(decode_segment).collect();
        Ok(Self(names?.join("/")))
    }
}

/// Percent-decodes a segment and checks that the result is a file name that may be served.
fn decode_segment(segment: &str) -> Result<String, FileError> {
    let bytes = percent_decode(segment).ok_or(FileError::BadPath("a bad percent escape"))?;
    let name = String::from_utf8(bytes).map_err(|_| FileError::BadPath("a name not in UTF-8"))?;
    let problem = if name.is_empty() {
        "an empty segment"
    } else if name.starts_with('.') {
        "a name that begins with a dot"
    } else if name.contains(['/', '\\']) {
        "a slash within a name"
    } else if name.contains(char::is_control) {
        "a control character"
    } else if name.len() > NAME_BYTES {
        "a name that is too long"
    } else {
        return Ok(name);
    };
    Err(FileError::BadPath(problem))
}

/// Decodes percent escapes: `%41` becomes `A`. Returns `None` if a percent sign is not followed by
/// two hexadecimal digits.
fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let mut encoded = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = encoded.next() {
        decoded.push(match byte {
            b'%' => (digit(encoded.next())? * 16 + digit(encoded.next())?) as u8,
            byte => byte,
        });
    }
    Some(decoded)
}

/// Returns the media type for the extension of a file name.
fn content_type(path: &str) -> &'static str {
    let extension = Path::new(path).extension().unwrap_or_default();
    let known = CONTENT_TYPES.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known));
    known.map_or("application/octet-stream", |(_, content_type)| content_type)
}

/// The reason why there is no file to send. Except for `IsDirectory` and `Failed`, the peer must
/// get the same response for all of them, or it could learn which files exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileError {
    /// No file that is served can have this path; the text says what is wrong with the path.
    BadPath(&'static str),
    /// There is no such file, or it is a directory without an `index.html`.
    NotFound,
    /// The path is that of a directory with an `index.html`, but has no slash at its end.
    IsDirectory,
    /// The file is a FIFO, a socket or a device.
    NotRegular,
    /// A link leads out of the directory. An absolute link always counts as leading out.
    Outside,
    /// The links form a loop, or the system denies access to the file.
    Refused(Errno),
    /// This host has a problem, such as no free file descriptor or a broken disk.
    Failed(Errno),
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => Self::NotFound,
            Errno::XDEV => Self::Outside,
            Errno::ACCESS | Errno::PERM | Errno::LOOP => Self::Refused(errno),
            errno => Self::Failed(errno),
        }
    }
}

impl From<&io::Error> for FileError {
    fn from(error: &io::Error) -> Self {
        Errno::from_io_error(error).unwrap_or(Errno::IO).into()
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPath(what) => write!(f, "the path has {what}"),
            Self::NotFound => f.write_str("no such file"),
            Self::IsDirectory => f.write_str("a directory, requested without a slash at the end"),
            Self::NotRegular => f.write_str("not a regular file"),
            Self::Outside => f.write_str("a link leads out of the directory"),
            Self::Refused(errno) => write!(f, "can't serve the file: {errno}"),
            Self::Failed(errno) => write!(f, "can't open the file: {errno}"),
        }
    }
}

impl std::error::Error for FileError {}

/// The name of the file that a path with a slash at its end stands for.
const INDEX: &str = "index.html";
/// The longest file name that file systems allow, in bytes.
const NAME_BYTES: usize = 255;
/// The maximum number of attempts to open a file while directories are being renamed. If
/// directories are renamed all the time, one attempt in six fails, and two in a row hardly ever do.
const OPEN_ATTEMPTS: usize = 8;
/// The media types of extensions. JSON and formats based on it are always UTF-8, and an XML
/// document declares its own encoding, so these have no charset.
const CONTENT_TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("xml", "application/xml"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("ico", "image/x-icon"),
    ("pdf", "application/pdf"),
    ("wasm", "application/wasm"),
    ("woff2", "font/woff2"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
];

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use rustix::fs::{CWD, inotify};
    use rustix::thread::CapabilitySet;

    use super::*;

    /// A temporary directory, deleted on drop. It has the subdirectory `public`, which is served,
    /// and the file `secret`, which is not.
    struct Folder {
        path: PathBuf,
        files: Files,
    }

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("falconet-files-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let public = path.join("public");
            std::fs::create_dir_all(&public).unwrap();
            std::fs::write(path.join("secret"), SECRET).unwrap();
            let files = Files::open(&public).unwrap();
            Self { path, files }
        }

        fn public(&self, name: &str) -> PathBuf {
            self.path.join("public").join(name)
        }

        /// Writes a file and creates the directories above it.
        fn write(&self, name: &str, content: impl AsRef<[u8]>) {
            let path = self.public(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }

        fn link(&self, name: &str, target: impl AsRef<Path>) {
            symlink(target, self.public(name)).unwrap();
        }

        fn find(&self, path: &str) -> Result<FoundFile, FileError> {
            self.files.find(path)
        }

        fn error(&self, path: &str) -> FileError {
            self.find(path).map(|_| path).unwrap_err()
        }

        fn content(&self, path: &str) -> String {
            read(self.find(path).unwrap())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }

    fn read(mut found: FoundFile) -> String {
        let mut text = String::new();
        found.file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_found_file_has_its_length_time_and_type() {
        let folder = Folder::new("plain");
        folder.write("sub/data.JSON", "{}\n");
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let file = File::options().write(true).open(folder.public("sub/data.JSON")).unwrap();
        file.set_modified(modified).unwrap();
        let found = folder.find("/sub/data.JSON").unwrap();
        assert_eq!((found.length, found.modified), (3, modified));
        assert_eq!(found.content_type, "application/json");
        assert_eq!(read(found), "{}\n");
    }

    #[test]
    fn names_are_decoded_once() {
        let folder = Folder::new("decoded");
        for name in ["a b+c", "50%", "%41", "é☂", "a;b=c", "q?.txt", "x..y", "dot.", "~", "A"] {
            folder.write(name, name);
        }
        for (path, name) in [
            ("/a%20b+c", "a b+c"),
            ("/50%25", "50%"),
            ("/%2541", "%41"),
            ("/%c3%A9%E2%98%82", "é☂"),
            ("/é☂", "é☂"),
            ("/a;b=c", "a;b=c"),
            ("/q%3F%2etxt", "q?.txt"),
            ("/x..y", "x..y"),
            ("/dot.", "dot."),
            ("/%7e", "~"),
            ("/%41", "A"),
        ] {
            assert_eq!(folder.content(path), name, "{path}");
        }
    }

    #[test]
    fn a_path_that_ends_with_a_slash_finds_the_index() {
        let folder = Folder::new("index");
        assert_eq!(folder.error("/"), FileError::NotFound);
        folder.write("index.html", "root");
        folder.write("sub/index.html", "sub");
        folder.write("sub/deep/index.html", "deep");
        folder.write("bare/data.json", "{}");
        folder.write("odd/index.html/index.html", "odd");
        for (path, content) in [("/", "root"), ("/sub/", "sub"), ("/sub/deep/", "deep")] {
            let found = folder.find(path).unwrap();
            assert_eq!(found.content_type, "text/html; charset=utf-8");
            assert_eq!(read(found), content);
        }
        for path in ["/sub", "/sub/deep", "/odd/index.html"] {
            assert_eq!(folder.error(path), FileError::IsDirectory, "{path}");
        }
        for path in ["/bare", "/bare/", "/bare/data.json/", "/none/", "/odd/", "/odd"] {
            assert_eq!(folder.error(path), FileError::NotFound, "{path}");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_directory() {
        let folder = Folder::new("traversal");
        folder.write("dir/data.json", "{}");
        folder.write(".git/config", SECRET);
        folder.write(".htaccess", SECRET);
        folder.write("dir/.hidden", SECRET);
        let mut tried = 0;
        for path in TRAVERSALS.lines().filter(|line| line.starts_with('/')).chain(RAW_TRAVERSALS) {
            tried += 1;
            let error = folder.error(path);
            assert!(
                matches!(error, FileError::BadPath(_) | FileError::NotFound),
                "{path}: {error}"
            );
        }
        assert!(tried > 80, "only {tried} paths in the table");
        // Longer than the longest path that the kernel accepts.
        let long = format!("/{}data.json", "dir/".repeat(1100));
        assert_eq!(folder.error(&long), FileError::NotFound);
    }

    #[test]
    fn a_bad_path_is_refused_by_the_parser() {
        for path in [
            "",
            "x",
            "..",
            "/..",
            "/a/..",
            "/.",
            "/./a",
            "/a/.",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/%",
            "/%2",
            "/%zz",
            "/%+1",
            "/%2%65",
            "/a%00",
            "/a%0a",
            "/a%7f",
            "/%c2%80",
            "/a\0b",
            "/a%2fb",
            "/%2F",
            "/a\\b",
            "/a%5Cb",
            "/%c0%ae%c0%ae/a",
            "/%ff",
            "/.a",
            "/a/.b/c",
            "/%2ea",
            "/a/%2E",
        ] {
            let parsed = RelativePath::parse(path);
            assert!(matches!(parsed, Err(FileError::BadPath(_))), "{path:?}: {parsed:?}");
        }
        let name = "x".repeat(256);
        assert!(RelativePath::parse(&format!("/{name}")).is_err());
        assert!(RelativePath::parse(&format!("/{}", &name[1..])).is_ok());
    }

    #[test]
    fn links_within_the_directory_work() {
        let folder = Folder::new("links");
        folder.write("sub/data.json", "{}");
        folder.link("file.txt", "sub/data.json");
        folder.link("folder", "sub");
        folder.link("sub/up", "../sub/data.json");
        for path in ["/file.txt", "/folder/data.json", "/sub/up"] {
            assert_eq!(folder.content(path), "{}", "{path}");
        }
        // The type follows the requested name, not the target of the link.
        assert_eq!(folder.find("/file.txt").unwrap().content_type, "text/plain; charset=utf-8");
    }

    #[test]
    fn links_within_the_directory_work_while_directories_are_renamed() {
        let folder = Folder::new("renaming");
        folder.write("sub/data.json", "{}");
        folder.write("a/data.json", "{}");
        folder.link("sub/up", "../sub/data.json");
        let (a, b) = (folder.public("a"), folder.public("b"));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::fs::rename(&a, &b).unwrap();
                    std::fs::rename(&b, &a).unwrap();
                }
            });
            let errors: Vec<FileError> =
                (0..2_000).filter_map(|_| folder.find("/sub/up").err()).collect();
            done.store(true, Ordering::Relaxed);
            assert_eq!(errors, []);
        });
    }

    #[test]
    fn links_out_of_the_directory_are_refused() {
        let folder = Folder::new("links-out");
        folder.write("sub/data.json", "{}");
        folder.link("absolute", folder.path.join("secret"));
        folder.link("relative", "../secret");
        folder.link("sub/relative", "../../secret");
        folder.link("outside", "..");
        folder.link("system", "/");
        folder.link("in-and-out", "sub/relative");
        // This link leads back into the directory, but through the root directory.
        folder.link("around", folder.public("sub/data.json"));
        for path in [
            "/absolute",
            "/relative",
            "/sub/relative",
            "/outside/secret",
            "/outside/public/sub/data.json",
            "/system/etc/passwd",
            "/in-and-out",
            "/around",
        ] {
            assert_eq!(folder.error(path), FileError::Outside, "{path}");
        }
    }

    #[test]
    fn link_loops_and_dangling_links_are_refused() {
        let folder = Folder::new("loop");
        folder.link("loop", "pool");
        folder.link("pool", "loop");
        folder.link("self", "self");
        folder.link("dangling", "nothing");
        for path in ["/loop", "/self", "/loop/data.json"] {
            assert_eq!(folder.error(path), FileError::Refused(Errno::LOOP), "{path}");
        }
        assert_eq!(folder.error("/dangling"), FileError::NotFound);
    }

    #[test]
    fn magic_links_are_refused_even_within_the_directory() {
        let files = Files::open(Path::new("/proc")).unwrap();
        let error = files.find("/self/exe").unwrap_err();
        assert_eq!(error, FileError::Refused(Errno::LOOP));
    }

    #[test]
    fn a_fifo_or_socket_is_refused_without_being_opened() {
        let folder = Folder::new("special");
        folder.write("data.json", "{}");
        rustix::fs::mkfifoat(CWD, folder.public("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.public("socket")).unwrap();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, folder.public(""), inotify::WatchFlags::OPEN).unwrap();
        for path in ["/pipe", "/socket"] {
            assert_eq!(folder.error(path), FileError::NotRegular, "{path}");
        }
        let mut event = [0; 512];
        assert_eq!(rustix::io::read(&watch, &mut event), Err(Errno::WOULDBLOCK));
        folder.find("/data.json").unwrap();
        assert!(rustix::io::read(&watch, &mut event).is_ok(), "inotify must report an open file");
    }

    #[test]
    fn devices_are_refused() {
        let files = Files::open(Path::new("/dev")).unwrap();
        for path in ["/null", "/zero"] {
            assert_eq!(files.find(path).unwrap_err(), FileError::NotRegular, "{path}");
        }
    }

    #[test]
    fn a_file_without_read_permission_is_refused() {
        let folder = Folder::new("unreadable");
        folder.write("data.json", "{}");
        let file = File::open(folder.public("data.json")).unwrap();
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        drop_file_capabilities();
        assert_eq!(folder.error("/data.json"), FileError::Refused(Errno::ACCESS));
    }

    /// Makes file permissions apply to this thread even if it runs as root. Each test has a thread
    /// of its own.
    fn drop_file_capabilities() {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        rustix::thread::set_capabilities(None, sets).unwrap();
    }

    #[test]
    fn files_may_be_empty_or_larger_than_memory() {
        let folder = Folder::new("sizes");
        folder.write("empty", "");
        assert_eq!(folder.find("/empty").unwrap().length, 0);
        folder.write("big.bin", "");
        let big = File::options().write(true).open(folder.public("big.bin")).unwrap();
        big.set_len(5 << 30).unwrap();
        let found = folder.find("/big.bin").unwrap();
        assert_eq!((found.length, found.content_type), (5 << 30, "application/octet-stream"));
    }

    #[test]
    fn a_renamed_directory_is_still_served() {
        let folder = Folder::new("renamed");
        folder.write("data.json", "old");
        std::fs::rename(folder.public(""), folder.path.join("moved")).unwrap();
        folder.write("data.json", "new");
        assert_eq!(folder.content("/data.json"), "old");
    }

    #[test]
    fn only_a_directory_can_be_opened() {
        let folder = Folder::new("open");
        folder.write("data.json", "{}");
        let kind = |path: PathBuf| Files::open(&path).unwrap_err().kind();
        assert_eq!(kind(folder.public("data.json")), io::ErrorKind::NotADirectory);
        assert_eq!(kind(folder.public("nothing")), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_extension_decides_the_type() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/b.MJS", "text/javascript; charset=utf-8"),
            ("jquery.min.js", "text/javascript; charset=utf-8"),
            ("x.Jpeg", "image/jpeg"),
            ("archive.tar.gz", "application/octet-stream"),
            ("html", "application/octet-stream"),
            ("page.html/raw", "application/octet-stream"),
            ("dot.", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }

    #[test]
    fn errors_are_displayed_as_lines_for_the_log() {
        for (error, line) in [
            (FileError::BadPath("an empty segment"), "the path has an empty segment"),
            (FileError::from(Errno::NOENT), "no such file"),
            (FileError::from(Errno::XDEV), "a link leads out of the directory"),
            (
                FileError::from(Errno::MFILE),
                "can't open the file: Too many open files (os error 24)",
            ),
        ] {
            assert_eq!(error.to_string(), line);
        }
    }

    const SECRET: &str = "the secret";
    /// The attempts that can be written into a request. The integration tests send them, too.
    const TRAVERSALS: &str = include_str!("../../../tests/traversals.txt");
    /// The attempts that can't be written into a request.
    const RAW_TRAVERSALS: [&str; 6] = [
        "/../secret\0.html",
        "/..\n/secret",
        "/\u{ff0e}\u{ff0e}/secret",
        "/\u{2025}/secret",
        "/..\u{2215}secret",
        "/\u{202e}/../secret",
    ];
}
