//! Tests of the queue, compiled once for each model checker. The parent module provides the locks, the
//! threads and `check`, which runs a test body under many interleavings.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::locks::AtomicUsize;
use super::queue::{GroupCommit, JobOutcome, Jobs, LeadResult};
use super::{MOST_THREADS, check, thread};

/// The committed jobs, in order. Stands for the file.
#[derive(Default)]
pub(super) struct Committed(Vec<u32>);

pub(super) type Answer = Result<usize, &'static str>;
pub(super) type Group = GroupCommit<Committed, u32, Answer>;

/// Runs `body` for each of the jobs at the same time, each on a thread of its own; the last job runs on the
/// calling thread.
fn together(jobs: u32, group: &Arc<Group>, body: impl Fn(&Group, u32) + Send + Sync + 'static) {
    let body = Arc::new(body);
    let threads: Vec<_> = (0..jobs - 1)
        .map(|job| {
            let (group, body) = (Arc::clone(group), Arc::clone(&body));
            thread::spawn(move || body(&group, job))
        })
        .collect();
    body(group, jobs - 1);
    for thread in threads {
        thread.join().unwrap();
    }
}

pub(super) fn group(yields: u32) -> Arc<Group> {
    Arc::new(Group::new(Committed::default(), yields))
}

/// An event that happens a given number of times. Only leaders use it. They hold the mutex, so the model
/// checker need not know of it.
struct Countdown(AtomicU32);

impl Countdown {
    fn new(times: u32) -> Self {
        Self(AtomicU32::new(times))
    }

    fn take_one(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |times| times.checked_sub(1)).is_ok()
    }
}

/// Commits the waiting jobs, at most two at a time, and answers each with its position in the file.
pub(super) fn commit(file: &mut Committed, jobs: &Jobs<'_, u32, Answer>) -> LeadResult {
    let mut taken = jobs.take(2);
    let start = file.0.len();
    file.0.extend(taken.iter_mut().map(|taken| *taken.job()));
    for (position, taken) in taken.into_iter().enumerate() {
        taken.answer(Ok(start + position));
    }
    LeadResult::Done
}

/// Checks an outcome against the file: a job was committed at the position in its answer, or withdrawn.
fn committed_or_withdrawn(group: &Group, job: u32, outcome: &JobOutcome<Answer>) {
    let file = group.lock().0.clone();
    match outcome {
        JobOutcome::Answered(Ok(position)) => assert_eq!(file[*position], job),
        JobOutcome::Withdrawn => assert!(!file.contains(&job)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_job_is_committed_once_and_answered_after_it_was() {
    check(|yields| {
        let group = group(yields);
        together(MOST_THREADS, &group, |group, job| {
            let outcome = group.submit(job, commit, || true);
            let JobOutcome::Answered(Ok(position)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(group.lock().0[position], job, "answered before its commit");
        });
        let mut jobs = group.lock().0.clone();
        jobs.sort_unstable();
        assert_eq!(jobs, (0..MOST_THREADS).collect::<Vec<_>>());
    });
}

#[test]
fn what_a_leader_wrote_before_it_answered_is_seen_by_the_waiter_without_the_mutex() {
    check(|yields| {
        let group = group(yields);
        // Stands for data that is read without the mutex, such as the store's index.
        let published = AtomicUsize::new(0);
        together(MOST_THREADS, &group, move |group, job| {
            let lead = |file: &mut Committed, jobs: &Jobs<'_, u32, Answer>| {
                for mut taken in jobs.take(2) {
                    file.0.push(*taken.job());
                    published.store(file.0.len(), Relaxed);
                    taken.answer(Ok(file.0.len()));
                }
                LeadResult::Done
            };
            let outcome = group.submit(job, lead, || true);
            let JobOutcome::Answered(Ok(length)) = outcome else { panic!("{outcome:?}") };
            assert!(published.load(Relaxed) >= length, "answered before it was published");
        });
    });
}

#[test]
fn holders_of_the_mutex_that_are_no_leaders_leave_no_job_behind() {
    // One kind of holder for each thread besides the waiter.
    for first in 0..3 {
        check(move |yields| {
            together(MOST_THREADS, &group(yields), move |group, thread| match thread {
                0 => {
                    let outcome = group.submit(0, commit, || true);
                    assert_eq!(outcome, JobOutcome::Answered(Ok(0)));
                }
                _ => match (first + thread) % 3 {
                    0 => drop(group.lock()),
                    1 => group.lock().unlock_fair(),
                    _ => drop(group.try_lock_idle()),
                },
            });
        });
    }
}

#[test]
fn a_holder_of_the_mutex_may_do_the_waiting_jobs_before_it_lets_go() {
    check(|yields| {
        let group = group(yields);
        together(MOST_THREADS, &group, |group, job| {
            if job == 0 {
                let mut held = group.lock();
                let (file, jobs) = held.parts();
                if !jobs.is_empty() {
                    commit(file, &jobs);
                }
                return;
            }
            let outcome = group.submit(job, commit, || true);
            let JobOutcome::Answered(Ok(position)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(group.lock().0[position], job);
        });
        assert_eq!(group.lock().0.len(), MOST_THREADS as usize - 1);
    });
}

#[test]
fn a_leader_that_finds_the_file_busy_pauses_and_all_jobs_are_served() {
    check(|yields| {
        let group = group(yields);
        // One thread fewer than in the other tests: each pause adds steps.
        let busy = Countdown::new(3);
        together(MOST_THREADS - 1, &group, move |group, job| {
            let lead = |file: &mut Committed, jobs: &Jobs<'_, u32, Answer>| {
                if busy.take_one() { LeadResult::Busy } else { commit(file, jobs) }
            };
            let mut pauses_left = job + 1;
            let pause = || {
                pauses_left -= 1;
                thread::yield_now();
                pauses_left > 0
            };
            let outcome = group.submit(job, lead, pause);
            committed_or_withdrawn(group, job, &outcome);
        });
        assert_eq!(group.waiting(), 0);
    });
}

#[test]
fn a_failed_commit_fails_the_jobs_of_its_group_and_no_others() {
    check(|yields| {
        let failures = Countdown::new(1);
        together(MOST_THREADS.min(3), &group(yields), move |group, job| {
            let lead = |file: &mut Committed, jobs: &Jobs<'_, u32, Answer>| {
                if !failures.take_one() {
                    return commit(file, jobs);
                }
                for taken in jobs.take(2) {
                    taken.answer(Err("disk full"));
                }
                LeadResult::Done
            };
            let outcome = group.submit(job, lead, || true);
            let committed = group.lock().0.contains(&job);
            assert_eq!(committed, matches!(outcome, JobOutcome::Answered(Ok(_))));
        });
    });
}

#[test]
fn a_leader_that_panics_before_it_takes_a_job_leaves_no_waiter_behind() {
    check(|yields| {
        let group = group(yields);
        let panics = Countdown::new(1);
        together(MOST_THREADS.min(3), &group, move |group, job| {
            let lead = |file: &mut Committed, jobs: &Jobs<'_, u32, Answer>| {
                if panics.take_one() {
                    // Unwinds without the hook, whose backtrace would end the model checker's run.
                    resume_unwind(Box::new("the leader panics"));
                }
                commit(file, jobs)
            };
            let submit = AssertUnwindSafe(|| group.submit(job, lead, || true));
            let unwound = catch_unwind(submit);
            // Do not take the mutex here: releasing it would put a forgotten waiter in charge. Another leader
            // may have taken the job of the leader that panicked.
            assert!(matches!(unwound, Err(_) | Ok(JobOutcome::Answered(Ok(_)))));
        });
        assert_eq!(group.waiting(), 0);
    });
}

#[test]
fn a_leader_that_panics_abandons_the_jobs_that_it_took_and_hands_the_others_over() {
    check(|yields| {
        let group = group(yields);
        let panics = Countdown::new(1);
        together(MOST_THREADS.min(3), &group, move |group, job| {
            let lead = |file: &mut Committed, jobs: &Jobs<'_, u32, Answer>| {
                if panics.take_one() {
                    let _taken = jobs.take(2);
                    resume_unwind(Box::new("the leader panics"));
                }
                commit(file, jobs)
            };
            let submit = AssertUnwindSafe(|| group.submit(job, lead, || true));
            let unwound = catch_unwind(submit);
            let committed = group.lock().0.contains(&job);
            match unwound {
                Ok(JobOutcome::Answered(Ok(_))) => assert!(committed),
                Ok(JobOutcome::Abandoned) | Err(_) => assert!(!committed),
                Ok(other) => panic!("{other:?}"),
            }
        });
        assert_eq!(group.waiting(), 0);
    });
}

#[test]
fn jobs_that_are_given_back_are_done_later_or_withdrawn_and_in_their_order() {
    check(|yields| {
        let group = group(yields);
        let busy = Countdown::new(2);
        together(MOST_THREADS - 1, &group, move |group, job| {
            let lead = |file: &mut Committed, jobs: &Jobs<'_, u32, Answer>| {
                if !busy.take_one() {
                    return commit(file, jobs);
                }
                // Do one job and give the others back.
                let mut taken = jobs.take(3).into_iter();
                if let Some(mut first) = taken.next() {
                    file.0.push(*first.job());
                    first.answer(Ok(file.0.len() - 1));
                }
                jobs.give_back(taken);
                LeadResult::Busy
            };
            let mut pauses_left = job + 1;
            let pause = || {
                pauses_left -= 1;
                thread::yield_now();
                pauses_left > 0
            };
            let outcome = group.submit(job, lead, pause);
            committed_or_withdrawn(group, job, &outcome);
        });
        assert_eq!(group.waiting(), 0);
    });
}

/// A job that keeps a value alive; dropping it takes a while.
struct SlowJob {
    _alive: Arc<()>,
}

impl Drop for SlowJob {
    fn drop(&mut self) {
        thread::yield_now();
    }
}

#[test]
fn a_job_is_dropped_before_its_waiter_is_notified() {
    check(|yields| {
        let group = Arc::new(GroupCommit::<Countdown, SlowJob, ()>::new(Countdown::new(1), yields));
        let submit = |group: &GroupCommit<Countdown, SlowJob, ()>| {
            let alive = Arc::new(());
            let job = SlowJob { _alive: Arc::clone(&alive) };
            let lead = |panics: &mut Countdown, jobs: &Jobs<'_, SlowJob, ()>| {
                let taken = jobs.take(2);
                if panics.take_one() {
                    resume_unwind(Box::new("the leader panics"));
                }
                for taken in taken {
                    taken.answer(());
                }
                LeadResult::Done
            };
            let _ = catch_unwind(AssertUnwindSafe(|| group.submit(job, lead, || true)));
            assert_eq!(Arc::strong_count(&alive), 1, "the job outlives its call");
        };
        let other = Arc::clone(&group);
        let thread = thread::spawn(move || submit(&other));
        submit(&group);
        thread.join().unwrap();
    });
}
