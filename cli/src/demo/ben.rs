//! Ben, who receives, and pulls the plug half way.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use dilated::{DilateConfig, Dilated, Generation, LinkStatus, Subchannel, Wormhole};
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::{fs::File, io::AsyncWriteExt};

use super::{
    ana::{broke, finish},
    stage::Stage,
};
use crate::{
    clock,
    exit::{Failure, Kind},
    quote::bytes,
};

/// What Ben got.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) file: PathBuf,
    pub(crate) size: u64,
    pub(crate) hash: String,
    pub(crate) seconds: f64,
    pub(crate) first_path: String,
    pub(crate) last_path: String,
}

/// Plays Ben to the end.
pub(crate) async fn run(
    wormhole: &Wormhole,
    config: DilateConfig,
    folder: &Path,
    stage: &Stage,
) -> Result<Received, Failure> {
    let mut dilated = wormhole.dilate(config)?;
    let endpoints = dilated.endpoints().expect("nobody took them before");
    let received = tokio::select! {
        received = receive(&dilated, endpoints, folder, stage) => received,
        never = stage.follow("Ben", &dilated) => match never? {},
    };
    finish(wormhole, dilated, received).await
}

async fn receive(
    dilated: &Dilated,
    (control, _client, mut server): (dilated::Control, dilated::Client, dilated::Server),
    folder: &Path,
    stage: &Stage,
) -> Result<Received, Failure> {
    let mut chat = control.connect().await.map_err(broke)?;
    let hello = chat.recv().await.map_err(broke)?.unwrap_or_default();
    stage.said("Ana", &hello)?;
    say(&mut chat, "Hello Ana, I am ready. Half way I will cut the link, to see what happens.").await?;

    let mut stream = server.accept().await.map_err(broke)?;
    let path = folder.join(plain(&stream.recv().await.map_err(broke)?.unwrap_or_default()));
    let size = stream.recv().await.map_err(broke)?.unwrap_or_default();
    let size = u64::from_be_bytes(size[..].try_into().map_err(|_| broke(std::io::Error::other("no size")))?);
    let first_path = dilated.connected().await?.to_string();

    let begin = clock::now();
    let mut arrival = Arrival { stage, dilated, chat: &mut chat, size, received: 0, quarters: 0 };
    let hash = arrival.store(&mut stream, &path).await?;
    let received = arrival.received;
    let seconds = clock::now().saturating_duration_since(begin).as_secs_f64();
    stream.shutdown().await.map_err(broke)?;

    // Before the last words: Ana may be gone after them.
    let last_path = dilated.connected().await?.to_string();
    say(&mut chat, &format!("I have all {}. The SHA-256 is {}…", bytes(received), &hash[..16])).await?;
    chat.shutdown().await.map_err(broke)?;
    while let Some(words) = chat.recv().await.map_err(broke)? {
        stage.said("Ana", &words)?;
    }
    Ok(Received { file: path, size: received, hash, seconds, first_path, last_path })
}

async fn say(chat: &mut Subchannel, words: &str) -> Result<(), Failure> {
    chat.send(Bytes::copy_from_slice(words.as_bytes())).await.map_err(broke)
}

/// The file as it comes in.
struct Arrival<'a> {
    stage: &'a Stage,
    dilated: &'a Dilated,
    chat: &'a mut Subchannel,
    size: u64,
    received: u64,
    /// How many quarters were told.
    quarters: u64,
}

impl Arrival<'_> {
    async fn store(&mut self, stream: &mut Subchannel, path: &Path) -> Result<String, Failure> {
        let cannot_write = |e: std::io::Error| {
            let advice =
                if e.kind() == std::io::ErrorKind::AlreadyExists { "; nothing is overwritten" } else { "" };
            Failure::new(Kind::Local, format!("could not write {}: {e}{advice}", path.display()))
        };
        let mut file = File::create_new(path).await.map_err(cannot_write)?;
        let mut hash = Sha256::new();
        self.progress().await?;
        while let Some(chunk) = stream.read_chunk().await.map_err(broke)? {
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(cannot_write)?;
            self.received += chunk.len() as u64;
            self.progress().await?;
        }
        file.flush().await.map_err(cannot_write)?;
        Ok(HEXLOWER.encode(&hash.finalize()))
    }

    /// Tells each quarter, and cuts the link at the second.
    async fn progress(&mut self) -> Result<(), Failure> {
        let quarters = self.received.saturating_mul(4).checked_div(self.size).unwrap_or(4);
        let before = std::mem::replace(&mut self.quarters, quarters);
        if quarters > before && quarters < 4 {
            self.stage.narrate(format_args!("Ben has {} % ({})", quarters * 25, bytes(self.received)))?;
        }
        if before < 2 && quarters >= 2 {
            let link = self.dilated.status().generation;
            self.stage.narrate("--- the link is cut ---")?;
            self.dilated.abandon_link();
            gone(self.dilated, link).await;
            // It waits with the rest of the data until the link is back.
            say(self.chat, "The link is dead; I say this into the void.").await?;
        }
        Ok(())
    }
}

/// Waits until the link of that generation is gone.
async fn gone(dilated: &Dilated, link: Generation) {
    let mut changes = dilated.status_changes();
    while let Some(status) = changes.next().await {
        if status.generation != link || !matches!(status.link, LinkStatus::Connected { .. }) {
            break;
        }
    }
}

/// The last component of a name that came from the network, if it is a plain one.
fn plain(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name).into_owned();
    let mut components = Path::new(&name).components();
    let plain = matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if *only == *name)
        && !name.contains(|c: char| c.is_control() || c == '\\' || c == ':');
    if plain { name } else { "received".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_network_stays_in_the_folder() {
        assert_eq!(plain("photo of me.jpg".as_bytes()), "photo of me.jpg");
        for bad in ["", "..", ".", "/etc/passwd", "a/b", "a/", "C:\\x", "a\nb"] {
            assert_eq!(plain(bad.as_bytes()), "received", "{bad:?}");
        }
    }
}
