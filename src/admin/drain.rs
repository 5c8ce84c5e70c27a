//! `/api/drain`: a shutdown that operators begin, follow and take back over HTTP.

use serde_json::{Value, json};

use crate::admin::api::Reply;
use crate::clock::{Iso8601, Now};
use crate::fanout::shared::Shared;
use crate::fanout::stages::{Stage, Undo};
use crate::proto::http1::HttpError;

/// The path.
pub const PATH: &str = "/api/drain";
/// The methods that are served there.
pub const METHODS: &str = "GET, HEAD, POST, DELETE";

/// What is to be done about the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `POST`: it begins.
    Begin,
    /// `DELETE`: it is taken back.
    Undo,
}

/// How far it is.
pub fn progress(shared: &Shared, now: Now) -> Value {
    let order = shared.drain_order();
    let seconds = |until: u64| until.saturating_sub(now.mono) as f64 / 1e9;
    json!({
        "state": shared.state().name(),
        "stage": order.map(|order| order.stage.name()),
        "clients": shared.clients.load(std::sync::atomic::Ordering::Relaxed),
        "clientsAtBeginning": order.map(|order| order.clients),
        "secondsLeft": order.map(|order| seconds(order.until)),
        "canBeUndone": order.is_some_and(|order| order.stage == Stage::Spread),
        "uptimeSeconds": now.mono.saturating_sub(shared.started.mono) as f64 / 1e9,
        "timestamp": Iso8601::new().format(now.wall_ms),
    })
}

/// Does it. Beginning what is under way already changes nothing.
///
/// # Errors
/// 409 where there is nothing to take back, or it is too late.
pub fn obey(wish: Wish, shared: &Shared, now: Now) -> Result<Reply, HttpError> {
    let status = match wish {
        Wish::Begin => shared.begin_drain(now).map_or(200, |_| 202),
        Wish::Undo => match shared.undo_drain() {
            Undo::Done { .. } => 200,
            Undo::Nothing => return Err(HttpError::new(409, "there is no shutdown to take back")),
            Undo::TooLate => return Err(HttpError::new(409, TOO_LATE)),
        },
    };
    Ok(Reply::json(status, &progress(shared, now)))
}

/// What whoever comes too late is told.
pub const TOO_LATE: &str = "too late to take the shutdown back: publishers are read no more";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::fanout::shared::{Access, State};
    use std::sync::atomic::Ordering;

    fn at(seconds: u64) -> Now {
        Now { mono: seconds * 1_000_000_000, wall_ms: 0 }
    }

    #[test]
    fn the_answer_tells_how_far_it_is() {
        let shared = Shared::new(1, &Limits::default(), Access::default(), at(1));
        shared.set_state(State::Ready);
        shared.clients.store(400, Ordering::Relaxed);
        let idle = json!({"state":"ready","stage":null,"clients":400,"clientsAtBeginning":null,"secondsLeft":null,
                          "canBeUndone":false,"uptimeSeconds":1.0,"timestamp":"1970-01-01T00:00:00.000Z"});
        assert_eq!(progress(&shared, at(2)), idle);
        assert_eq!(obey(Wish::Undo, &shared, at(2)).unwrap_err().status, 409);
        assert_eq!(obey(Wish::Begin, &shared, at(2)).unwrap().status, 202);
        assert_eq!(obey(Wish::Begin, &shared, at(3)).unwrap().status, 200);
        shared.clients.store(300, Ordering::Relaxed);
        let under_way = json!({"state":"draining","stage":"spread","clients":300,"clientsAtBeginning":400,
                               "secondsLeft":3.0,"canBeUndone":true,"uptimeSeconds":2.0,
                               "timestamp":"1970-01-01T00:00:00.000Z"});
        assert_eq!(progress(&shared, at(3)), under_way);
        assert_eq!(obey(Wish::Undo, &shared, at(3)).unwrap().status, 200);
        assert_eq!(shared.state(), State::Ready);
        // Without a spread nothing can be taken back.
        shared.set_limits(&std::sync::Arc::new(Limits {
            drain_spread: std::time::Duration::ZERO,
            ..Limits::default()
        }));
        obey(Wish::Begin, &shared, at(4)).unwrap();
        assert_eq!(progress(&shared, at(5))["canBeUndone"], false);
        assert_eq!(obey(Wish::Undo, &shared, at(5)).unwrap_err().message, TOO_LATE);
    }
}
