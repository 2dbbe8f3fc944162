//! The administrator's listener, and its responses.

use std::net::SocketAddr;

use tinyjson::JsonValue;

use super::access::bearer;
use super::events::Events;
use super::http::{Answer, fetch, get, request};
use super::process::Falconet;

/// Starts a server with a listener for the administrator. Returns it with the address of that listener.
pub fn start(flags: &[&str]) -> (Falconet, SocketAddr) {
    let falconet = Falconet::start(&[&["--admin", "http://127.0.0.1:0"], flags].concat());
    let admin = admin_address(&falconet);
    (falconet, admin)
}

/// Returns the address of the administrator's listener, which the server logs at its start.
pub fn admin_address(falconet: &Falconet) -> SocketAddr {
    let line = falconet.wait_for_line("administration on ");
    line.split("administration on http://").nth(1).unwrap().parse().unwrap()
}

/// Reads events up to the end of the stream.
pub fn read_to_end(events: &mut Events) {
    assert!((0..1000).any(|_| events.try_read().is_none()), "the stream does not end");
}

/// Returns the body at `path`, which must exist.
pub fn read(admin: SocketAddr, path: &str) -> String {
    let answer = fetch(admin, get(path));
    assert_eq!(answer.status(), 200, "{path}: {}", answer.head);
    answer.text().to_owned()
}

/// Returns the list of clients, one line of JSON fields for each.
pub fn clients(admin: SocketAddr) -> Vec<String> {
    let list = read(admin, "/clients");
    let inside = list.strip_prefix('[').and_then(|list| list.strip_suffix("]\n")).unwrap();
    let lines = inside.split(",\n ").filter(|line| !line.is_empty());
    lines
        .map(|line| line.strip_prefix('{').unwrap().strip_suffix('}').unwrap().to_owned())
        .collect()
}

/// Returns the value of a field in a JSON object without nesting, as written there.
pub fn field<'j>(object: &'j str, name: &str) -> &'j str {
    let start = object.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name}: {object}"));
    let value = &object[start + name.len() + 3..];
    value.split([',', '}']).next().unwrap()
}

/// Returns the value of a numeric field.
pub fn number(object: &str, name: &str) -> f64 {
    field(object, name).parse().unwrap_or_else(|_| panic!("{name}: {object}"))
}

/// A page of metrics in the text format of Prometheus.
pub struct Metrics {
    families: Vec<Family>,
}

struct Family {
    name: String,
    kind: String,
    samples: Vec<Sample>,
}

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    pub fn read(admin: SocketAddr) -> Self {
        Self::of(&fetch(admin, get("/metrics")))
    }

    /// Reads the metrics with a token.
    pub fn read_as(admin: SocketAddr, token: &str) -> Self {
        Self::of(&fetch(admin, request("GET", "/metrics", &bearer(token), "")))
    }

    pub fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status(), 200, "{}", answer.head);
        Self::parse(answer.text()).unwrap_or_else(|error| panic!("{error} in\n{}", answer.text()))
    }

    fn family(&self, name: &str) -> &Family {
        let found = self.families.iter().find(|family| family.name == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    }

    pub fn kind(&self, name: &str) -> &str {
        &self.family(name).kind
    }

    /// Returns the value of the sample that has this name and no label.
    pub fn total(&self, name: &str) -> f64 {
        let mut samples = self.families.iter().flat_map(|family| &family.samples);
        let found = samples.find(|sample| sample.name == name && sample.labels.is_empty());
        found.unwrap_or_else(|| panic!("no {name}")).value
    }

    /// Returns the value of the sample whose label values, separated by spaces, are `labels`.
    pub fn value(&self, name: &str, labels: &str) -> f64 {
        let has_labels = |sample: &&Sample| {
            let values = sample.labels.iter().map(|(_, value)| value.as_str());
            values.eq(labels.split(' '))
        };
        let found = self.family(name).samples.iter().find(has_labels);
        found.unwrap_or_else(|| panic!("no {name} of {labels}")).value
    }

    /// Parses the text format 0.0.4, more strictly than Prometheus does.
    pub fn parse(page: &str) -> Result<Self, String> {
        let body = page.strip_suffix('\n').ok_or("no end of line at the end")?;
        let mut families: Vec<Family> = Vec::new();
        let mut lines = body.split('\n').peekable();
        while let Some(line) = lines.next() {
            let (name, _help) = line
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .ok_or_else(|| format!("`{line}` is not a HELP line"))?;
            let kind = lines.next().unwrap_or_default();
            let kind =
                kind.strip_prefix(&format!("# TYPE {name} ")).ok_or("no TYPE line after HELP")?;
            if families.iter().any(|family| family.name == name) {
                return Err(format!("{name} occurs twice"));
            }
            let mut family =
                Family { name: name.to_owned(), kind: kind.to_owned(), samples: Vec::new() };
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                family.samples.push(Sample::parse(sample)?);
            }
            family.check()?;
            families.push(family);
        }
        Ok(Self { families })
    }
}

impl Family {
    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let is_name = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
                && name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit())
        };
        if !is_name(name) || self.samples.is_empty() {
            return Err(format!("{name} is not a valid name, or has no samples"));
        }
        if (self.kind == "counter") != name.ends_with("_total") {
            return Err(format!("{name} is a {}: only counters end in _total", self.kind));
        }
        for (index, sample) in self.samples.iter().enumerate() {
            let series = (&sample.name, &sample.labels);
            if self.samples[..index].iter().any(|other| (&other.name, &other.labels) == series) {
                return Err(format!("{name} has a series twice"));
            }
            let suffix = sample.name.strip_prefix(name.as_str());
            let belongs = match self.kind.as_str() {
                "counter" => suffix == Some("") && sample.value >= 0.0,
                "gauge" => suffix == Some(""),
                "histogram" => matches!(suffix, Some("_bucket" | "_sum" | "_count")),
                _ => false,
            };
            if !belongs {
                return Err(format!("{} is not a sample of the {} {name}", sample.name, self.kind));
            }
        }
        if self.kind == "histogram" { self.check_histogram() } else { Ok(()) }
    }

    fn check_histogram(&self) -> Result<(), String> {
        let (mut last, mut bound) = (0.0, f64::NEG_INFINITY);
        let ends_in = |sample: &&Sample, suffix| sample.name == format!("{}{suffix}", self.name);
        for bucket in self.samples.iter().filter(|sample| ends_in(sample, "_bucket")) {
            let [(label, le)] = &bucket.labels[..] else {
                return Err("a bucket has other labels than le".into());
            };
            let le: f64 = le.parse().map_err(|_| format!("le `{le}` is not a number"))?;
            if label != "le" || le <= bound || bucket.value < last {
                return Err(format!("the bucket {le} may not follow the bucket {bound}"));
            }
            (last, bound) = (bucket.value, le);
        }
        let one = |suffix| self.samples.iter().find(|sample| ends_in(sample, suffix));
        let count = one("_count").filter(|_| one("_sum").is_some() && bound == f64::INFINITY);
        match count {
            Some(count) if count.value == last => Ok(()),
            _ => Err("the sum, the count or the bucket +Inf is missing or wrong".to_owned()),
        }
    }
}

impl Sample {
    fn parse(line: &str) -> Result<Self, String> {
        let (series, value) = line.rsplit_once(' ').ok_or_else(|| format!("`{line}`"))?;
        let value = value.parse().map_err(|_| format!("`{value}` is not a number"))?;
        let Some((name, rest)) = series.split_once('{') else {
            return Ok(Self { name: series.to_owned(), labels: Vec::new(), value });
        };
        let mut rest = rest.strip_suffix('}').ok_or_else(|| format!("`{line}`"))?;
        let mut labels = Vec::new();
        while !rest.is_empty() {
            let (label, text) = rest.split_once("=\"").ok_or_else(|| format!("`{line}`"))?;
            let is_label = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if !is_label || label.is_empty() {
                return Err(format!("`{label}` is not a valid label"));
            }
            let (unescaped, after) = unescape(text).ok_or_else(|| format!("`{line}`"))?;
            labels.push((label.to_owned(), unescaped));
            rest = match after.strip_prefix(',') {
                Some(more) if !more.is_empty() => more,
                None if after.is_empty() => after,
                _ => return Err(format!("`{line}`")),
            };
        }
        Ok(Self { name: name.to_owned(), labels, value })
    }
}

/// Returns the value of a label up to its closing quote, and the text after the quote.
fn unescape(text: &str) -> Option<(String, &str)> {
    let (mut value, mut characters) = (String::new(), text.chars());
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(match characters.next()? {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            character => value.push(character),
        }
    }
}

/// Returns the samples of the past that a new subscriber of `/events` receives first, as JSON. Empty if
/// there are none.
pub fn history(admin: SocketAddr) -> String {
    let first = Events::connect(admin, "/events", "").read();
    if first.kind == "history" { first.data } else { String::new() }
}

/// Returns the number of WebSocket clients in each sample.
pub fn websocket_counts(samples: &str) -> Vec<f64> {
    let samples: Vec<JsonValue> = samples.parse::<JsonValue>().unwrap().try_into().unwrap();
    let count = |sample: &JsonValue| *sample["connections"]["websocket"].get::<f64>().unwrap();
    samples.iter().map(count).collect()
}
