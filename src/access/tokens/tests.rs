use super::*;
use crate::config::Limits;
use crate::http::head;

use Denied::{Forbidden, Unauthenticated};

/// A file of tokens, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("falconet-{name}-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn ask(tokens: &TokenFile, target: &str, lines: &str, action: Action<'_>) -> Result<(), Denied> {
    let bytes = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let head = head::parse(bytes.as_bytes(), &Limits::default()).unwrap();
    tokens.may(&tokens.identify(&head)?, action)
}

fn with(tokens: &TokenFile, token: &str, action: Action<'_>) -> Result<(), Denied> {
    ask(tokens, "/", &format!("Authorization: Bearer {token}\r\n"), action)
}

#[test]
fn a_line_says_what_its_token_may() {
    use Action::{Admin, Connect, Publish, Read, Subscribe};
    let scratch = Scratch::new(
        "rights",
        "# tokens\n\nhear subscribe\nsay publish # a comment\nrule admin\nall all\nbare#1 # not so\n",
    );
    assert!(TokenFile::open(&scratch.0).is_err(), "# is in no token");
    fs::write(
        &scratch.0,
        "# tokens\n\nhear subscribe\n  say\tpublish # a comment\r\nrule admin\nall all\nbare #1\n\
         some all garden\nboth subscribe a/\nboth publish b\nday subscribe broadcast\n",
    )
    .unwrap();
    let tokens = TokenFile::open(&scratch.0).unwrap();
    let (yes, no, who) = (Ok(()), Err(Forbidden), Err(Unauthenticated(CHALLENGE)));
    for (token, action, verdict) in [
        ("hear", Read("/"), &yes),
        ("hear", Connect("/"), &yes),
        ("hear", Subscribe("t"), &yes),
        ("hear", Publish("t"), &no),
        ("hear", Admin("/admin"), &no),
        ("hear", Read("/topics/"), &yes),
        ("say", Read("/"), &yes),
        ("say", Publish("t"), &yes),
        ("say", Subscribe("t"), &no),
        ("say", Connect("/"), &no),
        ("say", Read("/topics/"), &no),
        ("rule", Admin("/admin"), &yes),
        ("rule", Publish("t"), &no),
        ("rule", Subscribe("t"), &no),
        ("all", Admin("/admin"), &yes),
        ("all", Publish("t"), &yes),
        ("all", Subscribe("t"), &yes),
        ("bare", Admin("/admin"), &yes),
        ("bare", Publish("t"), &yes),
        ("some", Subscribe("garden"), &yes),
        ("some", Publish("garden/gate"), &yes),
        ("some", Publish("gardener"), &no),
        ("some", Publish("gard"), &no),
        ("some", Publish("other/garden"), &no),
        ("some", Connect("/"), &no),
        ("some", Admin("/admin"), &no),
        ("some", Read("/topics/"), &no),
        ("some", Read("/"), &yes),
        ("both", Subscribe("a/x"), &yes),
        ("both", Subscribe("b"), &no),
        ("both", Publish("b"), &yes),
        ("both", Publish("a/x"), &no),
        ("day", Connect("/"), &yes),
        ("nobody", Read("/"), &who),
        ("al", Read("/"), &who),
        ("alll", Read("/"), &who),
        ("", Read("/"), &who),
    ] {
        assert_eq!(&with(&tokens, token, action), verdict, "{token} {action:?}");
    }
}

#[test]
fn a_token_comes_in_four_ways() {
    let scratch = Scratch::new("ways", "secret\n");
    let tokens = || TokenFile::open(&scratch.0).unwrap();
    let basic =
        |text: &str| format!("Authorization: Basic {}\r\n", Base64::encode_string(text.as_bytes()));
    let anybody = Action::Read("/");
    for (lines, passes) in [
        ("Authorization: Bearer secret\r\n".to_owned(), true),
        ("authorization: bEARER   secret\r\n".to_owned(), true),
        (basic("anybody:secret"), true),
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
        assert_eq!(ask(&tokens(), "/", &lines, anybody).is_ok(), passes, "{lines:?}");
    }
    for (target, passes) in
        [("/?token=secret", true), ("/?a=b&token=secret", true), ("/?token=", false)]
    {
        assert!(ask(&tokens(), target, "", anybody).is_err(), "{target}: not unless allowed");
        assert_eq!(
            ask(&tokens().allow_in_query(true), target, "", anybody).is_ok(),
            passes,
            "{target}"
        );
    }
}

#[test]
fn a_wrong_line_is_named_and_what_it_says_is_not() {
    for (line, expected) in [
        ("tök", "A-Z a-z"),
        ("a/b", "A-Z a-z"),
        ("a+b=", "A-Z a-z"),
        (&"x".repeat(129), "1 to 128"),
        ("publish secret", "subscribe, publish, admin, all"),
        ("secret Publish", "subscribe, publish, admin, all"),
        ("secret publish /a", "name of a topic"),
        ("secret publish a//b", "name of a topic"),
        ("secret publish a b", "no more than"),
    ] {
        let scratch = Scratch::new("lines", &format!("good\n# fine\n{line}\n"));
        let error = TokenFile::open(&scratch.0).err().unwrap().to_string();
        assert!(error.contains(":3: ") && error.contains(expected), "{line}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let error = TokenFile::open("/nowhere/tokens").err().unwrap().to_string();
    assert!(error.contains("/nowhere/tokens"), "{error}");
    assert!(TokenFile::open("/dev/null").is_err(), "to read it may be to wait");
}

#[test]
fn a_file_that_may_be_half_written_is_wrong_and_its_last_line_is_named() {
    for (text, line) in
        [("secret", ":1: "), ("a\n\nsecret subscribe gar", ":3: "), ("a\n# secret", ":2: ")]
    {
        let scratch = Scratch::new("half", text);
        let error = TokenFile::open(&scratch.0).err().expect(text).to_string();
        assert!(error.contains(line) && error.contains("newline"), "{text:?}: {error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let scratch = Scratch::new("half", "");
    assert!(TokenFile::open(&scratch.0).is_ok(), "nobody has a token");
}

#[test]
fn a_changed_file_is_read_again_after_a_second() {
    let scratch = Scratch::new("again", "old\n");
    let tokens = TokenFile::open(&scratch.0).unwrap();
    let start = tokens.looked.get();
    // What it is asked itself must not look: it would now, by its own clock.
    let knows = |token: &str| {
        tokens.looked.set(Instant::now());
        with(&tokens, token, Action::Read("/")).is_ok()
    };
    let look_after = |milliseconds: u64| {
        tokens.looked.set(start);
        tokens.refresh(start + Duration::from_millis(milliseconds));
    };
    fs::write(&scratch.0, "newer\n").unwrap();
    look_after(999);
    assert!(knows("old") && !knows("newer"));
    look_after(1000);
    assert!(!knows("old") && knows("newer"));
    for broken in ["newest\nno right\n", "\u{e9}\n", "newest", "newer\nnewest subscribe gar"] {
        fs::write(&scratch.0, broken).unwrap();
        look_after(1000);
        assert!(knows("newer") && !knows("newest"), "{broken}");
    }
    fs::remove_file(&scratch.0).unwrap();
    look_after(1000);
    assert!(knows("newer"), "as long as there are no others");
    fs::write(&scratch.0, "last\n").unwrap();
    look_after(1000);
    assert!(!knows("newer") && knows("last"));
}
