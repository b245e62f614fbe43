//! What `dilated send` sends.

use std::{
    io::{Seek, SeekFrom},
    path::Path,
};

use tokio::io::AsyncWriteExt;

use super::{
    classic::{self, Content},
    session::Outgoing,
    text,
};
use crate::{
    exit::Failure,
    files::{self, Item, Unsendable},
    options::SendOptions,
    quote::{bytes, count, printable},
    show::{Event, Offered, Show, Side},
    stdio,
};

/// What is sent.
#[derive(Debug)]
pub(super) enum Sending {
    Text(String),
    /// At least one.
    Items(Vec<Item>),
    /// Standard input, under this name.
    Input(String),
}

impl Sending {
    /// Opens what the options name. May block for as long as standard input does.
    pub(super) fn choose(options: &SendOptions, show: &Show) -> Result<Sending, Failure> {
        let sending = match (&options.text, options.what.as_slice()) {
            (Some(text), _) if text == "-" => Sending::Text(text::read_all()?),
            (Some(text), _) => Sending::Text(text.clone()),
            (None, [what]) if what == Path::new("-") => Sending::Input(options.name.clone()),
            (None, several) if several.iter().any(|what| what == Path::new("-")) => {
                return Err(Failure::usage("standard input (`-`) has to be sent alone"));
            }
            (None, paths) => {
                let unsendable =
                    if options.ignore_unsendable_files { Unsendable::Skip } else { Unsendable::Fail };
                Sending::Items(files::items(paths, unsendable)?)
            }
        };
        sending.tell(show);
        Ok(sending)
    }

    fn tell(&self, show: &Show) {
        let from = Side::Us;
        let offer = match self {
            Sending::Text(text) => {
                let length = text.len() as u64;
                show.line(format_args!("sending a text of {}", bytes(length)));
                Event::Offer { from, kind: Offered::Text, name: None, files: None, bytes: Some(length) }
            }
            Sending::Input(name) => {
                show.line(format_args!("sending standard input as {}", printable(name)));
                let name = Some(name.clone());
                Event::Offer { from, kind: Offered::Stream, name, files: Some(1), bytes: None }
            }
            Sending::Items(items) => {
                let size = items.iter().map(Item::size).sum();
                let (mut kind, mut name, mut files) = (Offered::Several, None, 0);
                for item in items {
                    name = Some(item.name().to_owned());
                    let shown = printable(item.name());
                    match item {
                        Item::File(source) => {
                            (kind, files) = (Offered::File, files + 1);
                            show.line(format_args!("sending the file {shown}, {}", bytes(source.size())));
                        }
                        Item::Directory(tree) => {
                            (kind, files) = (Offered::Directory, files + tree.files());
                            let (size, count) = (bytes(tree.size()), count(tree.files(), "file", "files"));
                            show.line(format_args!("sending the directory {shown}, {size} in {count}"));
                            for skipped in tree.skipped() {
                                show.line(format_args!("left out: {skipped}"));
                            }
                        }
                    }
                }
                if items.len() > 1 {
                    (kind, name) = (Offered::Several, None);
                }
                Event::Offer { from, kind, name, files: Some(files), bytes: Some(size) }
            }
        };
        show.event(&offer);
    }

    /// All of it, and a name for it.
    pub(super) fn into_session(self) -> Result<(String, Vec<Outgoing>), Failure> {
        Ok(match self {
            Sending::Text(text) => ("the text".to_owned(), vec![Outgoing::Text(text)]),
            Sending::Input(name) => {
                let input = stdio::read_input();
                let input = input.map_err(|error| Failure::io("could not read standard input", &error))?;
                (name.clone(), vec![Outgoing::Stream { name, input }])
            }
            Sending::Items(items) => {
                let name = match items.as_slice() {
                    [one] => one.name().to_owned(),
                    several => format!("{} things", several.len()),
                };
                let outgoing = items.into_iter().map(|item| match item {
                    Item::File(source) => Outgoing::File(source),
                    Item::Directory(tree) => Outgoing::Directory(tree),
                });
                (name, outgoing.collect())
            }
        })
    }

    /// Makes one thing of it, of a length that is known.
    pub(super) async fn into_classic(self, show: &Show) -> Result<Content, Failure> {
        match self {
            Sending::Text(text) => Ok(Content::Text(text)),
            Sending::Input(name) => {
                show.line(
                    "the other side's program has to know the size first; reading standard input to its end",
                );
                let (file, size) = spool().await?;
                Ok(Content::Data(classic::spooled(file, size, name)))
            }
            Sending::Items(items) => {
                if let [_, _, ..] = items.as_slice() {
                    let name = together(&items);
                    show.line(format_args!(
                        "the other side's program takes one thing at a time; it gets a directory {} with all of them",
                        printable(&name)
                    ));
                }
                let content = tokio::task::spawn_blocking(move || pack(items));
                content.await.map_err(|error| Failure::io("could not go on", &error.into()))?
            }
        }
    }
}

fn pack(items: Vec<Item>) -> Result<Content, Failure> {
    let name = together(&items);
    let mut items = items;
    match items.pop() {
        Some(item) if items.is_empty() => classic::item(item),
        last => {
            items.extend(last);
            classic::several(items, name)
        }
    }
    .map(Content::Data)
}

/// A name for several things.
fn together(items: &[Item]) -> String {
    let first = items.first().map_or("nothing", Item::name);
    format!("{first}-and-{}-more", items.len().saturating_sub(1))
}

/// Keeps standard input in a file without a name, to know its length.
async fn spool() -> Result<(std::fs::File, u64), Failure> {
    let failed = |error: &std::io::Error| Failure::io("could not keep standard input", error);
    let mut input = stdio::read_input().map_err(|error| failed(&error))?;
    let mut file = tokio::fs::File::from_std(tempfile::tempfile().map_err(|error| failed(&error))?);
    let mut size = 0;
    while let Some(piece) = input.recv().await {
        let piece = piece.map_err(|error| Failure::io("could not read standard input", &error))?;
        size += piece.len() as u64;
        file.write_all(&piece).await.map_err(|error| failed(&error))?;
    }
    file.flush().await.map_err(|error| failed(&error))?;
    let mut file = file.into_std().await;
    file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
    Ok((file, size))
}
