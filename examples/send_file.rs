//! A file over a subchannel, with its hash. It arrives whole however often the link breaks on the way.
//!
//! ```text
//! cargo run --example send_file -- send FILE                   prints a code
//! cargo run --example send_file -- receive 7-some-words DIR    stores the file in DIR
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::{
    env,
    error::Error,
    path::{Component, Path},
};

use bytes::Bytes;
use dilated::{DilateConfig, Wormhole};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (builder, config) = dilated_examples::settings("dilated.example/send-file")?;
    let wormhole = builder.build()?;
    match arguments[..] {
        ["send", file] => {
            eprintln!("the code is: {}", wormhole.allocate_code(2).await?);
            send(&wormhole, config, Path::new(file)).await?;
        }
        ["receive", code, directory] => {
            wormhole.set_code(code)?;
            receive(&wormhole, config, Path::new(directory)).await?;
        }
        _ => return Err("say `send FILE` or `receive CODE DIRECTORY`".into()),
    }
    Ok(wormhole.close().await?)
}

/// The first message is the name, then come the bytes as a stream, and the answer is the hash of what arrived.
async fn send(wormhole: &Wormhole, config: DilateConfig, path: &Path) -> Result<(), Box<dyn Error>> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("the file's name is not UTF-8")?;
    let mut file = File::open(path).await?;
    let mut dilated = wormhole.dilate(config)?;
    let (_control, client, _server) = dilated.endpoints().ok_or("the endpoints were taken before")?;

    let mut subchannel = client.connect().await?;
    subchannel.send(Bytes::copy_from_slice(name.as_bytes())).await?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = file.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        // Waits when the other side is slow, or gone for a while: memory stays bounded.
        subchannel.write_all(&buffer[..length]).await?;
    }
    subchannel.shutdown().await?;

    // To the end, not only 32 bytes: a side that closes while the other one still speaks leaves it waiting for an
    // acknowledgement that nobody sends.
    let mut answer = Vec::new();
    (&mut subchannel).take(33).read_to_end(&mut answer).await?;
    let hash: [u8; 32] = hash.finalize().into();
    if answer != hash {
        return Err("the other side received something else; send it again".into());
    }
    println!("sent {name}, sha256 {}", data_encoding::HEXLOWER.encode(&hash));
    Ok(())
}

async fn receive(wormhole: &Wormhole, config: DilateConfig, directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut dilated = wormhole.dilate(config)?;
    let (_control, _client, mut server) = dilated.endpoints().ok_or("the endpoints were taken before")?;

    let mut subchannel = server.accept().await?;
    let name = subchannel.recv().await?.ok_or("the other side sent nothing")?;
    let name = plain_name(&name)?.to_owned();
    // Never over a file that exists.
    let mut file = File::create_new(directory.join(&name)).await?;
    let mut hash = Sha256::new();
    // `recv` hands out the received buffers themselves. `None` is the end that the sender declared; a wormhole
    // that breaks for good is an error instead, so half a file is never taken for a whole one.
    while let Some(piece) = subchannel.recv().await? {
        hash.update(&piece);
        file.write_all(&piece).await?;
    }
    file.sync_all().await?;
    let hash: [u8; 32] = hash.finalize().into();
    subchannel.write_all(&hash).await?;
    subchannel.shutdown().await?;
    println!("received {name}, sha256 {}", data_encoding::HEXLOWER.encode(&hash));
    Ok(())
}

/// A name from the network: one plain component, without control characters, or nothing.
fn plain_name(name: &[u8]) -> Result<&str, Box<dyn Error>> {
    let name = std::str::from_utf8(name)?;
    let mut components = Path::new(name).components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None)
            if only == name && !name.contains(|c: char| c.is_control() || c == '\\' || c == ':') =>
        {
            Ok(name)
        }
        _ => Err(format!("the other side proposed a file name that is not one: {name:?}").into()),
    }
}
