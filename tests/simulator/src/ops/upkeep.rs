//! What keeps the file small.

use std::time::Duration;

use seen_store::{Config, ErrorKind, Filter, SeenStore, State, Synchronous};

use super::{Call, Draw, Effect, SCOPES, Says};
use crate::model::Act;
use crate::setup::{Kept, choose};
use crate::through::Through;

pub fn purge_expired(draw: &mut Draw<'_>) -> Call {
    let run = |store: &SeenStore, _: &Config| {
        let expired = store.count_expired()?;
        let removed = store.purge_expired()?;
        let left = store.count_expired()?;
        Ok(counted("expired marks", expired, removed, left))
    };
    let effect = Effect::OnAll { scope: None, act: Act::Purge };
    Call { judged_alone: true, ..draw.call("purge_expired", Through::PLAIN, effect, Box::new(run)) }
}

pub fn cleanup_old_entries(draw: &mut Draw<'_>) -> Call {
    let scope = draw.scope();
    let older_ms = *choose(&mut draw.rng, &[0, 1, 1_000, 60_000, 600_000]);
    let run = move |store: &SeenStore, _: &Config| {
        let store = store.scope(SCOPES[scope]);
        let older = Duration::from_millis(older_ms.try_into().unwrap());
        let old = store.count_old_entries(older)?;
        let removed = store.cleanup_old_entries(older)?;
        let left = store.count_old_entries(older)?;
        Ok(counted("old entries", old, removed, left))
    };
    let effect = Effect::OnAll { scope: Some(scope), act: Act::Cleanup { older_ms } };
    let call = draw.call("cleanup_old_entries", Through::PLAIN, effect, Box::new(run));
    Call { removes: true, judged_alone: true, ..call }
}

pub fn remove(draw: &mut Draw<'_>) -> Call {
    let scope = draw.scope();
    let labels = [
        None,
        Some(State::Seen),
        Some(State::Expired),
        Some(State::InFlight),
        Some(State::Abandoned),
        Some(State::Unresolved),
        Some(State::Released),
        Some(State::Failed),
        Some(State::GivenUp),
    ];
    let label = *choose(&mut draw.rng, &labels);
    let run = move |store: &SeenStore, _: &Config| {
        let filter = Filter::default().scope(SCOPES[scope]);
        let filter = label.map_or(filter.clone(), |label| filter.state(label));
        let selected = store.count(filter.clone())?;
        let removed = store.remove(filter.clone())?;
        let left = store.count(filter)?;
        Ok(counted("selected entries", selected, removed, left))
    };
    let effect = Effect::OnAll { scope: Some(scope), act: Act::Remove { label } };
    let call = draw.call("remove", Through::PLAIN, effect, Box::new(run));
    Call { removes: true, judged_alone: true, ..call }
}

/// A purge in the background may have taken some of what was counted.
fn counted(what: &str, before: u64, removed: u64, left: u64) -> Says {
    let is_right = removed <= before && left == 0;
    let problem =
        (!is_right).then(|| format!("of {before} {what}, {removed} were removed, {left} are left"));
    Says { problems: problem.into_iter().collect(), ..Says::default() }
}

pub fn checkpoint(draw: &mut Draw<'_>) -> Call {
    draw.on_none("checkpoint", |store, _| match store.checkpoint() {
        // Others read, or write all the time.
        Err(e) if e.kind() == ErrorKind::Busy => Ok(Vec::new()),
        done => done.map(|()| Vec::new()),
    })
}

pub fn compact(draw: &mut Draw<'_>) -> Call {
    draw.on_none("compact", |store, _| store.compact().map(|()| Vec::new()))
}

pub fn pragmas(draw: &mut Draw<'_>) -> Call {
    let (setup, path) = (*draw.setup, draw.path.clone());
    draw.on_none("pragmas", move |store, config| {
        if setup.kept == Kept::OwnFile {
            for exclusive in [false, true] {
                let second = SeenStore::open_with(&path, config.clone().exclusive(exclusive));
                if !second.as_ref().is_err_and(|e| e.kind() == ErrorKind::Busy) {
                    store.pragmas()?; // It may have been closed meanwhile.
                    return Ok(vec![format!("a second open of a file of its own: {second:?}")]);
                }
            }
        }
        let pragmas = store.pragmas()?;
        let (journal, locking) = match setup.kept {
            Kept::SharedFile => ("wal", "normal"),
            Kept::OwnFile => ("wal", "exclusive"),
            Kept::Memory => ("memory", "normal"),
        };
        let synchronous = if setup.synchronous == Synchronous::Full { 2 } else { 1 };
        let is_right = pragmas.journal_mode == journal
            && pragmas.locking_mode == locking
            && (pragmas.synchronous == synchronous || setup.kept == Kept::Memory);
        Ok((!is_right).then(|| format!("{pragmas:?}")).into_iter().collect())
    })
}
