//! The page of metrics, in the text format of Prometheus (version 0.0.4).

use std::fmt::{Display, Write};

use crate::hub::HubStats;

use super::process::{self, Times};
use super::seconds::Seconds;
use super::state::AdminState;

/// Returns the page with all metrics.
pub(super) fn page(state: &AdminState, stats: &HubStats) -> String {
    let mut page = Page(String::with_capacity(8192));
    write_connections(&mut page, state, stats);
    write_messages(&mut page, state, stats);
    write_loop(&mut page, state);
    write_process(&mut page, state);
    page.0
}

fn write_connections(page: &mut Page, state: &AdminState, stats: &HubStats) {
    let counters = &state.counters;
    let kinds = [
        ("http", state.http_connections(stats) as u64),
        ("websocket", stats.websocket as u64),
        ("events", stats.events as u64),
        ("admin", counters.admin_connections.now() as u64),
    ];
    page.family("falconet_connections", "gauge", "Connections open now.");
    page.labelled("falconet_connections", "kind", &mut kinds.into_iter());
    page.counter(
        "falconet_connections_accepted_total",
        "Connections accepted on the public listeners.",
        &counters.accepted.total(),
    );
    let rejected = "falconet_connections_rejected_total";
    page.family(rejected, "counter", "Connections rejected, by reason.");
    page.labelled(rejected, "reason", &mut counters.rejected());
    let files = ("files", state.meter().descriptor_shortages.total());
    page.labelled(rejected, "reason", &mut [files].into_iter());
    let refused = "falconet_requests_refused_total";
    page.family(refused, "counter", "HTTP requests refused because of their sender, by reason.");
    page.labelled(refused, "reason", &mut counters.refused());
    let requests = "falconet_requests_total";
    page.family(requests, "counter", "HTTP requests on the public listeners, by status class.");
    page.labelled(requests, "class", &mut counters.requests());
    let closed = "falconet_sessions_closed_total";
    page.family(
        closed,
        "counter",
        "WebSocket sessions and event streams that ended, by close code.",
    );
    page.labelled(closed, "kind=\"websocket\",code", &mut counters.websocket_closed.by_code());
    page.labelled(closed, "kind=\"events\",code", &mut counters.events_closed.by_code());
    page.counter(
        "falconet_clients_swept_total",
        "Clients dropped because they were silent, did not read or left a message unfinished.",
        &counters.swept.total(),
    );
}

fn write_messages(page: &mut Page, state: &AdminState, stats: &HubStats) {
    let (counters, meter) = (&state.counters, state.meter());
    for (name, help, total) in [
        (
            "falconet_messages_received_total",
            "WebSocket messages that clients sent.",
            counters.messages_received.total(),
        ),
        (
            "falconet_messages_sent_total",
            "WebSocket messages and events sent to clients.",
            counters.messages_sent.total(),
        ),
        (
            "falconet_received_bytes_total",
            "Bytes read from sockets, of all connections.",
            meter.received_bytes.total(),
        ),
        (
            "falconet_sent_bytes_total",
            "Bytes written to sockets, of all connections.",
            meter.sent_bytes.total(),
        ),
        (
            "falconet_messages_lagged_total",
            "Messages lost to subscribers that read too slowly.",
            counters.messages_lagged.total(),
        ),
    ] {
        page.counter(name, help, &total);
    }
    let published = "falconet_messages_published_total";
    page.family(published, "counter", "Messages published to topics, by source.");
    page.labelled(published, "source", &mut counters.published());
    page.gauge("falconet_topics", "Topics.", &stats.topics);
    page.gauge(
        "falconet_topic_log_bytes",
        "Memory that the messages of all topics take, in bytes.",
        &stats.log_bytes,
    );
    page.gauge(
        "falconet_pending_bytes",
        "Memory of unfinished input and output (see --max-pending), in bytes.",
        &state.pending_bytes(),
    );
}

fn write_loop(page: &mut Page, state: &AdminState) {
    let (name, turns) = ("falconet_loop_lag_seconds", &state.meter().turns);
    page.family(
        name,
        "histogram",
        "Duration of the turns of the event loop, without the waits, in seconds.",
    );
    let mut count = 0;
    for (bound, turns) in turns.cumulative() {
        count = turns;
        page.sample(&format!("{name}_bucket{{le=\"{bound}\"}}"), &turns);
    }
    page.sample(&format!("{name}_sum"), &Seconds(turns.total()));
    page.sample(&format!("{name}_count"), &count);
}

fn write_process(page: &mut Page, state: &AdminState) {
    page.counter("falconet_panics_total", "Panics in any task.", &state.process_errors.panics());
    page.counter(
        "falconet_log_lines_dropped_total",
        "Log lines suppressed by the rate limit or not written.",
        &state.process_errors.log_lines_dropped(),
    );
    page.family("falconet_build_info", "gauge", "The version, as a label. Always 1.");
    let version = (env!("CARGO_PKG_VERSION"), 1);
    page.labelled("falconet_build_info", "version", &mut [version].into_iter());
    let resident = process::resident_bytes();
    page.gauge("process_resident_memory_bytes", "Resident memory, in bytes.", &resident);
    page.gauge("process_open_fds", "Open file descriptors.", &process::open_files());
    let files = process::max_files().map_or("+Inf".to_owned(), |files| files.to_string());
    page.gauge("process_max_fds", "Limit of open file descriptors.", &files);
    if let Some(Times { cpu, start }) = Times::read() {
        let help = "Processor time of all threads, in seconds.";
        page.counter("process_cpu_seconds_total", help, &Seconds(cpu));
        let help = "Start time of the process, in seconds since 1970.";
        page.gauge("process_start_time_seconds", help, &Seconds(start));
    }
}

/// The text of the page. Writing to a string never fails.
struct Page(String);

impl Page {
    /// Writes the name, the kind and the description of a metric, whose samples follow. `help` and labels
    /// need no escapes: they contain no backslash, quote or line feed.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Writes one sample. `series` is the name of the metric, with labels if there are any.
    fn sample(&mut self, series: &str, value: &dyn Display) {
        let _ = writeln!(self.0, "{series} {value}");
    }

    /// Writes samples that differ in the value of one label, each with that value. Labels that are the same
    /// for all samples may precede the name of the label.
    // A trait object, so that the code exists once.
    fn labelled(
        &mut self,
        name: &str,
        label: &str,
        values: &mut dyn Iterator<Item = (&'static str, u64)>,
    ) {
        for (key, value) in values {
            let _ = writeln!(self.0, "{name}{{{label}=\"{key}\"}} {value}");
        }
    }

    /// Writes a counter with one sample.
    fn counter(&mut self, name: &str, help: &str, value: &dyn Display) {
        self.family(name, "counter", help);
        self.sample(name, value);
    }

    /// Writes a gauge with one sample.
    fn gauge(&mut self, name: &str, help: &str, value: &dyn Display) {
        self.family(name, "gauge", help);
        self.sample(name, value);
    }
}
