//! A side that means harm, or is broken.

use std::path::Path;

use bytes::Bytes;
use dilated::{Client, Dilated, Subchannel};
use serde::Serialize;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::{
    super::{
        Kind, Outgoing, Reason, Work,
        frame::{self, END_OF_DATA},
        message::{self, Answer, Code, Directory, Hash, Have, Header, Item, Message, Whole},
    },
    world::{LIMIT, Outcome, Pair, Person, bytes, names, receiving, sending, side, take, temporary, write},
};
use crate::exit;

/// The other end, which says what it likes.
pub(super) struct Raw {
    control: Subchannel,
    pub(super) client: Client,
    server: dilated::Server,
}

impl Raw {
    async fn new(dilated: &mut Dilated) -> Raw {
        let (control, client, server) = dilated.endpoints().unwrap();
        Raw { control: control.connect().await.unwrap(), client, server }
    }

    /// What is said. Who does not listen any more has seen enough.
    pub(super) async fn say(&mut self, message: &impl Serialize) {
        self.say_bytes(message::encode(message)).await;
    }

    async fn say_bytes(&mut self, message: Bytes) {
        let _ = self.control.send(message).await;
    }

    async fn hello(&mut self) {
        self.say(&Message::Hello { version: 1 }).await;
    }

    /// The next message of interest; `None` when the channel has ended.
    async fn hear(&mut self) -> Option<Message> {
        loop {
            let message = self.control.recv().await.ok()??;
            match message::decode(&message).unwrap() {
                Message::Hello { .. } | Message::End => {}
                message => return Some(message),
            }
        }
    }

    pub(super) async fn offer(&mut self, items: Vec<Item>) -> Vec<Answer> {
        self.hello().await;
        self.say(&Message::Offer { offer: 0, items }).await;
        match self.hear().await {
            Some(Message::Answer { items, .. }) => items,
            other => panic!("an answer, not {other:?}"),
        }
    }

    /// Sends a file as it is told to.
    async fn file(&mut self, header: Header, data: &[u8], hash: Hash) -> Subchannel {
        let mut stream = Vec::new();
        frame::push(&mut stream, &header);
        for piece in data.chunks(1 << 16) {
            stream.extend_from_slice(&frame::prefix(piece.len()));
            stream.extend_from_slice(piece);
        }
        stream.extend_from_slice(&END_OF_DATA);
        frame::push(&mut stream, &Whole { hash });
        let mut subchannel = self.client.connect().await.unwrap();
        let _ = subchannel.write_all(&stream).await;
        let _ = subchannel.shutdown().await;
        subchannel
    }

    /// Reads what there is to read until the other side has had enough.
    async fn listen(&mut self) -> Option<Code> {
        let mut code = None;
        while let Some(message) = self.hear().await {
            if let Message::Error { code: told, .. } = message {
                code = Some(told);
            }
        }
        code
    }
}

fn file(name: &str, size: u64) -> Item {
    Item { size: Some(size), ..Item::new(Kind::File, name) }
}

fn directory(size: u64, count: u64) -> Item {
    Item { size: Some(size), count: Some(count), ..Item::new(Kind::Directory, "tree") }
}

pub(super) fn header(item: u64, path: &[&str], size: Option<u64>) -> Header {
    let path = path.iter().map(ToString::to_string).collect();
    Header { offer: 0, item, path, size, mode: None, mtime: None }
}

pub(super) fn hash(data: &[u8]) -> Hash {
    blake3::hash(data).into()
}

/// Runs `script` against a side with `work`. Gives what became of that, and what it told us.
pub(super) async fn against(work: Work, script: impl AsyncFnOnce(&mut Raw)) -> (Outcome, Option<Code>) {
    let Pair { mut one, mut other } = Pair::new().await;
    let person = Person::default();
    let attack = async {
        let mut raw = Raw::new(&mut other.1).await;
        script(&mut raw).await;
        raw.listen().await
    };
    let both = async { tokio::join!(side(&mut one.1, work, &person), attack) };
    tokio::time::timeout(LIMIT, both).await.expect("a session ends")
}

/// The same against a receiver, which has to find that the protocol is broken, and keeps nothing.
async fn wrong(what: &str, script: impl AsyncFnOnce(&mut Raw)) {
    let to = temporary();
    let (outcome, told) = against(receiving(to.path()), script).await;
    let failure = outcome.expect_err(what);
    assert_eq!(failure.kind(), exit::Kind::PeerProgram, "{what}: {failure}");
    assert!(matches!(told, Some(Code::Protocol | Code::Hash)), "{what}: {told:?}");
    assert_gone(&to, what).await;
}

/// Threads that store files may end a moment later than the session.
async fn assert_gone(directory: &TempDir, what: &str) {
    let gone = async {
        while !names(directory.path()).is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(LIMIT, gone).await.is_err() {
        panic!("{what}: {:?} is left", names(directory.path()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_what_was_offered_or_nothing() {
    let five = b"12345";
    wrong("more bytes than offered", async |raw| {
        raw.offer(vec![file("x", 4)]).await;
        raw.file(header(0, &[], None), five, hash(five)).await;
    })
    .await;
    wrong("fewer bytes than offered", async |raw| {
        raw.offer(vec![file("x", 6)]).await;
        raw.file(header(0, &[], None), five, hash(five)).await;
    })
    .await;
    wrong("a wrong hash", async |raw| {
        raw.offer(vec![file("x", 5)]).await;
        raw.file(header(0, &[], None), five, hash(b"54321")).await;
    })
    .await;
    wrong("an end without a file", async |raw| {
        raw.offer(vec![file("x", 5)]).await;
        raw.say(&Message::End).await;
    })
    .await;
    wrong("a file that was not offered", async |raw| {
        raw.offer(vec![file("x", 5)]).await;
        raw.file(header(1, &[], None), five, hash(five)).await;
    })
    .await;
    wrong("a path in a file", async |raw| {
        raw.offer(vec![file("x", 5)]).await;
        raw.file(header(0, &["y"], Some(5)), five, hash(five)).await;
    })
    .await;
    wrong("a file before any offer", async |raw| {
        raw.hello().await;
        raw.file(header(0, &[], None), five, hash(five)).await;
    })
    .await;
    wrong("garbage instead of a header", async |raw| {
        raw.offer(vec![file("x", 5)]).await;
        let mut subchannel = raw.client.connect().await.unwrap();
        subchannel.write_all(b"\0\0\0\x03abc").await.unwrap();
    })
    .await;
    wrong("a frame that is too long", async |raw| {
        raw.offer(vec![file("x", 5)]).await;
        let mut subchannel = raw.client.connect().await.unwrap();
        subchannel.write_all(&[0xff; 8]).await.unwrap();
    })
    .await;
    wrong("too many files at a time", async |raw| {
        raw.offer(vec![directory(0, 1000)]).await;
        for _ in 0..129 {
            let mut subchannel = raw.client.connect().await.unwrap();
            let _ = subchannel.write_all(&[0]).await;
            std::mem::forget(subchannel);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_file_for_one_that_is_stored_is_refused() {
    let to = temporary();
    let (outcome, _) = against(receiving(to.path()), async |raw| {
        raw.offer(vec![file("x", 1), file("y", 1)]).await;
        raw.file(header(0, &[], None), b"1", hash(b"1")).await;
        raw.file(header(0, &[], None), b"2", hash(b"2")).await;
    })
    .await;
    assert_eq!(outcome.unwrap_err().kind(), exit::Kind::PeerProgram);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_has_no_more_and_no_less_than_was_offered() {
    let finish = Message::Finish { offer: 0, item: 0 };
    wrong("more files", async |raw| {
        raw.offer(vec![directory(2, 1)]).await;
        raw.file(header(0, &["a"], Some(1)), b"1", hash(b"1")).await;
        raw.file(header(0, &["b"], Some(1)), b"1", hash(b"1")).await;
    })
    .await;
    wrong("more bytes", async |raw| {
        raw.offer(vec![directory(2, 1)]).await;
        raw.file(header(0, &["a"], Some(3)), b"123", hash(b"123")).await;
    })
    .await;
    wrong("more bytes than the header says", async |raw| {
        raw.offer(vec![directory(2, 1)]).await;
        raw.file(header(0, &["a"], Some(2)), b"123", hash(b"123")).await;
    })
    .await;
    wrong("more directories", async |raw| {
        raw.offer(vec![directory(0, 1)]).await;
        let one = |name: &str| Directory { path: vec![name.to_owned()], mode: None, mtime: None };
        raw.say(&Message::Directories { offer: 0, item: 0, directories: vec![one("a"), one("b")] }).await;
    })
    .await;
    wrong("an early finish", async |raw| {
        raw.offer(vec![directory(2, 1)]).await;
        raw.say(&finish).await;
    })
    .await;
    wrong("directories of a file", async |raw| {
        raw.offer(vec![file("x", 2)]).await;
        raw.say(&Message::Directories { offer: 0, item: 0, directories: Vec::new() }).await;
    })
    .await;
    for path in [&[][..], &["..", "x"], &["a", "..", "x"], &["/etc"], &["a/b"], &[""], &["."], &["a"; 65]] {
        wrong("a path that leads elsewhere", async |raw| {
            raw.offer(vec![directory(1, 1)]).await;
            raw.file(header(0, path, Some(1)), b"1", hash(b"1")).await;
        })
        .await;
        wrong("a directory that leads elsewhere", async |raw| {
            raw.offer(vec![directory(1, 1)]).await;
            let path = path.iter().map(ToString::to_string).collect();
            let directories = vec![Directory { path, mode: None, mtime: None }];
            raw.say(&Message::Directories { offer: 0, item: 0, directories }).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_land_in_the_directory_or_nowhere() {
    let to = temporary();
    let inner = to.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let offered =
        ["../up", "/etc/root", "C:\\windows", "..", "", ".", "x.dilated-partial", &"x".repeat(256), "up"];
    let (outcome, _) = against(receiving(&inner), async |raw| {
        let answers = raw.offer(offered.iter().map(|name| file(name, 1)).collect()).await;
        let bad = Some(Reason::Name);
        let reasons: Vec<_> = answers.iter().map(|answer| answer.reason).collect();
        assert_eq!(reasons, [None, None, None, bad, bad, bad, bad, bad, Some(Reason::Exists)]);
        for (index, answer) in (0..).zip(&answers) {
            if answer.accept {
                let mut subchannel = raw.file(header(index, &[], None), b"1", hash(b"1")).await;
                while subchannel.read_chunk().await.unwrap().is_some() {}
            }
        }
        raw.say(&Message::End).await;
    })
    .await;
    outcome.unwrap();
    assert_eq!(names(to.path()), ["inner", "inner/root", "inner/up", "inner/windows"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_fit_is_refused() {
    let to = temporary();
    let (outcome, _) = against(receiving(to.path()), async |raw| {
        let answers = raw.offer(vec![file("x", u64::MAX), file("y", u64::MAX), directory(1, 1)]).await;
        assert!(answers.iter().all(|answer| answer.reason == Some(Reason::Space)), "{answers:?}");
        raw.say(&Message::End).await;
    })
    .await;
    assert_eq!(outcome.unwrap().received.refused, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_out_of_turn_end_the_session() {
    let text = || vec![Item { text: Some("x".to_owned()), ..Item::new(Kind::Text, "") }];
    let said: Vec<(&str, Vec<Message>)> = vec![
        ("no hello", vec![Message::End]),
        ("two", vec![Message::Hello { version: 1 }, Message::Hello { version: 1 }]),
        ("version 0", vec![Message::Hello { version: 0 }]),
        ("two ends", vec![Message::Hello { version: 1 }, Message::End, Message::End]),
        (
            "an offer after the end",
            vec![Message::Hello { version: 1 }, Message::End, Message::Offer { offer: 0, items: text() }],
        ),
        (
            "another first offer",
            vec![Message::Hello { version: 1 }, Message::Offer { offer: 1, items: text() }],
        ),
        (
            "an empty offer",
            vec![Message::Hello { version: 1 }, Message::Offer { offer: 0, items: Vec::new() }],
        ),
        (
            "a file without a size",
            vec![
                Message::Hello { version: 1 },
                Message::Offer { offer: 0, items: vec![Item::new(Kind::File, "x")] },
            ],
        ),
        (
            "a long text",
            vec![
                Message::Hello { version: 1 },
                Message::Offer {
                    offer: 0,
                    items: vec![Item { text: Some("x".repeat(300_000)), ..Item::new(Kind::Text, "") }],
                },
            ],
        ),
        ("an answer", vec![Message::Hello { version: 1 }, Message::Answer { offer: 0, items: Vec::new() }]),
        ("finished", vec![Message::Hello { version: 1 }, Message::Finished { offer: 0, item: 0 }]),
        ("finish", vec![Message::Hello { version: 1 }, Message::Finish { offer: 0, item: 0 }]),
    ];
    for (what, messages) in said {
        // With something to send, it does not end before it has heard all.
        let from = temporary();
        write(from.path(), "file", b"x");
        let work = Work { outgoing: take(from.path(), &["file"]), ..receiving(temporary().path()) };
        let (outcome, told) = against(work, async |raw| {
            for message in &messages {
                raw.say(message).await;
            }
        })
        .await;
        assert_eq!(outcome.expect_err(what).kind(), exit::Kind::PeerProgram, "{what}");
        assert_eq!(told, Some(Code::Protocol), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_the_session() {
    for garbage in [
        Bytes::from_static(b""),
        Bytes::from_static(b"\xff"),
        Bytes::from_static(b"{\"type\":\"hello\"}"),
        // No type, a type that is none, a text that is none.
        Bytes::from_static(b"\xa0"),
        Bytes::from_static(b"\xa1\x64type\x01"),
        Bytes::from_static(b"\xa1\x64type\x61\xff"),
        // Deep, long, and more than there is.
        Bytes::from(vec![0x81; 500_000]),
        Bytes::from([&b"\xa1\x61x"[..], &vec![0x81; 500_000]].concat()),
        Bytes::from(vec![0; 2 << 20]),
        Bytes::from_static(b"\xa1\x64type\x7b\xff\xff\xff\xff\xff\xff\xff\xff"),
        Bytes::from_static(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
        // A valid message and something behind it.
        Bytes::from_static(b"\xa1\x64type\x63end\x00"),
    ] {
        let (outcome, told) =
            against(receiving(temporary().path()), async |raw| raw.say_bytes(garbage).await).await;
        assert_eq!(outcome.unwrap_err().kind(), exit::Kind::PeerProgram);
        assert_eq!(told, Some(Code::Protocol));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn later_versions_are_understood_as_far_as_possible() {
    #[derive(Serialize)]
    struct Hello {
        r#type: &'static str,
        version: u64,
        mood: Vec<Option<f64>>,
    }
    #[derive(Serialize)]
    struct Offer {
        r#type: &'static str,
        offer: u64,
        items: Vec<Thing>,
    }
    #[derive(Serialize)]
    struct Thing {
        kind: &'static str,
        text: &'static str,
        colour: (u8, u8),
    }
    let to = temporary();
    let (outcome, _) = against(receiving(to.path()), async |raw| {
        raw.say(&Hello { r#type: "hello", version: 7, mood: vec![None, Some(0.5)] }).await;
        raw.say(&Hello { r#type: "dance", version: 7, mood: Vec::new() }).await;
        let items = ["text", "hologram"].map(|kind| Thing { kind, text: "hi", colour: (1, 2) });
        raw.say(&Offer { r#type: "offer", offer: 0, items: items.into() }).await;
        let Some(Message::Answer { items, .. }) = raw.hear().await else { panic!("an answer comes") };
        let answers: Vec<_> = items.iter().map(|item| (item.accept, item.reason)).collect();
        assert_eq!(answers, [(true, None), (false, Some(Reason::Unsupported))]);
        raw.say(&Message::End).await;
    })
    .await;
    let summary = outcome.unwrap();
    assert_eq!((summary.received.taken, summary.received.refused), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_lies_ends_the_session() {
    let from = temporary();
    write(from.path(), "file", &bytes(200_000, 1));
    let work = || sending(take(from.path(), &["file"]));
    let yes = |resume| Answer { accept: true, resume, reason: None };
    let answered = async |work: Work, items: Vec<Answer>| {
        against(work, async |raw| {
            raw.hello().await;
            raw.hear().await;
            raw.say(&Message::Answer { offer: 0, items }).await;
        })
        .await
        .0
    };
    for items in
        [vec![], vec![yes(false), yes(false)], vec![Answer { accept: false, resume: true, reason: None }]]
    {
        assert_eq!(answered(work(), items).await.unwrap_err().kind(), exit::Kind::PeerProgram);
    }
    let text = sending(vec![Outgoing::Text("x".to_owned())]);
    assert_eq!(answered(text, vec![yes(true)]).await.unwrap_err().kind(), exit::Kind::PeerProgram);
    let have = |have, chunk, hashes| {
        (yes(true), message::encode(&Have { have, chunk, hashes: vec![hash(b"x"); hashes] }))
    };
    // Of the subchannel: more is there than can be; chunks that are none, too short, or cannot be; hashes that are too many or
    // missing; something else is stored.
    let lies = [
        have(200_001, 1 << 20, 1),
        have(200_000, 0, 1),
        have(200_000, 0, 0),
        have(200_000, 1 << 16, 4),
        have(200_000, (1 << 20) + 1, 1),
        have(200_000, 1 << 20, 0),
        have(200_000, 1 << 20, 2),
        have(200_000, 1 << 20, 4097),
        have(0, 1 << 20, 1),
        (yes(false), message::encode(&Whole { hash: hash(b"something else") })),
        (yes(false), Bytes::from_static(b"nonsense")),
    ];
    for (answer, lie) in lies {
        let (outcome, told) = against(work(), async |raw| {
            raw.hello().await;
            raw.hear().await;
            raw.say(&Message::Answer { offer: 0, items: vec![answer] }).await;
            let mut subchannel = raw.server.accept().await.unwrap();
            let mut lying = frame::prefix(lie.len()).to_vec();
            lying.extend_from_slice(&lie);
            subchannel.write_all(&lying).await.unwrap();
            subchannel.shutdown().await.unwrap();
            while let Ok(Some(_)) = subchannel.read_chunk().await {}
        })
        .await;
        assert_eq!(outcome.unwrap_err().kind(), exit::Kind::PeerProgram);
        assert_eq!(told, Some(Code::Protocol));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_side_says_is_shown_escaped() {
    let (outcome, _) = against(receiving(Path::new(".")), async |raw| {
        raw.say(&Message::Error { code: Code::Source, message: "\x1b[2J\u{202e}".to_owned() }).await;
    })
    .await;
    let failure = outcome.unwrap_err();
    assert_eq!(failure.kind(), exit::Kind::PeerLeft);
    assert_eq!(failure.to_string(), "the other side failed: \\u{1b}[2J\\u{202e}");
}
