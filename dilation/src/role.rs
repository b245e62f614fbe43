//! Who leads. Each side sends a random `side` in its `please`; the greater string leads
//! (specification `ged`, section "Roles").

use std::fmt;

use dilated_transit::Role;
use rand::{Rng, RngExt};

use crate::error::DilationError;

/// Which role this side would like to have.
///
/// In `ged` only the Leader may start a new generation, so a side that leads recovers from a lost link by its
/// own decision; that is why [`Leader`](RolePreference::Leader) is the default. A preference, not a promise: when
/// both sides want the same role, chance decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RolePreference {
    /// Lead whenever the peer did not ask for the same.
    #[default]
    Leader,
    /// Follow whenever the peer did not ask for the same.
    Follower,
    /// Let chance decide, as the Python implementation does.
    Any,
}

/// The dilation side: exactly 16 lowercase hexadecimal digits, because the relay's request line has room for
/// just that.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DilationSide(String);

impl DilationSide {
    /// Draws a side. A preference fixes the first 16 bits and leaves 48 to chance, which still makes two equal
    /// sides (fatal to the dilation) a matter of 1 in 2^48.
    pub fn random(preference: RolePreference, rng: &mut impl Rng) -> DilationSide {
        let mut bytes: [u8; 8] = rng.random();
        match preference {
            RolePreference::Leader => bytes[..2].fill(0xff),
            RolePreference::Follower => bytes[..2].fill(0x00),
            RolePreference::Any => {}
        }
        DilationSide(data_encoding::HEXLOWER.encode(&bytes))
    }

    /// The 16 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Our role against a peer whose `please` said `theirs`.
    ///
    /// # Errors
    ///
    /// [`DilationError::Reflection`] when both sides are equal: our own message came back.
    pub fn role_against(&self, theirs: &str) -> Result<Role, DilationError> {
        match self.0.as_str().cmp(theirs) {
            std::cmp::Ordering::Greater => Ok(Role::Leader),
            std::cmp::Ordering::Less => Ok(Role::Follower),
            std::cmp::Ordering::Equal => Err(DilationError::Reflection),
        }
    }
}

impl fmt::Debug for DilationSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DilationSide({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn a_preference_wins_against_chance_and_sides_are_sixteen_digits() {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..100 {
            let leader = DilationSide::random(RolePreference::Leader, &mut rng);
            let follower = DilationSide::random(RolePreference::Follower, &mut rng);
            assert_eq!(leader.as_str().len(), 16);
            assert!(leader.as_str().starts_with("ffff") && follower.as_str().starts_with("0000"));
            assert_eq!(leader.role_against(follower.as_str()), Ok(Role::Leader));
            assert_eq!(follower.role_against(leader.as_str()), Ok(Role::Follower));
        }
    }

    #[test]
    fn an_equal_side_is_a_reflection() {
        let side = DilationSide::random(RolePreference::Any, &mut StdRng::seed_from_u64(1));
        assert_eq!(side.role_against(side.as_str()), Err(DilationError::Reflection));
    }
}
