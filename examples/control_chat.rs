//! Chat on the control channel: one subchannel that both sides share, whoever opens it. A line is a message.
//!
//! ```text
//! cargo run --example control_chat                   prints a code
//! cargo run --example control_chat -- 7-some-words   joins
//! ```
//! End of input (Ctrl-D) leaves.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::{env, error::Error, io::BufRead, thread};

use bytes::Bytes;
use futures::StreamExt;
use tokio::{io::AsyncWriteExt, sync::mpsc};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (builder, config) = dilated_examples::settings("dilated.example/chat")?;
    let wormhole = builder.build()?;
    match env::args().nth(1) {
        Some(code) => wormhole.set_code(&code)?,
        None => eprintln!("the code is: {}", wormhole.allocate_code(2).await?),
    }
    let mut dilated = wormhole.dilate(config)?;
    let (control, _client, _server) = dilated.endpoints().ok_or("the endpoints were taken before")?;

    // Every change of the link, for people: a lost one is not the end, lines wait for the next.
    let mut changes = dilated.status_changes();
    tokio::spawn(async move {
        while let Some(status) = changes.next().await {
            eprintln!("[{}]", status.link);
        }
    });

    let mut control = control.connect().await?;
    let mut lines = typed_lines();
    let mut writing = true;
    loop {
        tokio::select! {
            line = lines.recv(), if writing => match line {
                // One `send` is one message: the other side's `recv` returns exactly this line.
                Some(line) => control.send(Bytes::from(line)).await?,
                None => {
                    writing = false;
                    control.shutdown().await?;
                }
            },
            message = control.recv() => match message? {
                // What a peer sends is untrusted: escape it before it reaches the terminal.
                Some(message) => println!("them: {}", String::from_utf8_lossy(&message).escape_debug()),
                None => break,
            },
        }
    }
    if writing {
        control.shutdown().await?;
    }
    Ok(wormhole.close().await?)
}

/// Lines of standard input. A thread of its own reads them, because a read that waits for a key would keep the
/// runtime from ending.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}
