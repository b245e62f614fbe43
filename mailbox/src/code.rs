//! Wormhole codes: a nameplate, a hyphen, and the secret words.

use std::fmt;
use std::str::FromStr;

use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroize;

/// The longest nameplate that the mailbox server accepts, in digits.
pub const MAX_NAMEPLATE_DIGITS: usize = 40;

/// A code or nameplate that no wormhole can have. It can be typed again.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFormatError {
    /// There is a space in it.
    #[error("Code '{0}' contains spaces.")]
    Spaces(String),
    /// What stands before the first hyphen is not a number.
    #[error("Nameplate '{0}' must be numeric, with no spaces.")]
    NotNumeric(String),
    /// The number is longer than any server accepts.
    #[error("Nameplate '{0}' is longer than {max} digits.", max = MAX_NAMEPLATE_DIGITS)]
    TooLong(String),
}

impl fmt::Debug for KeyFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its text is a mistyped code, which is nearly the secret.
        f.write_str(match self {
            Self::Spaces(_) => "Spaces(..)",
            Self::NotNumeric(_) => "NotNumeric(..)",
            Self::TooLong(_) => "TooLong(..)",
        })
    }
}

/// The public number of a code, by which two sides find each other's mailbox on the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nameplate(String);

impl Nameplate {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nameplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Nameplate {
    type Err = KeyFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(KeyFormatError::NotNumeric(text.to_owned()));
        }
        if text.len() > MAX_NAMEPLATE_DIGITS {
            return Err(KeyFormatError::TooLong(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A wormhole code, such as `4-purple-sausages`, in Unicode normal form C.
///
/// Whoever knows it within the wormhole's first minutes can be the other side, so `Debug` hides all but the
/// nameplate; `Display` shows everything, for the person who must pass it on.
///
/// ```
/// use dilated_mailbox::Code;
///
/// let code: Code = "4-purple-sausages".parse()?;
/// assert_eq!(code.nameplate().as_str(), "4");
/// assert_eq!(format!("{code:?}"), "Code(4-…)");
/// assert!("four-purple-sausages".parse::<Code>().is_err());
/// # Ok::<(), dilated_mailbox::KeyFormatError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    text: String,
    nameplate: Nameplate,
}

impl Code {
    /// Joins a nameplate and words.
    ///
    /// # Errors
    /// If there are spaces in the words.
    pub fn new(nameplate: &Nameplate, words: &str) -> Result<Self, KeyFormatError> {
        format!("{nameplate}-{words}").parse()
    }

    /// The public number before the first hyphen.
    #[must_use]
    pub fn nameplate(&self) -> &Nameplate {
        &self.nameplate
    }

    /// The whole code, which is the SPAKE2 password.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Code {
    type Err = KeyFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(' ') {
            return Err(KeyFormatError::Spaces(text.to_owned()));
        }
        let nameplate = text.split('-').next().unwrap_or_default().parse()?;
        Ok(Self { text: text.nfc().collect(), nameplate })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-…)", self.nameplate)
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        self.text.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_python_accepts() {
        for text in ["4", "4-", "04-a", "0-", "4-purple-sausages", "12-a-b-c-d"] {
            let code: Code = text.parse().unwrap();
            assert_eq!(code.to_string(), text);
            assert_eq!(code.nameplate().as_str(), text.split('-').next().unwrap());
        }
    }

    #[test]
    fn errors_read_as_pythons() {
        let message = |text: &str| text.parse::<Code>().unwrap_err().to_string();
        assert_eq!(message("4 a"), "Code '4 a' contains spaces.");
        assert_eq!(message(" 4-a"), "Code ' 4-a' contains spaces.");
        assert_eq!(message("x-y"), "Nameplate 'x' must be numeric, with no spaces.");
        assert_eq!(message("-y"), "Nameplate '' must be numeric, with no spaces.");
        assert_eq!(message("\u{664}-y"), "Nameplate '\u{664}' must be numeric, with no spaces.");
        assert!(message(&"1".repeat(41)).ends_with("is longer than 40 digits."));
        assert!("1".repeat(40).parse::<Code>().is_ok());
    }

    #[test]
    fn secrets_stay_out_of_debug() {
        let code: Code = "7-secret-words".parse().unwrap();
        assert!(!format!("{code:?}").contains("secret"));
        assert!(!format!("{:?}", "secret words".parse::<Code>().unwrap_err()).contains("secret"));
    }

    #[test]
    fn normalises() {
        let composed: Code = "7-caf\u{e9}-x".parse().unwrap();
        let decomposed: Code = "7-cafe\u{301}-x".parse().unwrap();
        assert_eq!(composed, decomposed);
    }
}
