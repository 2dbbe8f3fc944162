//! Files of a directory, served with `--static`, and attempts to read other files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode};
use rustix::net::sockopt;

use crate::support::browser::Window;
use crate::support::command::{assert_refused, run};
use crate::support::installed::find_program;
use crate::support::*;

#[test]
fn a_file_comes_with_its_type_length_and_time() {
    let site = Site::new("plain");
    site.write("sub/data.json", "{\"falcons\": 3}\n");
    site.date("sub/data.json", 784_111_777);
    let falconet = site.serve();
    for target in ["/sub/data.json", "/sub/data.json?v=2", "/%73ub/d%61ta%2Ejson"] {
        let answer = fetch(&falconet, "GET", target, "");
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(answer.body, b"{\"falcons\": 3}\n");
        for (name, value) in [
            ("Content-Type", "application/json"),
            ("Content-Length", "15"),
            ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("X-Content-Type-Options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{target}");
        }
    }
}

#[test]
fn head_gets_the_same_head_and_no_body() {
    let site = Site::new("head");
    site.write("data.json", "{}");
    site.write("empty.txt", "");
    site.write("sub/index.html", "sub");
    let falconet = site.serve();
    for target in ["/data.json", "/empty.txt", "/sub/", "/sub", "/none"] {
        let (full, head) =
            (fetch(&falconet, "GET", target, ""), fetch(&falconet, "HEAD", target, ""));
        // The tag becomes a strong one after two seconds.
        assert_eq!(head.head.replace("W/", ""), full.head.replace("W/", ""), "{target}");
        assert_eq!(head.body, b"", "{target}");
        assert_eq!(full.header("Content-Length"), Some(&*full.body.len().to_string()), "{target}");
    }
}

#[test]
fn an_unmodified_file_is_304() {
    let site = Site::new("conditional");
    site.write("data.json", "{}");
    site.date("data.json", 784_111_777);
    let falconet = site.serve();
    for (since, status, body) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 304, ""),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200, "{}"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 200, "{}"),
        ("yesterday", 200, "{}"),
        ("", 200, "{}"),
    ] {
        let since = format!("If-Modified-Since: {since}\r\n");
        let answer = fetch(&falconet, "GET", "/data.json", &since);
        assert_eq!((answer.status(), answer.text()), (status, body), "{since}");
        assert_eq!(fetch(&falconet, "HEAD", "/data.json", &since).status(), status, "{since}");
    }
    // A changed file is sent again.
    let known = fetch(&falconet, "GET", "/data.json", "");
    let since = format!("If-Modified-Since: {}\r\n", known.header("Last-Modified").unwrap());
    assert_eq!(fetch(&falconet, "GET", "/data.json", &since).status(), 304);
    site.write("data.json", "[]");
    assert_eq!(fetch(&falconet, "GET", "/data.json", &since).text(), "[]");
}

#[test]
fn a_request_for_a_range_gets_only_that_range() {
    let site = Site::new("range");
    site.write("data.txt", "0123456789");
    let falconet = site.serve();
    for (range, content, content_range) in [
        ("bytes=0-1", "01", "bytes 0-1/10"),
        ("bytes=3-3", "3", "bytes 3-3/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-99", "0123456789", "bytes 0-9/10"),
        ("bytes=0-", "0123456789", "bytes 0-9/10"),
    ] {
        let answer = fetch(&falconet, "GET", "/data.txt", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status(), answer.text()), (206, content), "{range}");
        assert_eq!(answer.header("Content-Range"), Some(content_range), "{range}");
        assert_eq!(answer.header("Content-Length"), Some(&*content.len().to_string()), "{range}");
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
        assert!(answer.header("ETag").is_some() && answer.header("Last-Modified").is_some());
    }
}

#[test]
fn a_range_behind_the_end_is_416_with_the_size() {
    let site = Site::new("behind");
    site.write("data.txt", "0123456789");
    site.write("empty.txt", "");
    let falconet = site.serve();
    for (target, range, content_range) in [
        ("/data.txt", "bytes=10-", "bytes */10"),
        ("/data.txt", "bytes=99-100", "bytes */10"),
        ("/data.txt", "bytes=-0", "bytes */10"),
        ("/empty.txt", "bytes=0-", "bytes */0"),
    ] {
        let answer = fetch(&falconet, "GET", target, &format!("Range: {range}\r\n"));
        assert_eq!(answer.status(), 416, "{range}");
        assert_eq!(answer.header("Content-Range"), Some(content_range), "{range}");
    }
}

#[test]
fn a_range_that_is_not_understood_gets_the_whole_file() {
    let site = Site::new("whole");
    site.write("data.txt", "0123456789");
    site.write("empty.txt", "");
    let falconet = site.serve();
    for (target, lines) in [
        ("/data.txt", "Range: bytes=0-1,4-5\r\n"),
        ("/data.txt", "Range: bytes=0-1\r\nRange: bytes=4-5\r\n"),
        ("/data.txt", "Range: bytes=5-3\r\n"),
        ("/data.txt", "Range: lines=0-1\r\n"),
        ("/data.txt", "Range: first two\r\n"),
        ("/data.txt", "Range: \r\n"),
        ("/empty.txt", "Range: bytes=-1\r\n"),
    ] {
        let answer = fetch(&falconet, "GET", target, lines);
        let whole = fetch(&falconet, "GET", target, "");
        assert_eq!((answer.status(), answer.text()), (200, whole.text()), "{lines}");
        assert_eq!(answer.header("Content-Range"), None, "{lines}");
        assert_eq!(answer.header("Accept-Ranges"), Some("bytes"), "{lines}");
    }
}

#[test]
fn head_announces_ranges_and_ignores_them() {
    let site = Site::new("head-range");
    site.write("data.txt", "0123456789");
    let falconet = site.serve();
    for range in ["bytes=0-1", "bytes=10-"] {
        let answer = fetch(&falconet, "HEAD", "/data.txt", &format!("Range: {range}\r\n"));
        assert_eq!((answer.status(), answer.header("Content-Length")), (200, Some("10")));
        assert_eq!(answer.header("Accept-Ranges"), Some("bytes"));
        assert_eq!((answer.header("Content-Range"), answer.text()), (None, ""));
    }
}

#[test]
fn a_range_at_the_end_of_a_huge_file_arrives_at_once() {
    let site = Site::new("huge");
    let size = 1_u64 << 40;
    let file = site.sparse("film.mp4", size);
    file.write_all_at(b"the end", size - 7).unwrap();
    let falconet = site.serve();
    let mut stream = connect(falconet.address());
    stream.write_all(request("GET", "/film.mp4", "Range: bytes=-3\r\n").as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    assert_eq!((status_of(&head), header_of(&head, "Content-Length")), (206, Some("3")));
    assert_eq!(rest_of(stream), b"end");
}

#[test]
fn a_range_of_another_version_gets_the_whole_file() {
    let site = Site::new("if-range");
    site.write("data.txt", "0123456789");
    site.date("data.txt", 784_111_777);
    let falconet = site.serve();
    let status = |method: &str, version: &str| {
        let lines = format!("Range: bytes=0-1\r\nIf-Range: {version}\r\n");
        fetch(&falconet, method, "/data.txt", &lines).status()
    };
    let tag = || fetch(&falconet, "HEAD", "/data.txt", "").header("ETag").unwrap().to_owned();
    let (date, weak) = ("Sun, 06 Nov 1994 08:49:37 GMT", tag());
    if weak.starts_with("W/") {
        assert_eq!((status("GET", &weak), status("GET", date)), (200, 200));
    }
    wait_until("the tag is strong", || !tag().starts_with("W/"));
    let strong = tag();
    for (version, expected) in [
        (&*strong, 206),
        (date, 206),
        (&weak, if weak == strong { 206 } else { 200 }),
        (&format!("W/{strong}"), 200),
        ("\"another\"", 200),
        ("*", 200),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
    ] {
        assert_eq!(status("GET", version), expected, "{version}");
        assert_eq!(status("HEAD", version), 200, "{version}");
    }
    site.write("data.txt", "9876543210");
    assert_eq!(status("GET", &strong), 200);
}

#[test]
fn a_file_whose_tag_is_known_is_304() {
    let site = Site::new("tag");
    site.write("data.json", "{}");
    site.date("data.json", 784_111_777);
    let falconet = site.serve();
    let full = fetch(&falconet, "GET", "/data.json", "");
    let tag = full.header("ETag").unwrap();
    let fresh = "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    for (lines, status) in [
        (format!("If-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: \"a\", {tag}\r\n"), 304),
        (format!("If-None-Match: \"a\"\r\nIf-None-Match: {tag}\r\n"), 304),
        (format!("If-None-Match: {tag}\r\nRange: bytes=0-0\r\n"), 304),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"a\"\r\n".to_owned(), 200),
        // The date is ignored beside a tag.
        (format!("If-None-Match: \"a\"\r\n{fresh}"), 200),
        (format!("If-None-Match: \"a\"\r\n{fresh}Range: bytes=0-0\r\n"), 206),
    ] {
        let answer = fetch(&falconet, "GET", "/data.json", &lines);
        assert_eq!(answer.status(), status, "{lines}");
        let returned = answer.header("ETag").unwrap();
        assert_eq!(returned.trim_start_matches("W/"), tag.trim_start_matches("W/"));
        assert_eq!(answer.body.is_empty(), status == 304, "{lines}");
    }
}

#[test]
fn a_connection_serves_one_range_after_another() {
    let site = Site::new("ranges");
    site.write("data.txt", "0123456789");
    let falconet = site.serve();
    let mut http = Http::connect(falconet.address());
    for (range, status, content) in
        [("8-", 206, "89"), ("0-1", 206, "01"), ("10-", 416, ""), ("4-5", 206, "45")]
    {
        let lines = format!("Range: bytes={range}\r\n");
        let answer = http.fetch(crate::support::request("GET", "/data.txt", &lines, ""));
        assert_eq!(answer.status(), status, "{range}");
        assert!(status == 416 || answer.text() == content, "{range}");
    }
}

#[test]
fn curl_resumes_a_download() {
    if find_program(&["curl"]).is_none() {
        return;
    }
    let site = Site::new("curl");
    let content = noise(300_000);
    site.write("film.webm", &content);
    let falconet = site.serve();
    let url = format!("http://{}/film.webm", falconet.address());
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "--max-time", "30", &url]).args(arguments);
        assert_eq!(run(&mut command).0, Some(0), "{arguments:?}");
    };
    let (part, whole) = (site.path.join("part"), site.path.join("whole"));
    curl(&["-r", "0-1", "-o", part.to_str().unwrap()]);
    assert_eq!(std::fs::read(part).unwrap(), content[..2]);
    std::fs::write(&whole, &content[..100_001]).unwrap();
    curl(&["-C", "-", "-o", whole.to_str().unwrap()]);
    assert!(std::fs::read(whole).unwrap() == content, "the parts do not fit together");
}

#[test]
fn a_browser_seeks_in_a_recording() {
    let Some(mut window) = Window::open() else { return };
    let site = Site::new("seek");
    // An hour of silence: WAV with one channel of 8,000 bytes a second.
    let (rate, length) = (8000_u32, 3600 * 8000_u32);
    let header = [
        &b"RIFF"[..],
        &(36 + length).to_le_bytes(),
        b"WAVEfmt \x10\0\0\0\x01\0\x01\0",
        &rate.to_le_bytes(),
        &rate.to_le_bytes(),
        b"\x01\0\x08\0data",
        &length.to_le_bytes(),
    ];
    let file = site.sparse("hour.wav", u64::from(44 + length));
    file.write_all_at(&header.concat(), 0).unwrap();
    site.write("index.html", "<!doctype html><title>player</title>");
    let falconet = site.serve();
    window.visit(&format!("http://{}/", falconet.address()));
    let reached = window.eval(
        "await new Promise(resolve => {
            const audio = new Audio('/hour.wav');
            audio.onerror = () => resolve(audio.error.message);
            audio.onseeked = () => resolve(audio.currentTime);
            audio.onloadedmetadata = () => audio.currentTime = 3000;
        })",
    );
    assert_eq!(reached, "3000");
}

#[test]
fn a_large_file_arrives_whole() {
    let site = Site::new("large");
    let content = noise(3 << 20);
    site.write("film.webm", &content);
    let answer = fetch(&site.serve(), "GET", "/film.webm", "");
    assert_eq!(answer.header("Content-Length"), Some("3145728"));
    assert!(
        answer.body == content,
        "{} bytes arrived, which differ from the file",
        answer.body.len()
    );
}

#[test]
fn a_slow_reader_gets_its_file_while_others_are_served() {
    let site = Site::new("slow");
    // More than the kernel buffers at both ends.
    let content = noise(16 << 20);
    site.write("film.webm", &content);
    let falconet = site.serve();
    let mut client = Client::connect(falconet.address());
    let (_, mut download) = begin_download(&falconet, "/film.webm");
    let (mut received, mut piece) = (Vec::new(), vec![0; 256 << 10]);
    while received.len() < content.len() {
        let count = download.read(&mut piece).unwrap();
        assert_ne!(count, 0, "the stream ended after {} bytes", received.len());
        received.extend_from_slice(&piece[..count]);
        client.echo("meanwhile");
    }
    assert!(received == content, "the bytes differ from the file");
}

#[test]
fn an_index_replaces_the_page_but_not_the_echo() {
    let site = Site::new("index");
    site.write("index.html", "<!doctype html><title>my dashboard</title>");
    let falconet = site.serve();
    let answer = fetch(&falconet, "GET", "/", "Accept: text/html,*/*;q=0.8\r\n");
    assert_eq!(answer.text(), "<!doctype html><title>my dashboard</title>");
    assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
    Client::connect(falconet.address()).echo("beside the dashboard");
}

#[test]
fn without_an_index_the_page_stays() {
    let site = Site::new("no-index");
    site.write("data.json", "{}");
    let falconet = site.serve();
    let without = Falconet::start(&[]);
    for target in ["/", "/app.js", "/chart.js", "/style.css"] {
        let answer = fetch(&falconet, "GET", target, "");
        assert_eq!(answer.status(), 200, "{target}");
        assert_eq!(answer, fetch(&without, "GET", target, ""), "{target}");
    }
    // An index that is created later is served.
    site.write("index.html", "mine");
    assert_eq!(fetch(&falconet, "GET", "/", "").text(), "mine");
}

#[test]
fn without_the_option_no_file_is_served() {
    let falconet = Falconet::start(&[]);
    for target in ["/Cargo.toml", "/src/main.rs", "/etc/passwd", "/index.html"] {
        assert_eq!(fetch(&falconet, "GET", target, "").status(), 404, "{target}");
    }
}

#[test]
fn a_target_that_ends_with_a_slash_is_the_index_of_the_directory() {
    let site = Site::new("folders");
    site.write("sub/index.html", "sub");
    site.write("sub/in/index.html", "in");
    site.write("a b/index.html", "spaced");
    site.write("bare/data.json", "{}");
    let falconet = site.serve();
    for (target, content) in [("/sub/", "sub"), ("/a%20b/", "spaced")] {
        assert_eq!(fetch(&falconet, "GET", target, "").text(), content);
    }
    for (target, location) in [("/sub", "./sub/"), ("/a%20b", "./a%20b/"), ("/sub/in?x", "./in/?x")]
    {
        let answer = fetch(&falconet, "GET", target, "");
        assert_eq!((answer.status(), answer.header("Location")), (308, Some(location)), "{target}");
    }
    for target in ["/bare", "/bare/", "/sub//", "//sub", "//localhost/sub"] {
        assert_eq!(fetch(&falconet, "GET", target, "").status(), 404, "{target}");
    }
}

#[test]
fn only_get_and_head_are_allowed_for_files() {
    let site = Site::new("methods");
    site.write("data.json", "{}");
    let falconet = site.serve();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "get"] {
        let answer = fetch(&falconet, method, "/data.json", "Content-Length: 0\r\n");
        let allow = answer.header("Allow");
        let status = if method == "OPTIONS" { 204 } else { 405 };
        assert_eq!((answer.status(), allow), (status, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    assert_eq!(std::fs::read(site.public("data.json")).unwrap(), b"{}");
}

#[test]
fn no_target_leads_out_of_the_directory() {
    let site = Site::new("traversal");
    site.write("dir/data.json", "{}");
    site.write(".git/config", SECRET);
    site.write(".htaccess", SECRET);
    site.write("dir/.hidden", SECRET);
    let falconet = site.serve();
    let targets = include_str!("../traversals.txt").lines().filter(|line| line.starts_with('/'));
    let mut tried = 0;
    for target in targets {
        tried += 1;
        let answer = fetch(&falconet, "GET", target, "");
        assert!([400, 404].contains(&answer.status()), "{target}: {}", answer.head);
        assert!(!answer.text().contains(SECRET), "{target}");
    }
    assert!(tried > 80, "only {tried} targets in the table");
}

#[test]
fn no_malformed_target_leads_out_of_the_directory() {
    let site = Site::new("bytes");
    let falconet = site.serve();
    let targets: [&[u8]; 10] = [
        b"/\xc0\xae\xc0\xae/secret",
        b"/..\xc0\xafsecret",
        b"/\xef\xbc\x8e\xef\xbc\x8e/secret",
        b"/../secret\0",
        b"/..\t/secret",
        b"/..\x0b/secret",
        b"../secret",
        b"secret",
        b"file:///etc/passwd",
        b"http://localhost/../secret",
    ];
    for target in targets {
        let end =
            b" HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: same\r\nConnection: close\r\n\r\n";
        let answer = exchange(falconet.address(), [b"GET ", target, end].concat());
        // A malformed request gets no response.
        let refused = answer.is_empty() || [400, 404].contains(&status_of(&answer));
        assert!(refused && !answer.contains(SECRET), "{}", String::from_utf8_lossy(target));
    }
}

#[test]
fn a_refused_file_looks_missing_except_in_the_log() {
    let site = Site::new("refused");
    site.write(".hidden", SECRET);
    site.write("sub/data.json", "{}");
    symlink("../secret", site.public("way-out")).unwrap();
    symlink(site.path.join("secret"), site.public("absolute")).unwrap();
    symlink("..", site.public("outside")).unwrap();
    symlink("loop", site.public("loop")).unwrap();
    rustix::fs::mkfifoat(CWD, site.public("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
    let falconet = site.serve_with(&["--log-level", "debug"]);
    // The answer without its date, which may be another second.
    let answer_to = |target| {
        let answer = fetch(&falconet, "GET", target, "");
        let lines = answer.head.lines().filter(|line| !line.starts_with("Date: "));
        (lines.collect::<Vec<_>>().join("\n"), answer.body)
    };
    let nothing = answer_to("/nothing");
    assert!(nothing.0.starts_with("HTTP/1.1 404 "), "{}", nothing.0);
    for (target, reason) in [
        ("/way-out", "a link leads out of the directory"),
        ("/absolute", "a link leads out of the directory"),
        ("/outside/secret", "a link leads out of the directory"),
        ("/loop", "can't serve the file: "),
        ("/pipe", "not a regular file"),
        ("/.hidden", "a name that begins with a dot"),
        ("/sub/%00", "a control character"),
    ] {
        assert_eq!(answer_to(target), nothing, "{target}");
        falconet.wait_for_line(reason);
    }
}

#[test]
fn links_within_the_directory_are_followed() {
    let site = Site::new("links");
    site.write("sub/data.json", "{}");
    symlink("sub", site.public("folder")).unwrap();
    symlink("../sub/data.json", site.public("sub/again.json")).unwrap();
    let falconet = site.serve();
    for target in ["/folder/data.json", "/sub/again.json"] {
        assert_eq!(fetch(&falconet, "GET", target, "").text(), "{}", "{target}");
    }
}

#[test]
fn a_file_that_shrinks_ends_its_connection() {
    let site = Site::new("shrinks");
    let size = 64 << 20;
    let file = site.sparse("film.webm", size);
    let falconet = site.serve();
    let (head, mut download) = begin_download(&falconet, "/film.webm");
    assert_eq!(header_of(&head, "Content-Length"), Some(&*size.to_string()));
    file.set_len(0).unwrap();
    let received = drain(&mut download);
    assert!(received < size, "the file was sent before it shrank");
    Client::connect(falconet.address()).echo("still here");
}

#[test]
fn a_file_that_grows_is_sent_with_its_announced_length() {
    let site = Site::new("grows");
    // Not a multiple of any likely size of a piece.
    let size = (16 << 20) + 999;
    let file = site.sparse("film.webm", size);
    let falconet = site.serve();
    let (_, mut download) = begin_download(&falconet, "/film.webm");
    file.set_len(2 * size).unwrap();
    assert_eq!(drain(&mut download), size);
}

#[test]
fn all_descriptors_are_closed() {
    let site = Site::new("descriptors");
    site.write("data.json", "{}");
    site.write("sub/index.html", "sub");
    symlink("..", site.public("outside")).unwrap();
    let _film = site.sparse("film.webm", 64 << 20);
    let falconet = site.serve();
    let before = falconet.open_files();
    for target in ["/data.json", "/sub", "/sub/", "/nothing", "/outside/secret", "/sub/none"] {
        fetch(&falconet, "GET", target, "");
        fetch(&falconet, "HEAD", target, "");
    }
    // A client that closes during the download.
    drop(begin_download(&falconet, "/film.webm"));
    wait_until("all descriptors are closed", || falconet.open_files() == before);
}

#[test]
fn a_client_that_stops_reading_is_dropped_after_the_write_timeout() {
    let site = Site::new("stops");
    let _film = site.sparse("film.webm", 64 << 20);
    let falconet = site.serve_with(&["--write-timeout", "1s"]);
    let before = falconet.open_files();
    let (_, _download) = begin_download(&falconet, "/film.webm");
    assert!(falconet.open_files() > before);
    wait_until("the descriptors are released", || falconet.open_files() == before);
}

#[test]
fn a_missing_directory_is_exit_code_78() {
    let site = Site::new("none");
    site.write("data.json", "{}");
    let (nothing, file) = (site.public("nothing"), site.public("data.json"));
    for (path, reason) in [(nothing, "No such file or directory"), (file, "Not a directory")] {
        for flags in [&["--listen", "http://127.0.0.1:0"][..], &["--check-config"]] {
            let (path, mut command) = (path.to_str().unwrap(), Falconet::command());
            command.args(flags).args(["--static", path]);
            assert_refused(&mut command, 78, &["static", path, reason]);
        }
    }
}

/// A directory `public` to serve, next to a secret file. Removed on drop.
struct Site {
    path: PathBuf,
}

impl Site {
    fn new(name: &str) -> Self {
        let name = format!("falconet-static-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(path.join("public")).unwrap();
        std::fs::write(path.join("secret"), SECRET).unwrap();
        Self { path }
    }

    fn public(&self, name: &str) -> PathBuf {
        self.path.join("public").join(name)
    }

    /// Writes a file, and creates the directories above it.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.public(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Sets the modification time of a file, in seconds since 1970.
    fn date(&self, name: &str, seconds: u64) {
        let file = std::fs::File::options().write(true).open(self.public(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    }

    /// Creates a sparse file of zeros.
    fn sparse(&self, name: &str, size: u64) -> std::fs::File {
        let file = std::fs::File::create(self.public(name)).unwrap();
        file.set_len(size).unwrap();
        file
    }

    fn serve(&self) -> Falconet {
        self.serve_with(&[])
    }

    fn serve_with(&self, flags: &[&str]) -> Falconet {
        let path = self.public("");
        Falconet::start(&[&["--static", path.to_str().unwrap()], flags].concat())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A response, compared as a whole.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u16 {
        status_of(&self.head)
    }

    fn header(&self, name: &str) -> Option<&str> {
        header_of(&self.head, name)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// Sends one request and reads to the end of the stream.
fn fetch(falconet: &Falconet, method: &str, target: &str, headers: &str) -> Answer {
    let mut stream = connect(falconet.address());
    stream.write_all(request(method, target, headers).as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    let mut body = Vec::new();
    stream.read_to_end(&mut body).unwrap();
    Answer { head, body }
}

fn request(method: &str, target: &str, headers: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: same\r\nConnection: close\r\n{headers}\r\n"
    )
}

/// Requests a file and reads only the head of the response. The kernel buffers little of the rest.
fn begin_download(falconet: &Falconet, target: &str) -> (String, TcpStream) {
    let mut stream = connect(falconet.address());
    sockopt::set_socket_recv_buffer_size(&stream, 32 << 10).unwrap();
    stream.write_all(request("GET", target, "").as_bytes()).unwrap();
    let head = read_response_head(&mut stream);
    assert_eq!(status_of(&head), 200, "{head}");
    (head, stream)
}

/// Reads until the stream ends or is reset. Returns the number of bytes.
fn drain(stream: &mut TcpStream) -> u64 {
    let (mut count, mut piece) = (0, vec![0; 64 << 10]);
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return count,
            Ok(read) => count += read as u64,
            Err(error) => {
                let timed_out = error.kind() == std::io::ErrorKind::WouldBlock;
                assert!(!timed_out, "no end after {count} bytes");
                return count;
            }
        }
    }
}

/// Returns bytes without a pattern, the same in each run.
fn noise(count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(count as u64);
    (0..count).map(|_| random.u8(..)).collect()
}

const SECRET: &str = "the secret";
