//! The names of what is not complete.

use super::name::LONGEST;

const PARTIAL: &str = ".dilated-partial";
const SIDE: &str = ".dilated-resume";

/// How many unfinished transfers of one name there may be at a time.
pub(super) const MOST: u32 = 9;

/// Whether a name is one that unfinished transfers have. No name from the other side may be.
pub(super) fn is_own(name: &str) -> bool {
    let ends = |suffix: &str| {
        name.len()
            .checked_sub(suffix.len())
            .and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    ends(PARTIAL) || ends(SIDE)
}

/// The names under which something is received until it is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnNames {
    /// What was received so far.
    pub(super) partial: String,
    /// What is known about it.
    pub(super) side: String,
}

impl OwnNames {
    /// The `number`th of those that may be used, from 1.
    pub(super) fn new(name: &str, number: u32) -> OwnNames {
        let number = if number == 1 { String::new() } else { format!(".{number}") };
        OwnNames {
            partial: extended(name, &format!("{number}{PARTIAL}")),
            side: extended(name, &format!("{number}{SIDE}")),
        }
    }

    /// All, in the order in which they are tried.
    pub(super) fn all(name: &str) -> impl Iterator<Item = OwnNames> + use<> {
        let name = name.to_owned();
        (1..=MOST).map(move |number| OwnNames::new(&name, number))
    }
}

/// `name` with `end`, shortened where it would be too long; then a hash keeps different names apart.
fn extended(name: &str, end: &str) -> String {
    if name.len() + end.len() <= LONGEST {
        return format!("{name}{end}");
    }
    let hash = &blake3::hash(name.as_bytes()).to_hex()[..16];
    let room = LONGEST - end.len() - hash.len() - 1;
    let start = &name[..name.floor_char_boundary(room)];
    format!("{start}~{hash}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_sees_what_it_is() {
        let names = OwnNames::new("film.mkv", 1);
        assert_eq!(names.partial, "film.mkv.dilated-partial");
        assert_eq!(names.side, "film.mkv.dilated-resume");
        assert_eq!(OwnNames::new("film.mkv", 2).partial, "film.mkv.2.dilated-partial");
    }

    #[test]
    fn own_names_are_recognised_in_any_case_and_fit() {
        for name in ["a", "ä", &"ü".repeat(127), &"x".repeat(255)] {
            for names in OwnNames::all(name) {
                for own in [&names.partial, &names.side] {
                    assert!(own.len() <= LONGEST, "{own}");
                    assert!(is_own(own) && is_own(&own.to_uppercase()), "{own}");
                }
            }
        }
        assert!(!is_own("dilated-partial") && !is_own("a.dilated-partial.txt") && !is_own("ü"));
    }

    #[test]
    fn long_names_stay_apart() {
        let (one, other) = (format!("{}1", "x".repeat(254)), format!("{}2", "x".repeat(254)));
        assert_ne!(OwnNames::new(&one, 1), OwnNames::new(&other, 1));
    }
}
