//! What the application commands.

use std::collections::BTreeSet;

use super::{Client, MailboxStatus, PeerVersions, Stage};
use crate::error::{InputError, WormholeError};
use crate::message::Mood;
use crate::{Code, Key, KeyFormatError};

impl Client {
    /// Asks the server for a nameplate and makes a code of it and `words` random words.
    /// [`Event::Code`](super::Event::Code) tells it. Zero words make a code without a secret.
    ///
    /// # Errors
    /// [`WormholeError::OnlyOneCode`], [`WormholeError::Closed`], or [`WormholeError::Limit`] for too many words.
    pub fn allocate_code(&mut self, words: usize) -> Result<(), WormholeError> {
        if words > self.config.limits.words {
            return Err(WormholeError::limit("words in a code", self.config.limits.words));
        }
        self.only_code()?;
        self.allocator.allocate(words, &mut self.wire);
        Ok(())
    }

    /// Uses a code that somebody made. A malformed one is refused here, and another may be set.
    ///
    /// # Errors
    /// [`WormholeError::KeyFormat`], [`WormholeError::OnlyOneCode`] or [`WormholeError::Closed`].
    pub fn set_code(&mut self, code: &str) -> Result<(), WormholeError> {
        let code: Code = code.parse()?;
        self.only_code()?;
        self.nameplate.set(code.nameplate().clone(), &mut self.wire);
        let result = self.got_code(code);
        self.settle(result);
        Ok(())
    }

    /// Begins to type a code: the `input_*` verbs follow. The list of nameplates is asked for at once.
    ///
    /// # Errors
    /// [`WormholeError::OnlyOneCode`] or [`WormholeError::Closed`].
    pub fn input_code(&mut self) -> Result<(), WormholeError> {
        self.only_code()?;
        self.input.start();
        self.lister.refresh(&mut self.wire);
        Ok(())
    }

    fn only_code(&mut self) -> Result<(), WormholeError> {
        if self.is_closing() {
            return Err(WormholeError::Closed);
        }
        if std::mem::replace(&mut self.has_code, true) {
            return Err(WormholeError::OnlyOneCode);
        }
        Ok(())
    }

    /// Asks for the list of nameplates again.
    ///
    /// # Errors
    /// If the nameplate is already chosen, or the wormhole is closed.
    pub fn input_refresh_nameplates(&mut self) -> Result<(), InputError> {
        self.input_open()?;
        self.input.refresh()?;
        self.lister.refresh(&mut self.wire);
        Ok(())
    }

    /// The listed nameplates that begin with `prefix`, each with a hyphen behind it.
    ///
    /// # Errors
    /// If the nameplate is already chosen, or the wormhole is closed.
    pub fn input_nameplate_completions(&self, prefix: &str) -> Result<BTreeSet<String>, InputError> {
        self.input_open()?;
        self.input.nameplate_completions(prefix)
    }

    /// Commits to a nameplate and claims it. It cannot be changed any more.
    ///
    /// # Errors
    /// If it is not a number (another may be chosen), one is already chosen, or the wormhole is closed.
    pub fn input_choose_nameplate(&mut self, nameplate: &str) -> Result<(), InputError> {
        self.input_open()?;
        let nameplate = self.input.choose_nameplate(nameplate)?;
        self.nameplate.set(nameplate, &mut self.wire);
        Ok(())
    }

    /// Whether the nameplate is claimed, so that [`input_word_completions`](Self::input_word_completions)
    /// answers.
    #[must_use]
    pub fn has_wordlist(&self) -> bool {
        self.input.has_wordlist()
    }

    /// The completions of the words typed so far; empty until the nameplate is claimed.
    ///
    /// # Errors
    /// If no nameplate is chosen, the words already are, or the wormhole is closed.
    pub fn input_word_completions(&self, prefix: &str) -> Result<BTreeSet<String>, InputError> {
        self.input_open()?;
        self.input.word_completions(prefix)
    }

    /// Ends typing: the code is the nameplate, a hyphen and these words.
    ///
    /// # Errors
    /// If they contain spaces (others may be chosen), no nameplate is chosen, words already are, or the
    /// wormhole is closed.
    pub fn input_choose_words(&mut self, words: &str) -> Result<(), InputError> {
        self.input_open()?;
        let code = self.input.choose_words(words)?;
        let result = self.got_code(code);
        self.settle(result);
        Ok(())
    }

    /// Completes a whole line, for a line editor: the completions of the nameplate before its hyphen is
    /// typed, of the words after. The first hyphen commits to the nameplate. Sorted.
    ///
    /// # Errors
    /// [`InputError::AlreadyInputNameplate`] if the line no longer begins with the committed nameplate, and
    /// those of the single steps.
    pub fn input_complete_line(&mut self, line: &str) -> Result<Vec<String>, InputError> {
        let Some((nameplate, words)) = line.split_once('-') else {
            self.input.committed(None)?;
            self.input_refresh_nameplates()?;
            return Ok(self.input_nameplate_completions(line)?.into_iter().collect());
        };
        if !self.input.committed(Some(nameplate))? {
            self.input_choose_nameplate(nameplate)?;
        }
        let completions = self.input_word_completions(words)?;
        Ok(completions.into_iter().map(|words| format!("{nameplate}-{words}")).collect())
    }

    /// Takes a whole line as the code.
    ///
    /// # Errors
    /// [`InputError::Incomplete`] without a hyphen, [`InputError::AlreadyInputNameplate`] if it does not
    /// begin with the committed nameplate, and those of the single steps.
    pub fn input_finish_line(&mut self, line: &str) -> Result<(), InputError> {
        let (nameplate, words) = line.split_once('-').ok_or(InputError::Incomplete)?;
        if line.contains(' ') {
            return Err(KeyFormatError::Spaces(line.to_owned()).into());
        }
        if !self.input.committed(Some(nameplate))? {
            self.input_choose_nameplate(nameplate)?;
        }
        self.input_choose_words(words)
    }

    fn input_open(&self) -> Result<(), InputError> {
        if self.is_closing() { Err(InputError::Closed) } else { Ok(()) }
    }

    /// Sends a message of the application. It may be called at any time; messages leave in order once the
    /// peer has proved the key.
    ///
    /// # Errors
    /// [`WormholeError::Closed`], or [`WormholeError::Limit`] if too much is waiting: the message is not sent,
    /// and the wormhole lives on.
    pub fn send_message(&mut self, plaintext: Vec<u8>) -> Result<(), WormholeError> {
        self.may_send(plaintext.len())?;
        let phase = self.next_message.to_string();
        self.next_message += 1;
        self.send(phase, plaintext);
        Ok(())
    }

    /// Sends a message of dilation.
    ///
    /// # Errors
    /// As [`send_message`](Self::send_message), and [`WormholeError::CannotDilate`] unless the peer's versions
    /// have arrived and share a dilation version with ours: other clients crash at such a message.
    pub fn send_dilate(&mut self, plaintext: Vec<u8>) -> Result<(), WormholeError> {
        self.may_send(plaintext.len())?;
        let ours = &self.config.can_dilate;
        let theirs = self.versions.as_ref().map_or(&[][..], |versions| &versions.can_dilate);
        if !theirs.iter().any(|version| ours.contains(version)) {
            return Err(WormholeError::CannotDilate);
        }
        let phase = format!("dilate-{}", self.next_dilate);
        self.next_dilate += 1;
        self.send(phase, plaintext);
        Ok(())
    }

    fn may_send(&self, len: usize) -> Result<(), WormholeError> {
        if self.is_closing() {
            return Err(WormholeError::Closed);
        }
        let waiting = self.session.unsent_bytes() + self.mailbox.pending_bytes();
        // Twice, because it is sent as hexadecimal digits.
        if waiting.saturating_add(len.saturating_mul(2)) > self.config.limits.unsent_bytes {
            return Err(WormholeError::limit("bytes that wait to be sent", self.config.limits.unsent_bytes));
        }
        Ok(())
    }

    fn send(&mut self, phase: String, plaintext: Vec<u8>) {
        self.session.send(phase, plaintext, &mut self.rng);
        let result = self.act();
        self.settle(result);
    }

    /// Ends the wormhole: gives nameplate and mailbox back, with the mood that fits, then
    /// [`Event::Closed`](super::Event::Closed) comes, at the latest after
    /// [`close_timeout`](super::ClientConfig::close_timeout). Its result is `Ok` if the sides had met, and
    /// [`WormholeError::Lonely`] otherwise. Closing twice is closing once.
    pub fn close(&mut self) {
        let (mood, result) = match self.stage {
            Stage::Happy => (Mood::Happy, Ok(())),
            _ => (Mood::Lonely, Err(WormholeError::Lonely)),
        };
        self.begin_close(mood, result);
        self.settle(Ok(()));
    }

    /// Ends the wormhole as [`close`](Self::close) does, with an error that the application or a protocol
    /// above found, and the mood that fits it.
    pub fn fail(&mut self, error: WormholeError) {
        self.settle(Err(error));
    }

    /// Ends the wormhole here and now, without telling the server: for a driver that goes away.
    pub fn abandon(&mut self) {
        if !self.is_closed() {
            self.finish(Err(WormholeError::Closed));
        }
    }

    // What is known.

    /// Our name in the mailbox: 10 hexadecimal digits.
    #[must_use]
    pub fn side(&self) -> &str {
        &self.side
    }

    /// The agreed key, proved or not.
    ///
    /// # Errors
    /// [`WormholeError::NoKey`] if there is none yet.
    pub fn key(&self) -> Result<&Key, WormholeError> {
        self.session.key().ok_or(WormholeError::NoKey)
    }

    /// What the peer said about itself, once it has.
    #[must_use]
    pub fn peer_versions(&self) -> Option<&PeerVersions> {
        self.versions.as_ref()
    }

    /// The status, without secrets.
    #[must_use]
    pub fn status(&self) -> MailboxStatus {
        MailboxStatus {
            connection: self.connection.clone(),
            last_failure: self.last_failure.clone(),
            key: self.session.status(),
            code: self.nameplate.status(),
        }
    }
}
