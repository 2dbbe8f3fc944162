//! The rows of the conformance table, each by its name.

use crate::rig::*;

#[test]
fn c12_an_echo_goes_to_its_sender() {
    let falconet = Falconet::start(&["--broadcast-every", "0"]);
    let (mut one, mut other) =
        (Client::connect(falconet.address()), Client::connect(falconet.address()));
    one.echo("mine");
    other.echo("and only mine");
}
