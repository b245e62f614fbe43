//! The nameplate: claimed once, re-claimed only while unconfirmed, released when the peer is in the mailbox.

use super::event::CodeStatus;
use super::wire::Wire;
use crate::Nameplate;
use crate::message::ClientMessage;

#[derive(Debug)]
enum State {
    /// No nameplate yet.
    Empty,
    /// Known; the server has never been told.
    Named(Nameplate),
    /// A claim was sent; whether it arrived is unknown.
    Claiming(Nameplate),
    /// The claim was confirmed. The server remembers it across connections.
    Claimed(Nameplate),
    /// To be released; whether the server did is unknown.
    Releasing(Nameplate),
    /// Released, or never used.
    Done {
        /// Whether there ever was one.
        used: bool,
    },
}

#[derive(Debug)]
pub(super) struct NameplateMachine(State);

impl NameplateMachine {
    pub(super) fn new() -> Self {
        Self(State::Empty)
    }

    pub(super) fn connected(&mut self, wire: &mut Wire) {
        match &self.0 {
            State::Named(nameplate) | State::Claiming(nameplate) => {
                let nameplate = nameplate.clone();
                self.claim(nameplate, wire);
            }
            State::Releasing(nameplate) => send_release(nameplate, wire),
            State::Empty | State::Claimed(_) | State::Done { .. } => {}
        }
    }

    pub(super) fn set(&mut self, nameplate: Nameplate, wire: &mut Wire) {
        if !matches!(self.0, State::Empty) {
            return;
        }
        if wire.is_up() {
            self.claim(nameplate, wire);
        } else {
            self.0 = State::Named(nameplate);
        }
    }

    fn claim(&mut self, nameplate: Nameplate, wire: &mut Wire) {
        wire.send(ClientMessage::Claim { nameplate: nameplate.to_string() });
        self.0 = State::Claiming(nameplate);
    }

    /// The server confirmed the claim. True if this is news.
    pub(super) fn claimed(&mut self) -> bool {
        let State::Claiming(nameplate) = &self.0 else { return false };
        self.0 = State::Claimed(nameplate.clone());
        true
    }

    /// The peer has arrived in the mailbox: nobody needs the nameplate any more.
    pub(super) fn release(&mut self, wire: &mut Wire) {
        if let State::Claimed(nameplate) = &self.0 {
            send_release(nameplate, wire);
            self.0 = State::Releasing(nameplate.clone());
        }
    }

    pub(super) fn close(&mut self, wire: &mut Wire) {
        match &self.0 {
            State::Empty => self.0 = State::Done { used: false },
            State::Named(_) => self.0 = State::Done { used: true },
            State::Claiming(nameplate) | State::Claimed(nameplate) => {
                send_release(nameplate, wire);
                self.0 = State::Releasing(nameplate.clone());
            }
            State::Releasing(_) | State::Done { .. } => {}
        }
    }

    pub(super) fn released(&mut self) {
        if matches!(self.0, State::Releasing(_)) {
            self.0 = State::Done { used: true };
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.0, State::Done { .. })
    }

    pub(super) fn status(&self) -> CodeStatus {
        match self.0 {
            State::Empty | State::Done { used: false } => CodeStatus::NoCode,
            State::Done { used: true } => CodeStatus::ConsumedCode,
            _ => CodeStatus::AllocatedCode,
        }
    }
}

fn send_release(nameplate: &Nameplate, wire: &mut Wire) {
    wire.send(ClientMessage::Release { nameplate: nameplate.to_string() });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(wire: &mut Wire) -> Vec<String> {
        std::iter::from_fn(|| wire.pop()).map(|message| message.to_json()).collect()
    }

    const CLAIM: &str = r#"{"type":"claim","nameplate":"4"}"#;
    const RELEASE: &str = r#"{"type":"release","nameplate":"4"}"#;

    /// A machine in each state, connected or not, with what closing sends, what a later connection sends,
    /// and whether it is done at once: the ten states of Python's machine.
    #[test]
    fn close_in_every_state() {
        type Prepare = fn(&mut NameplateMachine, &mut Wire);
        let set: Prepare = |n, w| n.set("4".parse().unwrap(), w);
        let claimed: Prepare = |n, w| {
            n.set("4".parse().unwrap(), w);
            n.claimed();
        };
        let releasing: Prepare = |n, w| {
            n.set("4".parse().unwrap(), w);
            n.claimed();
            n.release(w);
        };
        let released: Prepare = |n, w| {
            n.set("4".parse().unwrap(), w);
            n.claimed();
            n.release(w);
            n.released();
        };
        let nothing: &[&str] = &[];
        // (preparation while connected, lost before the close, sent by the close, sent by the next connection)
        let cases: &[(Prepare, bool, &[&str], &[&str])] = &[
            (|_, _| {}, false, nothing, nothing),
            (|_, _| {}, true, nothing, nothing),
            (set, false, &[RELEASE], &[RELEASE]),
            (set, true, nothing, &[RELEASE]),
            (claimed, false, &[RELEASE], &[RELEASE]),
            (claimed, true, nothing, &[RELEASE]),
            (releasing, false, nothing, &[RELEASE]),
            (releasing, true, nothing, &[RELEASE]),
            (released, false, nothing, nothing),
            (released, true, nothing, nothing),
        ];
        for (n, (prepare, lost, on_close, on_connect)) in cases.iter().enumerate() {
            let (mut wire, mut machine) = (Wire::default(), NameplateMachine::new());
            wire.open();
            prepare(&mut machine, &mut wire);
            sent(&mut wire);
            if *lost {
                wire.lose();
            }
            machine.close(&mut wire);
            assert_eq!(sent(&mut wire), *on_close, "case {n}");
            assert_eq!(machine.is_done(), on_connect.is_empty(), "case {n}");
            machine.close(&mut wire);
            wire.open();
            machine.connected(&mut wire);
            assert_eq!(sent(&mut wire), *on_connect, "case {n}");
            machine.released();
            assert!(machine.is_done());
        }
    }

    #[test]
    fn never_claimed_is_done_at_once() {
        let (mut wire, mut machine) = (Wire::default(), NameplateMachine::new());
        machine.set("4".parse().unwrap(), &mut wire);
        machine.close(&mut wire);
        assert!(machine.is_done());
        assert_eq!(machine.status(), CodeStatus::ConsumedCode);
    }

    #[test]
    fn reclaims_only_while_unconfirmed() {
        let (mut wire, mut machine) = (Wire::default(), NameplateMachine::new());
        machine.set("4".parse().unwrap(), &mut wire);
        assert!(sent(&mut wire).is_empty());
        for _ in 0..2 {
            wire.open();
            machine.connected(&mut wire);
            assert_eq!(sent(&mut wire), [CLAIM]);
            wire.lose();
        }
        wire.open();
        machine.connected(&mut wire);
        sent(&mut wire);
        assert!(machine.claimed());
        assert!(!machine.claimed(), "a second confirmation is no news");
        wire.lose();
        wire.open();
        machine.connected(&mut wire);
        assert!(sent(&mut wire).is_empty());
        machine.release(&mut wire);
        machine.release(&mut wire);
        assert_eq!(sent(&mut wire), [RELEASE]);
        assert!(!machine.claimed(), "late confirmations are ignored");
        wire.lose();
        wire.open();
        machine.connected(&mut wire);
        assert_eq!(sent(&mut wire), [RELEASE]);
        machine.released();
        assert_eq!(machine.status(), CodeStatus::ConsumedCode);
    }
}
