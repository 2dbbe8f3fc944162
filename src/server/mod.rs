//! The server: binds the listeners, accepts connections, starts all tasks, and drains on a stop.
//!
//! No other module of the library spawns tasks.

mod builder;
mod cgroup;
mod connections;
mod error;

use std::future::Future;
use std::io::{self, IoSlice};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use async_channel::{Receiver, Sender};
use async_executor::StaticLocalExecutor;
use futures_lite::{FutureExt, future};
use smol::{LocalExecutor, Task};

use crate::access::{Access, AnyAuthorizer, HandshakeRate, Origins, PublishRate, TrustedProxies};
use crate::admin::{AdminApi, AdminState, Stats};
use crate::config::{Config, Reject};
use crate::connection::{self, Context, IdGenerator};
use crate::counters::{Counters, ProcessErrors};
use crate::endpoints::topic::{PublishLimit, PublishOnce, Topics};
use crate::endpoints::{Files, Page, StaticFiles};
use crate::features::Feature;
use crate::frame::CloseReason;
use crate::http::Response;
use crate::http::response::Envelope;
use crate::hub::{self, DrainScope, HubHandle};
use crate::net::{ListenUrl, Listener, OwnNames, Peer, Reactor, Timer, Transport};
use crate::rate::Rate;
use crate::resource::Resource;
use crate::services::{AnyService, Stop, Stopper, Sweep};
use crate::ws::SessionShared;

pub use builder::ServerBuilder;
use connections::{ADMIN_CONNECTIONS, Connections};
pub use error::StartError;

/// A WebSocket server, bound and ready to run.
///
/// ```
/// use falconet::{CloseReason, Server, Session};
///
/// let url = "http://127.0.0.1:0".parse()?;
/// let server = Server::builder()
///     .endpoint("/shout", async |mut session: Session| {
///         while let Some(message) = session.next().await {
///             session.send(message.as_text().unwrap_or("BYTES").to_uppercase()).await;
///         }
///         session.close(CloseReason::NORMAL).await
///     })
///     .bind([&url])?;
/// server.stopper().stop(); // usually called later, from a signal handler or a service
/// server.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    parts: Parts,
    reactor: Rc<Reactor>,
    listeners: Vec<Listener>,
    urls: Vec<ListenUrl>,
    read_only: Vec<ListenUrl>,
    admin_listeners: Vec<Listener>,
    admin_url: Option<ListenUrl>,
    stop: Stopper,
    stop_requested: Receiver<()>,
}

/// The parts that [`ServerBuilder`] collects and [`Server::run`] uses.
#[derive(Default)]
struct Parts {
    config: Config,
    pages: Vec<Page>,
    has_topics: bool,
    files: Option<Files>,
    services: Vec<Box<dyn AnyService>>,
    authorizer: Option<Rc<dyn AnyAuthorizer>>,
    /// The authorizer of the administrator's listener, if it is another one.
    admin_authorizer: Option<Rc<dyn AnyAuthorizer>>,
    origins: Origins,
    own_names: OwnNames,
    proxies: TrustedProxies,
    process_errors: ProcessErrors,
}

impl Parts {
    /// Returns true if an authorizer checks the requests to the administrator's listener.
    fn authorizes_admin(&self) -> bool {
        self.authorizer.is_some() || self.admin_authorizer.is_some()
    }
}

impl Server {
    /// Returns the URLs that the server is bound to. A port 0 is replaced by the port that the kernel chose.
    pub fn urls(&self) -> &[ListenUrl] {
        &self.urls
    }

    /// Returns the URL of the administrator's listener, if there is one. A port 0 is replaced by the port
    /// that the kernel chose.
    pub fn admin_url(&self) -> Option<&ListenUrl> {
        self.admin_url.as_ref()
    }

    /// Returns the URLs at which publishing is forbidden, because other hosts can reach them and there is no
    /// [authorizer](ServerBuilder::authorize).
    pub fn read_only_urls(&self) -> &[ListenUrl] {
        &self.read_only
    }

    /// Returns a handle that stops the server from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    /// Runs the server until it is stopped, and then drains it: closes the listeners, closes every session
    /// with the code 1001, and waits for the sessions to end, for at most
    /// [`Timeouts::drain`](crate::config::Timeouts::drain).
    ///
    /// # Errors
    /// The error of `epoll_wait`.
    pub fn run(self) -> io::Result<()> {
        // A leaked executor keeps no list of its tasks. The list would keep the memory that many connections
        // once needed for as long as the server runs.
        let executor = LocalExecutor::new().leak();
        let reactor = self.reactor.clone();
        let main = start(executor, self.supervise(executor));
        reactor.run(executor, main)
    }

    /// Starts all tasks, waits for the request to stop, and ends all tasks.
    async fn supervise(self, executor: &'static StaticLocalExecutor) {
        let timer = Timer::new(&self.reactor);
        let (stopping, stop_requested) = async_channel::bounded(1);
        let stop = Stop::new(timer.clone(), stop_requested, self.stop.clone());
        let Parts { config, pages, has_topics, files, mut services, process_errors, .. } =
            self.parts;
        let Parts { authorizer, admin_authorizer, origins, own_names, proxies, .. } = self.parts;
        let (config, counters) = (Rc::new(config), Rc::new(Counters::default()));
        let access = Rc::new(Access { origins, proxies, own_names, authorizer, is_admin: false });

        let (hub, hub_task) =
            hub::open(config.timeouts.clone(), config.topics.clone(), counters.clone());
        let hub_task = start(executor, hub_task.run());
        let (admin_stopping, admin_stop) = async_channel::bounded(1);
        let admin_stop = Stop::new(timer.clone(), admin_stop, self.stop);
        let admin_state = (Feature::Full.is_built_in() && self.admin_url.is_some()).then(|| {
            let (hub, stop, counters) = (hub.clone(), stop.clone(), counters.clone());
            Rc::new(AdminState::new(hub, stop, counters, process_errors))
        });
        services.push(Box::new(Sweep));
        if Feature::Full.is_built_in()
            && let Some(admin_state) = &admin_state
        {
            services.push(Box::new(Stats::new(admin_state.clone(), admin_stop.clone())));
        }
        let mut services: Vec<Task<()>> = services
            .into_iter()
            .map(|service| {
                let running = AssertUnwindSafe(service.run_boxed(hub.clone(), stop.clone()));
                // The panic hook has logged the panic. It must not reach the task that awaits the service.
                start(executor, async { drop(running.catch_unwind().await) })
            })
            .collect();

        let reserved = if admin_state.is_some() { ADMIN_CONNECTIONS } else { 0 };
        let connections = Rc::new(Connections::new(&config.limits, reserved, counters.clone()));
        let shared = Rc::new(SessionShared::new(config.clone(), hub.clone()));
        let context = Rc::new(Context {
            resources: resources(pages, has_topics, files, &shared, &counters),
            handshake_rate: handshake_rate(&config),
            config,
            access,
            hub: hub.clone(),
            stop,
            ids: IdGenerator::default(),
            counters,
        });
        let admin_context = admin_state.filter(|_| Feature::Full.is_built_in()).map(|state| {
            let access = context.access.of_admin(admin_authorizer);
            context_for_admin(&context, access, state, shared, admin_stop)
        });
        let accept_all = |listeners: Vec<Listener>, context: &Rc<Context>| {
            let accepting = listeners.into_iter().map(|listener| {
                let (connections, context) = (connections.clone(), context.clone());
                start(executor, accept(listener, connections, context, executor))
            });
            accepting.collect::<Vec<_>>()
        };
        let mut acceptors = accept_all(self.listeners, &context);
        let admin_acceptors =
            admin_context.map(|context| accept_all(self.admin_listeners, &context));
        let admin =
            AdminPart { acceptors: admin_acceptors.unwrap_or_default(), stopping: admin_stopping };

        let _ = self.stop_requested.recv().await;
        log::info!("stopping: {} connections to close", connections.count());
        self.reactor.begin_stop();
        cancel(&mut acceptors).await;
        drop(stopping);
        drain(&hub, &connections, &mut services, admin, &timer, &context.config).await;
        cancel(&mut services).await;
        hub_task.cancel().await;
    }
}

/// Returns the limit on TLS handshakes for the listeners of one kind.
fn handshake_rate(config: &Config) -> Option<HandshakeRate> {
    let limit = config.limits.handshake_rate.filter(|_| Feature::Tls.is_built_in());
    limit.map(|limit| HandshakeRate::new(Rate::new(limit, Instant::now())))
}

/// Creates the resources of the public listeners, in the order in which they are asked to plan a request.
fn resources(
    pages: Vec<Page>,
    has_topics: bool,
    files: Option<Files>,
    shared: &Rc<SessionShared>,
    counters: &Rc<Counters>,
) -> Vec<Box<dyn Resource>> {
    let mut resources: Vec<Box<dyn Resource>> = Vec::new();
    if Feature::Full.is_built_in() {
        if has_topics {
            let publish_limit = shared.config.limits.publish_rate.map(|rate| {
                let rate = PublishRate::new(Rate::new(rate, Instant::now()));
                Rc::new(PublishLimit { rate, counters: counters.clone() })
            });
            let keys = shared.config.limits.publish_keys;
            let publish_once = (keys > 0).then(|| Rc::new(PublishOnce::new(keys)));
            resources.push(Box::new(Topics {
                shared: shared.clone(),
                publish_limit,
                publish_once,
            }));
        }
        if let Some(files) = files {
            resources.push(Box::new(StaticFiles(files)));
        }
    }
    for page in pages {
        resources.push(Box::new(page.served(shared.clone())));
    }
    resources
}

/// Creates the context of the administrator's connections. They differ from the public ones: they have
/// other resources, they stay open while the public ones drain, and a refused request always gets a
/// response.
fn context_for_admin(
    public: &Rc<Context>,
    access: Access,
    state: Rc<AdminState>,
    shared: Rc<SessionShared>,
    stop: Stop,
) -> Rc<Context> {
    Rc::new(Context {
        config: Rc::new(Config { reject: Reject::Respond, ..(*public.config).clone() }),
        resources: vec![Box::new(AdminApi { state, shared })],
        access: Rc::new(access),
        // The clients of the public listeners use up nothing of the administrator's rate.
        handshake_rate: handshake_rate(&public.config),
        hub: public.hub.clone(),
        stop,
        ids: IdGenerator::default(),
        counters: public.counters.clone(),
    })
}

/// Starts a task. The future is boxed, so that the executor's code is not compiled again for each type of
/// task.
fn start(
    executor: &'static StaticLocalExecutor,
    task: impl Future<Output = ()> + 'static,
) -> Task<()> {
    let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
    executor.spawn(task)
}

/// Accepts connections and starts a task for each of them. Never returns.
async fn accept(
    listener: Listener,
    connections: Rc<Connections>,
    context: Rc<Context>,
    executor: &'static StaticLocalExecutor,
) {
    for accepted in 1_u64.. {
        let (transport, peer) = listener.accept().await;
        let is_exempt = Feature::Full.is_built_in() && context.access.proxies.trust(peer);
        match connections.admit(peer, is_exempt, context.is_admin()) {
            Some((slot, address_place)) => {
                let reach = listener.reach();
                slot.start(
                    connection::serve(transport, address_place, reach, context.clone()),
                    executor,
                );
            }
            None => reject(transport, peer, &connections, &context, executor).await,
        }
        if accepted % ACCEPTS_PER_TURN == 0 {
            future::yield_now().await;
        }
    }
}

/// Refuses a peer that was not admitted. With [`Reject::Drop`] the connection is dropped. Otherwise a task
/// reads one request head and answers it. If too many such tasks run, status 503 is sent without a task, if
/// the socket takes it at once; a TLS peer gets no response then, because that needs a handshake first.
async fn reject(
    transport: Transport,
    peer: Peer,
    connections: &Rc<Connections>,
    context: &Rc<Context>,
    executor: &'static StaticLocalExecutor,
) {
    log::warn!(target: "falconet::limit", address = peer.to_string(); "too many connections: refused");
    if context.config.reject == Reject::Drop {
        return;
    }
    if Feature::Full.is_built_in()
        && let Some(slot) = connections.turn_away()
    {
        return slot.start(connection::turn_away(transport, peer, context.clone()), executor);
    }
    let envelope = Envelope::last(context.access.cors_lines(None), SystemTime::now());
    let response = Response::text(503, "too many connections\n").encode(&envelope);
    let sending = future::poll_fn(|cx| transport.poll_send(cx, &[IoSlice::new(&response)]));
    future::poll_once(sending).await;
    transport.shut_down();
}

/// The tasks for the administrator's listener, which end after the public connections.
struct AdminPart {
    acceptors: Vec<Task<()>>,
    /// Dropping the sender requests the stop of the administrator's connections.
    stopping: Sender<()>,
}

/// Closes all public sessions and waits until no public connection is open. Then does the same with the
/// administrator's connections, and waits for the services. Connections that are still open at the deadline
/// are aborted.
async fn drain(
    hub: &HubHandle,
    connections: &Connections,
    services: &mut [Task<()>],
    mut admin: AdminPart,
    timer: &Timer,
    config: &Config,
) {
    let deadline = timer.sleep(Some(config.timeouts.drain));
    let closing = async {
        let _ = hub.drain(DrainScope::Public, CloseReason::STOPPING).await;
        connections.until_none_is_public().await;
        cancel(&mut admin.acceptors).await;
        drop(admin.stopping);
        let _ = hub.drain(DrainScope::All, CloseReason::STOPPING).await;
        connections.until_none().await;
        for service in services {
            service.await;
        }
    };
    let is_done = timer.until(deadline, closing).await.is_some();
    // The acceptors end first, because connections that they accept from here on would not be aborted.
    cancel(&mut admin.acceptors).await;
    if !is_done && connections.count() > 0 {
        log::info!("aborting {} connections", connections.count());
        let remaining = connections.tasks.take().into_iter().map(|(_, task)| task);
        cancel(&mut remaining.collect()).await;
    }
}

/// Cancels tasks, the last one first, and waits until they have ended.
///
/// # Cancel safety
/// If the future is dropped early, the remaining tasks stay in `tasks`.
async fn cancel(tasks: &mut Vec<Task<()>>) {
    while let Some(task) = tasks.pop() {
        task.cancel().await;
    }
}

/// The number of connections that one listener accepts before other tasks run.
const ACCEPTS_PER_TURN: u64 = 16;
