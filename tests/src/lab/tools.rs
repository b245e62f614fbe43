//! The programs that the lab is built with.

use std::{
    process::{Command, Output},
    sync::OnceLock,
};

/// Why no lab can be built here.
pub(super) fn available() -> Result<(), String> {
    if std::env::var_os("DILATED_LAB").is_some_and(|value| value == "0") {
        return Err("the network lab is not wanted here: DILATED_LAB=0".to_owned());
    }
    if !cfg!(target_os = "linux") {
        return Err("the network lab needs Linux".to_owned());
    }
    let root = output("id", &["-u"]).is_some_and(|out| out.stdout.trim_ascii() == b"0");
    if !root {
        return Err("the network lab needs root, to make network namespaces".to_owned());
    }
    for (tool, argument, package) in [("ip", "-V", "iproute2"), ("nft", "-v", "nftables")] {
        if output(tool, &[argument]).is_none() {
            return Err(format!("the network lab needs `{tool}` (Debian package {package})"));
        }
    }
    static CAPABLE: OnceLock<Result<(), String>> = OnceLock::new();
    CAPABLE.get_or_init(can_make_namespaces).clone()
}

/// Root in a container may lack the capability.
fn can_make_namespaces() -> Result<(), String> {
    let name = format!("dilated-{}-probe", std::process::id());
    let failed = |out: Option<Output>| match out {
        Some(out) if out.status.success() => None,
        Some(out) => Some(String::from_utf8_lossy(&out.stderr).trim().to_owned()),
        None => Some("`ip` cannot be started".to_owned()),
    };
    let made = failed(output("ip", &["netns", "add", &name]));
    output("ip", &["netns", "del", &name]);
    match made {
        None => Ok(()),
        Some(why) => Err(format!("the network lab cannot make network namespaces here: {why}")),
    }
}

/// Runs a program to its end. `None` if it cannot be started.
pub(super) fn output(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).output().ok()
}

/// Runs a program that has to succeed.
///
/// # Panics
///
/// If it does not, with what it said.
pub(super) fn must(program: &str, arguments: &[&str]) -> String {
    let shown = || format!("{program} {}", arguments.join(" "));
    let out = output(program, arguments).unwrap_or_else(|| panic!("`{}` cannot be started", shown()));
    assert!(out.status.success(), "`{}` failed: {}", shown(), String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
