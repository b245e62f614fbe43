//! Where something lands, given what the user asked for and what the other side calls it.

use std::{env, path::Path};

use super::{Existing, NameError, SafePath, Target, target::shown};
use crate::exit::Failure;

/// The directory in which something lands, and its name there if the user chose one.
#[derive(Debug)]
pub(crate) struct Landing {
    target: Target,
    chosen: Option<SafePath>,
}

impl Landing {
    /// Without `output`, the working directory. If `output` is a directory, in it. Otherwise `output` is the name of
    /// what is received.
    pub(crate) fn new(output: Option<&Path>, existing: Existing) -> Result<Landing, Failure> {
        let here = env::current_dir()
            .map_err(|error| Failure::io("could not find the working directory", &error))?;
        Landing::from(&here, output, existing)
    }

    pub(super) fn from(here: &Path, output: Option<&Path>, existing: Existing) -> Result<Landing, Failure> {
        let output = output.map_or_else(|| here.to_owned(), |output| here.join(output));
        if output.is_dir() {
            return Ok(Landing { target: Target::open(&output, existing)?, chosen: None });
        }
        let text =
            output.to_str().ok_or_else(|| Failure::usage(format!("{} is not UTF-8", shown(&output))))?;
        if text.ends_with(std::path::is_separator) {
            return Err(Failure::usage(format!("there is no directory {}", shown(&output))));
        }
        let (Some(parent), Some(name)) = (output.parent(), output.file_name().and_then(|name| name.to_str()))
        else {
            return Err(Failure::usage(format!("{} names neither a directory nor a file", shown(&output))));
        };
        let chosen = SafePath::chosen(name).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Landing { target: Target::open(parent, existing)?, chosen: Some(chosen) })
    }

    /// The directory.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The name that the user chose, which can serve for one thing only.
    pub(crate) fn chosen(&self) -> Option<&SafePath> {
        self.chosen.as_ref()
    }

    /// The name for what the other side calls `from_peer`.
    pub(crate) fn name(&self, from_peer: &str) -> Result<SafePath, NameError> {
        match &self.chosen {
            Some(chosen) => Ok(chosen.clone()),
            None => SafePath::file_name(from_peer),
        }
    }
}
