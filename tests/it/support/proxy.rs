//! Reverse proxies of other projects, each in a process of its own.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::command::KillOnDrop;
use super::folder::Folder;
use super::installed::find_program;
use super::process::listening_port;
use super::wait::wait_until;

/// A running proxy, killed on drop. Its files are in a temporary folder.
pub struct Proxy {
    _process: KillOnDrop,
    address: SocketAddr,
    folder: Folder,
}

impl Proxy {
    /// Starts nginx with `directives` of a `server` block. Returns `None` if it is not installed.
    pub fn nginx(directives: &str) -> Option<Self> {
        Self::start("nginx", &["-e", "stderr", "-p", "FOLDER", "-c"], &NGINX, directives)
    }

    /// Starts Caddy with `directives` of a site. Returns `None` if it is not installed.
    pub fn caddy(directives: &str) -> Option<Self> {
        Self::start("caddy", &["run", "--adapter", "caddyfile", "--config"], &CADDY, directives)
    }

    /// Starts Apache with `directives` of a server. Returns `None` if it is not installed.
    pub fn apache(directives: &str) -> Option<Self> {
        Self::start("apache2", &["-X", "-f"], &APACHE, directives)
    }

    /// Starts HAProxy with `directives` of a `frontend` section, after which other sections may follow.
    /// Returns `None` if it is not installed.
    pub fn haproxy(directives: &str) -> Option<Self> {
        Self::start("haproxy", &["-db", "-f"], &HAPROXY, directives)
    }

    /// Starts `program` with `arguments` and the path of its configuration, which is `around` with
    /// `directives` inside. Waits until the proxy listens.
    fn start(
        program: &str,
        arguments: &[&str],
        around: &[&str; 2],
        directives: &str,
    ) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = find_program(&[program])?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = Folder::new(&format!("{program}-{count}"));
        let folder_path = folder.path.to_str().unwrap();
        let text = format!("{}{directives}{}", around[0], around[1]);
        let mut errors = String::new();
        for _ in 0..ATTEMPTS {
            let address = free_address();
            let text = text.replace("FOLDER", folder_path);
            let config = folder.write("config", &text.replace("PORT", &address.port().to_string()));
            let child = Command::new(&path)
                .args(arguments.iter().map(|argument| argument.replace("FOLDER", folder_path)))
                .arg(config)
                .env_clear()
                .env("HOME", &folder.path)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(folder.file("errors")).unwrap())
                .spawn()
                .expect("the proxy starts");
            let mut process = KillOnDrop(child);
            if listens(&mut process.0, address.port()) {
                return Some(Self { _process: process, address, folder });
            }
            errors = errors_in(&folder.path);
        }
        panic!("{program} does not start: {errors}");
    }

    /// Returns the address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what the proxy has written to its standard error.
    pub fn errors(&self) -> String {
        errors_in(&self.folder.path)
    }
}

/// Returns an address whose port no socket uses now. Another process may take the port before the proxy
/// does; then the proxy ends.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until the process listens on `port`. Returns false if the process ends before that.
fn listens(child: &mut Child, port: u16) -> bool {
    let mut listens = false;
    wait_until("the proxy listens", || {
        listens = listening_port(child.id()) == Some(port);
        listens || child.try_wait().unwrap().is_some()
    });
    listens
}

fn errors_in(folder: &Path) -> String {
    fs::read_to_string(folder.join("errors")).unwrap_or_default()
}

/// The maximum number of times that a proxy is started, each time with another port.
const ATTEMPTS: u32 = 3;

// The configurations, before and after the directives of a test. FOLDER and PORT are replaced.

const NGINX: [&str; 2] = [
    "daemon off; master_process off; pid FOLDER/pid; error_log stderr;
     events { worker_connections 256; }
     http {
         access_log off;
         client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy;
         fastcgi_temp_path FOLDER/fastcgi; uwsgi_temp_path FOLDER/uwsgi; scgi_temp_path FOLDER/scgi;
         server {
             listen 127.0.0.1:PORT;\n",
    "\n}}\n",
];
const CADDY: [&str; 2] = [
    "{
         admin off
     }
     http://:PORT {
         bind 127.0.0.1\n",
    "\n}\n",
];
const APACHE: [&str; 2] = [
    "ServerName localhost
     Listen 127.0.0.1:PORT
     PidFile FOLDER/pid
     DefaultRuntimeDir FOLDER
     Mutex default:FOLDER
     ErrorLog /dev/stderr
     LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
     LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
     LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
     LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
     LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so\n",
    "\n",
];
const HAPROXY: [&str; 2] = [
    "defaults
         mode http
         timeout connect 5s
         timeout client 60s
         timeout server 60s
     frontend test
         bind 127.0.0.1:PORT\n",
    "\n",
];
