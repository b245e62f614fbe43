//! Two of our peers with a running transfer, to which something happens.

use std::io::Write as _;

use dilated_tests::{
    lab::{Host, Lab, LabPeer, PeerConfig},
    process::JsonProcess,
};

/// Bytes of the transfer, from A to B.
const LENGTH: u64 = 32 * 1024 * 1024;
/// The event happens when so many have arrived…
const EVENT_AT: u64 = 4 * 1024 * 1024;
/// …and before more than these were written.
const HOLD: u64 = 16 * 1024 * 1024;
const SEED: u64 = 5;

/// Who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leads {
    A,
    B,
}

/// How the peers meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    Direct,
    Relay,
}

/// A lab in which a transfer runs.
pub(crate) struct Scenario {
    pub(crate) lab: Lab,
    pub(crate) a: LabPeer,
    pub(crate) b: LabPeer,
    /// `None` while it is dead.
    pub(crate) mailbox: Option<JsonProcess>,
    /// `None` while it is dead.
    pub(crate) relay: Option<JsonProcess>,
    /// How A reached B.
    pub(crate) path: String,
    name: String,
}

impl Scenario {
    /// Builds everything and waits until the transfer runs. `None` where there can be no lab.
    pub(crate) async fn new(name: &str, leads: Leads, meeting: Meeting) -> Option<Scenario> {
        let lab = Lab::new(env!("CARGO_BIN_EXE_lab_peer"))?;
        let (mailbox, relay) = (lab.mailbox().await, lab.relay().await);
        let config = |leader| PeerConfig { direct: meeting == Meeting::Direct, ..PeerConfig::new(leader) };
        let mut a = lab.peer(Host::A, &config(leads == Leads::A)).await;
        let mut b = lab.peer(Host::B, &config(leads == Leads::B)).await;
        let code = a.allocate_code().await;
        b.set_code(&code).await;
        a.dilate().await;
        b.dilate_and_receive(SEED, EVENT_AT).await;
        let ((path, _), _) = (a.connected().await, b.connected().await);
        a.mailbox(true).await;
        b.mailbox(true).await;
        a.send_stream(SEED, LENGTH, HOLD).await;
        b.progress().await;
        let name = format!("{name}, {leads:?} leads");
        Some(Scenario { lab, a, b, mailbox: Some(mailbox), relay: Some(relay), path, name })
    }

    /// Resets the connection of the link, and no other.
    pub(crate) fn reset_link(&self) {
        let port = self.path.rsplit(':').next().and_then(|port| port.parse().ok());
        self.lab.reset(Host::A, port.unwrap_or_else(|| panic!("no port in {}", self.path)));
    }

    /// Waits until both sides have a new link.
    pub(crate) async fn relinked(&mut self) {
        let (a, b) = (self.a.connected().await, self.b.connected().await);
        assert!(a.1 > 0 && b.1 > 0, "a new generation: {a:?} {b:?}");
    }

    /// Lets the rest of the transfer go, sees it arrive to the last byte, and closes both sides.
    pub(crate) async fn finish(mut self) {
        self.a.release().await;
        self.a.sent().await;
        assert_eq!(self.b.received().await, LENGTH);
        self.report();
        self.a.close().await;
        self.b.close().await;
        assert_eq!(self.a.closed().await, "happy");
        assert_eq!(self.b.closed().await, "happy");
    }

    /// What was seen, for people who read the output of the test. `println!` would be captured.
    fn report(&mut self) {
        let mut text = format!("{}: met {}\n", self.name, self.path);
        for (host, story) in [("A", self.a.story()), ("B", self.b.story())] {
            for event in story.iter().filter(|event| event["state"] != "connecting") {
                let what = event["reason"].as_str().or(event["path"].as_str()).unwrap_or_default();
                let state = event["state"].as_str().unwrap_or_default();
                let (ms, generation) = (&event["ms"], &event["generation"]);
                text.push_str(&format!("    {host} {ms} ms: {state} (generation {generation}) {what}\n"));
            }
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// A test in both roles.
macro_rules! both_roles {
    ($($name:ident => $scenario:ident;)*) => {$(
        mod $name {
            use crate::scenario::Leads;

            #[tokio::test(flavor = "multi_thread")]
            async fn a_leads() {
                super::$scenario(Leads::A).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn b_leads() {
                super::$scenario(Leads::B).await;
            }
        }
    )*};
}
pub(crate) use both_roles;
