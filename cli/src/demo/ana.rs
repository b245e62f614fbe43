//! Ana, who sends.

use std::path::Path;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use dilated::{DilateConfig, Dilated, Wormhole};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
};

use super::{name, stage::Stage};
use crate::{
    exit::{Failure, Kind},
    quote::bytes,
};

/// Bytes read from the file at once.
const CHUNK: usize = 256 * 1024;

/// Plays Ana to the end, and returns the hash of what she sent.
pub(crate) async fn run(
    wormhole: &Wormhole,
    config: DilateConfig,
    path: &Path,
    stage: &Stage,
) -> Result<String, Failure> {
    let mut dilated = wormhole.dilate(config)?;
    let endpoints = dilated.endpoints().expect("nobody took them before");
    let hash = tokio::select! {
        hash = send(endpoints, path, stage) => hash,
        never = stage.follow("Ana", &dilated) => match never? {},
    };
    finish(wormhole, dilated, hash).await
}

/// Closes the wormhole after success; a failure is told as it is.
pub(super) async fn finish<T>(
    wormhole: &Wormhole,
    dilated: Dilated,
    result: Result<T, Failure>,
) -> Result<T, Failure> {
    let result = result?;
    wormhole.close().await?;
    drop(dilated);
    Ok(result)
}

async fn send(
    (control, client, _server): (dilated::Control, dilated::Client, dilated::Server),
    path: &Path,
    stage: &Stage,
) -> Result<String, Failure> {
    let cannot_read = |e: std::io::Error| Failure::io(&format!("could not read {}", path.display()), &e);
    let mut file = File::open(path).await.map_err(cannot_read)?;
    let about = file.metadata().await.map_err(cannot_read)?;
    if !about.is_file() {
        return Err(Failure::usage(format!("{} is not a file; name one to send", path.display())));
    }

    let mut chat = control.connect().await.map_err(broke)?;
    let hello = format!("Hello Ben, here comes {}, {}.", name(path), bytes(about.len()));
    chat.send(Bytes::from(hello)).await.map_err(broke)?;
    let answer = chat.recv().await.map_err(broke)?.unwrap_or_default();
    stage.said("Ben", &answer)?;

    let mut stream = client.connect().await.map_err(broke)?;
    stream.send(Bytes::from(name(path))).await.map_err(broke)?;
    stream.send(Bytes::copy_from_slice(&about.len().to_be_bytes())).await.map_err(broke)?;
    let mut hash = Sha256::new();
    let talk = async {
        while let Some(words) = chat.recv().await.map_err(broke)? {
            stage.said("Ben", &words)?;
        }
        chat.send(Bytes::from_static(b"That is the hash that I have. Goodbye!")).await.map_err(broke)?;
        chat.shutdown().await.map_err(broke)
    };
    let send = async {
        // A subchannel takes the file's length as it was, so that a growing file cannot confuse the two.
        let mut file = (&mut file).take(about.len());
        loop {
            let mut chunk = vec![0; CHUNK];
            let length = file.read(&mut chunk).await.map_err(cannot_read)?;
            if length == 0 {
                break;
            }
            chunk.truncate(length);
            hash.update(&chunk);
            // Waits while the link is down: memory stays bounded.
            stream.write_bytes(chunk.into()).await.map_err(broke)?;
        }
        stream.shutdown().await.map_err(broke)
    };
    tokio::try_join!(send, talk)?;
    Ok(HEXLOWER.encode(&hash.finalize()))
}

/// A wormhole that ended while it was needed.
pub(super) fn broke(error: impl std::error::Error) -> Failure {
    Failure::new(Kind::PeerLeft, format!("the wormhole of the demonstration ended early: {error}"))
}
