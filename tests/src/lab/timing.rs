//! When the bytes of a stream arrive, by a clock that all processes of the machine share.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::peer::{Implementation, LabPeer, SOURCE, STREAM, told};
use crate::data::Data;

/// Longer than any measurement, in bytes.
const ENDLESS: u64 = 1 << 50;

/// The machine's clock, since 1970, to the microsecond.
pub fn clock() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the clock of measurements across processes")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).expect("the clock is right")
}

/// A time in which nothing of a stream arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last arrival before it, by [`clock`].
    pub began: Duration,
    /// The first arrival after it.
    pub ended: Duration,
}

impl Gap {
    /// How long it was.
    pub fn length(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }
}

impl LabPeer {
    /// Dilates, ready to receive the stream of `seed`, and reports gaps longer than `gap` and every `progress` bytes.
    pub async fn dilate_and_time(&mut self, seed: u64, progress: u64, gap: Duration) {
        self.seed = seed;
        let gap = gap.as_millis();
        let sink = json!({"name": STREAM, "mode": "sink", "seed": seed, "progress": progress, "gap": gap});
        self.process.send(json!({"cmd": "dilate", "listen": [sink]})).await;
    }

    /// Sends the stream of `seed` without end, in pieces of `chunk` bytes, at `rate` bytes a second.
    pub async fn send_steadily(&mut self, seed: u64, chunk: u64, rate: u64) {
        let command = json!({
            "cmd": "open", "id": SOURCE, "name": STREAM, "mode": "source", "seed": seed,
            "size": ENDLESS, "hold": ENDLESS, "chunk": chunk, "rate": rate,
        });
        self.process.send(command).await;
    }

    /// Waits for a report of progress made at `when`, by [`clock`], or later. By then all gaps that began before have
    /// been reported. Cancel safe.
    pub async fn flows_at(&mut self, when: Duration) {
        loop {
            let progress = self.process.expect_within("progress", json!({}), Duration::MAX).await;
            if micros(&progress, "at") >= when {
                return;
            }
        }
    }

    /// The gaps that were reported so far.
    pub fn gaps(&mut self) -> Vec<Gap> {
        let passed = self.process.passed();
        let gaps = passed.iter().filter(|event| event["event"] == "gap");
        gaps.map(|gap| Gap { began: micros(gap, "began"), ended: micros(gap, "ended") }).collect()
    }

    /// Checks what was received so far, and gives its length. Ours compares every byte as it comes, and reports a wrong
    /// one; this panics then.
    ///
    /// # Panics
    ///
    /// If a byte is wrong.
    pub async fn verify(&mut self) {
        if self.implementation == Implementation::Python {
            self.process.send(json!({"cmd": "stats", "id": "in-1"})).await;
            let stats = self.process.expect("stats").await;
            let bytes = stats["bytes"].as_u64().expect("a number");
            assert_eq!(stats["sha256"], Data::new(self.seed).sha256(bytes), "of {bytes} bytes");
        } else {
            // Its answer comes behind the report.
            self.link_number().await;
        }
        let errors: Vec<Value> =
            self.process.passed().into_iter().filter(|event| event["event"] == "error").collect();
        assert!(errors.is_empty(), "{errors:?}");
    }

    /// What happened to the link, and from the first one on to the connection with the mailbox server, each with its
    /// time by [`clock`].
    pub fn story_by_clock(&mut self) -> Vec<(Duration, String)> {
        let links = self.links_seen().into_iter().map(|event| (micros(&event, "at"), told(&event)));
        let mut story = Vec::from_iter(links);
        let first = story.first().map(|(time, _)| *time);
        for event in self.process.passed().iter().filter(|event| event["event"] == "mailbox") {
            let what = if event["connected"] == true { "found" } else { "lost" };
            story.push((micros(event, "at"), format!("mailbox {what}")));
        }
        story.retain(|(time, _)| first.is_some_and(|first| *time >= first));
        story
    }
}

fn micros(event: &Value, key: &str) -> Duration {
    Duration::from_micros(event[key].as_u64().expect("a time"))
}
