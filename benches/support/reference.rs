//! The reference that falconet is compared with: a minimal server written with tokio-tungstenite.
//!
//! It has one thread and buffers of 4 KiB. It runs in its own process, which is this bench started
//! again with an option.

use std::process::ExitCode;
use std::{env, io};

use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use super::report::percentile;
use super::server::Program;

/// The connection to one client of the reference server.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Returns the command line of the reference server: this bench with the option that
/// [`is_requested`] looks for.
///
/// # Errors
///
/// If the path of this executable is unknown.
pub(crate) fn program() -> io::Result<Program> {
    let (name, path) = ("tokio-tungstenite", env::current_exe()?);
    Ok(Program { name, path, options: vec![ROLE.to_owned()] })
}

/// Returns true if this process must run as the reference server.
pub(crate) fn is_requested() -> bool {
    env::args().nth(1).is_some_and(|role| role == ROLE)
}

/// Returns the median of `measured / reference` over all rounds, with the minimum and the maximum.
pub(crate) fn ratio(measured: &[f64], reference: &[f64]) -> String {
    let mut ratios: Vec<f64> =
        measured.iter().zip(reference).map(|(measured, reference)| measured / reference).collect();
    let [min, median, max] = [0, 50, 100].map(|percent| percentile(&mut ratios, percent));
    format!("{median:.2} ({min:.2}–{max:.2})")
}

/// Runs `service` on a single-threaded runtime. Returns only if the service fails.
pub(crate) fn run(service: impl Future<Output = io::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Err(error) = runtime.and_then(|runtime| runtime.block_on(service)) {
        eprintln!("tokio-tungstenite: {error}");
    }
    ExitCode::FAILURE
}

/// Accepts clients on a free port of 127.0.0.1, and spawns a task that runs `session` for each.
///
/// # Errors
///
/// If listening or accepting fails.
pub(crate) async fn serve<F>(
    session: impl Fn(Socket) -> F + Clone + Send + 'static,
) -> io::Result<()>
where
    F: Future<Output = ()> + Send,
{
    let config =
        WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(BUFFER_BYTES);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    eprintln!("listening on http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let session = session.clone();
        tokio::spawn(async move {
            if let Ok(socket) = accept_async_with_config(stream, Some(config)).await {
                session(socket).await;
            }
        });
    }
}

/// The option that makes this bench run as the reference server.
const ROLE: &str = "--as-reference";

/// Size of the read buffer and of the write buffer of each client.
const BUFFER_BYTES: usize = 4 * 1024;
