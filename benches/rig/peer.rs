//! What falconet is compared with: the smallest server one writes with tokio-tungstenite. It has
//! one thread and 4 KiB buffers, and runs in a process of its own: this bench, started again.

use std::process::ExitCode;
use std::{env, io};

use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config};

use super::report::percentile;
use super::server::Program;

/// One client of the peer.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// The peer as a program: this bench with the option that [`is_requested`] looks for.
///
/// # Errors
///
/// If the path of this executable is not known.
pub(crate) fn program() -> io::Result<Program> {
    let (name, path) = ("tokio-tungstenite", env::current_exe()?);
    Ok(Program { name, path, options: vec![ROLE.to_owned()] })
}

/// Whether this process has been started to be the peer.
pub(crate) fn is_requested() -> bool {
    env::args().nth(1).is_some_and(|role| role == ROLE)
}

/// How falconet's figures compare with the peer's, round by round: the median of `ours / theirs`,
/// with the least and the most.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> String {
    let mut ratios: Vec<f64> =
        ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let [least, median, most] = [0, 50, 100].map(|percent| percentile(&mut ratios, percent));
    format!("{median:.2} ({least:.2}–{most:.2})")
}

/// Runs `service` on a runtime of one thread; it ends only if it fails.
pub(crate) fn run(service: impl Future<Output = io::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Err(error) = runtime.and_then(|runtime| runtime.block_on(service)) {
        eprintln!("tokio-tungstenite: {error}");
    }
    ExitCode::FAILURE
}

/// Accepts clients on a free port of 127.0.0.1, and gives each to a task that runs `session`.
///
/// # Errors
///
/// If it cannot listen or accept.
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

/// The option that makes this bench the peer.
const ROLE: &str = "--as-peer";

/// The size of each of a client's two buffers.
const BUFFER_BYTES: usize = 4 * 1024;
