//! The verbs for tasks. A thread of the store polls them, to their end or not.
//!
//! A future that is dropped leaves its call done or not. The store may still be at it then, so the operation ends only
//! when it is not: what a task left must take effect between its call and its return, as everything.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

use std::time::Duration;

use seen_store::{
    AsyncLease, AsyncSeenStore, Config, ErrorKind, Item, Machine as _, Result, SeenStore,
};

use super::claims::{answer_of, held, told_of};
use super::marks::told;
use super::{Call, Draw, Effect, SCOPES, Says, id_of};
use crate::model::{Act, Name, Told, placeholder};
use crate::setup::choose;
use crate::state::{Answer, Tag, View};
use crate::through::Through;
use crate::vfs::scheduler;

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Polls a future up to so many times, or to its end. `None`: it was dropped before.
fn poll<T>(future: impl Future<Output = T>, most: Option<usize>) -> Option<T> {
    let mut future = pin!(future);
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    for polls in 1.. {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if most.is_some_and(|most| polls >= most) {
            return None;
        }
        scheduler().wait(&|| woken.0.load(SeqCst), None);
        woken.0.store(false, SeqCst);
    }
    unreachable!("there are more polls than that")
}

/// How often a call is polled: mostly to its end.
fn polls(draw: &mut Draw<'_>) -> Option<usize> {
    *choose(&mut draw.rng, &[None, None, None, None, Some(1), Some(1), Some(2)])
}

/// Returns once the store has done what was asked of it by tasks that have gone.
fn drained(store: &AsyncSeenStore) {
    // An error is judged where it is told: here nothing is asked for.
    let _ = poll(store.scope("a scope of its own").forget("nothing"), None);
}

/// An item that a task may keep.
fn of_task(name: Name, tag: Option<Tag>) -> Item<'static> {
    let item = Item::new(id_of(name));
    match tag {
        None => item,
        Some(Tag::Version(number)) => item.version([number]),
        Some(Tag::Payload(number)) => item.payload([number]),
    }
}

/// One act on one id by a task. `run` makes the future.
fn on_one<F>(
    draw: &mut Draw<'_>,
    called: &'static str,
    through: Through,
    (name, tag): (Name, Option<Tag>),
    act: Act,
    run: impl FnOnce(AsyncSeenStore, Item<'static>) -> F + Send + 'static,
) -> Call
where
    F: Future<Output = Result<Told>>,
{
    let most = polls(draw);
    let run = move |store: &SeenStore, _: &Config| {
        let store = AsyncSeenStore::from(through.handle(store, SCOPES[name.0]));
        let Some(told) = poll(run(store.clone(), of_task(name, tag)), most) else {
            drained(&store);
            return Ok(Says { was_left: true, ..Says::default() });
        };
        let told = match told {
            Err(e) if e.kind() == ErrorKind::Conflict => Told::Answer(Answer::Conflict),
            told => told?,
        };
        Ok(Says { told: vec![vec![told]], ..Says::default() })
    };
    draw.call(called, through, Effect::On(vec![(name, vec![act])]), Box::new(run))
}

pub fn mark_seen(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    let tag = draw.tag(name);
    let act = Act::Mark { tag };
    on_one(draw, "task: mark_seen", through, (name, tag), act, async |store, id| {
        store.mark_seen(id).await.map(|()| Told::Answer(Answer::Done))
    })
}

pub fn check_and_mark(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.name(), draw.through());
    let tag = draw.tag(name);
    let act = Act::Check { tag, retry_of: None };
    on_one(draw, "task: check_and_mark", through, (name, tag), act, async |store, id| {
        store.check_and_mark(id).await.map(told)
    })
}

pub fn try_is_seen(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    let tag = draw.tag(name);
    let act = Act::IsSeen { tag };
    on_one(draw, "task: try_is_seen", Through::PLAIN, (name, tag), act, async |store, id| {
        store.try_is_seen(id).await.map(Told::IsSeen)
    })
}

pub fn get(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    on_one(draw, "task: get", Through::PLAIN, (name, None), Act::Get, async |store, id| {
        Ok(Told::View(store.get(id).await?.as_ref().map(View::of)))
    })
}

pub fn forget(draw: &mut Draw<'_>) -> Call {
    let name = draw.name();
    let call = on_one(
        draw,
        "task: forget",
        Through::PLAIN,
        (name, None),
        Act::Forget,
        async |store, id| {
            store.forget(id).await.map(|was_known| Told::Answer(Answer::Forgot(was_known)))
        },
    );
    Call { removes: true, ..call }
}

pub fn confirm(draw: &mut Draw<'_>) -> Call {
    let (name, through, receipt) = (draw.claimed(), draw.through(), draw.receipt());
    let token = draw.token(name);
    let act = Act::Confirm { token, receipt: receipt.clone() };
    on_one(draw, "task: confirm", through, (name, None), act, async move |store, id| {
        held(match receipt {
            Some(receipt) => store.confirm_with(id, &token, receipt).await,
            None => store.confirm(id, &token).await,
        })
    })
}

pub fn fail(draw: &mut Draw<'_>) -> Call {
    let (name, through) = (draw.claimed(), draw.through());
    let token = draw.token(name);
    let act = Act::Fail { token, reason: "503".to_owned(), is_final: false };
    on_one(draw, "task: fail", through, (name, None), act, async move |store, id| {
        held(store.fail(id, &token, "503").await)
    })
}

fn granted(lease: &AsyncLease) -> Told {
    told_of(lease.attempt(), lease.expires_at(), lease.previous(), lease.token())
}

/// A claim that is waited for, and whose holder keeps its token.
pub fn claim(draw: &mut Draw<'_>) -> Call {
    let (name, through, lease) = (draw.claimed(), draw.through(), draw.lease());
    let waits = Duration::from_millis(*choose(&mut draw.rng, &[0, 0, 40, 200]));
    let tag = draw.tag(name);
    let act = Act::Claim { tag, lease, hold: through.hold };
    let run = move |store: &SeenStore, _: &Config| {
        let store = AsyncSeenStore::from(through.handle(store, SCOPES[name.0])).waiting(waits);
        let claim = poll(store.claim(of_task(name, tag), lease.duration()), None);
        let told = match claim.expect("polled to its end") {
            Err(e) if e.kind() == ErrorKind::Conflict => Told::Answer(Answer::Conflict),
            claim => answer_of(claim?, |lease| {
                let told = granted(&lease);
                lease.into_token();
                told
            }),
        };
        Ok(Says { told: vec![vec![told]], ..Says::default() })
    };
    draw.call("task: claim", through, Effect::On(vec![(name, vec![act])]), Box::new(run))
}

/// A claim whose task leaves: before it is told, or with the lease.
pub fn lease(draw: &mut Draw<'_>) -> Call {
    let (mut name, through, lease) = (draw.claimed(), draw.through(), draw.lease());
    if draw.rng.bool() {
        // Surely granted, and as it was left at the end.
        name = draw.fresh(name.0, 1)[0];
    }
    let tag = draw.tag(name);
    let (most, renews) = (polls(draw), draw.rng.bool());
    let run = move |store: &SeenStore, _: &Config| {
        let mut store = AsyncSeenStore::from(through.handle(store, SCOPES[name.0]));
        if renews {
            store = store.renewing(Duration::from_secs(3_600));
        }
        let Some(claim) = poll(store.claim(of_task(name, tag), lease.duration()), most) else {
            drained(&store);
            return Ok(Says { was_left: true, ..Says::default() });
        };
        let told = match claim {
            Err(e) if e.kind() == ErrorKind::Conflict => Told::Answer(Answer::Conflict),
            claim => answer_of(claim?, |lease| granted(&lease)),
        };
        drained(&store);
        Ok(Says { told: vec![vec![told, Told::Nothing]], ..Says::default() })
    };
    let release = Act::Release { token: placeholder(draw.number) };
    let acts = vec![Act::Claim { tag, lease, hold: through.hold }, release];
    draw.call("task: lease", through, Effect::InSteps(name, acts), Box::new(run))
}
