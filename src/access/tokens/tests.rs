use std::fs;

use tinyjson::JsonValue;

use super::*;
use crate::config::Limits;
use crate::escaped::JsonString;
use crate::http::head;

use Denied::{Forbidden, Unauthenticated};

/// A token file, which is removed on drop.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("falconet-{name}-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Asks for an action with a request for `target` that has the header `lines`.
fn request(
    tokens: &TokenFile,
    target: &str,
    lines: &str,
    action: Action<'_>,
) -> Result<(), Denied> {
    let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let head = head::parse(bytes.as_bytes(), &Limits::default()).unwrap();
    tokens.may(&tokens.identify(&head)?, action)
}

/// Asks for an action with a bearer token.
fn request_with(tokens: &TokenFile, token: &str, action: Action<'_>) -> Result<(), Denied> {
    request(tokens, "/", &format!("Authorization: Bearer {token}\r\n"), action)
}

#[test]
fn a_line_grants_a_right_to_its_token() {
    use Action::{Admin, Connect, Publish, Read, Subscribe};
    let file = TempFile::new(
        "rights",
        "# tokens\n\nreader subscribe\nwriter publish # a comment\noperator admin\nall all\nbare#1 # x\n",
    );
    assert!(TokenFile::open(&file.0).is_err(), "# is not allowed in a token");
    fs::write(
        &file.0,
        "# tokens\n\nreader subscribe\n  writer\tpublish # a comment\r\noperator admin\nall all\nbare #1\n\
         some all garden\nboth subscribe a/\nboth publish b\nendpoint subscribe broadcast\n",
    )
    .unwrap();
    let tokens = TokenFile::open(&file.0).unwrap();
    let (yes, no, unknown) = (Ok(()), Err(Forbidden), Err(Unauthenticated(CHALLENGE)));
    for (token, action, expected) in [
        ("reader", Read("/"), &yes),
        ("reader", Connect("/"), &yes),
        ("reader", Subscribe("t"), &yes),
        ("reader", Publish("t"), &no),
        ("reader", Admin("/admin"), &no),
        ("writer", Read("/"), &yes),
        ("writer", Publish("t"), &yes),
        ("writer", Subscribe("t"), &no),
        ("writer", Connect("/"), &no),
        ("operator", Admin("/admin"), &yes),
        ("operator", Publish("t"), &no),
        ("operator", Subscribe("t"), &no),
        ("all", Admin("/admin"), &yes),
        ("all", Publish("t"), &yes),
        ("all", Subscribe("t"), &yes),
        ("bare", Admin("/admin"), &yes),
        ("bare", Publish("t"), &yes),
        ("some", Subscribe("garden"), &yes),
        ("some", Publish("garden/gate"), &yes),
        ("some", Subscribe("garden/#"), &yes),
        ("some", Subscribe("garden/+/t"), &yes),
        ("some", Subscribe("+/gate"), &no),
        ("some", Subscribe("gardener/#"), &no),
        ("some", Subscribe("+"), &no),
        ("some", Subscribe("#"), &no),
        ("reader", Subscribe("#"), &yes),
        ("writer", Subscribe("#"), &no),
        ("some", Publish("gardener"), &no),
        ("some", Publish("gard"), &no),
        ("some", Publish("other/garden"), &no),
        ("some", Connect("/"), &no),
        ("some", Admin("/admin"), &no),
        ("some", Read("/"), &yes),
        ("both", Subscribe("a/x"), &yes),
        ("both", Subscribe("b"), &no),
        ("both", Publish("b"), &yes),
        ("both", Publish("a/x"), &no),
        ("endpoint", Connect("/"), &yes),
        ("absent", Read("/"), &unknown),
        ("al", Read("/"), &unknown),
        ("alll", Read("/"), &unknown),
        ("", Read("/"), &unknown),
    ] {
        assert_eq!(&request_with(&tokens, token, action), expected, "{token} {action:?}");
    }
}

#[test]
fn a_token_is_accepted_in_four_places() {
    let file = TempFile::new("ways", "secret\n");
    let tokens = || TokenFile::open(&file.0).unwrap();
    let basic =
        |text: &str| format!("Authorization: Basic {}\r\n", Base64::encode_string(text.as_bytes()));
    let any_token = Action::Read("/");
    for (lines, is_accepted) in [
        ("Authorization: Bearer secret\r\n".to_owned(), true),
        ("authorization: bEARER   secret\r\n".to_owned(), true),
        (basic("user:secret"), true),
        (basic(":secret"), true),
        (basic("secret"), false),
        (basic("secret:"), false),
        (basic("any:body:secret"), false),
        ("Authorization: Basic !\r\n".to_owned(), false),
        ("Authorization: secret\r\n".to_owned(), false),
        ("Authorization: Digest secret\r\n".to_owned(), false),
        ("Authorization: Bearer\r\n".to_owned(), false),
        ("Authorization: Bearer secret\r\nAuthorization: Bearer other\r\n".to_owned(), false),
        ("Sec-WebSocket-Protocol: falconet, bearer.secret\r\n".to_owned(), true),
        ("Sec-WebSocket-Protocol: bearer.secret\r\nsec-websocket-protocol: x\r\n".to_owned(), true),
        ("Sec-WebSocket-Protocol: falconet, bearer.\r\n".to_owned(), false),
        ("Sec-WebSocket-Protocol: falconet, secret\r\n".to_owned(), false),
        ("Sec-WebSocket-Protocol: xbearer.secret\r\n".to_owned(), false),
        ("X-Token: secret\r\n".to_owned(), false),
        (String::new(), false),
    ] {
        assert_eq!(request(&tokens(), "/", &lines, any_token).is_ok(), is_accepted, "{lines:?}");
    }
    for (target, is_accepted) in
        [("/?token=secret", true), ("/?a=b&token=secret", true), ("/?token=", false)]
    {
        assert!(request(&tokens(), target, "", any_token).is_err(), "{target}: not by default");
        assert_eq!(
            request(&tokens().allow_in_query(true), target, "", any_token).is_ok(),
            is_accepted,
            "{target}"
        );
    }
}

#[test]
fn an_error_has_the_number_of_the_invalid_line_but_not_its_text() {
    for (line, expected) in [
        ("tök", "A-Z a-z"),
        ("a/b", "A-Z a-z"),
        ("a+b=", "A-Z a-z"),
        (&"x".repeat(129), "1 to 128"),
        ("publish secret", "subscribe, publish, admin, all"),
        ("secret Publish", "subscribe, publish, admin, all"),
        ("secret publish /a", "name of a topic"),
        ("secret publish a//b", "name of a topic"),
        ("secret publish a,b", "name of a topic, percent-encoded"),
        ("secret publish 50%", "name of a topic, percent-encoded"),
        ("secret publish a%20b/%2e%2e", "name of a topic, percent-encoded"),
        ("secret publish Living Room", "no more than"),
        ("secret publish a b", "no more than"),
    ] {
        let file = TempFile::new("lines", &format!("good\n# fine\n{line}\n"));
        let error = TokenFile::open(&file.0).err().unwrap().to_string();
        assert!(error.contains(":3: ") && error.contains(expected), "{line}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let error = TokenFile::open("/nowhere/tokens").err().unwrap().to_string();
    assert!(error.contains("/nowhere/tokens"), "{error}");
    assert!(TokenFile::open("/dev/null").is_err(), "reading a device may block");
}

#[test]
fn a_last_line_without_a_newline_is_an_error() {
    for (text, line) in
        [("secret", ":1: "), ("a\n\nsecret subscribe gar", ":3: "), ("a\n# secret", ":2: ")]
    {
        let file = TempFile::new("half", text);
        let error = TokenFile::open(&file.0).err().expect(text).to_string();
        assert!(error.contains(line) && error.contains("newline"), "{text:?}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let file = TempFile::new("half", "");
    assert!(TokenFile::open(&file.0).is_ok(), "an empty file has no tokens");
}

#[test]
fn a_changed_file_is_read_again_after_a_second() {
    let file = TempFile::new("again", "old\n");
    let tokens = TokenFile::open(&file.0).unwrap();
    let knows = |token: &str| request_with(&tokens, token, Action::Read("/")).is_ok();
    // A request reads the file by the real clock, which does not reach this time before the test has ended.
    let mut now = Instant::now() + Duration::from_secs(3600);
    let mut read_after = |milliseconds: u64| {
        now += Duration::from_millis(milliseconds);
        tokens.refresh(now);
    };
    read_after(0);
    fs::write(&file.0, "newer\n").unwrap();
    read_after(999);
    assert!(knows("old") && !knows("newer"));
    read_after(1);
    assert!(!knows("old") && knows("newer"));
    for broken in ["newest\nno right\n", "\u{e9}\n", "newest", "newer\nnewest subscribe gar"] {
        fs::write(&file.0, broken).unwrap();
        read_after(1000);
        assert!(knows("newer") && !knows("newest"), "{broken}");
    }
    fs::remove_file(&file.0).unwrap();
    read_after(1000);
    assert!(knows("newer"), "a missing file changes nothing");
    fs::write(&file.0, "last\n").unwrap();
    read_after(1000);
    assert!(!knows("newer") && knows("last"));
}

#[test]
fn a_token_of_fewer_than_16_characters_is_short() {
    for (token, is_short) in [("0123456789abcde", true), ("0123456789abcdef", false), ("a", true)] {
        assert_eq!(Token::new(token.as_bytes()).unwrap().is_short(), is_short, "{token}");
    }
}

/// The names consist of characters that one of the forms reserves, and of others.
#[test]
fn each_name_is_the_same_after_its_url_the_token_file_and_json() {
    let mut accepted = 0;
    for seed in 0..5_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let reserved: Vec<char> = RESERVED.chars().collect();
        let length = random.usize(1..=100);
        let characters = std::iter::repeat_with(|| match random.u8(..4) {
            0 => random.char(..),
            1 => random.alphanumeric(),
            _ => reserved[random.usize(..reserved.len())],
        });
        let name: String = characters.take(length).collect();
        let Ok(topic) = TopicName::new(&name) else { continue };
        accepted += 1;
        let bytes = format!("GET {}?a=b HTTP/1.1\r\nHost: a\r\n\r\n", topic.path());
        let head = head::parse(bytes.as_bytes(), &Limits::default()).expect(&bytes);
        assert_eq!(head.path(), format!("/topics/{name}"), "seed {seed}");
        assert!(head.is_decoded() && !head.encoded_path().contains(','), "seed {seed}");
        let line = format!("secret publish {}\n", topic.encoded());
        let grants = parse(Path::new("tokens"), line.as_bytes()).expect(&line);
        assert_eq!(grants[0].topic.as_ref(), Some(&topic), "seed {seed}");
        assert!(grants[0].covers(&name) && grants[0].covers(&format!("{name}/a")), "seed {seed}");
        let json: JsonValue = JsonString(&name).to_string().parse().expect(&name);
        assert_eq!(json.get(), Some(&name), "seed {seed}");
    }
    assert!(accepted > 1_000, "{accepted}");
}

const RESERVED: &str =
    " %25,/?&=;:@!$'()*\"\\<>[]{}|^`~.-_äüß🦅\u{308}\u{a0}\u{2028}\u{feff}\u{202e}";
