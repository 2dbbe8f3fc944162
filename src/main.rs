//! The server program. [`compose`] is its table of contents: the endpoints with their paths, and the
//! services.

use std::process::ExitCode;
use std::rc::Rc;

use falconet::cli::{self, Command, Options};
use falconet::net::ListenUrl;
use falconet::privileges::{self, Account, AccountError, SandboxStatus};
use falconet::signals::{self, StopSignals};
use falconet::systemd::Notifier;
use falconet::{
    Asset, Echo, Feature, ProcessErrors, Server, StartError, Stdin, Supervision, Timestamp,
    TokenFile,
};

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Serve(options)) => serve(*options),
        Ok(Command::CheckConfig) => print("the configuration is valid\n"),
        Ok(Command::PrintConfig(options)) => print(&cli::print_config(&options)),
        Ok(Command::Print(text)) => print(&text),
        Ok(Command::Help) => print(&cli::help()),
        Ok(Command::Version) => print(concat!("falconet ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => fail(&error, error.exit_code()),
    }
}

fn serve(options: Options) -> ExitCode {
    let process_errors = falconet::log::install(options.log_level, options.log_format);
    let notifier =
        Feature::Full.is_built_in().then(Notifier::from_environment).flatten().map(Rc::new);
    let stop_signals = StopSignals::detect();
    let allows_null = options.origins.includes_null();
    let privileges = Feature::Full.is_built_in().then(|| options.clone());
    let reads_stdin = Feature::Full.is_built_in() && options.stdin.is_some();
    let server = match compose(options, process_errors, notifier.clone()) {
        Ok(server) => server,
        Err(error) => return fail(&error, RUNTIME_FAILURE),
    };
    // Must come before any thread is started, because a thread keeps the privileges that it has.
    if Feature::Full.is_built_in()
        && let Some(options) = privileges
        && let Err(error) = drop_privileges(&options)
    {
        return fail(&error, BAD_CONFIGURATION);
    }
    let stopper = server.stopper();
    // The first signal drains the server; the second ends the process.
    let handled = stop_signals.handle(move |before| match before {
        0 => stopper.stop(),
        _ => std::process::exit(RUNTIME_FAILURE.into()),
    });
    if let Err(error) = handled {
        return fail(&format!("can't handle signals: {error}"), RUNTIME_FAILURE);
    }
    // The thread that waits for signals needs no descriptor that is opened from here on. With `--stdin` the
    // table stays shared: a copy of the standard input in the thread would keep the input open after its end.
    if !reads_stdin {
        signals::unshare_descriptors();
    }
    for url in server.urls() {
        match url {
            ListenUrl::Http { .. } | ListenUrl::Https { .. } => {
                log::info!("listening on {url}/ (open it in a browser; Ctrl+C stops)");
            }
            ListenUrl::Unix(_) | ListenUrl::Systemd => {
                log::info!("listening on {url} (Ctrl+C stops)")
            }
        }
    }
    if allows_null {
        log::warn!("--origin null also lets in every page that uses a sandboxed frame");
    }
    if let Some(url) = server.admin_url() {
        log::info!("administration on {url}");
    }
    if Feature::Full.is_built_in() {
        if let read_only @ [_, ..] = server.read_only_urls() {
            let urls = read_only.iter().map(ListenUrl::to_string).collect::<Vec<_>>().join(", ");
            log::warn!(
                "publishing is forbidden at {urls} without a --token-file; anyone may read there"
            );
        }
        if let Some(notifier) = notifier {
            let urls = server.urls().len();
            notifier.notify(&format!("READY=1\nSTATUS=listening on {urls} URLs"));
        }
    }
    match server.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("stopped: {error}"), RUNTIME_FAILURE),
    }
}

/// Builds the server from its endpoints, pages and services, and binds it.
fn compose(
    options: Options,
    process_errors: ProcessErrors,
    notifier: Option<Rc<Notifier>>,
) -> Result<Server, StartError> {
    let max_line = options.config.limits.message_bytes;
    let mut server = Server::builder()
        .config(options.config)
        .process_errors(process_errors)
        .endpoint("/", Echo)
        .asset("/", INDEX)
        .asset("/app.js", SCRIPT)
        .asset("/dom.js", DOM)
        .asset("/style.css", STYLE)
        .asset("/icon.svg", ICON)
        .origins(options.origins);
    if Feature::Full.is_built_in() {
        server = server.trust_proxies(options.trusted_proxies);
        if let Some(path) = options.token_file {
            let tokens = TokenFile::open(path).map_err(StartError::Tokens)?;
            server = server.authorize(tokens.allow_in_query(options.allow_query_token));
        }
        if let Some(path) = options.admin_token_file {
            server = server.authorize_admin(TokenFile::open(path).map_err(StartError::Tokens)?);
        }
        server = server
            .topics()
            .asset("/topics.js", TOPICS_SCRIPT)
            .asset("/chart.js", CHART)
            .asset("/topics.css", TOPICS_STYLE);
        if let Some(directory) = options.static_files {
            server = server.files(directory);
        }
        if let Some(topic) = options.stdin {
            let (separator, stops_at_end) = (options.stdin_separator, options.exit_on_eof);
            server = server.service(Stdin::new(topic, separator, max_line, stops_at_end));
        }
        if let Some(notifier) = notifier {
            server = server.service(Supervision::new(notifier));
        }
    }
    if let Some(every) = options.broadcast_every {
        server = server.service(Timestamp::new(every));
    }
    if let Some(url) = options.admin {
        server = server.admin(url);
    }
    server.bind(&options.listen)
}

/// Drops the privileges that are not needed once all sockets are bound: switches to the configured user, and
/// enters the sandbox.
fn drop_privileges(options: &Options) -> Result<(), AccountError> {
    if let Some(name) = &options.user {
        Account::find(name)?.assume()?;
        for path in options.read_later() {
            if let Err(error) = std::fs::File::open(path) {
                log::warn!("{name} can't read {}: {error}", path.display());
            }
        }
    } else if privileges::is_root() {
        log::warn!("running as root: --user NAME is safer");
    }
    if options.sandbox {
        match options.sandbox().enter() {
            Err(error) => log::warn!("can't enter the sandbox: {error}"),
            Ok(SandboxStatus::All) => log::debug!("in a sandbox"),
            Ok(SandboxStatus::Some) => {
                log::debug!("in a sandbox, with the restrictions that this kernel supports")
            }
            Ok(SandboxStatus::None) => {
                log::info!("not in a sandbox: this kernel does not support Landlock")
            }
        }
    }
    Ok(())
}

/// Prints a text on the standard output. A closed output is not a failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Prints an error on the standard error. Returns `code`.
fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "falconet: {error}");
    code.into()
}

/// The text of a file of `www/`, as the build script leaves it.
macro_rules! page {
    ($file:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $file))
    };
}

const INDEX: Asset = Asset {
    content_type: "text/html; charset=utf-8",
    body: match Feature::Full.is_built_in() {
        true => concat!(page!("index.html"), page!("topics.html"), page!("chart.html")),
        false => page!("index.html"),
    }
    .as_bytes(),
};
const SCRIPT: Asset = script(page!("app.js"));
const DOM: Asset = script(page!("dom.js"));
const TOPICS_SCRIPT: Asset = script(page!("topics.js"));
const CHART: Asset = script(page!("chart.js"));
const STYLE: Asset = style(concat!(page!("base.css"), page!("style.css")));
const TOPICS_STYLE: Asset = style(page!("topics.css"));
const ICON: Asset =
    Asset { content_type: "image/svg+xml", body: include_bytes!("../www/icon.svg") };

const fn script(text: &'static str) -> Asset {
    Asset { content_type: "text/javascript; charset=utf-8", body: text.as_bytes() }
}

const fn style(text: &'static str) -> Asset {
    Asset { content_type: "text/css; charset=utf-8", body: text.as_bytes() }
}

/// The exit code of a server that cannot start or that fails.
const RUNTIME_FAILURE: u8 = 1;
/// EX_CONFIG of sysexits.h, as for invalid options.
const BAD_CONFIGURATION: u8 = 78;
