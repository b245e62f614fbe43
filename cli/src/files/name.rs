//! Names from the other side, made harmless.

use std::fmt;

use super::own;
use crate::{
    exit::{Failure, Kind},
    quote,
};

/// The longest component that the common file systems take, in bytes of UTF-8.
pub(super) const LONGEST: usize = 255;

/// The most components of a path.
pub(super) const DEEPEST: usize = 64;

/// What stands in for a character that a name must not have.
const SUBSTITUTE: char = '_';

/// The system whose rules names have to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Unix,
    Windows,
}

impl System {
    const HERE: System = if cfg!(windows) { System::Windows } else { System::Unix };
}

/// A relative path that stays below the directory to which it is relative: 1 to 64 components, none of which is empty,
/// `.` or `..`, has a separator of any system, or is longer than 255 bytes.
///
/// Characters that a name may not have here (backslashes, on Windows also `<>:"|?*`, dots and spaces at the end, and the names of
/// devices) and those that make it show as something else (control characters, bidirectional overrides) are replaced
/// by `_`; [`SafePath::altered`] tells.
///
/// Shown, it is safe for a terminal, with `/` between the components.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SafePath {
    components: Vec<String>,
    altered: bool,
}

impl SafePath {
    /// The name of a single file or of a whole directory: only what follows the last separator counts.
    pub(crate) fn file_name(from_peer: &str) -> Result<SafePath, NameError> {
        SafePath::file_name_on(System::HERE, from_peer)
    }

    fn file_name_on(system: System, from_peer: &str) -> Result<SafePath, NameError> {
        let name = from_peer.rsplit(['/', '\\']).next().unwrap_or_default();
        SafePath::checked(system, [name]).map_err(|fault| NameError::new(from_peer, fault))
    }

    /// The path of an entry of a directory. Every component is checked; none is left out.
    pub(crate) fn relative(components: &[String]) -> Result<SafePath, NameError> {
        SafePath::relative_on(System::HERE, components)
    }

    fn relative_on(system: System, components: &[String]) -> Result<SafePath, NameError> {
        SafePath::checked(system, components.iter().map(String::as_str)).map_err(|fault| {
            let start: Vec<&str> = components.iter().take(DEEPEST).map(String::as_str).collect();
            NameError::new(&start.join("/"), fault)
        })
    }

    /// The path of an entry of a zip archive; `None` for an entry that stands for the whole directory, such as `./`.
    /// Both separators separate. A separator at the end says that the entry is a directory, and is left out.
    pub(crate) fn from_zip(name: &str) -> Result<Option<SafePath>, NameError> {
        SafePath::from_zip_on(System::HERE, name)
    }

    fn from_zip_on(system: System, name: &str) -> Result<Option<SafePath>, NameError> {
        let parts = || name.split(['/', '\\']);
        let first = parts().next().unwrap_or_default();
        let drive = matches!(first.as_bytes(), [letter, b':'] if letter.is_ascii_alphabetic());
        if name.is_empty() {
            return Err(NameError::new(name, Fault::Empty));
        }
        if first.is_empty() || (drive && first.len() < name.len()) {
            return Err(NameError::new(name, Fault::Absolute));
        }
        let mut parts = parts().filter(|part| !matches!(*part, "" | ".")).peekable();
        if parts.peek().is_none() {
            return Ok(None);
        }
        SafePath::checked(system, parts).map(Some).map_err(|fault| NameError::new(name, fault))
    }

    /// The name that the user of this side chose. It is taken as it is, or refused.
    pub(super) fn chosen(name: &str) -> Result<SafePath, NameError> {
        SafePath::checked(System::HERE, [name]).map_err(|fault| NameError::new(name, fault))?;
        // What the user wrote is meant, and the system says so if it cannot be.
        Ok(SafePath { components: vec![name.to_owned()], altered: false })
    }

    fn checked<'a>(system: System, parts: impl IntoIterator<Item = &'a str>) -> Result<SafePath, Fault> {
        let mut path = SafePath { components: Vec::new(), altered: false };
        for part in parts {
            if path.components.len() == DEEPEST {
                return Err(Fault::TooDeep);
            }
            let component = component(system, part)?;
            path.altered |= component != part;
            path.components.push(component);
        }
        if path.components.is_empty() { Err(Fault::Empty) } else { Ok(path) }
    }

    /// `entry` below this path.
    pub(crate) fn join(&self, entry: &SafePath) -> Result<SafePath, NameError> {
        let joined = SafePath {
            components: [&*self.components, &*entry.components].concat(),
            altered: self.altered || entry.altered,
        };
        if joined.components.len() > DEEPEST {
            return Err(NameError::new(&joined.components.join("/"), Fault::TooDeep));
        }
        Ok(joined)
    }

    /// The components, outermost first. Never none.
    pub(crate) fn components(&self) -> &[String] {
        &self.components
    }

    /// Whether characters had to be replaced, so that it is not quite the name that the other side gave.
    pub(crate) fn altered(&self) -> bool {
        self.altered
    }

    /// The components above the last, and the last.
    pub(super) fn split(&self) -> (&[String], &str) {
        let (last, above) = self.components.split_last().expect("a path has at least one component");
        (above, last)
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote::printable(&self.components.join("/")))
    }
}

/// One component as `system` can have it.
fn component(system: System, name: &str) -> Result<String, Fault> {
    match name {
        "" => return Err(Fault::Empty),
        "." | ".." => return Err(Fault::Up),
        _ if name.contains('/') => return Err(Fault::Separator),
        // Before anything is copied: the other side chose the length.
        _ if name.len() > LONGEST => return Err(Fault::TooLong),
        _ => {}
    }
    let mut name: String = name
        .chars()
        .map(|c| {
            // A backslash is a letter on Unix, and a separator for whoever copies the file from here to Windows.
            let bad = c.is_control()
                || deceives(c)
                || c == '\\'
                || (system == System::Windows && r#"<>:"|?*"#.contains(c));
            if bad { SUBSTITUTE } else { c }
        })
        .collect();
    if system == System::Windows {
        if name.ends_with(['.', ' ']) {
            name.pop();
            name.push(SUBSTITUTE);
        }
        if let Some(stem) = device(&name) {
            name.insert(stem, SUBSTITUTE);
        }
    }
    if name.len() > LONGEST {
        return Err(Fault::TooLong);
    }
    if own::is_own(&name) {
        return Err(Fault::Own);
    }
    Ok(name)
}

/// Characters that reorder the text around them or break lines: `photo\u{202e}gpj.exe` would show as `photoexe.jpg`.
/// Those that scripts and emoji need (joiners, marks) stay.
fn deceives(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of the stem of a name that means a device on Windows, whatever its extension.
fn device(name: &str) -> Option<usize> {
    const NAMES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ');
    let upper = stem.to_ascii_uppercase();
    let numbered = ["COM", "LPT"].into_iter().filter_map(|port| upper.strip_prefix(port)).any(|number| {
        let mut digits = number.chars();
        matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    });
    (numbered || NAMES.contains(&&*upper)).then_some(stem.len())
}

/// Why a name cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Empty,
    Up,
    Absolute,
    Separator,
    TooLong,
    TooDeep,
    Own,
}

/// A name that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NameError {
    name: String,
    fault: Fault,
}

impl NameError {
    fn new(name: &str, fault: Fault) -> NameError {
        NameError { name: quote::printable(name), fault }
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.fault {
            Fault::Empty => "is empty",
            Fault::Up => "leads out of the directory",
            Fault::Absolute => "is an absolute path",
            Fault::Separator => "has a separator inside a component",
            Fault::TooLong => "has a component of more than 255 bytes",
            Fault::TooDeep => "has more than 64 components",
            Fault::Own => "is one that unfinished transfers have",
        };
        write!(f, "the name \"{}\" cannot be used: it {why}", self.name)
    }
}

impl std::error::Error for NameError {}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        Failure::new(Kind::PeerProgram, error.to_string())
    }
}

#[cfg(test)]
pub(super) mod tests;
