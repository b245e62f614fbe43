//! What was received before the program or the machine died is not sent again.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use tokio::io::AsyncWriteExt;

use super::{
    super::{
        Event, Host, Kind, Proposal, Summary, Work,
        frame::{self, END_OF_DATA, MAX_DATA},
        message::{Code, Have, Item, Message, Start, Whole},
    },
    hostile::{against, hash, header},
    world::{LIMIT, Pair, Person, bytes, listing, names, receiving, sending, side, take, temporary, write},
};
use crate::{
    exit::{self, Failure},
    files::{Existing, Landing},
};

/// How long the large files here are: a whole number of chunks, and some.
const LENGTH: usize = (24 << 20) + 77;

/// Runs a session, and drops both sides as soon as the receiver has `enough` bytes.
async fn break_off(outgoing: Work, incoming: Work, enough: u64) {
    let Pair { mut one, mut other } = Pair::new().await;
    let enough = Enough { enough, reached: tokio::sync::Notify::new() };
    let person = Person::default();
    let both = async {
        tokio::select! {
            outcome = async { tokio::join!(side(&mut one.1, outgoing, &person), super::super::run(&mut other.1, incoming, &enough)) } =>
                panic!("it is over already: {outcome:?}"),
            () = enough.reached.notified() => {}
        }
    };
    tokio::time::timeout(LIMIT, both).await.expect("bytes come");
}

struct Enough {
    enough: u64,
    reached: tokio::sync::Notify,
}

impl Host for Enough {
    async fn accept(&self, _: &[Proposal]) -> Result<bool, Failure> {
        Ok(true)
    }

    fn tell(&self, event: Event<'_>) {
        if let Event::Received { bytes } = event
            && bytes >= self.enough
        {
            self.reached.notify_one();
        }
    }
}

/// Waits until the thread that stores has noticed that nothing more comes.
async fn settle(directory: &Path, name: &str) {
    let free = async {
        while !File::open(directory.join(name)).is_ok_and(|file| file.try_lock().is_ok()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(LIMIT, free).await.is_err() {
        panic!("{name} is not left alone: {:?}", names(directory));
    }
}

/// Runs a whole session. Gives what it says, and where both sides say that the file goes on.
async fn again(outgoing: Work, incoming: Work) -> (Summary, u64, bool) {
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let (sent, received) = pair.run((outgoing, &sender), (incoming, &receiver)).await;
    let (sent, received) = (sent.unwrap(), received.unwrap());
    pair.close().await;
    assert_eq!(sent.sent, received.received);
    let first = receiver.resumed.borrow().first().copied().unwrap_or(0);
    assert_eq!(sender.resumed.borrow().first().copied().unwrap_or(0), first);
    assert!(first == 0 || receiver.received.borrow()[0] == first, "progress begins with what is there");
    let resume = receiver.asked.borrow()[0][0].resume;
    (received, first, resume)
}

async fn interrupted(from: &Path, to: &Path) {
    write(from, "film", &bytes(LENGTH, 1));
    break_off(sending(take(from, &["film"])), receiving(to), 9 << 20).await;
    settle(to, "film.dilated-partial").await;
    assert_eq!(names(to), ["film.dilated-partial", "film.dilated-resume"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_where_it_ended() {
    let (from, to) = (temporary(), temporary());
    interrupted(from.path(), to.path()).await;
    let (summary, first, resume) = again(sending(take(from.path(), &["film"])), receiving(to.path())).await;
    assert!(resume, "the person is told that there is something");
    assert!(first >= 6 << 20, "it went on at {first}");
    assert_eq!(summary.received.bytes, LENGTH as u64);
    assert_eq!(listing(from.path()), listing(to.path()));
}

/// Does something to what an interrupted session left. Gives where the next one goes on.
async fn changed(change: impl FnOnce(&File, u64)) -> u64 {
    let (from, to) = (temporary(), temporary());
    interrupted(from.path(), to.path()).await;
    let partial = File::options().write(true).open(to.path().join("film.dilated-partial")).unwrap();
    change(&partial, partial.metadata().unwrap().len());
    drop(partial);
    let (_, first, resume) = again(sending(take(from.path(), &["film"])), receiving(to.path())).await;
    assert!(resume);
    assert_eq!(listing(from.path()), listing(to.path()));
    first
}

fn overwrite(mut partial: &File, at: u64, data: &[u8]) {
    partial.seek(SeekFrom::Start(at)).unwrap();
    partial.write_all(data).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_at_the_first_chunk_that_is_damaged() {
    for chunk in [1, 2, 5] {
        let first = changed(|partial, _| overwrite(partial, (chunk << 20) + 5, &[0; 10])).await;
        assert_eq!(first, chunk << 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_at_the_end_cost_the_last_chunk_alone() {
    let mut length = 0;
    let first = changed(|partial, long| {
        overwrite(partial, long - 4, &[0; 4]);
        length = long;
    })
    .await;
    assert_eq!(first, (length - 1) >> 20 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_end_is_all_that_is_missing() {
    for length in [(1 << 20) + 17, 3 << 20, 17] {
        let first = changed(|partial, _| partial.set_len(length).unwrap()).await;
        assert_eq!(first, length);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_than_the_file_is_cut() {
    let first = changed(|partial, _| overwrite(partial, LENGTH as u64, &[1; 5000])).await;
    assert!(first >= 6 << 20 && first < LENGTH as u64, "it went on at {first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_on_only_where_it_was_asked_to() {
    let content = bytes((2 << 20) + 10, 1);
    for (offset, allowed) in
        [(0, true), (1 << 20, true), (2 << 20, true), (1, false), ((2 << 20) + 1, false), (u64::MAX, false)]
    {
        let to = temporary();
        let landing = Landing::new(Some(to.path()), Existing::Keep).unwrap();
        let path = landing.name("film").unwrap();
        let mut partial =
            landing.target().create_resumable(&path, content.len() as u64, &hash(b"id").0).unwrap();
        partial.write_at(0, &content[..(2 << 20) + 5]).unwrap();
        partial.keep().unwrap();
        let (outcome, told) = against(receiving(to.path()), async |raw| {
            let item = Item {
                size: Some(content.len() as u64),
                id: Some(hash(b"id")),
                ..Item::new(Kind::File, "film")
            };
            assert!(raw.offer(vec![item]).await[0].resume);
            let mut stream = Vec::new();
            frame::push(&mut stream, &header(0, &[], None));
            let mut subchannel = raw.client.connect().await.unwrap();
            subchannel.write_all(&stream).await.unwrap();
            stream.clear();
            frame::push(&mut stream, &Start { offset });
            let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..));
            for piece in rest.unwrap_or_default().chunks(MAX_DATA) {
                stream.extend_from_slice(&frame::prefix(piece.len()));
                stream.extend_from_slice(piece);
            }
            stream.extend_from_slice(&END_OF_DATA);
            frame::push(&mut stream, &Whole { hash: hash(&content) });
            let _ = subchannel.write_all(&stream).await;
            let _ = subchannel.shutdown().await;
            // All that it says: what it has, and that it is stored.
            let mut said = Vec::new();
            while let Ok(Some(chunk)) = subchannel.read_chunk().await {
                said.extend_from_slice(&chunk);
            }
            let beginnings = [1 << 20, 2 << 20, (2 << 20) + 5];
            let hashes = beginnings.map(|end| hash(&content[..end])).to_vec();
            let mut expected = Vec::new();
            frame::push(&mut expected, &Have { have: (2 << 20) + 5, chunk: 1 << 20, hashes });
            if allowed {
                frame::push(&mut expected, &Whole { hash: hash(&content) });
                raw.say(&Message::End).await;
            }
            assert_eq!(said, expected, "{offset}");
        })
        .await;
        if allowed {
            outcome.unwrap();
            assert_eq!(fs::read(to.path().join("film")).unwrap(), content);
        } else {
            assert_eq!(outcome.unwrap_err().kind(), exit::Kind::PeerProgram, "{offset}");
            assert_eq!(told, Some(Code::Protocol), "{offset}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_under_the_same_name_and_time_begins_anew() {
    let (from, to) = (temporary(), temporary());
    interrupted(from.path(), to.path()).await;
    // The same size and time, so it looks the same until the hashes are compared.
    write(from.path(), "film", &bytes(LENGTH, 2));
    let (_, first, resume) = again(sending(take(from.path(), &["film"])), receiving(to.path())).await;
    assert!(resume);
    assert_eq!(first, 0, "nothing is in common");
    assert_eq!(listing(from.path()), listing(to.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_changed_since_is_another() {
    let (from, to) = (temporary(), temporary());
    interrupted(from.path(), to.path()).await;
    write(from.path(), "film", &bytes(LENGTH - 1, 2));
    let (_, _, resume) = again(sending(take(from.path(), &["film"])), receiving(to.path())).await;
    assert!(!resume);
    assert_eq!(fs::read(to.path().join("film")).unwrap(), bytes(LENGTH - 1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_goes_on_where_it_ended() {
    let (from, to) = (temporary(), temporary());
    for number in 0..40 {
        write(from.path(), &format!("tree/a/{number}"), &bytes(50_000, number));
    }
    write(from.path(), "tree/b", &bytes(LENGTH, 100));
    write(from.path(), "tree/c", &bytes(LENGTH, 101));
    fs::create_dir(from.path().join("tree/none")).unwrap();
    let work = || sending(take(from.path(), &["tree"]));
    let enough = 2_000_000 + (LENGTH as u64) + (9 << 20);
    break_off(work(), receiving(to.path()), enough).await;
    // The thread lets go of the directory behind the file.
    settle(to.path(), "tree.dilated-partial/c.dilated-partial").await;
    settle(to.path(), "tree.dilated-partial").await;
    assert!(!to.path().join("tree").exists(), "what is not complete does not look so");
    // A complete one that is not right any more, one of which most still is, and one that has the wrong size.
    let partial = to.path().join("tree.dilated-partial");
    overwrite(&File::options().write(true).open(partial.join("b")).unwrap(), 20 << 20, b"damaged");
    fs::write(partial.join("a/7"), bytes(50_000, 7_000)).unwrap();
    fs::write(partial.join("a/8"), b"short").unwrap();
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let (sent, received) = pair.run((work(), &sender), (receiving(to.path()), &receiver)).await;
    assert_eq!(sent.unwrap().sent, received.unwrap().received);
    assert_eq!(listing(from.path()), listing(to.path()));
    assert!(receiver.asked.borrow()[0][0].resume);
    // What was there counts in large steps, what comes in small ones.
    let progress = receiver.received.borrow();
    let steps = progress.windows(2).map(|two| two[1] - two[0]);
    assert!(steps.clone().any(|step| step == 20 << 20), "what is right of a complete file is there at once");
    assert!(steps.clone().any(|step| (6 << 20..20 << 20).contains(&step)), "a part is there at once");
    assert_eq!(progress.last(), Some(&(2_000_000 + 2 * LENGTH as u64)));
}
