//! A session of `dilated send` and `dilated receive` whose link breaks again and again.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;
#[path = "../../tests/src/proxy.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is the proxy of the whole-system tests, which use more of it"
)]
mod proxy;

use std::{fs, path::Path};

use common::{Pipe, Serve, hash, noise};
use proxy::{Faults, Proxy};
use serde_json::Value;
use tempfile::TempDir;

/// Bytes of the file.
const LENGTH: usize = 12_000_000;

/// Bytes that pass on a connection to the relay before it is cut. A link has two of those.
const CUT_AFTER: u64 = 2_500_000;

/// A side that knows no other way than the proxy before the relay.
fn start(serve: &Serve, relay: &Proxy, directory: &Path, command: &str, arguments: &[&str]) -> Pipe {
    let mut process = serve.dilated();
    process.env("DILATED_RELAY", format!("tcp:{}", relay.address())).current_dir(directory);
    process.args([command, "--no-listen", "--json"]).args(arguments);
    Pipe::spawn(process)
}

/// What a side tells programs, to its good end.
async fn events(mut pipe: Pipe) -> Vec<Value> {
    let output = String::from_utf8(pipe.read().await).unwrap();
    pipe.succeed().await;
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_link_that_is_cut_again_and_again_while_a_file_goes() {
    let serve = Serve::start().await;
    let relay = Proxy::start(serve.relay.strip_prefix("tcp:").unwrap().parse().unwrap()).await.unwrap();
    relay.set(Faults { cut_after: Some(CUT_AFTER), ..Faults::default() });
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data = noise(LENGTH, 1);
    fs::write(from.path().join("film"), &data).unwrap();
    let sender = start(&serve, &relay, from.path(), "send", &["film"]);
    let code = sender.code().await;
    let receiver = start(&serve, &relay, to.path(), "receive", &["--yes", &code]);
    let (sent, received) = tokio::join!(events(sender), events(receiver));
    assert_eq!(hash(&fs::read(to.path().join("film")).unwrap()), hash(&data));
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "nothing else is left");

    // No link carries more than this, in both directions together, and none was cut before it had carried as much.
    let least = LENGTH as u64 / CUT_AFTER;
    assert!(relay.cuts() >= least, "{} cuts", relay.cuts());
    for side in [sent, received] {
        let at = |name: &str| side.iter().position(|event| event["event"] == name);
        let complete = at("file").expect("the file is complete");
        assert!(at("lost").expect("it was noticed") < complete, "{side:?}");
        let connected = side[..complete].iter().filter(|event| event["event"] == "connected").count();
        assert!(connected > 1, "it was mended: {side:?}");
        assert!(
            side[..complete]
                .iter()
                .all(|event| event["path"].as_str().is_none_or(|path| path.contains("relay")))
        );
        assert_eq!(side.last().unwrap()["event"], "done");
    }
}
