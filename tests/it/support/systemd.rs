//! The part of systemd that a service talks to (sd_notify(3)).

use std::os::unix::net::UnixDatagram;

use super::folder::Folder;
use super::wait::TIMEOUT;

/// Binds a notification socket. Returns it with the value for `NOTIFY_SOCKET`.
pub fn bind_notify_socket(folder: &Folder) -> (UnixDatagram, String) {
    let path = folder.path.join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(TIMEOUT)).unwrap();
    (systemd, path.into_os_string().into_string().unwrap())
}

/// Returns the next notification.
pub fn next_notification(systemd: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = systemd.recv(&mut buffer).expect("a notification");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}
