//! Checks of options that depend on each other or on the host.

use std::fmt;
use std::path::PathBuf;

use super::options::{Options, OptionsError};
use super::values::show_time;
use crate::access::TokenFile;
use crate::admin;
use crate::config::Certificate;
use crate::features::Feature;
use crate::net::{Acceptor, ListenUrl};
use crate::privileges::Account;

/// Checks that the values of the options are consistent and usable on this host.
pub(super) fn check(options: &Options) -> Result<(), OptionsError> {
    let timeouts = &options.config.timeouts;
    if let (Some(ping), Some(idle)) = (timeouts.ping_every, timeouts.idle)
        && idle <= ping
    {
        return Err(OptionsError::Config(format!(
            "idle-timeout `{}`: expected more than ping-every `{}`; otherwise clients are dropped \
             before they are pinged",
            show_time(Some(idle)),
            show_time(Some(ping)),
        )));
    }
    if Feature::Full.is_built_in()
        && let Some(name) = &options.user
    {
        Account::find(name).map_err(|error| OptionsError::Config(error.to_string()))?;
    }
    if options.exit_on_eof && options.stdin.is_none() {
        let text = "exit-on-eof `true`: expected stdin as well";
        return Err(OptionsError::Config(text.to_owned()));
    }
    if Feature::Full.is_built_in()
        && let Some(url) = &options.admin
        && options.token_file.is_none()
        && options.admin_token_file.is_none()
        && matches!(admin::may_listen_at(url), Ok(false))
    {
        return Err(OptionsError::Config(format!(
            "admin `{url}`: expected unix:PATH or a loopback address, or admin-token-file or token-file \
             as well; other hosts can reach this address"
        )));
    }
    if let Some(file) = &options.token_file
        && let Err(not_built_in) = Feature::Full.require()
    {
        // systemd passed the file: the option itself has been refused before.
        let file = file.display();
        return Err(OptionsError::Config(format!("token-file `{file}`: {not_built_in}")));
    }
    if Feature::Full.is_built_in() {
        check_tokens("token-file", &options.token_file)?;
        check_tokens("admin-token-file", &options.admin_token_file)?;
        if let (Some(file), None) = (&options.admin_token_file, &options.admin) {
            let file = file.display();
            let text = format!("admin-token-file `{file}`: expected admin as well");
            return Err(OptionsError::Config(text));
        }
    }
    if options.allow_query_token && options.token_file.is_none() {
        let text = "allow-query-token `true`: expected token-file as well";
        return Err(OptionsError::Config(text.to_owned()));
    }
    if options.trusted_proxies.proxy_protocol && options.trusted_proxies.is_empty() {
        let text = "proxy-protocol `true`: expected trust-proxy as well";
        return Err(OptionsError::Config(text.to_owned()));
    }
    if Feature::Full.is_built_in()
        && let Some(dir) = &options.static_files
        && let Err(error) = std::fs::read_dir(dir)
    {
        return Err(OptionsError::Config(format!(
            "static `{}`: expected a directory that can be read: {error}",
            dir.display()
        )));
    }
    Ok(())
}

/// Checks that a file of tokens can be read and is valid.
fn check_tokens(option: &str, file: &Option<PathBuf>) -> Result<(), OptionsError> {
    let Some(file) = file else { return Ok(()) };
    let wrong = |error| OptionsError::Config(format!("{option} `{}`: {error}", file.display()));
    TokenFile::open(file).map(drop).map_err(wrong)
}

/// Checks the options of TLS. Returns the source of the certificate if a listener uses TLS.
pub(super) fn check_tls(options: &Options) -> Result<Option<Certificate>, OptionsError> {
    let mut urls = options.listen.iter().chain(&options.admin);
    let listens = urls.find(|url| url.tls_host().is_some());
    if let Err(not_built_in) = Feature::Tls.require() {
        // The options of the certificate have been refused before.
        return match listens {
            Some(url) => Err(OptionsError::Config(format!("listen `{url}`: {not_built_in}"))),
            None => Ok(None),
        };
    }
    let settings = [
        ("listen", listens.map(ListenUrl::to_string)),
        ("tls-cert", options.tls_cert.as_ref().map(|path| path.display().to_string())),
        ("tls-key", options.tls_key.as_ref().map(|path| path.display().to_string())),
        ("tls-self-signed", options.tls_self_signed.then(|| "true".to_owned())),
        ("state-dir", options.state_dir.as_ref().map(|path| path.display().to_string())),
    ];
    let settings: Vec<(&str, String)> =
        settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let Some((name, value)) = settings.first() else { return Ok(None) };
    let error = |text: &dyn fmt::Display| OptionsError::Config(format!("{name} `{value}`: {text}"));
    if listens.is_none() {
        return Err(error(&"expected a listen URL with https:// as well"));
    }
    let certificate = match (&options.tls_cert, &options.tls_key, options.tls_self_signed) {
        (Some(chain), Some(key), false) => {
            Certificate::Files { chain: chain.clone(), key: key.clone() }
        }
        (None, None, true) => Certificate::SelfSigned { state_dir: options.state_dir.clone() },
        _ => return Err(error(&"expected both tls-cert and tls-key, or tls-self-signed alone")),
    };
    if let (Certificate::Files { .. }, Some(directory)) = (&certificate, &options.state_dir) {
        return Err(OptionsError::Config(format!(
            "state-dir `{}`: expected tls-self-signed instead of tls-cert and tls-key; only the \
             CA of tls-self-signed is kept there",
            directory.display()
        )));
    }
    let checked = Acceptor::check(&certificate);
    checked.map_err(|error| OptionsError::Config(format!("tls-cert, tls-key: {error}")))?;
    Ok(Some(certificate))
}
