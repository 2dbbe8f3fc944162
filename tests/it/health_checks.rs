//! The health checks of a real load balancer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::support::folder::Folder;
use crate::support::proxy::Proxy;
use crate::support::*;

/// Sends a command over a Unix socket, and returns everything up to the end of the stream.
fn ask(socket: &Path, text: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn haproxy_keeps_the_server_up_with_its_default_http_check() {
    let (falconet, folder) = (Falconet::start(&[]), Folder::new("haproxy-check"));
    let control = folder.file("control.sock");
    let sections = format!(
        "default_backend checked\n\
         backend checked\n  option httpchk\n  server falconet {} check inter 100ms fall 1\n\
         global\n  stats socket {}",
        falconet.address(),
        control.display()
    );
    let Some(haproxy) = Proxy::haproxy(&sections) else { return };
    let mut state = String::new();
    wait_until("haproxy has checked the server", || {
        let table = ask(&control, "show stat\n").unwrap_or_default();
        let line = table.lines().find(|line| line.starts_with("checked,falconet,"));
        state = line.unwrap_or_default().to_owned();
        ["L7OK", "L7STS", "L7RSP", "L4CON"].iter().any(|done| state.contains(done))
    });
    assert!(state.contains(",UP,") && state.contains(",L7OK,204,"), "{state}");
    let answer = fetch(haproxy.address(), get("/topics/"));
    assert_eq!(answer.status(), 200, "{}", answer.head);
    assert_eq!(answer.text(), "[]\n");
}
