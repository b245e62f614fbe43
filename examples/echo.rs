//! Echo: one side returns every byte of every subchannel, the other sends its standard input there.
//!
//! ```text
//! cargo run --example echo                   prints a code, then echoes until the other side leaves
//! cargo run --example echo -- 7-some-words   sends what you type, prints what comes back
//! ```
#![expect(clippy::print_stderr, reason = "a program for people")]

use std::{env, error::Error};

use dilated::{Client, Server, Subchannel};
use tokio::io::{self, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let code = env::args().nth(1);
    let (builder, config) = dilated_examples::settings("dilated.example/echo")?;
    let wormhole = builder.build()?;
    match &code {
        Some(code) => wormhole.set_code(code)?,
        None => eprintln!("the code is: {}", wormhole.allocate_code(2).await?),
    }

    // From here on a link is built, and rebuilt whenever it breaks. Subchannels do not notice.
    let mut dilated = wormhole.dilate(config)?;
    let (control, client, server) = dilated.endpoints().ok_or("the endpoints were taken before")?;
    if code.is_none() {
        tokio::spawn(serve(server));
    }
    eprintln!("connected {}", dilated.connected().await?);

    // A peer that leaves cannot be told from one whose train is in a tunnel, so programs say goodbye. Here the
    // end of the control channel is the goodbye.
    let mut control = control.connect().await?;
    if code.is_some() {
        send(client).await?;
        control.shutdown().await?;
    } else {
        while control.recv().await?.is_some() {}
    }
    Ok(wormhole.close().await?)
}

/// Echoes every subchannel that the other side opens, each in a task of its own.
async fn serve(mut server: Server) {
    while let Ok(subchannel) = server.accept().await {
        tokio::spawn(async move {
            if let Err(error) = echo(subchannel).await {
                eprintln!("a subchannel failed: {error}");
            }
        });
    }
}

async fn echo(subchannel: Subchannel) -> io::Result<()> {
    let (mut read, mut write) = subchannel.into_split();
    io::copy(&mut read, &mut write).await?;
    // Only this direction: the other one has ended already, that is why `copy` returned.
    write.shutdown().await
}

/// Sends standard input, and prints the echo at the same time.
async fn send(client: Client) -> Result<(), Box<dyn Error>> {
    let (mut read, mut write) = client.connect().await?.into_split();
    let sending = async {
        io::copy(&mut io::stdin(), &mut write).await?;
        write.shutdown().await
    };
    let mut output = io::stdout();
    let printing = async {
        io::copy(&mut read, &mut output).await?;
        output.flush().await
    };
    tokio::try_join!(sending, printing)?;
    Ok(())
}
