//! Typing a code step by step: first the nameplate, then the words, with completions for both.

use std::collections::BTreeSet;

use crate::error::InputError;
use crate::wordlist::{self, DEFAULT_WORDS};
use crate::{Code, Nameplate};

#[derive(Debug)]
enum State {
    /// `input_code` was not called.
    Idle,
    Nameplate,
    Words {
        nameplate: Nameplate,
    },
    Done {
        nameplate: Nameplate,
    },
}

/// What the typist has done so far.
#[derive(Debug)]
pub(super) struct Input {
    state: State,
    listed: BTreeSet<Nameplate>,
    /// Whether the nameplate is claimed: then it is known which word list applies.
    wordlist: bool,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { state: State::Idle, listed: BTreeSet::new(), wordlist: false }
    }

    pub(super) fn start(&mut self) {
        self.state = State::Nameplate;
    }

    pub(super) fn got_nameplates(&mut self, listed: Vec<Nameplate>) {
        if matches!(self.state, State::Nameplate) {
            self.listed = listed.into_iter().collect();
        }
    }

    pub(super) fn got_wordlist(&mut self) {
        self.wordlist = true;
    }

    pub(super) fn has_wordlist(&self) -> bool {
        self.wordlist
    }

    /// Whether the list of nameplates may still be asked for.
    pub(super) fn refresh(&self) -> Result<(), InputError> {
        match self.state {
            State::Words { .. } | State::Done { .. } => Err(InputError::AlreadyChoseNameplate),
            State::Idle | State::Nameplate => Ok(()),
        }
    }

    pub(super) fn nameplate_completions(&self, prefix: &str) -> Result<BTreeSet<String>, InputError> {
        self.refresh()?;
        let matching = self.listed.iter().filter(|nameplate| nameplate.as_str().starts_with(prefix));
        Ok(matching.map(|nameplate| format!("{nameplate}-")).collect())
    }

    /// Commits to a nameplate, which is then claimed.
    pub(super) fn choose_nameplate(&mut self, nameplate: &str) -> Result<Nameplate, InputError> {
        let nameplate: Nameplate = nameplate.parse()?;
        self.refresh()?;
        self.listed.clear();
        self.state = State::Words { nameplate: nameplate.clone() };
        Ok(nameplate)
    }

    pub(super) fn word_completions(&self, prefix: &str) -> Result<BTreeSet<String>, InputError> {
        match self.state {
            State::Idle | State::Nameplate => Err(InputError::MustChooseNameplateFirst),
            State::Done { .. } => Err(InputError::AlreadyChoseWords),
            State::Words { .. } if !self.wordlist => Ok(BTreeSet::new()),
            State::Words { .. } => Ok(wordlist::completions(prefix, DEFAULT_WORDS)),
        }
    }

    pub(super) fn choose_words(&mut self, words: &str) -> Result<Code, InputError> {
        match &self.state {
            State::Idle | State::Nameplate => Err(InputError::MustChooseNameplateFirst),
            State::Done { .. } => Err(InputError::AlreadyChoseWords),
            State::Words { nameplate } => {
                let code = Code::new(nameplate, words)?;
                self.state = State::Done { nameplate: nameplate.clone() };
                Ok(code)
            }
        }
    }

    /// Compares the beginning of a typed line with the nameplate that was committed, if one was.
    /// True if it is the committed one, false if none was committed yet.
    pub(super) fn committed(&self, typed: Option<&str>) -> Result<bool, InputError> {
        match &self.state {
            State::Idle | State::Nameplate => Ok(false),
            State::Words { nameplate } | State::Done { nameplate } if typed == Some(nameplate.as_str()) => {
                Ok(true)
            }
            State::Words { nameplate } | State::Done { nameplate } => {
                Err(InputError::AlreadyInputNameplate { committed: nameplate.to_string() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completions(input: &Input, prefix: &str) -> Vec<String> {
        input.nameplate_completions(prefix).unwrap().into_iter().collect()
    }

    #[test]
    fn misuse_is_named() {
        let mut input = Input::new();
        input.start();
        assert_eq!(input.word_completions("a"), Err(InputError::MustChooseNameplateFirst));
        assert_eq!(input.choose_words("a"), Err(InputError::MustChooseNameplateFirst));
        assert!(matches!(input.choose_nameplate("x"), Err(InputError::KeyFormat(_))));
        input.refresh().unwrap();
        input.choose_nameplate("4").unwrap();
        let again = Err(InputError::AlreadyChoseNameplate);
        assert_eq!(input.refresh(), again);
        assert_eq!(input.nameplate_completions("").unwrap_err(), InputError::AlreadyChoseNameplate);
        assert_eq!(input.choose_nameplate("4").unwrap_err(), InputError::AlreadyChoseNameplate);
        assert!(matches!(input.choose_words("a b"), Err(InputError::KeyFormat(_))));
        assert_eq!(input.choose_words("a-b").unwrap().as_str(), "4-a-b");
        assert_eq!(input.refresh(), again);
        assert_eq!(input.nameplate_completions("").unwrap_err(), InputError::AlreadyChoseNameplate);
        assert_eq!(input.choose_nameplate("5").unwrap_err(), InputError::AlreadyChoseNameplate);
        assert_eq!(input.word_completions(""), Err(InputError::AlreadyChoseWords));
        assert_eq!(input.choose_words("a-b"), Err(InputError::AlreadyChoseWords));
    }

    #[test]
    fn completions_need_a_list_and_a_claim() {
        let mut input = Input::new();
        input.start();
        assert!(completions(&input, "").is_empty());
        input.got_nameplates(["1", "12", "34"].map(|n| n.parse().unwrap()).into());
        assert_eq!(completions(&input, "1"), ["1-", "12-"]);
        assert_eq!(completions(&input, "5"), [""; 0]);
        input.got_nameplates(vec!["5".parse().unwrap()]);
        assert_eq!(completions(&input, "5"), ["5-"]);
        input.choose_nameplate("7").unwrap();
        input.got_nameplates(vec!["5".parse().unwrap()]);
        assert!(input.word_completions("ar").unwrap().is_empty());
        input.got_wordlist();
        assert_eq!(input.word_completions("ar").unwrap().len(), 2);
        input.choose_words("").unwrap();
    }
}
