//! Builds a server from its parts.

use std::path::PathBuf;
use std::rc::Rc;

use crate::access::{Authorize, Origins, TrustedProxies};
use crate::admin;
use crate::config::Config;
use crate::counters::ProcessErrors;
use crate::endpoints::{Endpoint, Files, Page};
use crate::features::{Feature, NotBuiltIn};
use crate::http::Asset;
use crate::net::{Acceptor, ListenUrl, Listener, OwnNames, Reach, Reactor};
use crate::services::{Service, Stopper};

use super::cgroup::default_pending_bytes;
use super::error::StartError;
use super::{Parts, Server};

/// A builder for a [`Server`].
pub struct ServerBuilder {
    parts: Parts,
    /// The directory of static files.
    directory: Option<PathBuf>,
    admin: Option<ListenUrl>,
    /// A requested feature that this build lacks.
    lacking: Option<NotBuiltIn>,
}

impl Server {
    /// Returns a builder for a server without endpoints and services.
    pub fn builder() -> ServerBuilder {
        let parts = Parts::default();
        ServerBuilder { parts, directory: None, admin: None, lacking: None }
    }
}

impl ServerBuilder {
    /// Sets the limits, timeouts and policies. Default: [`Config::default`].
    pub fn config(mut self, config: Config) -> Self {
        self.parts.config = config;
        self
    }

    /// Puts a WebSocket endpoint at `path`, which is compared with the percent-decoded path of requests. It
    /// replaces an earlier endpoint there.
    pub fn endpoint(mut self, path: impl Into<String>, endpoint: impl Endpoint + 'static) -> Self {
        self.page(path.into()).endpoint = Some(Rc::new(endpoint));
        self
    }

    /// Puts an embedded file at `path`. There may also be an endpoint at the same path.
    pub fn asset(mut self, path: impl Into<String>, asset: Asset) -> Self {
        self.page(path.into()).asset = Some(asset);
        self
    }

    /// Serves the files of a directory: `DIR/a.css` at `/a.css`, and `DIR/index.html` at `/`. These files
    /// take precedence over embedded files. Hidden files, and files behind links that lead out of the
    /// directory, are not served. Reading a file blocks the whole server while the disk works.
    pub fn files(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self.needs(Feature::Full)
    }

    /// Serves topics at the paths below `/topics/`; the rest of the path is the name of the topic,
    /// percent-encoded, or a list of names and filters. All topics are at `/topics/`.
    pub fn topics(mut self) -> Self {
        self.parts.has_topics = true;
        self.needs(Feature::Full)
    }

    /// Opens the administrator's listener at `url`: metrics, the list of clients, a dashboard. Without an
    /// authorizer ([`authorize`](Self::authorize) or [`authorize_admin`](Self::authorize_admin)), other hosts
    /// must not be able to reach `url`, and every user and program of this host that can reach it may
    /// administer the server. The public listeners serve none of these pages.
    pub fn admin(mut self, url: ListenUrl) -> Self {
        self.admin = Some(url);
        self.needs(Feature::Full)
    }

    /// Sets the counts of panics and lost log lines that the metrics show. They are the result of
    /// [`log::install`](crate::log::install). Default: zeros.
    pub fn process_errors(mut self, process_errors: ProcessErrors) -> Self {
        self.parts.process_errors = process_errors;
        self
    }

    /// Adds a service that runs beside the connections.
    pub fn service(mut self, service: impl Service + 'static) -> Self {
        self.parts.services.push(Box::new(service));
        self
    }

    /// Sets the authorizer of all requests. Default: everything is allowed on addresses that only this host
    /// can reach, and everything except publishing on all other addresses (see
    /// [`Server::read_only_urls`]).
    pub fn authorize(mut self, authorizer: impl Authorize + 'static) -> Self {
        self.parts.authorizer = Some(Rc::new(authorizer));
        self
    }

    /// Sets the authorizer of the requests to the administrator's listener. Default: the one of
    /// [`authorize`](Self::authorize), if there is one.
    pub fn authorize_admin(mut self, authorizer: impl Authorize + 'static) -> Self {
        self.parts.admin_authorizer = Some(Rc::new(authorizer));
        self.needs(Feature::Full)
    }

    /// Allows pages of these origins to use the server, besides the server's own pages, and adds their host
    /// names to the names of the server. Without an [authorizer](Self::authorize), a listener that other hosts
    /// can reach accepts requests for no other public name. Responses get the headers that let these pages read
    /// them (CORS).
    pub fn origins(mut self, origins: Origins) -> Self {
        self.parts.origins = origins;
        self
    }

    /// Sets the proxies that are trusted to name the client of a request. Default: none.
    pub fn trust_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.parts.proxies = proxies;
        self.needs(Feature::Full)
    }

    /// Returns the page at `path`, and adds it first if there is none.
    fn page(&mut self, path: String) -> &mut Page {
        let pages = &mut self.parts.pages;
        let index = pages.iter().position(|page| *page.path == path).unwrap_or_else(|| {
            pages.push(Page { path: Rc::new(path), asset: None, endpoint: None });
            pages.len() - 1
        });
        &mut pages[index]
    }

    /// Requires a feature: [`bind`](Self::bind) fails if this build lacks it.
    fn needs(mut self, feature: Feature) -> Self {
        self.lacking = feature.require().err().or(self.lacking);
        self
    }

    /// Binds the listen URLs. From now on, the kernel accepts connections and queues them for
    /// [`Server::run`].
    ///
    /// # Errors
    /// [`StartError`], if a URL cannot be bound, other hosts could reach the administrator's listener, the
    /// directory of files cannot be opened, an `https://` URL has no certificate, the kernel
    /// provides no epoll, or this build lacks a requested [`Feature`].
    pub fn bind<'u>(
        mut self,
        urls: impl IntoIterator<Item = &'u ListenUrl>,
    ) -> Result<Server, StartError> {
        if self.parts.config.limits.publish_rate.is_some() {
            self = self.needs(Feature::Full);
        }
        if let Some(lacking) = self.lacking {
            return Err(StartError::NotBuiltIn(lacking));
        }
        if Feature::Full.is_built_in()
            && let Some(directory) = self.directory.take()
        {
            let files = Files::open(&directory);
            let failed = |error| StartError::Files { directory, error };
            self.parts.files = Some(files.map_err(failed)?);
        }
        let reactor = Reactor::new().map_err(StartError::Reactor)?;
        let limits = &self.parts.config.limits;
        let pending = limits.pending_bytes;
        let pending = pending.unwrap_or_else(|| default_pending_bytes(limits.message_bytes));
        reactor.pending().set_limit(pending);
        let urls: Vec<&ListenUrl> = urls.into_iter().collect();
        let tls_hosts = urls.iter().copied().chain(&self.admin).filter_map(ListenUrl::tls_host);
        let tls_hosts: Vec<String> = tls_hosts.map(str::to_owned).collect();
        let tls = match tls_hosts.is_empty() {
            true => None,
            false => {
                Some(Acceptor::new(&self.parts.config.tls, &tls_hosts).map_err(StartError::Tls)?)
            }
        };
        let (mut listeners, mut bound, mut read_only) = (Vec::new(), Vec::new(), Vec::new());
        for url in &urls {
            let tls = tls.as_ref().filter(|_| url.tls_host().is_some());
            let sockets_of_urls = Listener::bind(&reactor, url, tls, &urls);
            for (sockets, url) in sockets_of_urls.map_err(StartError::Bind)? {
                let is_exposed = sockets.iter().any(|socket| socket.reach() == Reach::Network);
                if is_exposed && self.parts.authorizer.is_none() {
                    read_only.push(url.clone());
                }
                listeners.extend(sockets);
                bound.push(url);
            }
        }
        if Feature::Full.is_built_in() && !read_only.is_empty() {
            self.parts.own_names = OwnNames::find(urls.iter().copied(), &self.parts.config.tls);
        }
        let (admin_listeners, admin_url) = match self.admin.take() {
            Some(url) if Feature::Full.is_built_in() => {
                bind_admin(&reactor, url, tls.as_ref(), self.parts.authorizes_admin())?
            }
            _ => (Vec::new(), None),
        };
        let (stop, stop_requested) = Stopper::new();
        Ok(Server {
            parts: self.parts,
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

/// Binds the administrator's URL, if only this host can reach it or an authorizer checks the requests.
fn bind_admin(
    reactor: &Rc<Reactor>,
    url: ListenUrl,
    tls: Option<&Rc<Acceptor>>,
    has_authorizer: bool,
) -> Result<(Vec<Listener>, Option<ListenUrl>), StartError> {
    if !has_authorizer && matches!(admin::may_listen_at(&url), Ok(false)) {
        return Err(StartError::ExposedAdmin(url));
    }
    let tls = tls.filter(|_| url.tls_host().is_some());
    let (mut listeners, mut bound) = (Vec::new(), None);
    for (sockets, url) in Listener::bind(reactor, &url, tls, &[]).map_err(StartError::Bind)? {
        listeners.extend(sockets);
        bound = Some(url);
    }
    Ok((listeners, bound))
}
