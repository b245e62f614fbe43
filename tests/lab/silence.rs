//! Both peers sleep.

use std::time::Duration;

use crate::scenario::{Leads, Meeting, Scenario, both_roles};

/// Both processes stand still for longer than their pings wait.
async fn both_sleep(leads: Leads) {
    let Some(scenario) = Scenario::new("both sleep for 4 s", leads, Meeting::Direct).await else { return };
    scenario.a.freeze();
    scenario.b.freeze();
    tokio::time::sleep(Duration::from_secs(4)).await;
    scenario.a.thaw();
    scenario.b.thaw();
    // Whether the old link lives on or a new one is made is theirs to decide.
    scenario.finish().await;
}

both_roles! {
    both_peers_sleep => both_sleep;
}
