//! Nothing waits for ever: whatever is pending ends with the reason, however and whenever the wormhole ends.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use dilated::{Dialect, InputError, RolePreference, WormholeError};
use futures::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
};

use crate::{
    common::{PATIENCE, soon},
    dialects::in_both_dialects,
    scene::{LINGER, Phase, Scene, Waiting, on, runtime, waiting},
};

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// In order.
    Closed,
    /// In order, after the peer and its runtime were gone.
    ClosedAlone,
    /// All handles are dropped.
    Dropped,
    /// By a failure: of the first connection, of the code, of a limit.
    Failed,
    /// The runtime of its task is gone.
    RuntimeGone,
}

impl Scene {
    /// What else can wait.
    fn wait_with_handles(&mut self, phase: Phase) -> Vec<Waiting> {
        /// A value of the wormhole.
        macro_rules! value {
            ($name:ident) => {{
                let wormhole = self.wormhole.clone();
                waiting(stringify!($name), async move { wormhole.$name().await })
            }};
        }
        let mut all = vec![value!(next_message)];
        if phase == Phase::Typing {
            let input = self.wormhole.input_code().expect("no code yet");
            input.choose_nameplate("4711").expect("numeric");
            all.push(waiting("wait_for_wordlist", async move { input.wait_for_wordlist().await }));
            all.extend([value!(welcome), value!(code)]);
        }
        if !phase.has_peer() {
            all.extend([value!(unverified_key), value!(verifier), value!(versions)]);
        }
        if phase == Phase::Closing {
            all.push(value!(close));
        }
        let mut dilated = self.dilated.take().expect("made before");
        let (control, client, mut server) = dilated.endpoints().expect("first");
        all.push(waiting("server.accept", async move { server.accept().await }));
        all.push(waiting("client.connect", async move { client.connect().await }));
        // In the phases with a role the Leader's open would be one more that waits for room.
        all.push(waiting("control.connect", async move { control.connect().await }));
        if !matches!(phase, Phase::Connected | Phase::Closing) {
            all.push(waiting("connected", async move { dilated.connected().await }));
        }
        all
    }

    /// Lets it fail, in the way that this phase has.
    fn fail(&self, phase: Phase) {
        match phase {
            // The first connection never came about.
            Phase::Typing => self.net.mailbox.shut(),
            Phase::NoPeer => {
                let stranger = on(&self.peer_runtime, || self.net.servers.wormhole());
                let code = self.code.as_deref().expect("allocated before");
                stranger.set_code(&format!("{code}-wrong")).expect("well formed");
                self.peer_runtime.spawn(async move { stranger.verifier().await });
            }
            // More messages than anybody reads.
            _ => {
                let (peer, _) = self.peer.as_ref().expect("this phase has one");
                for n in 0..5000_u32 {
                    peer.send_message(n.to_be_bytes()).expect("within the sender's limits");
                }
            }
        }
    }
}

/// What `close` returns then.
fn assert_result(phase: Phase, end: End, result: &Result<(), WormholeError>) {
    let right = match (end, phase) {
        (End::RuntimeGone | End::Dropped, _) => matches!(result, Err(WormholeError::Closed)),
        (End::Failed, Phase::Typing) => matches!(result, Err(WormholeError::Connection { .. })),
        (End::Failed, Phase::NoPeer) => matches!(result, Err(WormholeError::WrongPassword)),
        (End::Failed, _) => matches!(result, Err(WormholeError::Limit { .. })),
        (_, Phase::Typing | Phase::NoPeer) => matches!(result, Err(WormholeError::Lonely)),
        _ => result.is_ok(),
    };
    assert!(right, "{phase:?}, {end:?}: {result:?}");
}

/// Ends a runtime, and waits until nothing runs there any more.
async fn gone(runtime: Runtime) {
    let end = tokio::task::spawn_blocking(|| runtime.shutdown_timeout(PATIENCE));
    end.await.expect("no panic");
}

#[expect(clippy::disallowed_methods, reason = "it is the time of a close that is looked at")]
fn now() -> Instant {
    Instant::now()
}

/// One row of the table.
async fn ends(dialect: Dialect, phase: Phase, end: End, role: RolePreference) {
    let mut scene = Scene::new(dialect, phase, role).await;
    let mut all = scene.wait_without_handles(phase).await;
    if end == End::Failed {
        // `next_message` would take what is to be too much.
        all.extend(scene.wait_with_handles(phase).into_iter().filter(|(name, _)| *name != "next_message"));
    } else if end != End::Dropped {
        all.extend(scene.wait_with_handles(phase));
    }
    if dialect != Dialect::Ged && phase.has_role() {
        // An OPEN needs no room in the outbox.
        all.retain(|(name, _)| !["connect", "client.connect", "control.connect"].contains(name));
    }
    let begun = now();
    let closing = (phase == Phase::Closing).then(|| {
        let wormhole = scene.wormhole.clone();
        tokio::spawn(async move { wormhole.close().await })
    });
    // Long enough for each to be polled; one that does not wait at all would prove nothing.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let early: Vec<_> = all.iter().filter(|(_, task)| task.is_finished()).map(|(name, _)| *name).collect();
    // On a machine that is very busy the close may have had its time.
    let over = || phase == Phase::Closing && now() >= begun + LINGER;
    assert!(early.is_empty() || over(), "{phase:?}, {end:?}: {early:?} did not wait");

    let result = match end {
        End::Closed => soon("close", scene.wormhole.close()).await,
        End::ClosedAlone => {
            drop(scene.peer.take());
            gone(std::mem::replace(&mut scene.peer_runtime, runtime())).await;
            soon("close", scene.wormhole.close()).await
        }
        End::Failed => {
            scene.fail(phase);
            let wormhole = scene.wormhole.clone();
            let failed = async {
                while wormhole.status().connection != dilated::ConnectionStatus::Closed {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            soon("the failure", failed).await;
            soon("close", wormhole.close()).await
        }
        End::RuntimeGone => {
            gone(std::mem::replace(&mut scene.runtime, runtime())).await;
            soon("close", scene.wormhole.close()).await
        }
        End::Dropped => {
            let other = on(&scene.runtime, || scene.net.servers.wormhole());
            drop((std::mem::replace(&mut scene.wormhole, other), scene.dilated.take()));
            Err(WormholeError::Closed)
        }
    };
    // Then it may have ended in order, or half so, before the runtime did, and either word is right.
    let either = end == End::RuntimeGone && over();
    if !either {
        assert_result(phase, end, &result);
    }
    if let Some(closing) = closing {
        let first = soon("the first close", closing).await.expect("no panic");
        assert!(first == result || either, "{phase:?}, {end:?}: {first:?}, {result:?}");
    }
    for (name, task) in all {
        let words = soon(&format!("{phase:?}, {end:?}: the end of {name}"), task).await.expect("no panic");
        let reasons = reasons(name, end, &result);
        assert!(
            either || reasons.iter().any(|reason| words.contains(reason)),
            "{phase:?}, {end:?}: {name} ended with {words:?}, and not with one of {reasons:?}"
        );
    }
    for runtime in [scene.runtime, scene.peer_runtime] {
        runtime.shutdown_background();
    }
}

/// The words that may stand for a reason: streams speak of the wormhole, values repeat its error.
fn reasons(name: &str, end: End, result: &Result<(), WormholeError>) -> Vec<String> {
    let error = match result {
        Ok(()) => WormholeError::Closed,
        Err(error) => error.clone(),
    };
    let streams = match end {
        End::Dropped => "the wormhole was dropped",
        End::RuntimeGone => "the wormhole's task is gone",
        _ => "the wormhole was closed",
    };
    let mut reasons = vec![error.to_string(), format!("{error:?}"), streams.to_owned()];
    if end == End::ClosedAlone {
        // Whoever dropped the other side's handles has said goodbye, in `dilated-1`.
        reasons.extend(["the other side closed its wormhole", "PeerClosed"].map(str::to_owned));
    }
    match (name, end) {
        // A code is wrong only after there is a key.
        ("unverified_key", End::Failed) => reasons.push("it succeeded".to_owned()),
        // It knows that the wormhole has ended, and leaves the reason to the wormhole.
        ("wait_for_wordlist", _) => reasons.push(InputError::Closed.to_string()),
        ("close", _) if result.is_ok() => reasons.push("it succeeded".to_owned()),
        // Nobody is left who could tell the last state.
        ("status_changes", End::RuntimeGone) => reasons.push(String::new()),
        ("status_changes", _) if result.is_ok() => reasons.push("Stopped { error: None }".to_owned()),
        _ => {}
    }
    reasons
}

type Row = Pin<Box<dyn Future<Output = ()>>>;

/// All ends of a phase, in both roles where they matter.
async fn all_ends(dialect: Dialect, phase: Phase) {
    let roles: &[RolePreference] = if phase.has_role() {
        &[RolePreference::Leader, RolePreference::Follower]
    } else {
        &[RolePreference::Leader]
    };
    for &role in roles {
        for end in [End::Closed, End::ClosedAlone, End::Dropped, End::Failed, End::RuntimeGone] {
            let alone_already = end == End::ClosedAlone && !phase.has_peer();
            // A wormhole that closes holds a handle, and takes no more messages.
            let impossible = phase == Phase::Closing && matches!(end, End::Dropped | End::Failed);
            if !alone_already && !impossible {
                let row: Row = Box::pin(ends(dialect, phase, end, role));
                row.await;
            }
        }
    }
}

/// A test for each phase.
macro_rules! phases {
    ($($name:ident => $phase:ident;)*) => {$(
        async fn $name(dialect: Dialect) {
            all_ends(dialect, Phase::$phase).await;
        }
    )*};
}

phases! {
    nothing_waits_for_ever_while_a_code_is_typed => Typing;
    nothing_waits_for_ever_before_there_is_a_peer => NoPeer;
    nothing_waits_for_ever_before_the_peer_dilates => KeyKnown;
    nothing_waits_for_ever_while_connecting => Dilating;
    nothing_waits_for_ever_on_a_link => Connected;
    nothing_waits_for_ever_while_reconnecting => Reconnecting;
    nothing_waits_for_ever_while_closing => Closing;
}

/// Two sides of which one is gone, runtime and all, at this moment of the other's life. The other closes before or after.
async fn one_side_dies(dialect: Dialect, phase: Phase, role: RolePreference, closes_first: bool) {
    let mut scene = Scene::new(dialect, phase, role).await;
    let wormhole = scene.wormhole.clone();
    let dilated = scene.dilated.take().expect("made before");
    let written = if phase.has_role() {
        let connector = dilated.connector_for("wait").expect("a good name");
        let mut subchannel = soon("an open", connector.connect()).await.expect("there is room");
        subchannel.write_all(&[1; 500_000]).await.expect("there is room");
        Some(subchannel)
    } else {
        None
    };
    let close = async || soon("close", wormhole.close()).await;
    let result = if closes_first {
        let closing = tokio::spawn({
            let wormhole = wormhole.clone();
            async move { wormhole.close().await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        gone(std::mem::replace(&mut scene.peer_runtime, runtime())).await;
        soon("the close that was under way", closing).await.expect("no panic")
    } else {
        gone(std::mem::replace(&mut scene.peer_runtime, runtime())).await;
        close().await
    };
    assert!(matches!(result, Ok(()) | Err(WormholeError::Lonely)), "{phase:?}: {result:?}");
    assert_eq!(close().await, result, "a second close says the same");
    if let Some(mut subchannel) = written {
        soon("a read", subchannel.read_u8()).await.expect_err("the wormhole is closed");
    }
    // Handles of a side whose runtime is gone end, too.
    if let Some((peer, theirs)) = scene.peer.take() {
        soon("the dead side's close", peer.close()).await.expect_err("its task is gone");
        if let Some(theirs) = theirs {
            let mut changes = theirs.status_changes();
            let ended = async { while changes.next().await.is_some() {} };
            soon("the dead side's status", ended).await;
        }
    }
    for runtime in [scene.runtime, scene.peer_runtime] {
        runtime.shutdown_background();
    }
}

async fn a_side_closes_although_the_other_dies_at_any_moment(dialect: Dialect) {
    for phase in [Phase::KeyKnown, Phase::Dilating, Phase::Connected, Phase::Reconnecting] {
        for role in [RolePreference::Leader, RolePreference::Follower] {
            for closes_first in [false, true] {
                let row: Row = Box::pin(one_side_dies(dialect, phase, role, closes_first));
                row.await;
            }
        }
    }
}

/// Both close, one some time after the other, at each moment; what was written before the first close arrives.
async fn both_close(dialect: Dialect, role: RolePreference, writer_closes_first: bool) {
    let mut scene = Scene::new(dialect, Phase::Connected, role).await;
    let ours = scene.dilated.take().expect("made before");
    let (peer, theirs) = scene.peer.take().expect("connected");
    let mut listener = theirs.expect("it dilates").listener_for("late").expect("free");
    let connector = ours.connector_for("late").expect("a good name");
    let mut out = soon("an open", connector.connect()).await.expect("there is room");
    let mut incoming = soon("an incoming one", listener.accept()).await.expect("alive");
    out.write_all(&[7; 40_000]).await.expect("there is room");
    out.shutdown().await.expect("open");
    let (first, second) =
        if writer_closes_first { (scene.wormhole.clone(), peer) } else { (peer, scene.wormhole.clone()) };
    if !writer_closes_first {
        // A side that closes waits for what it wrote, not for what the other still writes.
        soon("the last ACK", out.acknowledged()).await.expect("alive");
    }
    assert_eq!(soon("the first close", first.close()).await, Ok(()));
    let mut received = Vec::new();
    soon("what was written", incoming.read_to_end(&mut received)).await.expect("a clean end");
    assert!(received == [7; 40_000], "{} bytes", received.len());
    assert_eq!(soon("the second close", second.close()).await, Ok(()));
    for runtime in [scene.runtime, scene.peer_runtime] {
        runtime.shutdown_background();
    }
}

async fn whoever_closes_first_both_return_and_what_was_written_arrives(dialect: Dialect) {
    for role in [RolePreference::Leader, RolePreference::Follower] {
        for writer_closes_first in [true, false] {
            both_close(dialect, role, writer_closes_first).await;
        }
    }
}

/// `dilate` on a wormhole whose task cannot take it any more.
async fn dilating_without_a_runtime_ends_with_a_reason(dialect: Dialect) {
    let mut scene = Scene::new(dialect, Phase::Typing, RolePreference::Leader).await;
    let late = on(&scene.runtime, || scene.net.servers.wormhole());
    gone(std::mem::replace(&mut scene.runtime, runtime())).await;
    soon("the end of the task", late.code()).await.expect_err("nobody can make one");
    if let Ok(dilated) = late.dilate(scene.config(RolePreference::Leader)) {
        soon("the end of the link", dilated.connected()).await.expect_err("its task is gone");
    }
    scene.runtime.shutdown_background();
    scene.peer_runtime.shutdown_background();
}

in_both_dialects!(
    nothing_waits_for_ever_while_a_code_is_typed,
    nothing_waits_for_ever_before_there_is_a_peer,
    nothing_waits_for_ever_before_the_peer_dilates,
    nothing_waits_for_ever_while_connecting,
    nothing_waits_for_ever_on_a_link,
    nothing_waits_for_ever_while_reconnecting,
    nothing_waits_for_ever_while_closing,
    a_side_closes_although_the_other_dies_at_any_moment,
    whoever_closes_first_both_return_and_what_was_written_arrives,
    dilating_without_a_runtime_ends_with_a_reason,
);
