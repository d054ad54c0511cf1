//! What is read.

use std::collections::HashMap;

use seen_store::{Config, Entry, Filter, Reader, SeenStore};

use super::{Call, Draw, Effect, IDS, PLAIN, SCOPES, Says, id_of, ms_of};
use crate::model::{Act, Name, Told};
use crate::setup::Kept;
use crate::state::{NEVER, View};

fn view_of(entry: &Entry) -> View {
    View {
        label: entry.state,
        first: ms_of(entry.first_seen),
        last: ms_of(entry.last_seen),
        expires: entry.expires_at.map_or(NEVER, ms_of),
        until: entry.lease_until.map(ms_of),
        attempts: entry.attempts,
        error: entry.last_error.clone(),
        receipt: entry.receipt.clone(),
    }
}

pub fn try_is_seen(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    draw.on_one("try_is_seen", PLAIN, name, Act::IsSeen, |store, id| {
        store.try_is_seen(id).map(Told::IsSeen)
    })
}

/// It answers "no" where it cannot tell.
pub fn is_seen(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    draw.on_one("is_seen", PLAIN, name, Act::IsSeen, |store, id| {
        Ok(if store.is_seen(id) { Told::IsSeen(true) } else { Told::Nothing })
    })
}

pub fn get(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    get_of(draw, name)
}

/// For the end of a run, too.
pub fn get_of(draw: &Draw<'_>, name: Name) -> Call {
    draw.on_one("get", PLAIN, name, Act::Get, |store, id| {
        Ok(Told::View(store.get(id)?.as_ref().map(view_of)))
    })
}

/// While others work an id may be listed at any moment of the listing, twice, or not at all.
pub fn entries(draw: &mut Draw<'_>) -> Call {
    let names = (0..SCOPES.len()).flat_map(|scope| (0..IDS).map(move |id| (scope, id))).collect();
    let call =
        list(draw, names, |listed| listed.map_or(Told::Nothing, |view| Told::Listed(Some(view))));
    Call { judged_alone: true, ..call }
}

/// A listing while nothing else is under way, which tells of each of `names`.
pub fn entries_of(draw: &Draw<'_>, names: Vec<Name>) -> Call {
    list(draw, names, Told::Listed)
}

fn list(draw: &Draw<'_>, names: Vec<Name>, tell: fn(Option<View>) -> Told) -> Call {
    let effect = names.iter().map(|name| (*name, vec![Act::List])).collect();
    let run = move |store: &SeenStore, _: &Config| {
        let (mut listed, mut problems) = (HashMap::new(), Vec::new());
        for entry in store.entries(Filter::default()) {
            let entry = entry?;
            let view = view_of(&entry);
            let key = (entry.scope, entry.id);
            if listed.insert(key.clone(), view).is_some() {
                problems.push(format!("{key:?} is listed twice"));
            }
        }
        let told = names.iter().map(|name| {
            let key = (SCOPES[name.0].to_owned(), id_of(*name).into_bytes());
            vec![tell(listed.get(&key).cloned())]
        });
        Ok(Says { told: told.collect(), problems })
    };
    draw.call("entries", PLAIN, Effect::On(effect), Box::new(run))
}

pub fn stats(draw: &mut Draw<'_>) -> Call {
    draw.on_none("stats", |store, _| store.stats().map(|_| Vec::new()))
}

pub fn verify(draw: &mut Draw<'_>) -> Call {
    draw.on_none("verify", |store, _| store.verify().map(|report| report.problems))
}

/// A Reader beside the stores, of what only one store reads: the store itself.
pub fn read(draw: &mut Draw<'_>) -> Call {
    if draw.setup.kept != Kept::Shared {
        return verify(draw);
    }
    let (name, path, whole) = (draw.name(), draw.path.clone(), draw.rng.bool());
    let run = move |_: &SeenStore, config: &Config| {
        let reader = Reader::open_with(&path, config)?;
        let (scope, id) = (SCOPES[name.0], id_of(name));
        let told = if whole {
            // As in a listing, what has expired is there until it is purged.
            Told::Listed(reader.get(scope, id)?.as_ref().map(view_of))
        } else {
            Told::IsSeen(reader.is_seen(scope, id)?)
        };
        Ok(Says { told: vec![vec![told]], problems: reader.verify()?.problems })
    };
    let act = if whole { Act::List } else { Act::IsSeen };
    let call = draw.call("Reader", PLAIN, Effect::On(vec![(name, vec![act])]), Box::new(run));
    Call { by_reader: true, ..call }
}
