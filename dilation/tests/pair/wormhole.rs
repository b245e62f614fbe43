//! Codes, keys, values, events, messages and closing, through the embedded mailbox server.

use crate::common::{Servers, reserve, soon};
use dilated::{ConnectionStatus, Dialect, DilateConfig, DilationError, Event, Wormhole, WormholeError};
use futures::StreamExt;
use serde_json::json;

#[tokio::test]
async fn two_sides_agree_on_everything() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let a = Wormhole::builder("dilated.test/values")
        .mailbox(&servers.mailbox)
        .app_versions(json!({"a": 1}))
        .build()
        .expect("valid");
    let b = Wormhole::builder("dilated.test/values")
        .mailbox(&servers.mailbox)
        .app_versions(json!({"b": 2}))
        .build()
        .expect("valid");
    assert!(matches!(a.derive_key("purpose", 16), Err(WormholeError::NoKey)));
    let code = soon("a code", a.allocate_code(3)).await.expect("allocated");
    assert_eq!(code.to_string().split('-').count(), 4);
    b.set_code(&code.to_string()).expect("good");
    let (va, vb) = soon("verifiers", async { tokio::join!(a.verifier(), b.verifier()) }).await;
    assert_eq!(va.expect("verified"), vb.expect("verified"));
    assert_eq!(soon("versions", a.versions()).await.expect("versions"), json!({"b": 2}));
    assert_eq!(soon("versions", b.versions()).await.expect("versions"), json!({"a": 1}));
    assert_eq!(a.derive_key("purpose", 16).expect("key"), b.derive_key("purpose", 16).expect("key"));
    assert_ne!(a.derive_key("purpose", 16).expect("key"), a.derive_key("another", 16).expect("key"));
    soon("welcome", a.welcome()).await.expect("welcomed");
    let (ca, cb) = soon("closing", async { tokio::join!(a.close(), b.close()) }).await;
    assert_eq!((ca, cb), (Ok(()), Ok(())));
}

#[tokio::test]
async fn messages_arrive_in_order_once_even_those_sent_early() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let (a, b) = (servers.wormhole(), servers.wormhole());
    for n in 0..50_u32 {
        a.send_message(n.to_string()).expect("queued before there is a code");
    }
    let code = soon("a code", a.allocate_code(2)).await.expect("allocated");
    b.set_code(&code.to_string()).expect("good");
    for n in 0..50_u32 {
        assert_eq!(soon("a message", b.next_message()).await.expect("message"), n.to_string().into_bytes());
    }
    b.send_message("and back").expect("open");
    assert_eq!(soon("a message", a.next_message()).await.expect("message"), b"and back");
    // A message sent right before the close still arrives.
    a.send_message("last").expect("open");
    soon("close", a.close()).await.expect("happy");
    assert_eq!(soon("a message", b.next_message()).await.expect("message"), b"last");
    soon("close", b.close()).await.expect("happy");
    assert_eq!(soon("the end", b.next_message()).await, Err(WormholeError::Closed));
}

#[tokio::test]
async fn the_event_stream_tells_all_of_it_to_late_listeners_too() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let (a, b) = servers.pair().await;
    b.send_message("hello").expect("open");
    soon("verifier", a.verifier()).await.expect("verified");
    let mut events = a.events();
    let mut seen = Vec::new();
    while seen.last() != Some(&"message") {
        let name = match soon("an event", events.next()).await.expect("not closed yet") {
            Event::Welcome(_) => "welcome",
            Event::Code(_) => "code",
            Event::UnverifiedKey => "key",
            Event::Verifier(_) => "verifier",
            Event::Versions(_) => "versions",
            Event::Message(text) => {
                assert_eq!(text, b"hello");
                "message"
            }
            Event::Status(_) => continue,
            event => panic!("unexpected {event:?}"),
        };
        seen.push(name);
    }
    seen.sort_unstable();
    assert_eq!(seen, ["code", "key", "message", "verifier", "versions", "welcome"]);
    soon("close", a.close()).await.expect("happy");
    let mut last = None;
    while let Some(event) = soon("the end", events.next()).await {
        last = Some(event);
    }
    assert!(matches!(last, Some(Event::Closed(Ok(())))), "{last:?}");
}

#[tokio::test]
async fn typed_outcomes() {
    let servers = Servers::start(Dialect::Dilated1).await;

    let lonely = servers.wormhole();
    soon("a code", lonely.allocate_code(2)).await.expect("allocated");
    assert_eq!(soon("close", lonely.close()).await, Err(WormholeError::Lonely));
    assert_eq!(soon("the code", lonely.verifier()).await, Err(WormholeError::Lonely));
    assert_eq!(soon("close again", lonely.close()).await, Err(WormholeError::Lonely));

    let (a, b) = (servers.wormhole(), servers.wormhole());
    let code = soon("a code", a.allocate_code(2)).await.expect("allocated").to_string();
    b.set_code(&format!("{code}-wrong")).expect("well formed");
    for side in [&a, &b] {
        assert_eq!(soon("a verdict", side.verifier()).await, Err(WormholeError::WrongPassword));
        assert_eq!(soon("close", side.close()).await, Err(WormholeError::WrongPassword));
    }

    // Two people who have typed the nameplate and not the words yet hold it; a third one is too many.
    let (a, b, c) = (servers.wormhole(), servers.wormhole(), servers.wormhole());
    let inputs = [&a, &b].map(|wormhole| wormhole.input_code().expect("no code yet"));
    for input in &inputs {
        input.choose_nameplate("4711").expect("numeric");
        soon("the claim", input.wait_for_wordlist()).await.expect("claimed");
    }
    c.set_code("4711-purple-sausages").expect("good");
    assert_eq!(soon("a verdict", c.verifier()).await, Err(WormholeError::Crowded));
    assert_eq!(soon("close", c.close()).await, Err(WormholeError::Crowded));
    // The two are not disturbed.
    for input in &inputs {
        input.choose_words("purple-sausages").expect("once");
    }
    let (va, vb) = soon("verifiers", async { tokio::join!(a.verifier(), b.verifier()) }).await;
    assert_eq!(va.expect("verified"), vb.expect("verified"));
}

#[tokio::test]
async fn a_bad_code_is_refused_here_and_may_be_tried_again() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let a = servers.wormhole();
    for bad in ["", "four-purple-sausages", "4 purple sausages", "-purple"] {
        assert!(matches!(a.set_code(bad), Err(WormholeError::KeyFormat(_))), "{bad:?}");
    }
    a.set_code("4-purple-sausages").expect("good");
    assert!(matches!(a.set_code("4-purple-sausages"), Err(WormholeError::OnlyOneCode)));
    assert!(matches!(a.input_code().map(drop), Err(WormholeError::OnlyOneCode)));
    assert_eq!(soon("close", a.close()).await, Err(WormholeError::Lonely));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_every_value() {
    let (_nobody, address) = reserve();
    let port = address.port();
    let wormhole = Wormhole::builder("dilated.test/none")
        .mailbox(format!("ws://127.0.0.1:{port}/v1"))
        .build()
        .expect("valid");
    let error = soon("the failure", wormhole.allocate_code(2)).await.expect_err("nobody is there");
    assert!(matches!(error, WormholeError::Connection { .. }), "{error:?}");
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    assert_eq!(soon("close", wormhole.close()).await, Err(error.clone()));
    // And to every verb.
    assert_eq!(wormhole.set_code("4-purple-sausages"), Err(error.clone()));
    assert_eq!(wormhole.send_message("hello"), Err(error));
}

#[tokio::test]
async fn dilate_says_what_it_cannot_do() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let off = Wormhole::builder("dilated.test/off")
        .dilation(false)
        .mailbox(&servers.mailbox)
        .build()
        .expect("valid");
    assert!(matches!(off.dilate(DilateConfig::direct_only()), Err(DilationError::Disabled)));

    let on = Wormhole::builder("dilated.test/off").mailbox(&servers.mailbox).build().expect("valid");
    let mut config = DilateConfig::direct_only();
    config.stream_name = config.control_name.clone();
    assert!(matches!(on.dilate(config), Err(DilationError::Config(_))));
    let dilated = on.dilate(DilateConfig::direct_only()).expect("first");
    assert!(matches!(on.dilate(DilateConfig::direct_only()), Err(DilationError::AlreadyDilated)));

    let code = soon("a code", on.allocate_code(2)).await.expect("allocated").to_string();
    off.set_code(&code).expect("good");
    let error = soon("the verdict", dilated.connected()).await.expect_err("the peer cannot");
    assert!(matches!(error, DilationError::PeerCannotDilate { .. }), "{error:?}");
    let connector = dilated.connector_for("anything").expect("a name");
    let refused = soon("a refusal", connector.connect()).await.expect_err("there is no link");
    assert!(refused.to_string().contains("cannot dilate"), "{refused}");
    // The wormhole itself goes on.
    off.send_message("still here").expect("open");
    assert_eq!(soon("a message", on.next_message()).await.expect("message"), b"still here");
    let (x, y) = soon("close", async { tokio::join!(on.close(), off.close()) }).await;
    assert_eq!((x, y), (Ok(()), Ok(())));
}

#[tokio::test]
async fn input_code_completes_nameplates_and_words() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let (a, b) = (servers.wormhole(), servers.wormhole());
    let code = soon("a code", a.allocate_code(2)).await.expect("allocated").to_string();
    let (nameplate, words) = code.split_once('-').expect("a nameplate");
    let input = b.input_code().expect("no code yet");
    input.choose_nameplate(nameplate).expect("numeric");
    soon("word list", input.wait_for_wordlist()).await.expect("claimed");
    let prefix = &words[..2];
    let completions = input.word_completions(prefix).expect("claimed");
    let first = words.split('-').next().expect("a word");
    assert!(completions.iter().any(|c| c.trim_end_matches('-') == first), "{completions:?}");
    input.choose_words(words).expect("once");
    soon("verified", b.verifier()).await.expect("the same code");
    let (x, y) = soon("close", async { tokio::join!(a.close(), b.close()) }).await;
    assert_eq!((x, y), (Ok(()), Ok(())));
}

#[tokio::test]
async fn dilating_a_wormhole_that_has_ended_is_an_error_at_once() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let wormhole = servers.wormhole();
    assert_eq!(soon("close", wormhole.close()).await, Err(WormholeError::Lonely));
    assert_eq!(
        wormhole.dilate(DilateConfig::direct_only()).expect_err("it has ended"),
        DilationError::Wormhole(WormholeError::Lonely)
    );
}

#[tokio::test]
async fn a_program_that_does_not_read_its_messages_is_told_and_not_filled() {
    let servers = Servers::start(Dialect::Dilated1).await;
    let (a, b) = servers.pair().await;
    soon("verified", a.verifier()).await.expect("verified");
    for n in 0..5000_u32 {
        b.send_message(n.to_be_bytes()).expect("within the sender's limits");
    }
    let ended = async {
        while a.status().connection != ConnectionStatus::Closed {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    soon("the end", ended).await;
    let error = soon("close", a.close()).await.expect_err("too much was left unread");
    assert!(matches!(error, WormholeError::Limit { .. }), "{error}");
    assert!(error.to_string().contains("next_message()"), "{error}");
}
