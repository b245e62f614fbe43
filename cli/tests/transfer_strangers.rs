//! `dilated send` and `dilated receive` with programs that do odd, wrong or wicked things.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot run has failed")]

mod common;

use std::{
    fs,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use common::{Pipe, Serve, hash, noise, signal, soon};
use dilated::{
    Wormhole,
    transit::{
        HintLimits, TransitConfig, TransitKey, TransitPipe, TransitReceiver, TransitSender, encode_abilities,
        encode_hints, parse_hints,
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

const APPID: &str = "lothar.com/wormhole/text-or-file-xfer";

/// Another program, driven by hand.
struct Stranger {
    wormhole: Wormhole,
}

impl Stranger {
    fn new(serve: &Serve, code: &str) -> Stranger {
        let wormhole = Wormhole::builder(APPID).mailbox(&serve.mailbox).dilation(false).build().unwrap();
        wormhole.set_code(code).unwrap();
        Stranger { wormhole }
    }

    fn say(&self, message: &Value) {
        self.wormhole.send_message(message.to_string()).unwrap();
    }

    async fn hear(&self) -> Value {
        let message = soon("a message", self.wormhole.next_message()).await.unwrap();
        serde_json::from_slice(&message).unwrap()
    }

    /// Waits for a message with this member, and ignores others.
    async fn wait_for(&self, member: &str) -> Value {
        loop {
            if let Some(value) = self.hear().await.get(member) {
                return value.clone();
            }
        }
    }

    async fn config(&self) -> TransitConfig {
        soon("the other side", self.wormhole.verifier()).await.unwrap();
        let key = self.wormhole.derive_key(&format!("{APPID}/transit-key"), 32).unwrap();
        let mut config = TransitConfig::new(TransitKey::new(key.try_into().unwrap()));
        config.loopback = true;
        config
    }

    async fn sender(&self) -> TransitSender {
        TransitSender::new(self.config().await).unwrap()
    }

    async fn receiver(&self) -> TransitReceiver {
        TransitReceiver::new(self.config().await).unwrap()
    }

    /// Offers something, and connects when it is accepted.
    async fn offer(&self, offer: &Value) -> TransitPipe {
        let sender = self.sender().await;
        self.say(&transit(&sender.hints()));
        self.say(&json!({ "offer": offer }));
        let hints = self.wait_for("transit").await;
        assert_eq!(self.wait_for("answer").await, json!({ "file_ack": "ok" }));
        connect(sender.connect(&read_hints(&hints))).await
    }

    /// Accepts what is offered, and connects.
    async fn accept(&self) -> (Value, TransitPipe) {
        let receiver = self.receiver().await;
        let hints = self.wait_for("transit").await;
        self.say(&transit(&receiver.hints()));
        let offer = self.wait_for("offer").await;
        self.say(&json!({ "answer": { "file_ack": "ok" } }));
        (offer, connect(receiver.connect(&read_hints(&hints))).await)
    }

    async fn close(self) {
        soon("the end", self.wormhole.close()).await.unwrap();
    }
}

fn transit(hints: &[dilated::transit::Hint]) -> Value {
    let abilities = std::collections::BTreeSet::from([dilated::transit::Ability::DirectTcp]);
    json!({ "transit": { "abilities-v1": encode_abilities(&abilities), "hints-v1": encode_hints(hints) } })
}

fn read_hints(transit: &Value) -> Vec<dilated::transit::Hint> {
    parse_hints(&transit["hints-v1"], &HintLimits::default())
}

async fn connect<E: std::fmt::Debug>(connected: impl Future<Output = Result<TransitPipe, E>>) -> TransitPipe {
    soon("a connection", connected).await.unwrap()
}

/// A `dilated send` of `data` as `file`.
async fn sending(serve: &Serve, data: &[u8]) -> (Pipe, Stranger, TempDir) {
    let from = TempDir::new().unwrap();
    fs::write(from.path().join("file"), data).unwrap();
    let mut command = serve.dilated();
    command.args(["send", "file"]).current_dir(from.path());
    let sender = Pipe::spawn(command);
    let stranger = Stranger::new(serve, &sender.code().await);
    (sender, stranger, from)
}

/// A `dilated receive` that takes everything.
fn receiving(serve: &Serve, code: &str) -> (Pipe, Stranger, TempDir) {
    let to = TempDir::new().unwrap();
    let mut command = serve.dilated();
    command.args(["receive", "--yes", code]).current_dir(to.path());
    (Pipe::spawn(command), Stranger::new(serve, code), to)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn file_offer(size: usize) -> Value {
    json!({ "file": { "filename": "file", "filesize": size } })
}

#[tokio::test]
async fn a_receiver_whose_hash_is_another_one() {
    let serve = Serve::start().await;
    let data = noise(100_000, 1);
    let (mut sender, stranger, _from) = sending(&serve, &data).await;
    let (offer, mut pipe) = stranger.accept().await;
    assert_eq!(offer, file_offer(100_000));
    let mut received = Vec::new();
    pipe.reader.copy_to(&mut received, 100_000, |_| {}).await.unwrap();
    assert_eq!(hash(&received), hash(&data));
    let wrong = json!({ "ack": "ok", "sha256": hash(b"") }).to_string();
    pipe.writer.send_record(wrong.as_bytes()).await.unwrap();
    sender.fail(4, "has not received it as it was sent").await;
}

#[tokio::test]
async fn a_receiver_that_leaves_the_hash_away_is_believed() {
    let serve = Serve::start().await;
    let (mut sender, stranger, _from) = sending(&serve, b"12345").await;
    let (_, mut pipe) = stranger.accept().await;
    pipe.reader.copy_to(&mut Vec::new(), 5, |_| {}).await.unwrap();
    pipe.writer.send_record(br#"{"ack":"ok","more":[]}"#).await.unwrap();
    sender.succeed().await;
}

#[tokio::test]
async fn a_receiver_that_leaves_without_a_word() {
    let serve = Serve::start().await;
    let (mut sender, stranger, _from) = sending(&serve, b"12345").await;
    let (_, mut pipe) = stranger.accept().await;
    pipe.reader.copy_to(&mut Vec::new(), 5, |_| {}).await.unwrap();
    drop(pipe);
    sender.fail(4, "without a word on whether it has everything").await;
}

#[tokio::test]
async fn a_receiver_that_gives_up() {
    let serve = Serve::start().await;
    let (mut sender, stranger, _from) = sending(&serve, b"12345").await;
    stranger.wait_for("offer").await;
    stranger.say(&json!({ "new": true, "error": "no \u{1b}[2J\u{202e}" }));
    sender.fail(4, "the other side gave up: no \\u{1b}[2J\\u{202e}").await;

    let (mut sender, stranger, _from) = sending(&serve, b"12345").await;
    stranger.wait_for("offer").await;
    stranger.say(&json!({ "answer": { "file_ack": "perhaps" } }));
    sender.fail(6, "answer is not understood").await;
    assert!(stranger.wait_for("error").await.is_string());
}

#[tokio::test]
async fn messages_in_odd_shapes_and_order() {
    let serve = Serve::start().await;
    // Everything at once, repeated, and mixed with what nobody knows.
    let (mut receiver, stranger, to) = receiving(&serve, "101-odd-shapes");
    let sender = stranger.sender().await;
    stranger.say(&json!([1, 2]));
    stranger.say(&json!({ "hello": { "transit": {} } }));
    let mut both = transit(&[]);
    both["offer"] = file_offer(3);
    both["offer"]["file"]["colour"] = json!("blue");
    stranger.say(&both);
    // The second one counts, and is not answered.
    stranger.say(&transit(&sender.hints()));
    let hints = stranger.wait_for("transit").await;
    assert_eq!(stranger.hear().await, json!({ "answer": { "file_ack": "ok" } }));
    let mut pipe = connect(sender.connect(&read_hints(&hints))).await;
    pipe.writer.send_record(b"ab").await.unwrap();
    pipe.writer.send_record(b"c").await.unwrap();
    let ack: Value = serde_json::from_slice(&pipe.reader.next_record().await.unwrap().unwrap()).unwrap();
    assert_eq!(ack, json!({ "ack": "ok", "sha256": hash(b"abc") }));
    receiver.succeed().await;
    assert_eq!(fs::read(to.path().join("file")).unwrap(), b"abc");

    // The offer first.
    let (mut receiver, stranger, to) = receiving(&serve, "102-odd-order");
    let sender = stranger.sender().await;
    stranger.say(&json!({ "offer": file_offer(0) }));
    stranger.wait_for("answer").await;
    stranger.say(&transit(&sender.hints()));
    // Our own hints are not needed: it dials.
    let mut pipe = connect(sender.connect(&[])).await;
    pipe.reader.next_record().await.unwrap().unwrap();
    receiver.succeed().await;
    assert_eq!(names(to.path()), ["file"]);
}

#[tokio::test]
async fn offers_that_nobody_can_take() {
    let serve = Serve::start().await;
    for (offer, error) in [
        (json!({ "holodeck": {} }), "unknown offer type"),
        (json!({ "file": { "filename": "x", "filesize": -1 } }), "unknown offer type"),
        (json!({ "directory": { "mode": "tar", "dirname": "x" } }), "unknown mode"),
    ] {
        let (mut receiver, stranger, to) = receiving(&serve, "103-strange-offer");
        stranger.say(&json!({ "transit": {}, "offer": offer }));
        assert_eq!(stranger.wait_for("error").await, error);
        receiver.fail(6, error).await;
        assert!(names(to.path()).is_empty());
        stranger.close().await;
    }
    for offer in [
        json!({ "file": { "filename": "..", "filesize": 1 } }),
        json!({ "file": { "filename": "dir/", "filesize": 1 } }),
        json!({ "file": { "filename": "huge", "filesize": u64::MAX } }),
        json!({ "directory": { "mode": "zipfile", "dirname": "d", "zipsize": 1, "numbytes": u64::MAX, "numfiles": 1 } }),
    ] {
        let (mut receiver, stranger, to) = receiving(&serve, "104-wicked-offer");
        stranger.say(&json!({ "transit": {}, "offer": offer }));
        assert_eq!(stranger.wait_for("error").await, "transfer rejected");
        assert_ne!(receiver.status().await, 0);
        assert!(names(to.path()).is_empty());
        stranger.close().await;
    }
}

#[tokio::test]
async fn a_sender_that_sends_less_or_more_than_it_offered() {
    let serve = Serve::start().await;
    let (mut receiver, stranger, to) = receiving(&serve, "105-too-little");
    let mut pipe = stranger.offer(&file_offer(1000)).await;
    pipe.writer.send_record(&[0; 999]).await.unwrap();
    drop(pipe);
    receiver.fail(4, "closed the connection after 999 of 1000 bytes").await;
    assert!(names(to.path()).is_empty());

    let (mut receiver, stranger, to) = receiving(&serve, "106-too-much");
    let mut pipe = stranger.offer(&file_offer(1000)).await;
    pipe.writer.send_record(&[0; 1001]).await.unwrap();
    receiver.fail(6, "sends more than the 1000 bytes").await;
    assert!(names(to.path()).is_empty());
}

#[tokio::test]
async fn a_sender_that_cancels_at_any_time() {
    let serve = Serve::start().await;
    let (mut receiver, stranger, _to) = receiving(&serve, "107-before-the-offer");
    stranger.say(&json!({ "error": "changed my mind" }));
    receiver.fail(4, "gave up: changed my mind").await;

    let (mut receiver, stranger, to) = receiving(&serve, "108-within-the-data");
    let mut pipe = stranger.offer(&file_offer(1000)).await;
    pipe.writer.send_record(&[0; 10]).await.unwrap();
    stranger.say(&json!({ "error": "changed my mind" }));
    receiver.fail(4, "gave up: changed my mind").await;
    assert!(names(to.path()).is_empty());
}

#[tokio::test]
async fn an_interrupted_side_does_not_end_the_connection_before_it_has_said_why() {
    /// Less than it waits for a server that is stopped.
    const WAITS: Duration = Duration::from_secs(4);
    let serve = Serve::start().await;
    let (mut receiver, stranger, _to) = receiving(&serve, "109-in-this-order");
    let mut pipe = stranger.offer(&file_offer(1000)).await;
    receiver.lines.wait_for("connected ").await;
    // Nobody can be told anything now.
    signal(&serve.child, "STOP").await;
    let begun = now();
    signal(&receiver.child, "INT").await;
    // An end that does not wait for the word comes within this, and makes the test fail.
    let early = tokio::time::timeout(Duration::from_millis(500), pipe.reader.next_record()).await;
    // On a machine that is very busy the waiting may be over.
    assert!(early.is_err() || now() >= begun + WAITS, "the connection ends without a word: {early:?}");
    signal(&serve.child, "CONT").await;
    receiver.fail(130, "interrupted").await;
}

#[tokio::test]
async fn a_side_that_offers_nothing_may_receive_as_well() {
    let serve = Serve::start().await;
    let (mut receiver, stranger, _to) = receiving(&serve, "110-both-wait");
    receiver.lines.wait_for("one of the two has to send").await;
    // It was only slow.
    stranger.say(&json!({ "offer": { "message": "late" } }));
    assert_eq!(stranger.wait_for("answer").await, json!({ "message_ack": "ok" }));
    receiver.succeed().await;
    stranger.close().await;
}

#[expect(clippy::disallowed_methods, reason = "it is looked at whether a limit of time was over")]
fn now() -> Instant {
    Instant::now()
}

/// Offers `archive` as a directory of so many bytes and files, to a receiver whose sentence must have `sentence`.
async fn archive(serve: &Serve, code: &str, archive: &[u8], offered: (u64, u64), sentence: &str) {
    refused(serve, code, archive, offered, (6, sentence)).await;
}

async fn refused(
    serve: &Serve,
    code: &str,
    archive: &[u8],
    (bytes, files): (u64, u64),
    (status, sentence): (i32, &str),
) {
    let (mut receiver, stranger, to) = receiving(serve, code);
    fs::create_dir(to.path().join("inner")).unwrap();
    let offer = json!({ "directory": {
        "mode": "zipfile/deflated", "dirname": "d", "zipsize": archive.len(), "numbytes": bytes, "numfiles": files,
    } });
    let mut pipe = stranger.offer(&offer).await;
    pipe.writer.copy_from(&mut &archive[..], archive.len() as u64, |_| {}).await.unwrap();
    receiver.fail(status, sentence).await;
    // Neither in the directory nor beside it.
    assert_eq!(names(to.path()), ["inner"], "{code}");
    assert!(matches!(pipe.reader.next_record().await, Ok(None) | Err(_)));
}

fn zip(entries: &[(&str, Option<u32>, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, content) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        match mode {
            // The kind of file is written as it is told, unlike that of the other functions.
            Some(mode) if mode & 0o170_000 == 0o120_000 => {
                zip.add_symlink(*name, std::str::from_utf8(content).unwrap(), options).unwrap();
            }
            _ => {
                zip.start_file(*name, options).unwrap();
                zip.write_all(content).unwrap();
            }
        }
    }
    zip.finish().unwrap().into_inner()
}

#[tokio::test]
async fn archives_that_are_wicked() {
    let serve = Serve::start().await;
    let stored = CompressionMethod::Stored;
    let bomb = zip(&[("bomb", None, &vec![0; 5_000_000])], CompressionMethod::Deflated);
    assert!(bomb.len() < 10_000);
    archive(&serve, "110-bomb", &bomb, (10_000, 1), "more than was offered").await;
    let two = zip(&[("a", None, b"1"), ("b", None, b"2")], stored);
    archive(&serve, "111-count", &two, (2, 1), "more than was offered").await;
    for (code, name) in [("112-up", "../outside"), ("113-root", "/tmp/outside"), ("114-within", "a/../../x")]
    {
        archive(&serve, code, &zip(&[(name, None, b"x")], stored), (1, 1), "cannot be written").await;
    }
    let link = zip(&[("inner", Some(0o120_777), b"../inner"), ("inner/file", None, b"x")], stored);
    archive(&serve, "115-link", &link, (100, 2), "neither a file nor a directory").await;
    let same = zip(&[("a/b", None, b"1"), ("a//b", None, b"2")], stored);
    archive(&serve, "116-same", &same, (2, 2), "two entries of the same name").await;
    let mut twice = zip(&[("aa", None, b"1"), ("ab", None, b"2")], stored);
    for at in 0..twice.len() - 1 {
        if &twice[at..at + 2] == b"ab" {
            twice[at + 1] = b'a';
        }
    }
    archive(&serve, "117-twice", &twice, (2, 2), "two entries of the same name").await;
    let file_and_directory = zip(&[("a", None, b"1"), ("a/b", None, b"2")], stored);
    refused(&serve, "118-both", &file_and_directory, (2, 2), (1, "could not")).await;
    let mut damaged = zip(&[("a", None, &noise(1000, 1))], stored);
    damaged[100] ^= 1;
    archive(&serve, "119-damaged", &damaged, (1000, 1), "cannot be unpacked").await;
    archive(&serve, "120-none", b"this is no archive at all, but text", (1, 1), "it has no end").await;
    archive(&serve, "121-nothing", b"", (0, 0), "it has no end").await;
}

#[tokio::test]
async fn archives_whose_end_lies() {
    let serve = Serve::start().await;
    let good = zip(&[("a", None, b"1")], CompressionMethod::Stored);
    let end = good.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    archive(&serve, "130-entries", &with(8, &[0xfe, 0xff, 0xfe, 0xff]), (1, 1), "too long").await;
    archive(&serve, "131-start", &with(16, &[0]), (1, 1), "not where it should be").await;
    archive(&serve, "132-comment", &with(20, &[9]), (1, 1), "something follows its end").await;
    // A large end that asks for as much memory as there is.
    let mut large = good[..end].to_vec();
    let table = u32::from_le_bytes(good[end + 16..end + 20].try_into().unwrap());
    large.extend_from_slice(b"PK\x06\x06");
    large.extend_from_slice(&44_u64.to_le_bytes());
    large.extend_from_slice(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in [1 << 40, 1 << 40, 46 << 40, u64::from(table)] {
        large.extend_from_slice(&number.to_le_bytes());
    }
    large.extend_from_slice(b"PK\x06\x07\0\0\0\0");
    large.extend_from_slice(&(end as u64).to_le_bytes());
    large.extend_from_slice(&[1, 0, 0, 0]);
    large.extend_from_slice(&[b'P', b'K', 5, 6, 0, 0, 0, 0, 255, 255, 255, 255]);
    large.extend_from_slice(&[255; 8]);
    large.extend_from_slice(&[0, 0]);
    archive(&serve, "133-large", &large, (1, 1), "not where it should be").await;
}
