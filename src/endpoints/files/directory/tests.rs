use std::io::Read;
use std::os::unix::fs::{FileExt, symlink};
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
        assert!(matches!(error, FileError::BadPath(_) | FileError::NotFound), "{path}: {error}");
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
}

#[test]
fn a_link_has_the_type_of_its_own_name_or_else_of_its_targets() {
    let folder = Folder::new("link-types");
    folder.write("films/film.mp4", "");
    folder.write("films/plain", "");
    folder.link("latest", "films/film.mp4");
    folder.link("again", "latest");
    folder.link("films/newest", "../again");
    folder.link("folder", "films");
    folder.link("film.webm", "films/film.mp4");
    folder.link("film.unknown", "films/film.mp4");
    folder.link("unknown", "films/plain");
    for (path, content_type) in [
        ("/latest", "video/mp4"),
        ("/again", "video/mp4"),
        ("/folder/newest", "video/mp4"),
        ("/film.webm", "video/webm"),
        ("/film.unknown", "application/octet-stream"),
        ("/unknown", "application/octet-stream"),
        ("/films/plain", "application/octet-stream"),
    ] {
        assert_eq!(folder.find(path).unwrap().content_type, content_type, "{path}");
    }
}

#[test]
fn each_change_of_a_file_changes_its_tag() {
    let folder = Folder::new("tags");
    folder.write("one", "one");
    folder.write("two", "two");
    folder.link("link", "one");
    let tag = |path: &str| folder.find(path).unwrap().tag;
    let old = tag("/link");
    assert_eq!(tag("/one"), old);
    // A file with the same length and times.
    let modified = folder.find("/one").unwrap().modified;
    std::fs::remove_file(folder.public("link")).unwrap();
    folder.link("link", "two");
    assert_ne!(tag("/link"), old);
    // A change that is hidden by setting the time of the last modification back.
    let file = File::options().write(true).open(folder.public("one")).unwrap();
    let before = file.metadata().unwrap();
    loop {
        file.write_all_at(b"new", 0).unwrap();
        file.set_modified(modified).unwrap();
        let now = file.metadata().unwrap();
        // The clock of the file system may not have advanced yet.
        if (now.ctime(), now.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
            break;
        }
    }
    assert_eq!(folder.find("/one").unwrap().modified, modified);
    assert_ne!(tag("/one"), old);
}

#[test]
fn a_tag_is_weak_while_another_change_may_have_the_same_time() {
    let folder = Folder::new("weak");
    folder.write("one", "one");
    let metadata = folder.find("/one").unwrap().file.metadata().unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(metadata.ctime() as u64);
    let strong = entity_tag(&metadata, changed + Duration::from_secs(2));
    assert!(strong.starts_with('"') && strong.ends_with('"'), "{strong}");
    for (now, is_weak) in [
        (changed, true),
        (changed + Duration::from_millis(1999), true),
        (changed + Duration::from_secs(2), false),
        (changed - Duration::from_secs(1), false),
    ] {
        let tag = entity_tag(&metadata, now);
        assert_eq!(tag.starts_with("W/"), is_weak, "{now:?}");
        assert_eq!(tag.trim_start_matches("W/"), strong);
    }
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
        ("archive.tar.gz", "application/gzip"),
        ("a.avif", "image/avif"),
        ("a.m3u8", "application/vnd.apple.mpegurl"),
        ("a.mpd", "application/dash+xml"),
        ("a.ts", "video/mp2t"),
        ("a.jsonl", "application/jsonl"),
        ("a.opus", "audio/ogg"),
        ("a.flac", "audio/flac"),
        ("a.b", "application/octet-stream"),
        ("html", "application/octet-stream"),
        ("page.html/raw", "application/octet-stream"),
        ("dot.", "application/octet-stream"),
    ] {
        assert_eq!(content_type(Path::new(name)), expected, "{name}");
    }
}

#[test]
fn errors_are_displayed_as_lines_for_the_log() {
    for (error, line) in [
        (FileError::BadPath("an empty segment"), "the path has an empty segment"),
        (FileError::from(Errno::NOENT), "no such file"),
        (FileError::from(Errno::XDEV), "a link leads out of the directory"),
        (FileError::from(Errno::MFILE), "can't open the file: Too many open files (os error 24)"),
    ] {
        assert_eq!(error.to_string(), line);
    }
}

const SECRET: &str = "the secret";
/// The attempts that can be written into a request. The integration tests send them, too.
const TRAVERSALS: &str = include_str!("../../../../tests/traversals.txt");
/// The attempts that can't be written into a request.
const RAW_TRAVERSALS: [&str; 6] = [
    "/../secret\0.html",
    "/..\n/secret",
    "/\u{ff0e}\u{ff0e}/secret",
    "/\u{2025}/secret",
    "/..\u{2215}secret",
    "/\u{202e}/../secret",
];
