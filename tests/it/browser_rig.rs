//! A real browser for the tests: one Chromium for all of them, spoken to in the DevTools protocol over a
//! pipe, so that it ends with the process that started it.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64ct::{Base64, Encoding};
use tinyjson::JsonValue;

use crate::rig::{PATIENCE, alone};

/// A browser window in which nobody has been before, with one page. There is one at a time, and no test
/// beside it that measures times.
pub struct Window {
    browser: MutexGuard<'static, Option<Chromium>>,
    context: String,
    session: String,
    _turn: MutexGuard<'static, ()>,
}

impl Window {
    /// Opens an empty window of the size of a desktop's; `None` without a browser, which is told, and which
    /// under `CI=true` is a failure.
    pub fn open() -> Option<Self> {
        static BROWSER: Mutex<Option<Chromium>> = Mutex::new(None);
        let Some(program) = find_browser() else {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "no chromium under CI");
            println!("skipped: no chromium");
            return None;
        };
        let turn = alone();
        let mut browser = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
        if !browser.as_mut().is_some_and(Chromium::is_alive) {
            *browser = Some(Chromium::start(&program));
        }
        let chromium = browser.as_mut().unwrap();
        let context =
            text_of(&chromium.ask("", "Target.createBrowserContext", "{}"), "browserContextId");
        let wanted = format!(r#"{{"url":"about:blank","browserContextId":"{context}"}}"#);
        let target = text_of(&chromium.ask("", "Target.createTarget", &wanted), "targetId");
        let attach = format!(r#"{{"targetId":"{target}","flatten":true}}"#);
        let session = text_of(&chromium.ask("", "Target.attachToTarget", &attach), "sessionId");
        let mut window = Self { browser, context, session, _turn: turn };
        for domain in ["Page", "Runtime", "Log"] {
            window.ask(&format!("{domain}.enable"), "{}");
        }
        window.resize(1280, 800);
        Some(window)
    }

    /// Goes to `url` and waits until the page is loaded.
    pub fn visit(&mut self, url: &str) {
        let answer = self.ask("Page.navigate", &format!(r#"{{"url":{}}}"#, quoted(url)));
        assert!(
            !matches!(answer, JsonValue::Object(ref o) if o.contains_key("errorText")),
            "{answer:?}"
        );
        self.wait_for("document.readyState === 'complete'");
    }

    /// What a script says, as a string. It may await.
    pub fn say(&mut self, script: &str) -> String {
        let script = quoted(&format!("(async () => String({script}))()"));
        let wanted =
            format!(r#"{{"expression":{script},"awaitPromise":true,"returnByValue":true}}"#);
        let answer = self.ask("Runtime.evaluate", &wanted);
        match &answer["result"] {
            JsonValue::Object(result) if result.contains_key("value") => {
                result["value"].get::<String>().expect("a string").clone()
            }
            other => panic!("{other:?}: {}", answer.stringify().unwrap()),
        }
    }

    /// Waits until a script says true.
    pub fn wait_for(&mut self, condition: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.say(condition) != "true" {
            if Instant::now() > deadline {
                let page = self.say("document.body.innerText");
                panic!("never came true: {condition}\n{:?}\n{page}", self.complaints());
            }
            // A page has no event for what is said of it.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Writes text where the focus is.
    pub fn write(&mut self, text: &str) {
        self.ask("Input.insertText", &format!(r#"{{"text":{}}}"#, quoted(text)));
    }

    /// Presses a key that has its own name.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, r#","text":"\r""#),
            "Tab" => (9, ""),
            _ => panic!("an unknown key: {key}"),
        };
        for (kind, text) in [("keyDown", text), ("keyUp", "")] {
            let wanted = format!(
                r#"{{"type":"{kind}","key":"{key}","code":"{key}","windowsVirtualKeyCode":{code}{text}}}"#
            );
            self.ask("Input.dispatchKeyEvent", &wanted);
        }
    }

    /// Makes the page so many CSS pixels wide and high.
    pub fn resize(&mut self, width: u32, height: u32) {
        let wanted = format!(
            r#"{{"width":{width},"height":{height},"deviceScaleFactor":1,"mobile":{}}}"#,
            width < 600
        );
        self.ask("Emulation.setDeviceMetricsOverride", &wanted);
    }

    /// Prefers a light or a dark page.
    pub fn prefer(&mut self, scheme: &str) {
        let wanted =
            format!(r#"{{"features":[{{"name":"prefers-color-scheme","value":"{scheme}"}}]}}"#);
        self.ask("Emulation.setEmulatedMedia", &wanted);
    }

    /// Believes any certificate.
    pub fn trust_anybody(&mut self) {
        self.ask("Security.setIgnoreCertificateErrors", r#"{"ignore":true}"#);
    }

    /// Keeps a picture of the page beside what cargo builds, for people to look at.
    pub fn picture(&mut self, name: &str) {
        let answer = self.ask("Page.captureScreenshot", r#"{"format":"png"}"#);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        fs::create_dir_all(&folder).unwrap();
        let bytes = Base64::decode_vec(&text_of(&answer, "data")).unwrap();
        fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// What the page's console has of errors and warnings, what its scripts threw, and the dialogs
    /// it opened.
    pub fn complaints(&mut self) -> Vec<String> {
        // All that is said before this answer has been read with it.
        self.ask("Runtime.evaluate", r#"{"expression":"0"}"#);
        let session = self.session.clone();
        let events = &self.browser.as_ref().unwrap().events;
        events
            .iter()
            .filter(|event| event.session == session && event.is_complaint())
            .map(|event| event.params.clone())
            .collect()
    }

    fn ask(&mut self, method: &str, params: &str) -> JsonValue {
        self.browser.as_mut().unwrap().ask(&self.session, method, params)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if let Some(chromium) = self.browser.as_mut() {
            let wanted = format!(r#"{{"browserContextId":"{}"}}"#, self.context);
            chromium.send("", "Target.disposeBrowserContext", &wanted);
            chromium.events.clear();
        }
    }
}

/// The browser, running.
struct Chromium {
    child: Child,
    requests: ChildStdin,
    messages: Receiver<JsonValue>,
    events: Vec<Event>,
    last_id: u32,
}

struct Event {
    session: String,
    method: String,
    params: String,
}

impl Event {
    fn is_complaint(&self) -> bool {
        let has = |part: &str| self.params.contains(part);
        match self.method.as_str() {
            "Runtime.exceptionThrown" | "Page.javascriptDialogOpening" => true,
            "Runtime.consoleAPICalled" => has(r#""type":"error""#) || has(r#""type":"warning""#),
            "Log.entryAdded" => has(r#""level":"error""#) || has(r#""level":"warning""#),
            _ => false,
        }
    }
}

impl Chromium {
    fn start(program: &Path) -> Self {
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chromium");
        // What an earlier run left is of no use, if it left anything.
        let _ = fs::remove_dir_all(&profile);
        // The protocol is spoken on the descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#])
            .arg(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let requests = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let (heard, messages) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let message = String::from_utf8(message).expect("messages are UTF-8");
                if heard.send(message.parse().expect("messages are JSON")).is_err() {
                    break;
                }
            }
        });
        Self { child, requests, messages, events: Vec::new(), last_id: 0 }
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn send(&mut self, session: &str, method: &str, params: &str) -> f64 {
        self.last_id += 1;
        let session = match session {
            "" => String::new(),
            _ => format!(r#""sessionId":"{session}","#),
        };
        let id = self.last_id;
        let request = format!(r#"{{"id":{id},{session}"method":"{method}","params":{params}}}"#);
        // If it is gone, the answer does not come.
        let _ = self.requests.write_all(&[request.as_bytes(), b"\0"].concat());
        id.into()
    }

    fn ask(&mut self, session: &str, method: &str, params: &str) -> JsonValue {
        let id = self.send(session, method, params);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rest = deadline.saturating_duration_since(Instant::now());
            let message = self.messages.recv_timeout(rest);
            let message = message.unwrap_or_else(|error| panic!("no answer to {method}: {error}"));
            let mut parts: HashMap<String, JsonValue> = message.try_into().expect("an object");
            if parts.get("id").and_then(JsonValue::get) == Some(&id) {
                let error = parts.get("error");
                assert!(error.is_none(), "{method} {params}: {error:?}");
                return parts.remove("result").expect("a result");
            }
            let (Some(method), Some(params)) = (parts.remove("method"), parts.get("params")) else {
                continue;
            };
            self.events.push(Event {
                session: parts
                    .get("sessionId")
                    .and_then(JsonValue::get)
                    .cloned()
                    .unwrap_or_default(),
                method: method.try_into().expect("a method is a string"),
                params: params.stringify().unwrap(),
            });
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find_browser() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders)
        .flat_map(|folder| PROGRAMS.iter().map(move |program| folder.join(program)))
        .find(|path| path.is_file())
}

/// The text called `name` in an answer.
fn text_of(answer: &JsonValue, name: &str) -> String {
    answer[name].get::<String>().expect("a string").clone()
}

fn quoted(text: &str) -> String {
    JsonValue::from(text.to_owned()).stringify().unwrap()
}

const PROGRAMS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];
const FLAGS: &[&str] = &[
    "--headless=new",
    // Tests run as root in containers.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-breakpad",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--remote-debugging-pipe",
    "about:blank",
];
