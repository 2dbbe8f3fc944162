//! The health checks of a real load balancer.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::command::KillOnDrop;
use crate::support::folder::Folder;
use crate::support::installed::find_program;
use crate::support::*;

/// Sends a command or a request over a Unix socket, and returns everything up to the end of the stream.
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
    let Some(haproxy) = find_program(&["haproxy"]) else { return };
    let (falconet, folder) = (Falconet::start(&[]), Folder::new("haproxy"));
    let (front, control) = (folder.file("front.sock"), folder.file("control.sock"));
    let config = format!(
        "global\n  stats socket {}\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n\
         listen front\n  bind unix@{}\n  option httpchk\n  \
         server falconet {} check inter 100ms fall 1\n",
        control.display(),
        front.display(),
        falconet.address()
    );
    let config = folder.write("haproxy.cfg", &config);
    let mut command = Command::new(haproxy);
    command.args(["-db", "-f", &config]).stdin(Stdio::null());
    let _haproxy = KillOnDrop(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let mut state = String::new();
    wait_until("haproxy has checked the server", || {
        let table = ask(&control, "show stat\n").unwrap_or_default();
        let line = table.lines().find(|line| line.starts_with("front,falconet,"));
        state = line.unwrap_or_default().to_owned();
        ["L7OK", "L7STS", "L7RSP", "L4CON"].iter().any(|done| state.contains(done))
    });
    assert!(state.contains(",UP,") && state.contains(",L7OK,204,"), "{state}");
    let request = "GET /topics/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = ask(&front, request).unwrap();
    assert_eq!(status_of(&answer), 200, "{answer}");
    assert!(body_of(&answer).contains("\"broadcast\""), "{answer}");
}
