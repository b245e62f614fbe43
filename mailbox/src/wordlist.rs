//! The PGP word list: 256 words of three syllables (odd positions) and 256 of two (even positions).
//!
//! Word 1 after the nameplate is odd, word 2 even, and so on: a swapped or repeated word is noticed.

use std::collections::BTreeSet;
use std::sync::LazyLock;

static ODD: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("words/odd.txt").lines().collect());
static EVEN: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("words/even.txt").lines().collect());

/// How many words a code has when the application does not say, and how many a completion expects.
pub const DEFAULT_WORDS: usize = 2;

fn list(position: usize) -> &'static [&'static str] {
    if position.is_multiple_of(2) { &ODD } else { &EVEN }
}

/// The words that stand for random bytes, one word a byte, joined by hyphens.
///
/// ```
/// assert_eq!(dilated_mailbox::wordlist::words(&[4, 16, 255, 0]), "alkali-assume-yucatan-aardvark");
/// ```
#[must_use]
pub fn words(random: &[u8]) -> String {
    let words: Vec<_> = random.iter().enumerate().map(|(n, &byte)| list(n)[usize::from(byte)]).collect();
    words.join("-")
}

/// What the words typed so far can become: the whole of `prefix` with its last word completed, and a hyphen
/// while there are fewer than `expected` words. Matching is case-sensitive; the order is alphabetical.
#[must_use]
pub fn completions(prefix: &str, expected: usize) -> BTreeSet<String> {
    let (done, partial) = prefix.rfind('-').map_or(("", prefix), |at| prefix.split_at(at + 1));
    let position = done.matches('-').count();
    let hyphen = if position + 1 < expected { "-" } else { "" };
    let matching = list(position).iter().filter(|word| word.starts_with(partial));
    matching.map(|word| format!("{done}{word}{hyphen}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{hex, vectors};
    use sha2::{Digest, Sha256};

    #[test]
    fn vectors_agree() {
        let v = &vectors()["wordlist"];
        for (name, list) in [("odd", &*ODD), ("even", &*EVEN)] {
            assert_eq!(serde_json::json!(list), v[name]);
            let digest = hex(&Sha256::digest(list.join("\n")));
            assert_eq!(digest, v[format!("{name}_sha256_of_newline_joined")].as_str().unwrap());
        }
        assert_eq!(words(&[4, 0x10, 0xff, 0]), v["bytes_04_10_ff_00"].as_str().unwrap());
        for (prefix, expected) in v["completions"].as_object().unwrap() {
            let expected: BTreeSet<String> = serde_json::from_value(expected.clone()).unwrap();
            assert_eq!(completions(prefix, 2), expected, "{prefix}");
        }
    }

    #[test]
    fn hyphens_follow_the_expected_count() {
        assert_eq!(completions("armistice-ba", 3).first().unwrap(), "armistice-baboon-");
        assert_eq!(completions("ar", 1).first().unwrap(), "armistice");
        assert_eq!(completions("armistice-baboon-ar", 4).first().unwrap(), "armistice-baboon-armistice-");
        assert_eq!(completions("armistice-baboon-ar", 3).first().unwrap(), "armistice-baboon-armistice");
        assert_eq!(completions("", 2).len(), 256);
        assert_eq!(completions("armistice-", 2).len(), 256);
        assert!(completions("armistice-", 2).iter().all(|c| !c.ends_with('-')));
        assert_eq!(words(&[]), "");
    }
}
