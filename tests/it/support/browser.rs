//! A real browser: one Chromium for all tests, controlled by the DevTools protocol over a pipe, so that it ends
//! with this process.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use base64ct::{Base64, Encoding};
use tinyjson::JsonValue;

use super::installed::find_program;
use super::wait::TIMEOUT;

/// A browser window with one page and an empty profile. Only one exists at a time.
pub struct Window {
    browser: MutexGuard<'static, Option<Chromium>>,
    context: String,
    session: String,
}

impl Window {
    /// Opens a window of desktop size with an empty page. Returns `None`, and prints a note, if no browser
    /// is installed.
    ///
    /// # Panics
    ///
    /// If no browser is installed and the environment has `CI=true`.
    pub fn open() -> Option<Self> {
        static BROWSER: Mutex<Option<Chromium>> = Mutex::new(None);
        let program = find_program(PROGRAMS)?;
        let mut browser = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
        if !browser.as_mut().is_some_and(Chromium::is_alive) {
            *browser = Some(Chromium::start(&program));
        }
        let chromium = browser.as_mut().unwrap();
        let context =
            text_of(&chromium.call("", "Target.createBrowserContext", "{}"), "browserContextId");
        let wanted = format!(r#"{{"url":"about:blank","browserContextId":"{context}"}}"#);
        let target = text_of(&chromium.call("", "Target.createTarget", &wanted), "targetId");
        let attach = format!(r#"{{"targetId":"{target}","flatten":true}}"#);
        let session = text_of(&chromium.call("", "Target.attachToTarget", &attach), "sessionId");
        let mut window = Self { browser, context, session };
        for domain in ["Page", "Runtime", "Log"] {
            window.call(&format!("{domain}.enable"), "{}");
        }
        window.resize(1280, 800);
        Some(window)
    }

    /// Navigates to `url` and waits until the page is loaded.
    pub fn visit(&mut self, url: &str) {
        let answer = self.call("Page.navigate", &format!(r#"{{"url":{}}}"#, quoted(url)));
        assert!(
            !matches!(answer, JsonValue::Object(ref o) if o.contains_key("errorText")),
            "{answer:?}"
        );
        self.wait_for("document.readyState === 'complete'");
    }

    /// Evaluates an expression, which may await, and returns its value as a string.
    pub fn eval(&mut self, script: &str) -> String {
        let script = quoted(&format!("(async () => String({script}))()"));
        let wanted =
            format!(r#"{{"expression":{script},"awaitPromise":true,"returnByValue":true}}"#);
        let answer = self.call("Runtime.evaluate", &wanted);
        match &answer["result"] {
            JsonValue::Object(result) if result.contains_key("value") => result["value"]
                .get::<String>()
                .unwrap_or_else(|| panic!("not a string: {}", answer.stringify().unwrap()))
                .clone(),
            other => panic!("{other:?}: {}", answer.stringify().unwrap()),
        }
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, condition: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while self.eval(condition) != "true" {
            if Instant::now() > deadline {
                let page = self.eval("document.body.innerText");
                panic!("timed out waiting until {condition}\n{:?}\n{page}", self.console_errors());
            }
            // The protocol has no event for a condition, so this polls.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Types text into the focused element.
    pub fn insert_text(&mut self, text: &str) {
        self.call("Input.insertText", &format!(r#"{{"text":{}}}"#, quoted(text)));
    }

    /// Presses a named key.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, r#","text":"\r""#),
            "Tab" => (9, ""),
            _ => panic!("unknown key: {key}"),
        };
        for (kind, text) in [("keyDown", text), ("keyUp", "")] {
            let wanted = format!(
                r#"{{"type":"{kind}","key":"{key}","code":"{key}","windowsVirtualKeyCode":{code}{text}}}"#
            );
            self.call("Input.dispatchKeyEvent", &wanted);
        }
    }

    /// Sets the size of the page, in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let wanted = format!(
            r#"{{"width":{width},"height":{height},"deviceScaleFactor":1,"mobile":{}}}"#,
            width < 600
        );
        self.call("Emulation.setDeviceMetricsOverride", &wanted);
    }

    /// Sets the preferred color scheme, `light` or `dark`.
    pub fn set_color_scheme(&mut self, scheme: &str) {
        let wanted =
            format!(r#"{{"features":[{{"name":"prefers-color-scheme","value":"{scheme}"}}]}}"#);
        self.call("Emulation.setEmulatedMedia", &wanted);
    }

    /// Accepts every certificate.
    pub fn ignore_certificate_errors(&mut self) {
        self.call("Security.setIgnoreCertificateErrors", r#"{"ignore":true}"#);
    }

    /// Writes a picture of the page to `pictures` in the target directory, for people to look at.
    pub fn screenshot(&mut self, name: &str) {
        let answer = self.call("Page.captureScreenshot", r#"{"format":"png"}"#);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
        fs::create_dir_all(&folder).unwrap();
        let bytes = Base64::decode_vec(&text_of(&answer, "data")).unwrap();
        fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// Returns the errors and warnings of the console, uncaught exceptions, and the dialogs that the page
    /// opened.
    pub fn console_errors(&mut self) -> Vec<String> {
        // Every earlier event arrives before the response to this call.
        self.call("Runtime.evaluate", r#"{"expression":"0"}"#);
        let session = self.session.clone();
        let events = &self.browser.as_ref().unwrap().events;
        events
            .iter()
            .filter(|event| event.session == session && event.is_console_error())
            .map(|event| event.params.clone())
            .collect()
    }

    fn call(&mut self, method: &str, params: &str) -> JsonValue {
        self.browser.as_mut().unwrap().call(&self.session, method, params)
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

/// A running browser, killed on drop.
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
    fn is_console_error(&self) -> bool {
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
        // The profile of an earlier run may still exist.
        let _ = fs::remove_dir_all(&profile);
        // The browser reads requests from descriptor 3 and writes to descriptor 4.
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
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let message = String::from_utf8(message).expect("messages are UTF-8");
                if sender.send(message.parse().expect("messages are JSON")).is_err() {
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
        // If the browser has ended, waiting for the answer fails.
        let _ = self.requests.write_all(&[request.as_bytes(), b"\0"].concat());
        id.into()
    }

    fn call(&mut self, session: &str, method: &str, params: &str) -> JsonValue {
        let id = self.send(session, method, params);
        let deadline = Instant::now() + TIMEOUT;
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

/// Returns the string field `name` of an answer.
fn text_of(answer: &JsonValue, name: &str) -> String {
    answer[name].get::<String>().expect("a string").clone()
}

fn quoted(text: &str) -> String {
    JsonValue::from(text.to_owned()).stringify().unwrap()
}

/// An expression that is true while the page is connected.
pub const IS_OPEN: &str = "document.getElementById('state').textContent === 'open'";

pub const PHONE: (u32, u32) = (360, 740);

/// Opens an EventSource at `path` in a page. The array `seen` gets its events.
pub fn open_event_source(window: &mut Window, path: &str) {
    window.eval(&format!(
        "(window.seen = [], window.source = new EventSource('{path}'),\
         source.onmessage = (event) => seen.push(event.data),\
         source.onerror = () => window.failed = true,\
         source.addEventListener('lagged', (event) => seen.push('lagged ' + event.data)), 0)"
    ));
}

/// Sends a message as a user does: types it into the form and presses Enter.
pub fn send_message(window: &mut Window, text: &str) {
    window.eval("document.getElementById('message').focus()");
    window.insert_text(text);
    window.press("Enter");
    window.wait_for("document.getElementById('message').value === ''");
}

/// Returns an expression that is true if a row with these classes contains `text`.
pub fn row_contains(classes: &str, text: &str) -> String {
    let selector = classes.replace(' ', ".");
    format!(
        "[...document.querySelectorAll('#rows .{selector} pre')].some((row) => row.textContent.includes({text:?}))"
    )
}

/// Takes screenshots, light and dark, wide and narrow. Checks that the page fits the window and has the
/// preferred color scheme.
pub fn check_layouts(window: &mut Window, name: &str) {
    for (scheme, is_dark) in [("light", false), ("dark", true)] {
        window.set_color_scheme(scheme);
        let color = window.eval("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]");
        assert_eq!(color.parse::<u8>().unwrap() < 64, is_dark, "{scheme}: {color}");
        for (width, height) in [(1280, 800), PHONE] {
            window.resize(width, height);
            window.wait_for(&format!("innerWidth === {width}"));
            let widest: u32 = window.eval("document.documentElement.scrollWidth").parse().unwrap();
            assert!(widest <= width, "{name}: {widest} of {width}");
            window.screenshot(&format!("{name}-{scheme}-{width}"));
        }
    }
}

const PROGRAMS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];
const FLAGS: &[&str] = &[
    "--headless=new",
    // In containers the tests run as root, for whom Chromium has no sandbox.
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
