//! Dropping everything at any moment leaks no task, no socket and no memory. A binary of its own with a single test,
//! because descriptors and memory belong to the whole process.

#[path = "pair/common.rs"]
#[allow(dead_code, reason = "the tests of pairs use more of it")]
mod common;
#[path = "pair/proxied.rs"]
#[allow(dead_code, reason = "the tests of pairs use more of it")]
mod proxied;
#[path = "../../tests/src/proxy.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "it is the proxy of the whole-system tests, which use more of it"
)]
mod proxy;
#[path = "pair/scene.rs"]
#[allow(dead_code, reason = "the tests of pairs use more of it")]
mod scene;

use std::time::Duration;

use common::soon;
use dilated::RolePreference;
use proxied::Proxied;
use scene::{Phase, Route, Scene, runtime};
use tokio::runtime::Runtime;

/// Rounds through all moments, of which the first is the warm-up of the allocator.
const ROUNDS: usize = 4;
/// KiB by which memory may grow from the second round to the last: 50 KiB lost at each moment would show.
const MAX_GROWTH: usize = 4 * 1024;

/// What happens at the moment before everything is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// Operations of every kind wait, with a full outbox.
    OperationsWait,
    /// The link is given up, so that a new search has just begun.
    Abandoned,
    /// A close has just begun.
    CloseBegun,
}

/// Open descriptors; 0 where the system does not tell.
fn descriptors() -> usize {
    // The directory itself is open while it is read.
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1))
}

/// Resident memory in KiB; 0 where the system does not tell.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn tasks(runtime: &Runtime) -> usize {
    runtime.metrics().num_alive_tasks()
}

/// Brings two wormholes to a moment, drops every handle of both, and waits until nothing is left. Gives the servers
/// back.
async fn drop_at(net: Proxied, route: Route, phase: Phase, role: RolePreference, before: Before) -> Proxied {
    let runtimes = [runtime(), runtime()];
    let outer = tokio::runtime::Handle::current().metrics();
    // The first tick of the servers and the workers of the runtimes may still be to come.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (descriptors_before, tasks_before) = (descriptors(), outer.num_alive_tasks());

    let scene = Scene::begin(net, runtimes, route, phase, role).await;
    let mut operations = Vec::new();
    match before {
        Before::Nothing => {}
        Before::OperationsWait => operations = scene.wait_without_handles(phase).await,
        Before::Abandoned => scene.dilated.as_ref().expect("made before").abandon_link(),
        Before::CloseBegun => {
            let close = scene.wormhole.close();
            let begun = tokio::time::timeout(Duration::from_millis(5), close).await;
            drop(begun);
        }
    }
    let Scene { net, runtime, peer_runtime, wormhole, dilated, peer, .. } = scene;
    drop((wormhole, dilated, peer));
    for (name, operation) in operations {
        soon(name, operation).await.expect("no panic");
    }
    // A proxy that stalls does not see the end of what it holds.
    net.heal();
    let what = format!("{route:?}, {phase:?}, {role:?}, {before:?}");
    let left = || (tasks(&runtime), tasks(&peer_runtime), outer.num_alive_tasks(), descriptors());
    let gone = async {
        loop {
            let (ours, theirs, servers, open) = left();
            if ours == 0 && theirs == 0 && servers <= tasks_before && open <= descriptors_before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(common::PATIENCE, gone).await.is_err() {
        let (ours, theirs, servers, open) = left();
        panic!(
            "{what} left {ours} and {theirs} tasks, {} of the servers, and {} descriptors",
            servers - tasks_before.min(servers),
            open - descriptors_before.min(open),
        );
    }
    for runtime in [runtime, peer_runtime] {
        tokio::task::spawn_blocking(|| drop(runtime)).await.expect("it ends");
    }
    net
}

async fn every_moment(mut net: Proxied) -> Proxied {
    use Before::{Abandoned, CloseBegun, Nothing, OperationsWait};
    for role in [RolePreference::Leader, RolePreference::Follower] {
        for phase in [Phase::Typing, Phase::NoPeer, Phase::KeyKnown, Phase::Dilating, Phase::Reconnecting] {
            for before in [Nothing, OperationsWait, CloseBegun] {
                net = drop_at(net, Route::Relay, phase, role, before).await;
            }
        }
        for route in [Route::Relay, Route::Direct] {
            for before in [Nothing, OperationsWait, Abandoned, CloseBegun] {
                net = drop_at(net, route, Phase::Connected, role, before).await;
            }
        }
    }
    net
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_dropped_at_any_moment_leaves_nothing_behind() {
    let mut net = Proxied::start(dilated::Dialect::Dilated1).await;
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        net = every_moment(net).await;
        memory.push(resident());
    }
    let (second, last) = (memory[1], memory[ROUNDS - 1]);
    assert!(last <= second + MAX_GROWTH, "KiB after each round: {memory:?}");
    eprintln!("KiB after each round: {memory:?}");
}
