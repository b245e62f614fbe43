//! Subprotocols: several small protocols side by side on one link, each found by its name.
//!
//! ```text
//! cargo run --example subprotocols                   prints a code, then answers one `shout` and one `count`
//! cargo run --example subprotocols -- 7-some-words   asks both
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::{env, error::Error};

use dilated::{Connector, DilateConfig, Listener, Wormhole};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Names are chosen by the programs; something with your domain in it avoids collisions.
const SHOUT: &str = "dilated.example/shout";
const COUNT: &str = "dilated.example/count";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (builder, config) = dilated_examples::settings("dilated.example/subprotocols")?;
    let wormhole = builder.build()?;
    match env::args().nth(1) {
        Some(code) => {
            wormhole.set_code(&code)?;
            ask(&wormhole, config).await?;
        }
        None => {
            eprintln!("the code is: {}", wormhole.allocate_code(2).await?);
            answer(&wormhole, config).await?;
        }
    }
    // Waits until the other side has everything that was written.
    Ok(wormhole.close().await?)
}

async fn ask(wormhole: &Wormhole, config: DilateConfig) -> Result<(), Box<dyn Error>> {
    let dilated = wormhole.dilate(config)?;
    let (shout, count) = (dilated.connector_for(SHOUT)?, dilated.connector_for(COUNT)?);
    // Two subchannels at once: neither waits for the other.
    let (shouted, counted) =
        tokio::try_join!(request(&shout, "good morning"), request(&count, "good morning"))?;
    println!("shout: {shouted}");
    println!("count: {counted}");
    Ok(())
}

/// Sends a request, ends this direction, and reads the answer to its end.
async fn request(connector: &Connector, text: &str) -> Result<String, Box<dyn Error>> {
    let mut subchannel = connector.connect().await?;
    subchannel.write_all(text.as_bytes()).await?;
    subchannel.shutdown().await?;
    let mut answer = String::new();
    subchannel.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn answer(wormhole: &Wormhole, config: DilateConfig) -> Result<(), Box<dyn Error>> {
    let dilated = wormhole.dilate(config)?;
    // No await between `dilate` and the listeners: what the peer opens under a name that nobody listens for is
    // closed at once. `DilateConfig::expected_subprotocols` makes early ones wait instead.
    let (mut shout, mut count) = (dilated.listener_for(SHOUT)?, dilated.listener_for(COUNT)?);
    tokio::try_join!(
        reply(&mut shout, str::to_uppercase),
        reply(&mut count, |text| text.chars().count().to_string()),
    )?;
    Ok(())
}

/// Accepts one subchannel, reads the request to its end, and answers.
async fn reply(listener: &mut Listener, answer: impl Fn(&str) -> String) -> Result<(), Box<dyn Error>> {
    let mut subchannel = listener.accept().await?;
    let mut text = String::new();
    // A peer is not to be trusted with our memory.
    (&mut subchannel).take(4096).read_to_string(&mut text).await?;
    subchannel.write_all(answer(&text).as_bytes()).await?;
    subchannel.shutdown().await?;
    println!("answered one {:?}", subchannel.subprotocol());
    Ok(())
}
