//! The program of the README. Both sides run it: the first prints a code, the second gets it as its argument.
#![expect(clippy::print_stdout, reason = "a program for people")]

use dilated::{DilateConfig, Wormhole};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wormhole = Wormhole::builder("example.com/greeter").build()?;
    match std::env::args().nth(1) {
        Some(code) => wormhole.set_code(&code)?,
        None => println!("tell the other side: {}", wormhole.allocate_code(2).await?),
    }
    let mut dilated = wormhole.dilate(DilateConfig::default())?;
    let (control, _client, _server) = dilated.endpoints().ok_or("the endpoints were taken before")?;

    let mut control = control.connect().await?;
    control.write_all(b"hello through the wormhole\n").await?;
    control.shutdown().await?;
    let mut greeting = String::new();
    control.read_to_string(&mut greeting).await?;
    print!("{greeting}");
    Ok(wormhole.close().await?)
}
