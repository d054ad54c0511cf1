//! What is read.

use std::collections::HashMap;
use std::time::Duration;

use seen_store::{Config, Entry, Filter, Reader, Result, SeenStore, State};

use super::{Call, Draw, Effect, IDS, SCOPES, Says, id_of, ms_of};
use crate::model::{Act, Name, Told};
use crate::setup::Kept;
use crate::state::{NEVER, View};
use crate::through::Through;

fn view_of(entry: &Entry) -> View {
    View {
        label: entry.state,
        first: ms_of(entry.first_seen),
        last: ms_of(entry.last_seen),
        expires: entry.expires_at.map_or(NEVER, ms_of),
        until: entry.lease_until.map(ms_of),
        attempts: entry.attempts,
        abandoned: entry.abandoned,
        held: entry.held,
        error: entry.last_error.clone(),
        receipt: entry.receipt.clone(),
    }
}

pub fn try_is_seen(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    draw.on_one("try_is_seen", Through::PLAIN, name, Act::IsSeen, |store, id| {
        store.try_is_seen(id).map(Told::IsSeen)
    })
}

/// It answers "no" where it cannot tell.
pub fn is_seen(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    draw.on_one("is_seen", Through::PLAIN, name, Act::IsSeen, |store, id| {
        Ok(if store.is_seen(id) { Told::IsSeen(true) } else { Told::Nothing })
    })
}

pub fn get(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    get_of(draw, name)
}

/// For the end of a run, too.
pub fn get_of(draw: &Draw<'_>, name: Name) -> Call {
    draw.on_one("get", Through::PLAIN, name, Act::Get, |store, id| {
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
        let entries: Vec<_> = store.entries(Filter::default()).collect::<Result<_>>()?;
        Ok(listed(&names, &entries, tell))
    };
    draw.call("entries", Through::PLAIN, Effect::On(effect), Box::new(run))
}

/// What a listing says of these ids.
fn listed(names: &[Name], entries: &[Entry], tell: fn(Option<View>) -> Told) -> Says {
    let (mut views, mut problems) = (HashMap::new(), Vec::new());
    for entry in entries {
        let key = (entry.scope.clone(), entry.id.clone());
        if views.insert(key.clone(), view_of(entry)).is_some() {
            problems.push(format!("{key:?} is listed twice"));
        }
    }
    let told = names.iter().map(|name| {
        let key = (SCOPES[name.0].to_owned(), id_of(*name).into_bytes());
        vec![tell(views.get(&key).cloned())]
    });
    Says { told: told.collect(), problems }
}

/// How many of the entries are seen, in flight, and failed.
fn counted(entries: &[Entry]) -> [u64; 3] {
    let count = |state| entries.iter().filter(|entry| entry.state == state).count() as u64;
    [State::Seen, State::InFlight, State::Failed].map(count)
}

/// They are to tell of what is listed.
pub fn stats(draw: &mut Draw<'_>) -> Call {
    let call = draw.on_none("stats", |store, _| {
        let entries: Vec<_> = store.entries(Filter::default()).collect::<Result<_>>()?;
        let (stats, right) = (store.stats()?, counted(&entries));
        let is_right = [stats.seen, stats.in_flight, stats.failed] == right;
        Ok((!is_right).then(|| format!("{right:?} are listed: {stats:?}")).into_iter().collect())
    });
    Call { judged_alone: true, ..call }
}

pub fn verify(draw: &mut Draw<'_>) -> Call {
    draw.on_none("verify", |store, _| store.verify().map(|report| report.problems))
}

/// A Reader beside the stores, of what only one store reads: the store itself.
pub fn read(draw: &mut Draw<'_>) -> Call {
    if draw.setup.kept != Kept::SharedFile {
        return verify(draw);
    }
    let (name, path, whole) = (draw.name(), draw.path.clone(), draw.rng.bool());
    let run = move |_: &SeenStore, config: &Config| {
        let reader = Reader::open_with(&path, config.clone())?;
        let (scope, id) = (SCOPES[name.0], id_of(name));
        let told = if whole {
            // As in a listing, what has expired is there until it is purged.
            Told::Listed(reader.scope(scope).get(id)?.as_ref().map(view_of))
        } else {
            Told::IsSeen(reader.scope(scope).try_is_seen(id)?)
        };
        Ok(Says { told: vec![vec![told]], problems: reader.verify()?.problems })
    };
    let act = if whole { Act::List } else { Act::IsSeen };
    let call =
        draw.call("Reader", Through::PLAIN, Effect::On(vec![(name, vec![act])]), Box::new(run));
    Call { by_reader: true, ..call }
}

/// The listing of a Reader, with its stats.
pub fn read_all(draw: &mut Draw<'_>) -> Call {
    if draw.setup.kept != Kept::SharedFile {
        return verify(draw);
    }
    let names = (0..SCOPES.len()).flat_map(|scope| (0..IDS).map(move |id| (scope, id))).collect();
    read_all_of(draw, names, |listed| listed.map_or(Told::Nothing, |view| Told::Listed(Some(view))))
}

pub fn read_all_of(draw: &Draw<'_>, names: Vec<Name>, tell: fn(Option<View>) -> Told) -> Call {
    let effect = names.iter().map(|name| (*name, vec![Act::List])).collect();
    let path = draw.path.clone();
    let run = move |_: &SeenStore, config: &Config| {
        let reader = Reader::open_with(&path, config.clone())?;
        let entries: Vec<_> = reader.entries(Filter::default()).collect::<Result<_>>()?;
        let (stats, right) =
            (reader.stats(Duration::from_secs(3_600), 4)?.total(), counted(&entries));
        let mut says = listed(&names, &entries, tell);
        if [stats.seen, stats.in_flight, stats.failed] != right {
            says.problems.push(format!("{right:?} are listed: {stats:?}"));
        }
        Ok(says)
    };
    let call = draw.call("Reader lists", Through::PLAIN, Effect::On(effect), Box::new(run));
    Call { by_reader: true, judged_alone: true, ..call }
}
