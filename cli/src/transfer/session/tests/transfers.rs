//! What is sent arrives.

use std::fs;

use bytes::Bytes;
use dilated::Dialect;
use tokio::sync::mpsc;

use super::{
    super::{Kind, Outgoing, Reason, Work},
    world::{Pair, Person, age, bytes, listing, names, receiving, sending, take, temporary, write},
};

#[tokio::test(flavor = "multi_thread")]
async fn files_trees_and_texts_arrive_as_they_are() {
    let (from, to) = (temporary(), temporary());
    let large = bytes(5_000_001, 1);
    write(from.path(), "large.bin", &large);
    write(from.path(), "empty", b"");
    write(from.path(), "tree/a file with spaces.txt", b"spaces");
    write(from.path(), "tree/-x/ü/deep", &bytes(1 << 20, 2));
    write(from.path(), "tree/-x/none", b"");
    fs::create_dir_all(from.path().join("tree/hollow/inner")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(from.path().join("empty"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::set_permissions(from.path().join("tree/-x/none"), fs::Permissions::from_mode(0o700)).unwrap();
    }
    for (seconds, directory) in
        ["tree/hollow/inner", "tree/hollow", "tree/-x/ü", "tree/-x", "tree"].into_iter().enumerate()
    {
        age(&from.path().join(directory), 900_000_000 + seconds as u64);
    }
    let mut outgoing = take(from.path(), &["large.bin", "tree", "empty"]);
    let text = "a text\nof two lines";
    outgoing.insert(1, Outgoing::Text(text.to_owned()));
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let (sent, received) = pair.run((sending(outgoing), &sender), (receiving(to.path()), &receiver)).await;
    let (sent, received) = (sent.unwrap(), received.unwrap());
    pair.close().await;

    assert_eq!(listing(from.path()), listing(to.path()));
    assert_eq!(sent.sent, received.received);
    let total = 5_000_001 + 6 + (1 << 20);
    let with_text = total + text.len() as u64;
    assert_eq!((sent.sent.taken, sent.sent.refused, sent.sent.files, sent.sent.bytes), (4, 0, 5, with_text));
    assert_eq!(*receiver.texts.borrow(), [text]);
    let asked = receiver.asked.borrow();
    assert_eq!(asked.len(), 1, "one question for all");
    assert_eq!(
        asked[0].iter().map(|p| (p.kind, p.size, p.count, p.resume)).collect::<Vec<_>>(),
        [
            (Kind::File, Some(5_000_001), None, false),
            (Kind::Directory, Some(6 + (1 << 20)), Some(7), false),
            (Kind::File, Some(0), None, false),
        ]
    );
    assert_eq!(*sender.sent.borrow(), *receiver.stored.borrow());
    assert_eq!(sender.sent.borrow()["large.bin"], blake3::hash(&large).to_string());
    for progress in [sender.acknowledged, receiver.received] {
        let progress = progress.into_inner();
        assert!(progress.is_sorted(), "progress goes forward");
        assert_eq!(progress.last(), Some(&total));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_unknown_length_arrives() {
    let to = temporary();
    let (input, stream) = mpsc::channel(1);
    let content = bytes(3_000_000, 3);
    let pieces: Vec<Bytes> = content.chunks(1_100_000).map(Bytes::copy_from_slice).collect();
    tokio::spawn(async move {
        for piece in pieces {
            input.send(Ok(piece)).await.unwrap();
        }
    });
    let (empty_input, empty) = mpsc::channel(1);
    drop(empty_input);
    let outgoing = vec![
        Outgoing::Stream { name: "input".to_owned(), input: stream },
        Outgoing::Stream { name: "nothing".to_owned(), input: empty },
    ];
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let (sent, received) = pair.run((sending(outgoing), &sender), (receiving(to.path()), &receiver)).await;
    assert_eq!(sent.unwrap().sent, received.unwrap().received);
    assert_eq!(fs::read(to.path().join("input")).unwrap(), content);
    assert_eq!(fs::read(to.path().join("nothing")).unwrap(), b"");
    assert_eq!(names(to.path()), ["input", "nothing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_send_at_once() {
    both_sides_send(&[Dialect::Dilated1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_in_the_dialect_of_the_original_too() {
    both_sides_send(&[Dialect::Ged]).await;
}

async fn both_sides_send(dialects: &[Dialect]) {
    let (here, there) = (temporary(), temporary());
    for (directory, own) in [(&here, "ours"), (&there, "theirs")] {
        write(directory.path(), own, &bytes(9_000_000, 4));
        write(directory.path(), &format!("tree of {own}/file"), b"x");
    }
    let work = |directory: &std::path::Path, own: &str| Work {
        outgoing: take(directory, &[own, &format!("tree of {own}")]),
        ..receiving(directory)
    };
    let (one, other) = (Person::default(), Person::default());
    let mut pair = Pair::speaking(dialects).await;
    let (a, b) = pair.run((work(here.path(), "ours"), &one), (work(there.path(), "theirs"), &other)).await;
    let (a, b) = (a.unwrap(), b.unwrap());
    pair.close().await;
    assert_eq!((&a.sent, &a.received), (&b.received, &b.sent));
    assert_eq!(a.sent.files, 2);
    assert_eq!(listing(here.path()), listing(there.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_decline_and_nothing_is_left() {
    let (from, to) = (temporary(), temporary());
    write(from.path(), "tree/file", b"x");
    write(from.path(), "file", b"x");
    let (sender, receiver) = (Person::default(), Person { declines: true, ..Person::default() });
    let mut pair = Pair::new().await;
    let outgoing = take(from.path(), &["tree", "file"]);
    let (sent, received) = pair.run((sending(outgoing), &sender), (receiving(to.path()), &receiver)).await;
    let (sent, received) = (sent.unwrap(), received.unwrap());
    assert_eq!(sent.sent, received.received);
    assert_eq!((sent.sent.taken, sent.sent.refused, sent.sent.reason), (0, 2, Some(Reason::Declined)));
    assert_eq!(sender.refused.borrow().len(), 2);
    assert!(names(to.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_stays_and_the_rest_comes() {
    let (from, to) = (temporary(), temporary());
    for name in ["one", "two"] {
        write(from.path(), name, b"new");
    }
    write(from.path(), "tree/file", b"new");
    write(to.path(), "one", b"old");
    write(to.path(), "tree/other", b"old");
    let mut outgoing = take(from.path(), &["one", "two", "tree"]);
    // Two of one name, which the command does not let happen.
    outgoing.extend(take(from.path(), &["two"]));
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let (sent, received) = pair.run((sending(outgoing), &sender), (receiving(to.path()), &receiver)).await;
    assert_eq!(sent.unwrap().sent, received.unwrap().received);
    let refused = |name: &str| (name.to_owned(), Reason::Exists);
    assert_eq!(*sender.refused.borrow(), [refused("one"), refused("tree"), refused("two")]);
    assert_eq!(*receiver.not_taken.borrow(), *sender.refused.borrow());
    assert_eq!(fs::read(to.path().join("one")).unwrap(), b"old");
    assert_eq!(fs::read(to.path().join("two")).unwrap(), b"new");
    assert_eq!(names(to.path()), ["one", "tree", "tree/other", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_only_sends_gets_anything() {
    let (from, other) = (temporary(), temporary());
    write(from.path(), "file", b"x");
    write(other.path(), "back", b"y");
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let outgoing = take(other.path(), &["back"]);
    let (one, two) =
        pair.run((sending(take(from.path(), &["file"])), &sender), (sending(outgoing), &receiver)).await;
    for summary in [one.unwrap(), two.unwrap()] {
        assert_eq!(summary.sent.reason, Some(Reason::Unsupported));
        assert_eq!(summary.received.reason, Some(Reason::Unsupported));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_go_without_waiting_for_each() {
    let (from, to) = (temporary(), temporary());
    for number in 0..2_000_u16 {
        let content = bytes(usize::from(number % 600), number.into());
        write(from.path(), &format!("tree/{}/{number}", number % 7), &content);
    }
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let outgoing = take(from.path(), &["tree"]);
    let (sent, received) = pair.run((sending(outgoing), &sender), (receiving(to.path()), &receiver)).await;
    assert_eq!(sent.unwrap().sent, received.unwrap().received);
    assert_eq!(listing(from.path()), listing(to.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_sent_is_an_error_on_both_sides() {
    let (from, to) = (temporary(), temporary());
    write(from.path(), "log", &bytes(100_000, 5));
    let outgoing = take(from.path(), &["log"]);
    // After it was looked at, before it is read.
    write(from.path(), "log", &bytes(100_001, 6));
    let (sender, receiver) = (Person::default(), Person::default());
    let mut pair = Pair::new().await;
    let (sent, received) = pair.run((sending(outgoing), &sender), (receiving(to.path()), &receiver)).await;
    assert!(sent.unwrap_err().to_string().contains("while it was sent"));
    let failure = received.unwrap_err();
    assert_eq!(failure.kind(), crate::exit::Kind::PeerLeft);
    assert!(failure.to_string().contains("while it was sent"), "{failure}");
    assert!(names(to.path()).is_empty());
}
