//! Binds, accepts, and ends: the one room that spawns tasks.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use async_channel::{Receiver, Sender};
use async_executor::StaticLocalExecutor;
use futures_lite::{FutureExt, future};
use rustix::process::{Resource, getrlimit};
use slab::Slab;
use smol::{LocalExecutor, Task};

use crate::access::{
    Access, AddressPlace, Addresses, Authorize, Origins, PublishRate, TokenFileError,
    TrustedProxies,
};
use crate::admin::{self, AdminState, History, Stats};
use crate::config::{Config, Limits, Reject};
use crate::connection::{self, Context, Correlations};
use crate::counters::{Counters, ProcessErrors, Rejection};
use crate::endpoints::events::Encoder;
use crate::endpoints::{AnyEndpoint, Endpoint, Stage};
use crate::features::{Feature, NotBuiltIn};
use crate::http::files::Files;
use crate::http::response::Envelope;
use crate::http::route::Routes;
use crate::http::{Asset, Response};
use crate::hub::{self, Bell, HubHandle, Whom};
use crate::net::{
    Acceptor, BindError, ListenUrl, Listener, Peer, Reach, Reactor, Timer, TlsError, Transport,
};
use crate::rate::Rate;
use crate::services::{AnyService, Service, Stop, Stopper, Sweep};
use crate::ws::{CloseReason, SessionShared};

/// Composes a [`Server`].
pub struct ServerBuilder {
    config: Config,
    routes: Routes<Rc<dyn AnyEndpoint>>,
    services: Vec<Box<dyn AnyService>>,
    authorizer: Option<Rc<dyn Authorize>>,
    origins: Origins,
    proxies: TrustedProxies,
    files: Option<PathBuf>,
    admin: Option<ListenUrl>,
    process_errors: ProcessErrors,
    /// What is asked of it that this build lacks.
    lacking: Option<NotBuiltIn>,
}

impl ServerBuilder {
    /// Sets limits, timeouts and policies.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Puts a WebSocket endpoint at `path`, in place of one that stood there.
    pub fn endpoint(mut self, path: impl Into<String>, endpoint: impl Endpoint + 'static) -> Self {
        self.routes.add_endpoint(path.into(), Rc::new(endpoint));
        self
    }

    /// Puts an embedded file at `path`, beside an endpoint if one stands there.
    pub fn asset(mut self, path: impl Into<String>, asset: Asset) -> Self {
        self.routes.add_asset(path.into(), asset);
        self
    }

    /// Serves the files of a directory, before what is embedded: `DIR/a.css` at `/a.css`, and
    /// `DIR/index.html` at `/`. Hidden files and links that lead out of it are not served. Reading one
    /// waits for the disk, and everybody with it.
    pub fn files(mut self, directory: impl Into<PathBuf>) -> Self {
        self.files = Some(directory.into());
        self.needs(Feature::Full)
    }

    /// Lets everybody publish and subscribe at every path below `/topics/`, whose rest is the topic's
    /// name, and read the list of topics there.
    pub fn topics(mut self) -> Self {
        self.routes.add_topics();
        self.needs(Feature::Full)
    }

    /// Lets the administrator look after the server at `url`: metrics, the clients, a dashboard. Without an
    /// [authorizer](Self::authorize) only this host may be able to come there. Nothing of it stands on the
    /// other listeners.
    pub fn admin(mut self, url: ListenUrl) -> Self {
        self.admin = Some(url);
        self.needs(Feature::Full)
    }

    /// Has the administrator told of panics and lost log lines as `falconet::log::install`
    /// counts them; without it, there are none.
    pub fn process_errors(mut self, process_errors: ProcessErrors) -> Self {
        self.process_errors = process_errors;
        self
    }

    /// Adds a service that runs beside the connections.
    pub fn service(mut self, service: impl Service + 'static) -> Self {
        self.services.push(Box::new(service));
        self
    }

    /// Has every request pass `authorizer`. Without one everybody may do everything where only this host
    /// can come, and everything but publish where others can (see [`Server::read_only_urls`]).
    pub fn authorize(mut self, authorizer: impl Authorize + 'static) -> Self {
        self.authorizer = Some(Rc::new(authorizer));
        self
    }

    /// Lets pages of other origins talk to the server, and it go by their hosts' names.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// Believes these proxies when they say for whom they ask.
    pub fn trust_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.proxies = proxies;
        self.needs(Feature::Full)
    }

    /// Remembers what [`bind`](Self::bind) is to complain about.
    fn needs(mut self, feature: Feature) -> Self {
        self.lacking = feature.require().err().or(self.lacking);
        self
    }

    /// Binds the listen URLs; peers may connect from now on, and are served by [`Server::run`].
    ///
    /// # Errors
    /// [`StartError`], when a URL can't be bound, others could come to the administrator's, the directory
    /// of files can't be opened, there is no certificate for an `https://` URL, the kernel has no epoll to
    /// give, or this build lacks a [`Feature`] that was asked for.
    pub fn bind<'u>(
        mut self,
        urls: impl IntoIterator<Item = &'u ListenUrl>,
    ) -> Result<Server, StartError> {
        if self.config.limits.publish_rate.is_some() {
            self = self.needs(Feature::Full);
        }
        if let Some(lacking) = self.lacking {
            return Err(StartError::NotBuiltIn(lacking));
        }
        if Feature::Full.is_built_in()
            && let Some(directory) = self.files.take()
        {
            let files = Files::open(&directory);
            let failed = |error| StartError::Files { directory, error };
            self.routes.add_files(files.map_err(failed)?);
        }
        let reactor = Reactor::new().map_err(StartError::Reactor)?;
        let urls: Vec<&ListenUrl> = urls.into_iter().collect();
        let tls_hosts = urls.iter().copied().chain(&self.admin).filter_map(ListenUrl::tls_host);
        let tls_hosts: Vec<String> = tls_hosts.map(str::to_owned).collect();
        let tls = match tls_hosts.is_empty() {
            true => None,
            false => Some(Acceptor::new(&self.config.tls, &tls_hosts).map_err(StartError::Tls)?),
        };
        let (mut listeners, mut bound, mut read_only) = (Vec::new(), Vec::new(), Vec::new());
        for url in urls {
            let tls = tls.as_ref().filter(|_| url.tls_host().is_some());
            for (sockets, url) in Listener::bind(&reactor, url, tls).map_err(StartError::Bind)? {
                let is_exposed = sockets.iter().any(|socket| socket.reach() == Reach::Network);
                if is_exposed && self.authorizer.is_none() {
                    read_only.push(url.clone());
                }
                listeners.extend(sockets);
                bound.push(url);
            }
        }
        let (admin_listeners, admin_url) = match self.admin.take() {
            Some(url) if Feature::Full.is_built_in() => {
                bind_admin(&reactor, url, tls.as_ref(), self.authorizer.is_some())?
            }
            _ => (Vec::new(), None),
        };
        let (stop, stop_requested) = Stopper::new();
        Ok(Server {
            parts: self,
            reactor,
            listeners,
            urls: bound,
            read_only,
            admin_listeners,
            admin_url,
            stop,
            stop_requested,
        })
    }
}

/// Binds the administrator's URL, if only this host can come there or it is asked who comes.
fn bind_admin(
    reactor: &Rc<Reactor>,
    url: ListenUrl,
    tls: Option<&Rc<Acceptor>>,
    is_guarded: bool,
) -> Result<(Vec<Listener>, Option<ListenUrl>), StartError> {
    if !is_guarded && matches!(admin::may_listen_at(&url), Ok(false)) {
        return Err(StartError::ExposedAdmin(url));
    }
    let tls = tls.filter(|_| url.tls_host().is_some());
    let (mut listeners, mut bound) = (Vec::new(), None);
    for (sockets, url) in Listener::bind(reactor, &url, tls).map_err(StartError::Bind)? {
        listeners.extend(sockets);
        bound = Some(url);
    }
    Ok((listeners, bound))
}

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
/// server.stopper().stop(); // elsewhere: when all is done
/// server.run()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server {
    parts: ServerBuilder,
    reactor: Rc<Reactor>,
    listeners: Vec<Listener>,
    urls: Vec<ListenUrl>,
    read_only: Vec<ListenUrl>,
    admin_listeners: Vec<Listener>,
    admin_url: Option<ListenUrl>,
    stop: Stopper,
    stop_requested: Receiver<()>,
}

impl Server {
    /// Begins to compose a server.
    pub fn builder() -> ServerBuilder {
        ServerBuilder {
            config: Config::default(),
            routes: Routes::default(),
            services: Vec::new(),
            authorizer: None,
            origins: Origins::default(),
            proxies: TrustedProxies::default(),
            files: None,
            admin: None,
            process_errors: ProcessErrors::default(),
            lacking: None,
        }
    }

    /// Where the server listens: the URLs it was bound to, with the ports they got.
    pub fn urls(&self) -> &[ListenUrl] {
        &self.urls
    }

    /// Where the administrator is listened to: the URL as bound, with the port it got.
    pub fn admin_url(&self) -> Option<&ListenUrl> {
        self.admin_url.as_ref()
    }

    /// Those of them where nobody may publish: other hosts can come there, and there is no
    /// [authorizer](ServerBuilder::authorize) to tell one from another.
    pub fn read_only_urls(&self) -> &[ListenUrl] {
        &self.read_only
    }

    /// What stops the server, from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    /// Serves until stopped, then drains: closes the listeners, tells every client with 1001, and
    /// waits for them at most [`Timeouts::drain`](crate::config::Timeouts::drain).
    ///
    /// # Errors
    /// What `epoll_wait` fails with.
    pub fn run(self) -> io::Result<()> {
        // Of all that ends before `main` nothing is left but this, for good. So it needs
        // no list of its tasks, which would have a place for each of a crowd as long as the server runs.
        let executor = LocalExecutor::new().leak();
        let reactor = self.reactor.clone();
        let main = start(executor, self.supervise(executor));
        reactor.run(executor, main)
    }

    /// Starts everything, waits for the request to stop, ends everything.
    async fn supervise(self, executor: &'static StaticLocalExecutor) {
        let timer = Timer::new(&self.reactor);
        let (stopping, stop_requested) = async_channel::bounded(1);
        let stop = Stop::new(timer.clone(), stop_requested, self.stop.clone());
        let ServerBuilder { config, routes, mut services, process_errors, .. } = self.parts;
        let ServerBuilder { authorizer, origins, proxies, .. } = self.parts;
        let (config, counters) = (Rc::new(config), Rc::new(Counters::default()));
        let rate = config.limits.publish_rate.filter(|_| Feature::Full.is_built_in());
        let rate = rate.map(|rate| Rate::new(rate, Instant::now()));
        let publish_rate = rate.map(PublishRate::new);
        let access =
            Rc::new(Access { origins, proxies, authorizer, publish_rate, is_admin: false });

        let (hub, hub_task) =
            hub::open(config.timeouts.clone(), config.topics.clone(), counters.clone());
        let hub_task = start(executor, hub_task.run());
        let has_admin = Feature::Full.is_built_in() && self.admin_url.is_some();
        let admin_state = has_admin.then(|| {
            let (hub, stop, counters) = (hub.clone(), stop.clone(), counters.clone());
            Rc::new(AdminState { hub, stop, counters, process_errors, history: History::default() })
        });
        let (admin_stopping, admin_stop) = async_channel::bounded(1);
        let admin_stop = Stop::new(timer.clone(), admin_stop, self.stop);
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
                // A panic, which the hook has logged, must not reach who waits for the service's end.
                start(executor, async { drop(running.catch_unwind().await) })
            })
            .collect();

        let reserved = if admin_state.is_some() { ADMIN_CONNECTIONS } else { 0 };
        let connections = Rc::new(Connections::new(&config.limits, reserved, counters.clone()));
        let context = Rc::new(Context {
            shared: Rc::new(SessionShared::new(config.clone())),
            config,
            routes,
            access,
            hub: hub.clone(),
            stop,
            correlations: Correlations::new(),
            encoder: Encoder::default(),
            counters,
            admin_state: None,
        });
        let admin_state = admin_state.filter(|_| Feature::Full.is_built_in());
        let admin_context =
            admin_state.map(|admin_state| context_for_admin(&context, admin_state, admin_stop));
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
        cancel(&mut acceptors).await;
        drop(stopping);
        drain(&hub, &connections, &mut services, admin, &timer, &context.config).await;
        cancel(&mut services).await;
        hub_task.cancel().await;
    }
}

/// What the administrator's connections share: the same server, with other things at its paths, which is
/// still there while the public part drains, and never drops who is refused.
fn context_for_admin(public: &Rc<Context>, admin_state: Rc<AdminState>, stop: Stop) -> Rc<Context> {
    Rc::new(Context {
        config: Rc::new(Config { reject: Reject::Respond, ..(*public.config).clone() }),
        routes: Routes::default(),
        access: Rc::new(public.access.of_admin()),
        hub: public.hub.clone(),
        stop,
        correlations: Correlations::new(),
        encoder: Encoder::of_kind("stats"),
        shared: public.shared.clone(),
        counters: public.counters.clone(),
        admin_state: Some(admin_state),
    })
}

/// Starts a task. Boxed, so that the executor's code is there once for all kinds.
fn start(
    executor: &'static StaticLocalExecutor,
    task: impl Future<Output = ()> + 'static,
) -> Task<()> {
    let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
    executor.spawn(task)
}

/// Accepts peers and starts a task for each.
async fn accept(
    listener: Listener,
    connections: Rc<Connections>,
    context: Rc<Context>,
    executor: &'static StaticLocalExecutor,
) {
    for accepted in 1_u64.. {
        let (transport, peer) = listener.accept().await;
        let is_exempt = Feature::Full.is_built_in() && context.access.proxies.trust(peer);
        match connections.admit(peer, is_exempt, context.admin_state.is_some()) {
            Some((place, address_place)) => {
                let reach = listener.reach();
                place.fill(
                    connection::serve(transport, address_place, reach, context.clone()),
                    executor,
                );
            }
            None => turn_away(&transport, peer, context.config.reject).await,
        }
        if accepted % ACCEPTS_PER_TURN == 0 {
            future::yield_now().await;
        }
    }
}

/// Tells one peer too many so, if it is to be told and that takes no waiting. Where TLS is spoken nothing
/// can be said before a handshake, which is what there is no room for: that peer sees the end, and no more.
async fn turn_away(transport: &Transport, peer: Peer, reject: Reject) {
    log::warn!(target: "falconet::limit", address = peer.to_string(); "too many connections: turned away");
    if reject == Reject::Drop {
        return;
    }
    let response =
        Response::text(503, "too many connections\n").encode(&Envelope::last(SystemTime::now()));
    let sending = future::poll_fn(|cx| transport.poll_send(cx, &[IoSlice::new(&response)]));
    future::poll_once(sending).await;
    transport.shut_down();
}

/// What there is for the administrator, and ends last.
struct AdminPart {
    acceptors: Vec<Task<()>>,
    /// Its end is the request to stop.
    stopping: Sender<()>,
}

/// Has every session closed, and waits for them; then the administrator's connections end, and the
/// services. Those left at the deadline are aborted.
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
        let _ = hub.drain(Whom::Public, CloseReason::STOPPING).await;
        connections.until_none_is_public().await;
        cancel(&mut admin.acceptors).await;
        drop(admin.stopping);
        let _ = hub.drain(Whom::Everybody, CloseReason::STOPPING).await;
        connections.until_none().await;
        for service in services {
            service.await;
        }
    };
    let is_done = timer.until(deadline, closing).await.is_some();
    // First, for nobody would end who is accepted from here on.
    cancel(&mut admin.acceptors).await;
    if !is_done && connections.count() > 0 {
        log::info!("aborting {} connections", connections.count());
        let left = connections.tasks.take().into_iter().map(|(_, task)| task);
        cancel(&mut left.collect()).await;
    }
}

/// Ends tasks, the last first, and waits until they have.
///
/// # Cancel safety
/// Dropped early, it leaves those that are not ended.
async fn cancel(tasks: &mut Vec<Task<()>>) {
    while let Some(task) = tasks.pop() {
        task.cancel().await;
    }
}

/// The tasks of all connections, and how many each address has.
struct Connections {
    tasks: RefCell<Slab<Task<()>>>,
    addresses: Rc<Addresses>,
    limit: usize,
    counters: Rc<Counters>,
    /// Rings when there are no more, or none but the administrator's.
    none_left: Bell,
}

impl Connections {
    /// Room for as many connections as the limits say, or as there can be open files, and for `reserved`
    /// of the administrator.
    fn new(limits: &Limits, reserved: usize, counters: Rc<Counters>) -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let possible = files.saturating_sub(FILES_FOR_OTHERS + reserved).max(1);
        if possible < limits.connections {
            log::info!("room for {possible} connections: the limit of open files is {files}");
        }
        let limit = limits.connections.min(possible);
        let share = limits.per_address.map_or((limit / ADDRESS_SHARE).max(1), NonZeroUsize::get);
        Self {
            tasks: RefCell::default(),
            addresses: Rc::new(Addresses::new(share)),
            limit,
            counters,
            none_left: Bell::default(),
        }
    }

    fn count(&self) -> usize {
        self.tasks.borrow().len()
    }

    fn public_count(&self) -> usize {
        self.counters.connections.now() - self.counters.admin_connections.now()
    }

    /// A place for one more connection of `peer`, if the limits allow it. The administrator's have a limit
    /// of their own: they are needed most when there is room for no other.
    fn admit(
        self: &Rc<Self>,
        peer: Peer,
        is_exempt: bool,
        is_admin: bool,
    ) -> Option<(Place, AddressPlace)> {
        if is_admin {
            let has_room = self.counters.admin_connections.now() < ADMIN_CONNECTIONS;
            let address_place =
                AddressPlace::take(&self.addresses, peer, true).filter(|_| has_room)?;
            return Some((Place::take(self, true), address_place));
        }
        if self.public_count() >= self.limit {
            self.counters.reject(Rejection::Connections);
            return None;
        }
        let Some(address_place) = AddressPlace::take(&self.addresses, peer, is_exempt) else {
            self.counters.reject(Rejection::Address);
            return None;
        };
        self.counters.accepted.add(1);
        Some((Place::take(self, false), address_place))
    }

    async fn until_none_is_public(&self) {
        while self.public_count() > 0 {
            self.none_left.ringing().await;
        }
    }

    async fn until_none(&self) {
        while self.count() > 0 {
            self.none_left.ringing().await;
        }
    }
}

/// A connection's place among the others; dropping it frees the place.
struct Place {
    connections: Rc<Connections>,
    is_admin: bool,
    key: u32,
}

impl Place {
    /// Takes a place, which has no task yet.
    fn take(connections: &Rc<Connections>, is_admin: bool) -> Self {
        connections.counters.connections.rise();
        if is_admin {
            connections.counters.admin_connections.rise();
        }
        Self { connections: connections.clone(), is_admin, key: u32::MAX }
    }

    /// Starts the task of the connection whose place this is.
    fn fill(mut self, stage: Stage, executor: &'static StaticLocalExecutor) {
        let connections = self.connections.clone();
        let mut tasks = connections.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        self.key = entry.key() as u32;
        entry.insert(executor.spawn(Placed { stage, _place: self }));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counters = &self.connections.counters;
        counters.connections.fall();
        if self.is_admin {
            counters.admin_connections.fall();
        }
        let mut tasks = self.connections.tasks.borrow_mut();
        let task = tasks.try_remove(self.key as usize);
        if tasks.is_empty() {
            // Give the memory of a crowd back when the last of it has left.
            *tasks = Slab::new();
        }
        if self.connections.public_count() == 0 {
            self.connections.none_left.ring();
        }
        drop(tasks);
        drop(task);
    }
}

/// A connection and its place, which is freed however the end comes: by return, panic or cancellation.
struct Placed {
    stage: Stage,
    _place: Place,
}

impl Future for Placed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<()> {
        Pin::new(&mut self.stage).poll(cx)
    }
}

/// Why a server can't start.
#[derive(Debug)]
pub enum StartError {
    /// A listen URL can't be bound.
    Bind(BindError),
    /// A directory whose files are to be served can't be opened.
    Files {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The tokens that let in can't be read.
    Tokens(TokenFileError),
    /// TLS can't be spoken.
    Tls(TlsError),
    /// Others than this host could come to where the administrator is listened to.
    ExposedAdmin(ListenUrl),
    /// This build lacks what is asked for.
    NotBuiltIn(NotBuiltIn),
    /// There is no epoll or eventfd to be had.
    Reactor(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(error) => error.fmt(f),
            Self::Files { directory, error } => {
                write!(f, "can't serve the files of `{}`: {error}", directory.display())
            }
            Self::Tokens(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::ExposedAdmin(url) => write!(
                f,
                "can't administer at {url}: expected unix:PATH or a loopback address, or tokens, since \
                 others could come there"
            ),
            Self::NotBuiltIn(lacking) => lacking.fmt(f),
            Self::Reactor(error) => write!(f, "can't watch sockets: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// How many peers one listener takes before other tasks run.
const ACCEPTS_PER_TURN: u64 = 16;
/// One address may hold this fraction of all connections.
const ADDRESS_SHARE: usize = 8;
/// How many connections the administrator may have.
const ADMIN_CONNECTIONS: usize = 16;
/// Descriptors kept for everything that is no connection.
const FILES_FOR_OTHERS: usize = 32;
