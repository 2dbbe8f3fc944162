//! Replacements for the TLS types in a build without TLS. They have no values.

use std::io::{self, IoSlice};
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::config::{Certificate, Tls};
use crate::features::{Feature, NotBuiltIn};

use super::super::reactor::Sleep;
use super::super::socket::Socket;
use super::setup::{TlsError, Trust};

/// A factory for the server side of TLS connections. This build has no TLS, so the type has no
/// values.
pub enum Acceptor {}

impl Acceptor {
    /// Fails, because this build has no TLS.
    ///
    /// # Errors
    /// [`TlsError`], always.
    pub fn new(_: &Tls, _: &[String]) -> Result<Rc<Self>, TlsError> {
        Err(absent())
    }

    /// Fails, because this build has no TLS.
    ///
    /// # Errors
    /// [`TlsError`], always.
    pub fn check(_: &Certificate) -> Result<(), TlsError> {
        Err(absent())
    }

    pub(in crate::net) fn session(&self, _: Instant) -> io::Result<Session> {
        match *self {}
    }
}

/// The names that a certificate is valid for. This build has no TLS, so the type has no values.
#[derive(Clone, Debug)]
pub(in crate::net) enum CertifiedNames {}

impl CertifiedNames {
    /// Returns `None`, because this build has no TLS.
    pub(in crate::net) fn read(_: &Path) -> Option<Self> {
        None
    }

    pub(in crate::net) fn contains(&self, _: &str) -> bool {
        match *self {}
    }
}

/// A factory for the client side of TLS connections. This build has no TLS, so the type has no
/// values.
#[derive(Clone)]
pub enum Connector {}

impl Connector {
    /// Fails, because this build has no TLS.
    ///
    /// # Errors
    /// [`TlsError`], always.
    pub fn new(_: &Trust) -> Result<Self, TlsError> {
        Err(absent())
    }

    pub(in crate::net) fn session(&self, _: &str) -> io::Result<Session> {
        match *self {}
    }
}

pub(in crate::net) enum Session {}

impl Session {
    pub(in crate::net) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(in crate::net) fn received_plain_http(&self) -> bool {
        match *self {}
    }

    pub(in crate::net) fn buffered_bytes(&self) -> usize {
        match *self {}
    }

    pub(in crate::net) fn postpone(&mut self, _: Sleep) {
        match *self {}
    }

    pub(in crate::net) fn poll_begin(&mut self, _: &mut Context<'_>) -> Poll<()> {
        match *self {}
    }

    pub(in crate::net) fn poll_read(
        &mut self,
        _: &Socket,
        _: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match *self {}
    }

    pub(in crate::net) fn poll_handshake(
        &mut self,
        _: &Socket,
        _: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match *self {}
    }

    pub(in crate::net) fn poll_plaintext(
        &mut self,
        _: &Socket,
        _: &mut Context<'_>,
    ) -> Poll<io::Result<&[u8]>> {
        match *self {}
    }

    pub(in crate::net) fn consume_plaintext(&mut self, _: usize) {
        match *self {}
    }

    pub(in crate::net) fn poll_recv_with<R>(
        &mut self,
        _: &Socket,
        _: &mut Context<'_>,
        _: impl FnOnce(&[u8]) -> R,
    ) -> Poll<io::Result<R>> {
        match *self {}
    }

    pub(in crate::net) fn poll_send(
        &mut self,
        _: &Socket,
        _: &mut Context<'_>,
        _: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }

    pub(in crate::net) fn poll_flushed(
        &mut self,
        _: &Socket,
        _: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match *self {}
    }

    pub(in crate::net) fn close(&mut self, _: &Socket) {
        match *self {}
    }
}

fn absent() -> TlsError {
    TlsError::new(NotBuiltIn(Feature::Tls).to_string())
}
