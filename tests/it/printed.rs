//! The files that the programs print for packages: units, manual pages, completions, a configuration file.

use std::process::Command;

use falconet::cli::OPTIONS;

use crate::support::client::client_command;
use crate::support::command::{assert_refused, run, stdout_of};
use crate::support::folder::Folder;
use crate::support::*;

#[test]
fn systemd_analyze_accepts_the_units_and_rates_them_as_safe() {
    let folder = Folder::new("units");
    let unit = |name: &str| stdout_of(Falconet::command().args(["--print-unit", name]));
    let (service, socket) = (unit("service"), unit("socket"));
    for line in [
        "Type=notify",
        "WatchdogSec=30s",
        "DynamicUser=yes",
        "RestartPreventExitStatus=2 78",
        // A start that fails early in the boot is tried again until it succeeds.
        "RestartSec=2s",
        "StartLimitIntervalSec=0",
    ] {
        assert!(service.lines().any(|there| there == line), "{line} is not in\n{service}");
    }
    assert!(socket.contains("\nListenStream=127.0.0.1:8080\n"), "{socket}");
    if !is_installed("systemd-analyze") {
        return println!("skipped: no systemd-analyze");
    }
    let program = env!("CARGO_BIN_EXE_falconet");
    let socket = folder.write("falconet.socket", &socket);
    let service = service.replace("/usr/bin/falconet", program);
    let service = folder.write("falconet.service", &service);
    let (_, _, complaints) =
        run(Command::new("systemd-analyze").args(["verify", &service, &socket]));
    // systemd warns if the manual page is not installed.
    let mut complaints = complaints.lines().filter(|line| !line.contains("man falconet(1)"));
    assert_eq!(complaints.next(), None);
    let analysis =
        stdout_of(Command::new("systemd-analyze").args(["security", "--offline=true", &service]));
    let level = analysis.split("exposure level for falconet.service: ").nth(1).unwrap();
    let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
    assert!(level <= 1.5, "{analysis}");
}

#[test]
fn every_option_is_in_the_manual_page() {
    let page = stdout_of(Falconet::command().arg("--print-man"));
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        let entry = format!(".B {}\n{}", option.flag(), option.help).replace('-', "\\-");
        assert!(page.contains(&entry), "{entry}\nis not in\n{page}");
    }
    for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "SEE ALSO"] {
        let sections = page.lines().filter(|line| *line == format!(".SH {section}"));
        assert_eq!(sections.count(), 1, "{section}");
    }
    let client = stdout_of(client_command(&[]).arg("--print-man"));
    assert!(
        client.contains(".B \\-\\-sse\n") && client.contains(".TH FALCONET-CLIENT 1 "),
        "{client}"
    );
}

#[test]
fn groff_reads_the_manual_pages_without_warnings() {
    let folder = Folder::new("manual");
    for mut program in [Falconet::command(), client_command(&[])] {
        let page = folder.write("page.1", &stdout_of(program.arg("--print-man")));
        if is_installed("groff") {
            let (code, _, warnings) =
                run(Command::new("groff").args(["-ww", "-man", "-Tascii", "-z", &page]));
            assert_eq!((code, &*warnings), (Some(0), ""));
        }
    }
}

#[test]
fn each_shell_parses_its_completion_script() {
    let folder = Folder::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        for mut program in [Falconet::command(), client_command(&[])] {
            let script = stdout_of(program.args(["--print-completions", shell]));
            assert!(script.contains("idle-timeout"), "{script}");
            let script = folder.write(shell, &script);
            if is_installed(shell) {
                assert_eq!(stdout_of(Command::new(shell).args(["-n", &script])), "");
            }
        }
    }
    let wrong = &["--print-completions `tcsh`", "bash, zsh, fish"][..];
    assert_refused(Falconet::command().args(["--print-completions", "tcsh"]), 2, wrong);
    assert_refused(
        Falconet::command().args(["--print-unit", "timer"]),
        2,
        &["`timer`", "service, socket"],
    );
}

#[test]
fn bash_completes_options() {
    let folder = Folder::new("bash");
    let script = stdout_of(Falconet::command().args(["--print-completions", "bash"]));
    let script = folder.write("script", &script);
    for (word, previous, expected) in [
        ("--log-f", "falconet", "--log-format"),
        ("--he", "--exit-on-eof", "--head-timeout --help"),
        ("--he", "--log-format", ""),
    ] {
        let script_with_call = format!(
            ". '{script}'; _falconet falconet '{word}' {previous}; echo \"${{COMPREPLY[*]}}\""
        );
        assert_eq!(
            stdout_of(Command::new("bash").args(["-c", &script_with_call])),
            format!("{expected}\n")
        );
    }
}

#[test]
fn the_default_configuration_sets_nothing_and_shows_the_defaults() {
    let folder = Folder::new("default-config");
    let text = stdout_of(Falconet::command().arg("--print-default-config"));
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    let shown: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix('#')).collect();
    for option in OPTIONS.iter().filter(|option| option.is_built_in()) {
        assert!(
            text.contains(&format!("\n# {}\n#{} = ", option.help, option.name)),
            "{}",
            option.name
        );
    }
    // An option without a default shows a placeholder in capitals.
    let has_default = |line: &&str| {
        let value = line.split_once(" = ").map(|(_, value)| value);
        !line.starts_with(' ')
            && value.is_some_and(|value| {
                value.to_uppercase() != *value || value.bytes().all(|b| b.is_ascii_digit())
            })
    };
    let set: Vec<&str> = shown.into_iter().filter(has_default).collect();
    let file = folder.write("set", &set.join("\n"));
    let config = stdout_of(Falconet::command().args(["--print-config", "--config", &file]));
    assert_eq!(config, stdout_of(Falconet::command().arg("--print-config")));
    assert_eq!(config.lines().count(), set.len());
}

/// Returns true if a program is found on the path.
fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
