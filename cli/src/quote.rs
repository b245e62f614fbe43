//! Text that others control, made safe for a terminal, and arguments made safe for a shell.

use std::time::Duration;

/// The longest text of another side that is shown, in characters.
const LONGEST: usize = 400;

/// Makes text from a peer or a server safe to show: control characters would drive the terminal, and bidirectional
/// and invisible ones would make it say something else than it says.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            shown.push('…');
            break;
        }
        if is_printable(c) { shown.push(c) } else { shown.extend(c.escape_unicode()) }
    }
    shown
}

/// Whether a character shows what it is, and does nothing else.
pub(crate) fn is_printable(c: char) -> bool {
    !c.is_control() && !deceives(c)
}

/// Format characters that change the direction of text, hide, or break lines.
fn deceives(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// An argument as a POSIX shell must be given it.
pub(crate) fn shell(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// A number of bytes for people: `0 bytes`, `1 byte`, `12.3 MB`.
pub(crate) fn bytes(count: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => {
            let tenths = count / (size / 10);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None if count == 1 => "1 byte".to_owned(),
        None => format!("{count} bytes"),
    }
}

/// So many of something, for people: `1 file`, `12 files`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A time for people: `3 ms`, `1.2 s`.
pub(crate) fn duration(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_or_deceives_a_terminal_is_escaped() {
        assert_eq!(printable("grüße 你好"), "grüße 你好");
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\u{a}");
        assert_eq!(printable("\u{202e}txt.exe\u{2066}\u{9b}"), "\\u{202e}txt.exe\\u{2066}\\u{9b}");
        assert_eq!(printable(&"x".repeat(1000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn arguments_survive_a_shell() {
        assert_eq!(shell("7-purple-sausages"), "7-purple-sausages");
        assert_eq!(shell("ws://[::1]:4000/v1"), "'ws://[::1]:4000/v1'");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(shell(""), "''");
    }

    #[test]
    fn bytes_read_well() {
        let shown: Vec<String> =
            [0, 1, 999, 1000, 1999, 268_435_456, u64::MAX].into_iter().map(bytes).collect();
        assert_eq!(
            shown,
            ["0 bytes", "1 byte", "999 bytes", "1.0 kB", "1.9 kB", "268.4 MB", "18446744.0 TB"]
        );
    }

    #[test]
    fn counts_read_well() {
        assert_eq!([0, 1, 2].map(|number| count(number, "file", "files")), ["0 files", "1 file", "2 files"]);
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(Duration::from_micros(3_900)), "3 ms");
        assert_eq!(duration(Duration::from_millis(1_250)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(600)), "600.0 s");
    }
}
