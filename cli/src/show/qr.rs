//! QR codes on a terminal.

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

/// A QR code, drawn with half blocks.
pub(super) struct Drawing {
    pub(super) text: String,
    /// How many columns it takes.
    pub(super) width: usize,
}

/// Draws `text`; nothing if it is too long for a QR code. The light squares are those that are printed, as on a
/// terminal with dark background; on a light one the code is inverted, which readers accept.
pub(super) fn draw(text: &str) -> Option<Drawing> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let text = code.render().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).quiet_zone(true).build();
    let width = text.lines().map(|line| line.chars().count()).max()?;
    Some(Drawing { text, width })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a camera sees: the squares, with light ones as true.
    fn squares(drawing: &Drawing) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in drawing.text.lines() {
            let half = |lit: &'static str| line.chars().map(|c| lit.contains(c)).collect::<Vec<bool>>();
            rows.push(half("█▀"));
            rows.push(half("█▄"));
        }
        rows
    }

    #[test]
    fn the_squares_are_those_of_the_code() {
        let text = "wormhole-transfer:4-purple-sausages";
        let drawing = draw(text).unwrap();
        let code = QrCode::with_error_correction_level(text, EcLevel::L).unwrap();
        let rows = squares(&drawing);
        let (width, quiet) = (code.width(), 4);
        assert_eq!(drawing.width, width + 2 * quiet);
        for (y, row) in rows.iter().enumerate() {
            // The last half row may lie below the code.
            for (x, light) in row.iter().enumerate().filter(|_| y < width + 2 * quiet) {
                let inside = (quiet..quiet + width).contains(&x) && (quiet..quiet + width).contains(&y);
                let dark = inside && code[(x - quiet, y - quiet)] == qrcode::Color::Dark;
                assert_eq!(*light, !dark, "{x} {y}");
            }
        }
    }

    #[test]
    fn it_fits_beside_a_prompt_and_too_much_is_no_code() {
        let address = "wormhole-transfer:4-purple-sausages?rendezvous=ws%3A%2F%2Fmailbox.example.org%3A4000";
        assert!(draw(address).unwrap().width <= 50);
        assert!(draw(&"x".repeat(10_000)).is_none());
    }
}
