//! `dilated demo`: two people, a code, a file, and a link that is cut half way, all on this machine.

mod ana;
mod ben;
mod stage;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use self::{ben::Received, stage::Stage};
use crate::{
    exit::{Failure, Kind},
    generate,
    loopback::Servers,
    options::DemoOptions,
    quote::{bytes, printable},
    signals::Signals,
    status::Report,
};

/// The demonstration's own application.
const APPID: &str = "dilated.dev/demo";

/// Runs the command.
pub(crate) async fn run(options: DemoOptions, report: &Report) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    tokio::select! {
        result = demo(&options, report) => result,
        failure = signals.next() => Err(failure),
    }
}

async fn demo(options: &DemoOptions, report: &Report) -> Result<(), Failure> {
    let stage = Stage::new(report.clone());
    stage.text(
        "Ana wants to give Ben a file. They are two programs in this process, and know nothing of each other.\n\
         Nothing leaves this machine.\n",
    )?;
    let folders = Folders::prepare(options, &stage).await?;
    let servers = Servers::start().await?;
    stage.narrate(format_args!("a mailbox server runs at {}, where the two will meet", servers.mailbox))?;
    stage.narrate(format_args!("a relay runs at {}, for when there is no direct path", servers.relay))?;

    let (ana, ben) = (servers.wormhole(APPID)?, servers.wormhole(APPID)?);
    let code = ana.allocate_code(2).await?.to_string();
    stage.narrate(format_args!("Ana gets the code {code} and tells Ben, on the phone perhaps"))?;
    ben.set_code(&code)?;

    let config = servers.config(options.relayed);
    let (sent, received) = tokio::try_join!(
        ana::run(&ana, config.clone(), &folders.source, &stage),
        ben::run(&ben, config, &folders.target, &stage),
    )?;
    summary(&stage, options, &folders, &sent, &received)
}

/// What there is to learn from it.
fn summary(
    stage: &Stage,
    options: &DemoOptions,
    folders: &Folders,
    sent: &str,
    received: &Received,
) -> Result<(), Failure> {
    let rate = received.size as f64 / received.seconds.max(0.001) / 1e6;
    let same = sent == received.hash;
    stage.text(format_args!(
        "\nAna sent      SHA-256 {sent}\nBen received  SHA-256 {}\n{}\n",
        received.hash,
        if same { "The same: nothing was lost, doubled or changed, although the link was cut." } else { "" }
    ))?;
    stage.text(format_args!(
        "{} in {:.2} s, that is {rate:.0} MB/s, encrypted, the outage included.\n\
         First path: {}\nPath after the cut: {}",
        bytes(received.size),
        received.seconds,
        printable(&received.first_path),
        printable(&received.last_path),
    ))?;
    if options.relayed {
        stage.text("Both went through the relay, which saw only encrypted bytes.")?;
    }
    if options.keep.is_some() {
        stage.text(format_args!("The received file is {}", received.file.display()))?;
    }
    if !same {
        let at = received.file.display();
        return Err(Failure::new(Kind::Local, format!("the hashes differ, which must never happen: {at}")));
    }
    if folders.made_up {
        stage.text(
            "\nTry it with a file of yours (dilated demo FILE), or between two machines: dilated pipe --help",
        )?;
    } else {
        stage.text("\nBetween two machines: dilated pipe --help")?;
    }
    Ok(())
}

/// Ana's file and Ben's folder.
struct Folders {
    source: PathBuf,
    target: PathBuf,
    made_up: bool,
    /// Removes everything that is not kept.
    _temporary: TempDir,
}

impl Folders {
    async fn prepare(options: &DemoOptions, stage: &Stage) -> Result<Folders, Failure> {
        let cannot =
            |e: std::io::Error| Failure::io("could not prepare the folders of the demonstration", &e);
        let temporary = tempfile::Builder::new().prefix("dilated-demo-").tempdir().map_err(cannot)?;
        let (anas, bens) = (temporary.path().join("ana"), temporary.path().join("ben"));
        for folder in [&anas, &bens] {
            std::fs::create_dir(folder).map_err(cannot)?;
        }
        let target = match &options.keep {
            None => bens,
            Some(folder) => {
                let doing = format!("could not use {} to keep the file", folder.display());
                std::fs::create_dir_all(folder).map_err(|e| Failure::io(&doing, &e))?;
                folder.clone()
            }
        };
        let source = match &options.file {
            Some(file) => file.clone(),
            None => make_up(anas.join("made-up.bin"), options.size.0, stage).await?,
        };
        Ok(Folders { source, target, made_up: options.file.is_none(), _temporary: temporary })
    }
}

async fn make_up(path: PathBuf, size: u64, stage: &Stage) -> Result<PathBuf, Failure> {
    stage.narrate(format_args!("no file was named, so one of {} is made up", bytes(size)))?;
    let made = path.clone();
    let written = tokio::task::spawn_blocking(move || generate::file(&made, size)).await;
    written
        .unwrap_or_else(|e| Err(std::io::Error::other(e)))
        .map_err(|e| Failure::io(&format!("could not write {}", path.display()), &e))?;
    Ok(path)
}

/// The last component of a path, for people.
fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| "file".to_owned(), |name| name.to_string_lossy().into_owned())
}
