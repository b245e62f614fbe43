use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const SYSTEMS: [System; 2] = [System::Unix, System::Windows];

/// Pieces of names that did harm somewhere.
const PIECES: [&str; 44] = [
    "",
    ".",
    "..",
    "...",
    "/",
    "\\",
    "//",
    "\\\\",
    "a",
    "b.txt",
    "C:",
    "c:",
    "\\\\?\\",
    "\\\\server\\share",
    "CON",
    "con.txt",
    "NUL",
    "NUL.txt",
    "COM1",
    "com¹",
    "LPT9.tar.gz",
    "aux",
    "CONIN$",
    "conout$",
    " ",
    ".",
    "a ",
    "a.",
    "a:b",
    "a::$DATA",
    "\0",
    "\n",
    "\x1b[2J",
    "\u{85}",
    "\u{202e}",
    "\u{2066}",
    "\u{2028}",
    "~",
    "-rf",
    ".ssh",
    "*",
    "a?b",
    "x.dilated-partial",
    "x.DILATED-RESUME",
];

/// Names that are made of such pieces, of anything, and of more than fits.
pub(in crate::files) fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => vec(select(&PIECES[..]), 1..6).prop_map(|pieces| pieces.concat()),
        2 => vec(select(&PIECES[..]), 1..6).prop_map(|pieces| pieces.join("/")),
        1 => vec(select(&PIECES[..]), 1..6).prop_map(|pieces| pieces.join("\\")),
        1 => any::<String>(),
        1 => ("[a-zü\u{202e}./]{0,8}", 240_usize..270).prop_map(|(start, length)| start + &"x".repeat(length)),
        1 => (60_usize..70).prop_map(|depth| vec!["d"; depth].join("/")),
    ]
}

/// Whether `name` is a plain file name, written down anew from what the systems document.
fn is_plain(system: System, name: &str) -> bool {
    let everywhere = !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.contains(['/', '\\'])
        && !name.chars().any(|c| c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c))
        && !name.contains(['\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}'])
        && !name.contains(['\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}'])
        && !name.to_lowercase().ends_with(".dilated-partial")
        && !name.to_lowercase().ends_with(".dilated-resume");
    let devices = [
        "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "COM0", "COM1", "COM2", "COM3", "COM4", "COM5",
        "COM6", "COM7", "COM8", "COM9", "COM¹", "COM²", "COM³", "LPT0", "LPT1", "LPT2", "LPT3", "LPT4",
        "LPT5", "LPT6", "LPT7", "LPT8", "LPT9", "LPT¹", "LPT²", "LPT³",
    ];
    let stem = name.split_once('.').map_or(name, |(stem, _)| stem).trim_end();
    let on_windows = !name.contains(['<', '>', ':', '"', '|', '?', '*'])
        && !name.ends_with(['.', ' '])
        && !devices.iter().any(|device| stem.eq_ignore_ascii_case(device));
    everywhere && (system == System::Unix || on_windows)
}

/// What [`SafePath`] promises.
fn check(system: System, path: &SafePath) {
    assert!((1..=64).contains(&path.components.len()), "{path:?}");
    for component in &path.components {
        assert!(is_plain(system, component), "{component:?} on {system:?}");
    }
    assert!(!path.to_string().contains(|c: char| c.is_control()), "{path}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_a_name_is_it_stays_inside(name in hostile(), more in vec(hostile(), 0..4)) {
        for system in SYSTEMS {
            if let Ok(path) = SafePath::file_name_on(system, &name) {
                prop_assert_eq!(path.components.len(), 1);
                check(system, &path);
            }
            if let Ok(Some(path)) = SafePath::from_zip_on(system, &name) {
                check(system, &path);
            }
            let parts: Vec<String> = name.split('/').map(str::to_owned).chain(more.iter().cloned()).collect();
            if let Ok(path) = SafePath::relative_on(system, &parts) {
                prop_assert_eq!(path.components.len(), parts.len(), "no component is left out");
                check(system, &path);
            }
        }
    }

    #[test]
    fn a_plain_name_is_taken_as_it_is(name in "[a-zA-Zü你0-9 _()'&;,+-]{0,60}[a-z]\\.[a-z]{1,4}") {
        for system in SYSTEMS {
            prop_assume!(is_plain(system, &name));
            let path = SafePath::file_name_on(system, &name).unwrap();
            prop_assert_eq!(path.components(), [name.clone()]);
            prop_assert!(!path.altered());
            prop_assert_eq!(SafePath::from_zip_on(system, &name).unwrap(), Some(path));
        }
    }

    #[test]
    fn what_is_safe_stays_as_it_is(name in hostile()) {
        for system in SYSTEMS {
            if let Ok(path) = SafePath::file_name_on(system, &name) {
                let again = SafePath::relative_on(system, path.components()).unwrap();
                prop_assert_eq!(again.components(), path.components());
                prop_assert!(!again.altered());
            }
        }
    }
}

#[test]
fn only_the_last_component_of_a_file_name_counts() {
    for name in ["x", "../../x", "/etc/x", "C:\\x", "\\\\server\\share\\x", "a/b\\x", "C:\\a/x"] {
        for system in SYSTEMS {
            assert_eq!(SafePath::file_name_on(system, name).unwrap().components(), ["x"], "{name}");
        }
    }
    for name in ["", ".", "..", "a/", "a\\..", "/", "\\", "a/.", &"ü".repeat(128)] {
        assert!(SafePath::file_name(name).is_err(), "{name}");
    }
}

#[test]
fn characters_that_cannot_be_are_replaced() {
    let name = |system, name| SafePath::file_name_on(system, name).unwrap();
    for (given, unix, windows) in [
        ("a:b", "a:b", "a_b"),
        ("what?.mp3", "what?.mp3", "what_.mp3"),
        ("aux.c", "aux.c", "aux_.c"),
        ("NUL", "NUL", "NUL_"),
        ("com1 .tar.gz", "com1 .tar.gz", "com1_ .tar.gz"),
        ("COM¹", "COM¹", "COM¹_"),
        ("com10", "com10", "com10"),
        ("dots..", "dots..", "dots._"),
        ("space ", "space ", "space_"),
        ("Icon\r", "Icon_", "Icon_"),
        ("nul\0byte", "nul_byte", "nul_byte"),
        ("photo\u{202e}gpj.exe", "photo_gpj.exe", "photo_gpj.exe"),
        ("👩\u{200d}🚀", "👩\u{200d}🚀", "👩\u{200d}🚀"),
        (".ssh", ".ssh", ".ssh"),
    ] {
        for (system, wanted) in [(System::Unix, unix), (System::Windows, windows)] {
            let path = name(system, given);
            assert_eq!(path.components(), [wanted], "{given:?} on {system:?}");
            assert_eq!(path.altered(), given != wanted, "{given:?} on {system:?}");
        }
    }
}

#[test]
fn a_path_that_leads_elsewhere_is_refused_not_reduced() {
    let relative =
        |parts: &[&str]| SafePath::relative(&parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
    let deep = ["d"; 65];
    for parts in [&["a", ".."][..], &["..", "a"], &["a", ".", "b"], &["", "a"], &["a/b"], &["/"], &[], &deep]
    {
        assert!(relative(parts).is_err(), "{parts:?}");
    }
    assert_eq!(relative(&deep[1..]).unwrap().components().len(), 64);
    assert_eq!(relative(&["a", "b"]).unwrap().to_string(), "a/b");
    let backslash = relative(&["a", "..\\b"]).unwrap();
    assert_eq!((backslash.to_string().as_str(), backslash.altered()), ("a/.._b", true));
    for name in
        ["/etc/passwd", "\\x", "C:\\x", "c:/x", "\\\\server\\share\\x", "a/../b", "..", "a\\..\\b", ""]
    {
        assert!(SafePath::from_zip(name).is_err(), "{name}");
    }
    for name in [".", "./", "././"] {
        assert_eq!(SafePath::from_zip(name), Ok(None), "{name}");
    }
    for name in ["a/b", "./a/b/", "a\\b", "a//b"] {
        assert_eq!(SafePath::from_zip(name).unwrap().unwrap().components(), ["a", "b"], "{name}");
    }
}

#[test]
fn a_complaint_is_safe_to_show_and_says_why() {
    let error = SafePath::from_zip("a\x1b[2J/../b").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the name \"a\\u{1b}[2J/../b\" cannot be used: it leads out of the directory"
    );
    assert_eq!(Failure::from(error).kind(), Kind::PeerProgram);
    assert!(SafePath::file_name("x.Dilated-Partial").unwrap_err().to_string().contains("unfinished"));
}

#[test]
fn a_path_in_a_path_has_limits_too() {
    let deep = |depth| SafePath::relative(&vec!["d".to_owned(); depth]).unwrap();
    assert_eq!(deep(1).join(&deep(63)).unwrap().components().len(), 64);
    assert!(deep(1).join(&deep(64)).is_err());
}
