//! The part that sends.

use dilated::transit::{TransitPipe, TransitSender};

use super::{
    Classic,
    archive::Outflow,
    broken,
    feed::Hashing,
    message::{self, Offer},
    no_connection,
};
use crate::{
    exit::{Failure, Kind},
    quote::{bytes, printable},
    show::{Bar, Event, Hash, Side, Total},
    transfer::BOTH_SEND,
};

/// What is sent. One at a time is what this protocol can.
pub(in crate::transfer) enum Content {
    Text(String),
    Data(Data),
}

/// A file, or a directory as an archive.
pub(in crate::transfer) struct Data {
    pub(super) offer: Offer,
    pub(super) name: String,
    /// In bytes.
    pub(super) size: u64,
    /// What the user sees as sent.
    pub(super) total: Total,
    pub(super) outflow: Outflow,
}

/// Sends `content`, and returns when the other side has confirmed that it has all of it.
pub(in crate::transfer) async fn send(mut classic: Classic<'_>, content: Content) -> Result<Total, Failure> {
    let outcome = match content {
        Content::Text(text) => send_text(&mut classic, text).await,
        Content::Data(data) => send_data(&mut classic, data).await,
    };
    classic.give_up(outcome)
}

async fn send_text(classic: &mut Classic<'_>, text: String) -> Result<Total, Failure> {
    let length = text.len() as u64;
    classic.say(Offer::Text(text).to_bytes())?;
    let answer = loop {
        let message = classic.hear().await?;
        refuse_offer(message.offer.is_some())?;
        if let Some(answer) = message.answer {
            break answer;
        }
    };
    if answer.text { Ok(Total { files: 0, bytes: length }) } else { Err(strange_answer(&answer.said)) }
}

async fn send_data(classic: &mut Classic<'_>, data: Data) -> Result<Total, Failure> {
    let transit: TransitSender = classic.transit()?;
    classic.say(message::transit(&transit.abilities(), &transit.hints()))?;
    classic.say(data.offer.to_bytes())?;
    classic.show.line("waiting for the other side to accept");
    let answer = loop {
        let message = classic.hear().await?;
        refuse_offer(message.offer.is_some())?;
        if let Some(answer) = message.answer {
            break answer;
        }
    };
    if !answer.file {
        return Err(strange_answer(&answer.said));
    }
    let (show, hints) = (classic.show.clone(), classic.hints.clone());
    let delivery = async {
        show.line("looking for a path to the other side");
        let mut pipe = transit.connect(&hints).await.map_err(|error| no_connection(&error))?;
        let path = printable(&pipe.path.to_string());
        show.line(format_args!(
            "connected {path}; sending {} of {}",
            bytes(data.size),
            printable(&data.name)
        ));
        show.event(&Event::Connected { path });
        let bar = show.progress(Some(data.size), &data.name);
        let hash = stream(&mut pipe, data.size, data.outflow, bar.clone()).await;
        bar.finish();
        let hash = hash?;
        show.line("sent; waiting for the other side to confirm it");
        confirm(&mut pipe, &hash).await?;
        pipe.close().await;
        let hash = Some(Hash::Sha256(hash));
        show.event(&Event::File {
            from: Side::Us,
            name: data.name,
            path: None,
            altered: false,
            bytes: data.size,
            hash,
        });
        Ok(data.total)
    };
    classic.unless_abandoned(delivery).await
}

/// Sends the data, and returns their SHA-256.
async fn stream(pipe: &mut TransitPipe, size: u64, outflow: Outflow, bar: Bar) -> Result<String, Failure> {
    let observe = move |piece: &[u8]| bar.add(piece.len() as u64);
    let sent = pipe.writer.copy_from_blocking(Hashing::new(outflow), size, observe).await;
    let (outflow, hash) = sent.map_err(|error| broken(&error))?.finish();
    outflow.finish()?;
    Ok(hash)
}

/// Waits until the other side says that it has what was sent.
async fn confirm(pipe: &mut TransitPipe, hash: &str) -> Result<(), Failure> {
    let unconfirmed = "the other side left without a word on whether it has everything";
    let record = pipe.reader.next_record().await.map_err(|error| broken(&error))?;
    let record = record.ok_or_else(|| Failure::new(Kind::PeerLeft, unconfirmed))?;
    message::check_acknowledgement(&record, hash).map_err(|reason| {
        let reason = printable(&reason);
        Failure::new(Kind::PeerLeft, format!("the other side has not received it as it was sent: {reason}"))
    })
}

fn refuse_offer(offered: bool) -> Result<(), Failure> {
    match offered {
        true => Err(Failure::usage(BOTH_SEND)),
        false => Ok(()),
    }
}

fn strange_answer(said: &str) -> Failure {
    Failure::new(Kind::PeerProgram, format!("the other side's answer is not understood: {}", printable(said)))
}
