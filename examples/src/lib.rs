//! Small programs that teach the `dilated` API, one file each, beside this crate's `Cargo.toml`.
//!
//! ```text
//! cargo run --example echo                   prints a code and waits
//! cargo run --example echo -- 7-some-words   joins, from another terminal or machine
//! ```
//!
//! They meet at the public servers, or where the environment says:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `DILATED_MAILBOX` | the mailbox server, `ws://host:port/v1` |
//! | `DILATED_RELAY` | the transit relay, `tcp:host:port`, or `none` |
//! | `DILATED_LOCAL` | set to anything: also try 127.0.0.1, for two programs on one machine |

use std::{env, error::Error};

use dilated::{DilateConfig, Wormhole, WormholeBuilder};

/// The guide's programs, compiled so that they stay true.
#[doc = include_str!("../../docs/guide.md")]
#[cfg(doctest)]
pub struct Guide;

/// A builder and a configuration with what the environment says; what the examples would otherwise begin with is
/// `Wormhole::builder(appid)` and `DilateConfig::default()`.
///
/// # Errors
///
/// A relay that is not written as `tcp:host:port`.
pub fn settings(appid: &str) -> Result<(WormholeBuilder, DilateConfig), Box<dyn Error>> {
    let mut builder = Wormhole::builder(appid);
    if let Ok(url) = env::var("DILATED_MAILBOX") {
        builder = builder.mailbox(url);
    }
    let mut config = DilateConfig::default();
    match env::var("DILATED_RELAY") {
        Ok(none) if none == "none" => config.relays.clear(),
        Ok(relay) => config.relays = vec![relay.parse()?],
        Err(_) => {}
    }
    config.loopback = env::var_os("DILATED_LOCAL").is_some();
    Ok((builder, config))
}
