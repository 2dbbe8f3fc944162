//! Finds the file for a URL path in a directory, and opens the file. A returned file has been
//! checked and only needs to be read.
//!
//! Two checks keep a request inside the directory. First, the URL path is parsed, and refused if it
//! could mean anything but a name below the directory. Second, the kernel restricts the resolution
//! of the path to the directory (RESOLVE_BENEATH of openat2(2)): links within the directory work
//! and no link leads out of it, even while another process moves files.

use std::fmt;
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::http::entity_tag::WEAK;
use crate::http::percent::percent_decode;

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
    /// The entity tag: the value of the ETag header.
    pub(crate) tag: String,
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
        let content_type = content_type(&file_name(relative.0, &file));
        let tag = entity_tag(&metadata, SystemTime::now());
        Ok(FoundFile { file, length: metadata.len(), modified, content_type, tag })
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

/// Returns the entity tag of a file. It is weak until [`SAME_TIME`] has passed since the last change: a change
/// after this one may have the same time.
fn entity_tag(metadata: &Metadata, now: SystemTime) -> String {
    // The time of the last change of the inode, because programs can set the time of the last modification
    // back. The inode, because a link may lead to another file that was created at the same time.
    let (seconds, nanoseconds) = (metadata.ctime(), metadata.ctime_nsec());
    let mut hasher = DefaultHasher::new();
    (metadata.ino(), metadata.len(), seconds, nanoseconds).hash(&mut hasher);
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or(0));
    let is_recent = now.duration_since(changed).is_ok_and(|age| age < SAME_TIME);
    format!("{}\"{:016x}\"", if is_recent { WEAK } else { "" }, hasher.finish())
}

/// Returns the name that decides the media type of a file: the last one of `path`, or if that has no extension,
/// the name of the opened file, which differs if the path is that of a link.
fn file_name(path: String, file: &File) -> PathBuf {
    let path = PathBuf::from(path);
    if path.extension().is_some() {
        return path;
    }
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or(path)
}

/// Returns the media type for the extension of a file name.
fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().unwrap_or_default();
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
/// The coarsest resolution of the times of a file: that of FAT.
const SAME_TIME: Duration = Duration::from_secs(2);
/// The media types of extensions. They are registered with IANA, except for those of icons, WAV, WebM and lines
/// of JSON: for these, the types are those that browsers and other programs know. JSON and formats based on it
/// are always UTF-8, and an XML document declares its own encoding, so these have no charset.
const CONTENT_TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("log", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("vtt", "text/vtt; charset=utf-8"),
    ("ics", "text/calendar; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("jsonl", "application/jsonl"),
    ("ndjson", "application/x-ndjson"),
    ("geojson", "application/geo+json"),
    ("webmanifest", "application/manifest+json"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("xml", "application/xml"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("apng", "image/apng"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("jxl", "image/jxl"),
    ("heic", "image/heic"),
    ("bmp", "image/bmp"),
    ("ico", "image/x-icon"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("wasm", "application/wasm"),
    ("woff2", "font/woff2"),
    ("woff", "font/woff"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("mpd", "application/dash+xml"),
    ("ts", "video/mp2t"),
    ("m4s", "video/iso.segment"),
    ("mp4", "video/mp4"),
    ("m4v", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
    ("mkv", "video/matroska"),
    ("ogv", "video/ogg"),
    ("mp3", "audio/mpeg"),
    ("m4a", "audio/mp4"),
    ("aac", "audio/aac"),
    ("ogg", "audio/ogg"),
    ("oga", "audio/ogg"),
    ("opus", "audio/ogg"),
    ("flac", "audio/flac"),
    ("mka", "audio/matroska"),
    ("weba", "audio/webm"),
    ("wav", "audio/wav"),
];

#[cfg(test)]
mod tests;
