//! A mailbox client whose server sends anything: lines of the input are the server's messages, and lines that
//! begin with `!` are what else happens.

#![no_main]

use dilated_mailbox::client::{Client, ClientConfig, Event};
use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut client = Client::new(ClientConfig::new("fuzz.test/client"), StdRng::seed_from_u64(1));
    let mut lines = text.split('\n').peekable();
    match lines.peek() {
        Some(&"!allocate") => client.allocate_code(2).expect("the first code"),
        Some(&"!input") => client.input_code().expect("the first code"),
        _ => client.set_code("4-purple-sausages").expect("a good code"),
    }
    client.handle_open();
    let mut closed = false;
    for line in lines {
        match line {
            "!lost" => {
                client.handle_lost("cut");
                client.handle_open();
            }
            "!close" => client.close(),
            "!send" => drop(client.send_message(b"hello".to_vec())),
            "!refresh" => drop(client.input_refresh_nameplates()),
            "!choose" => drop(client.input_choose_nameplate("4")),
            "!words" => drop(client.input_choose_words("purple-sausages")),
            "!complete" => drop(client.input_word_completions("p")),
            text => client.handle_text(text),
        }
        while let Some(text) = client.poll_transmit() {
            assert!(text.starts_with(r#"{"type":""#), "{text}");
        }
        while let Some(event) = client.poll_event() {
            assert!(!closed, "{event:?} after the end");
            closed = matches!(event, Event::Closed(_));
        }
        assert_eq!(closed, client.is_closed());
    }
});
