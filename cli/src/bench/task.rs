//! What the side that measures asks of the other. Each task has a subchannel of its own, whose first message it is.

use std::time::Duration;

use bytes::Bytes;
use dilated::{ReadHalf, WriteHalf};
use serde_json::{Value, json};

use super::{
    findings::{Findings, duration, micros},
    left,
};
use crate::{
    exit::{Failure, Kind},
    meeting::Broken,
};

/// Something that the other side is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    /// Answers every message with the same.
    Echo,
    /// Reads to the end, and answers with the flow that it saw.
    Take,
    /// Sends for the time that was agreed on.
    Give,
    /// Notes what was found, and answers with the processor time that it took.
    Note { findings: Box<Findings>, cpu: Option<Duration> },
}

impl Task {
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Task::Echo => json!({ "do": "echo" }),
            Task::Take => json!({ "do": "take" }),
            Task::Give => json!({ "do": "give" }),
            Task::Note { findings, cpu } => {
                json!({ "do": "note", "findings": findings.to_json(), "cpu": cpu.map(micros) })
            }
        }
    }

    pub(crate) fn from_json(value: &Value) -> Option<Task> {
        match value.get("do")?.as_str()? {
            "echo" => Some(Task::Echo),
            "take" => Some(Task::Take),
            "give" => Some(Task::Give),
            "note" => Some(Task::Note {
                findings: Box::new(Findings::from_json(value.get("findings")?)?),
                cpu: value.get("cpu").and_then(duration),
            }),
            _ => None,
        }
    }
}

/// Sends a message that both sides understand.
pub(crate) async fn tell(write: &mut WriteHalf, value: &Value) -> Result<(), Broken> {
    write.send(Bytes::from(value.to_string())).await.map_err(Broken::wormhole)
}

/// Receives one, and reads it.
pub(crate) async fn hear<T>(
    read: &mut ReadHalf,
    understand: impl FnOnce(&Value) -> Option<T>,
) -> Result<T, Broken> {
    let message = read.recv().await.map_err(Broken::wormhole)?.ok_or_else(left)?;
    let value = serde_json::from_slice(&message).ok();
    value.as_ref().and_then(understand).ok_or_else(|| {
        Broken::Here(Failure::new(
            Kind::PeerProgram,
            "the other side said something that this `dilated bench` does not understand; use the same version \
             on both",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::findings::{Flow, RoundTrip};

    #[test]
    fn tasks_survive_the_wire_and_strange_ones_are_none() {
        let flow = Flow { bytes: 1, time: Duration::from_secs(1) };
        let trip = RoundTrip::of(vec![Duration::from_micros(7)]).unwrap();
        let findings = Box::new(Findings::new(trip, flow, flow));
        let note = |cpu| Task::Note { findings: findings.clone(), cpu };
        for task in [Task::Echo, Task::Take, Task::Give, note(None), note(Some(Duration::from_micros(9)))] {
            assert_eq!(Task::from_json(&task.to_json()), Some(task));
        }
        for strange in [json!({}), json!({ "do": "dance" }), json!({ "do": 1 }), json!({ "do": "note" })] {
            assert_eq!(Task::from_json(&strange), None);
        }
    }
}
