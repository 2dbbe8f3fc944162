//! Runs one entry point, which the variable `FALCONET_FUZZ_TARGET` names, with libFuzzer. `.ci/fuzz` builds and
//! starts this program.

#![no_main]
#![allow(dead_code, reason = "only some functions of the client's modules are called here")]

use std::env;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../src/bin/falconet-client/chunks.rs"]
mod chunks;
#[path = "../../src/bin/falconet-client/fuzz.rs"]
mod client;
#[path = "../../src/bin/falconet-client/message.rs"]
mod message;
#[path = "../../src/bin/falconet-client/response.rs"]
mod response;
#[path = "../../src/bin/falconet-client/screen.rs"]
mod screen;
#[path = "../../src/bin/falconet-client/sse.rs"]
mod sse;
#[path = "../../src/bin/falconet-client/token.rs"]
mod token;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = env::var("FALCONET_FUZZ_TARGET").unwrap_or_default();
    let mut targets = falconet::fuzz::TARGETS.iter().chain(client::TARGETS);
    let found = targets.find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("FALCONET_FUZZ_TARGET `{wanted}`: expected an entry point")).1
});

fuzz_target!(|input: &[u8]| TARGET(input));
