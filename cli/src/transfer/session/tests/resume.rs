//! What was received before the program or the machine died is not sent again.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::{
    super::{Event, Host, Proposal, Summary, Work},
    world::{LIMIT, Pair, Person, bytes, listing, names, receiving, sending, side, take, temporary, write},
};
use crate::exit::Failure;

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
    for _ in 0..1000 {
        let free = File::open(directory.join(name)).is_ok_and(|file| file.try_lock().is_ok());
        if free {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{name} is not left alone: {:?}", names(directory));
}

/// Runs a whole session. Gives what it says, and with how many bytes the receiver's progress began.
async fn again(outgoing: Work, incoming: Work) -> (Summary, u64, bool) {
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let (sent, received) = pair.run((outgoing, &sender), (incoming, &receiver)).await;
    let (sent, received) = (sent.unwrap(), received.unwrap());
    pair.close().await;
    assert_eq!(sent.sent, received.received);
    let first = receiver.received.borrow().first().copied().unwrap_or(0);
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

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_still_right_counts() {
    let (from, to) = (temporary(), temporary());
    interrupted(from.path(), to.path()).await;
    let mut partial =
        File::options().read(true).write(true).open(to.path().join("film.dilated-partial")).unwrap();
    // One byte of the third chunk.
    partial.seek(SeekFrom::Start((2 << 20) + 5)).unwrap();
    let mut byte = [0];
    partial.read_exact(&mut byte).unwrap();
    partial.seek(SeekFrom::Start((2 << 20) + 5)).unwrap();
    partial.write_all(&[!byte[0]]).unwrap();
    drop(partial);
    let (_, first, _) = again(sending(take(from.path(), &["film"])), receiving(to.path())).await;
    assert_eq!(first, 2 << 20);
    assert_eq!(listing(from.path()), listing(to.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_good_chunk_is_enough() {
    let (from, to) = (temporary(), temporary());
    interrupted(from.path(), to.path()).await;
    let partial = File::options().write(true).open(to.path().join("film.dilated-partial")).unwrap();
    partial.set_len((1 << 20) + 17).unwrap();
    drop(partial);
    let (_, first, _) = again(sending(take(from.path(), &["film"])), receiving(to.path())).await;
    assert_eq!(first, 1 << 20);
    assert_eq!(listing(from.path()), listing(to.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_under_the_same_name_and_time_begins_anew() {
    let (from, to) = (temporary(), temporary());
    interrupted(from.path(), to.path()).await;
    // The same size and time, so it looks the same until the hashes are compared.
    write(from.path(), "film", &bytes(LENGTH, 2));
    let (_, first, resume) = again(sending(take(from.path(), &["film"])), receiving(to.path())).await;
    assert!(resume && first <= 1 << 20, "it went on at {first}");
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
    settle(to.path(), "tree.dilated-partial/c.dilated-partial").await;
    assert!(!to.path().join("tree").exists(), "what is not complete does not look so");
    // A complete one that is not right any more, and one that has the wrong size.
    let partial = to.path().join("tree.dilated-partial");
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
    assert!(steps.clone().any(|step| step == LENGTH as u64), "a complete file is there at once");
    assert!(steps.clone().any(|step| step >= 6 << 20 && step < LENGTH as u64), "a part is there at once");
    assert_eq!(progress.last(), Some(&(2_000_000 + 2 * LENGTH as u64)));
}
