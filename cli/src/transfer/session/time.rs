//! Times as they are sent: nanoseconds since 1970.

use std::time::{Duration, SystemTime};

use crate::files::Meta;

/// What of `meta` is sent: mode and mtime.
pub(super) fn to_wire(meta: Meta) -> (Option<u32>, Option<i64>) {
    let mtime = meta.modified.and_then(|time| match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|nanos| -nanos),
    });
    (meta.mode, mtime)
}

/// What came. A time that this system does not know is left out.
pub(super) fn from_wire(mode: Option<u32>, mtime: Option<i64>) -> Meta {
    let modified = mtime.and_then(|nanos| {
        let distance = Duration::from_nanos(nanos.unsigned_abs());
        if nanos < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(distance)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(distance)
        }
    });
    Meta { mode, modified }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970_survive() {
        for nanos in [0, 1, -1, 1_700_000_000_123_456_789, -86_400_000_000_000, i64::MAX, -i64::MAX] {
            assert_eq!(to_wire(from_wire(Some(0o644), Some(nanos))), (Some(0o644), Some(nanos)));
        }
        assert_eq!(to_wire(from_wire(None, None)), (None, None));
        // One that does not fit is not known.
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(to_wire(Meta { mode: None, modified: Some(late) }), (None, None));
    }
}
