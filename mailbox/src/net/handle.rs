//! The application's side: verbs that never wait.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::wish::Wish;
use super::{Shared, Wordlist};
use crate::Key;
use crate::client::{Client, MailboxStatus, PeerVersions};
use crate::error::{InputError, WormholeError};

/// A handle on a wormhole's mailbox. Clones share the wormhole; dropping them changes nothing.
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

impl Mailbox {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// See [`Client::allocate_code`](crate::client::Client::allocate_code).
    ///
    /// # Errors
    /// As there.
    pub fn allocate_code(&self, words: usize) -> Result<(), WormholeError> {
        self.shared.with(|client| client.allocate_code(words))
    }

    /// See [`Client::set_code`](crate::client::Client::set_code).
    ///
    /// # Errors
    /// As there.
    pub fn set_code(&self, code: &str) -> Result<(), WormholeError> {
        self.shared.with(|client| client.set_code(code))
    }

    /// Begins to type a code, with completions.
    ///
    /// # Errors
    /// See [`Client::input_code`](crate::client::Client::input_code).
    pub fn input_code(&self) -> Result<CodeInput, WormholeError> {
        self.shared.with(Client::input_code)?;
        Ok(CodeInput { shared: self.shared.clone() })
    }

    /// See [`Client::send_message`](crate::client::Client::send_message).
    ///
    /// # Errors
    /// As there.
    pub fn send_message(&self, plaintext: Vec<u8>) -> Result<(), WormholeError> {
        self.shared.with(|client| client.send_message(plaintext))
    }

    /// See [`Client::send_dilate`](crate::client::Client::send_dilate).
    ///
    /// # Errors
    /// As there.
    pub fn send_dilate(&self, plaintext: Vec<u8>) -> Result<(), WormholeError> {
        self.shared.with(|client| client.send_dilate(plaintext))
    }

    /// See [`Client::close`](crate::client::Client::close). The driver must still be polled until it has
    /// given [`Event::Closed`](crate::client::Event::Closed).
    pub fn close(&self) {
        self.shared.with(Client::close);
        self.shared.publish_wordlist();
    }

    /// See [`Client::fail`](crate::client::Client::fail).
    pub fn fail(&self, error: WormholeError) {
        self.shared.with(|client| client.fail(error));
        self.shared.publish_wordlist();
    }

    /// Something may be wrong with the connection. One that is up is asked whether it still answers, and replaced at
    /// once if it does not within [`NetConfig::probe_timeout`](super::NetConfig::probe_timeout); an attempt to connect
    /// is started over; a wait for the next attempt ends.
    ///
    /// May be called at any time and any number of times. Of calls in a row, the first is heeded at once, the last after
    /// at most 250 ms. Where attempts are started over again and again and none succeeds, that time doubles, up to 8 s.
    pub fn reconnect_now(&self) {
        self.shared.wish(Wish::Doubt);
    }

    /// The machine's addresses or routes changed, or it woke from sleep.
    ///
    /// A connection whose local address is not this machine's any more is dropped and replaced at once. Any other, and
    /// attempts and waits, are treated as in [`reconnect_now`](Self::reconnect_now), whose rule for many calls holds
    /// here, too. The pauses between attempts begin again with the shortest.
    pub fn network_changed(&self) {
        self.shared.wish(Wish::NetworkChanged);
    }

    /// The status, without secrets.
    #[must_use]
    pub fn status(&self) -> MailboxStatus {
        self.shared.lock().status()
    }

    /// Our name in the mailbox: 10 hexadecimal digits.
    #[must_use]
    pub fn side(&self) -> String {
        self.shared.lock().side().to_owned()
    }

    /// The agreed key, proved or not.
    ///
    /// # Errors
    /// [`WormholeError::NoKey`] if there is none yet.
    pub fn key(&self) -> Result<Key, WormholeError> {
        self.shared.lock().key().cloned()
    }

    /// What the peer said about itself, once it has.
    #[must_use]
    pub fn peer_versions(&self) -> Option<PeerVersions> {
        self.shared.lock().peer_versions().cloned()
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mailbox").field(&self.status()).finish()
    }
}

/// Types a code step by step. The steps and their errors are those of
/// [`Client`](crate::client::Client)'s `input_*` verbs.
pub struct CodeInput {
    shared: Arc<Shared>,
}

impl CodeInput {
    /// Asks for the list of nameplates again.
    ///
    /// # Errors
    /// If the nameplate is already chosen, or the wormhole is closed.
    pub fn refresh_nameplates(&self) -> Result<(), InputError> {
        self.shared.with(Client::input_refresh_nameplates)
    }

    /// The listed nameplates that begin with `prefix`, each with a hyphen behind it.
    ///
    /// # Errors
    /// If the nameplate is already chosen, or the wormhole is closed.
    pub fn nameplate_completions(&self, prefix: &str) -> Result<BTreeSet<String>, InputError> {
        self.shared.lock().input_nameplate_completions(prefix)
    }

    /// Commits to a nameplate and claims it.
    ///
    /// # Errors
    /// If it is not a number, one is already chosen, or the wormhole is closed.
    pub fn choose_nameplate(&self, nameplate: &str) -> Result<(), InputError> {
        self.shared.with(|client| client.input_choose_nameplate(nameplate))
    }

    /// Waits until the nameplate is claimed, so that words can be completed.
    ///
    /// # Errors
    /// [`InputError::Closed`] if the wormhole ends first.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_for_wordlist(&self) -> Result<(), InputError> {
        let mut wordlist = self.shared.wordlist.subscribe();
        match wordlist.wait_for(|state| *state != Wordlist::Awaited).await.as_deref() {
            Ok(Wordlist::Ready) => Ok(()),
            _ => Err(InputError::Closed),
        }
    }

    /// The completions of the words typed so far; empty until the nameplate is claimed.
    ///
    /// # Errors
    /// If no nameplate is chosen, the words already are, or the wormhole is closed.
    pub fn word_completions(&self, prefix: &str) -> Result<BTreeSet<String>, InputError> {
        self.shared.lock().input_word_completions(prefix)
    }

    /// Ends typing: the code is the nameplate, a hyphen and these words.
    ///
    /// # Errors
    /// If they contain spaces, no nameplate is chosen, words already are, or the wormhole is closed.
    pub fn choose_words(&self, words: &str) -> Result<(), InputError> {
        self.shared.with(|client| client.input_choose_words(words))
    }

    /// Completes a whole line, for a line editor.
    ///
    /// # Errors
    /// See [`Client::input_complete_line`](crate::client::Client::input_complete_line).
    pub fn complete_line(&self, line: &str) -> Result<Vec<String>, InputError> {
        self.shared.with(|client| client.input_complete_line(line))
    }

    /// Takes a whole line as the code.
    ///
    /// # Errors
    /// See [`Client::input_finish_line`](crate::client::Client::input_finish_line).
    pub fn finish_line(&self, line: &str) -> Result<(), InputError> {
        self.shared.with(|client| client.input_finish_line(line))
    }
}

impl fmt::Debug for CodeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeInput(..)")
    }
}
