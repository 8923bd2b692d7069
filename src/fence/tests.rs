//! Tests of the fence alone, with entries that consist of a number.

use std::{
    cell::{Cell, RefCell},
    net::Ipv4Addr,
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};

use tokio::task::LocalSet;

use super::*;
use crate::authz::{reason::Reason, time::Timestamp};

/// Permitted until `forbidden` is set or the deadline has passed. Leaves when it is cut.
struct Stream {
    user: UserIx,
    forbidden: Cell<bool>,
    deadline: Cell<Option<Timestamp>>,
    cut: Cell<Option<Reason>>,
    place: RefCell<Option<Registration<Stream>>>,
    stays: bool,
    /// How long it takes to decide.
    expense: Cell<Duration>,
}

impl Revocable for Stream {
    fn affected_by(&self, affected: &Affected) -> bool {
        matches!(affected, Affected::All) || *affected == Affected::User(self.user)
    }
    fn reauthorize(&self) -> Result<(), Reason> {
        std::thread::sleep(self.expense.get());
        let over = self.deadline.get().is_some_and(|at| at <= SystemTime::now().into());
        if over || self.forbidden.get() { Err(Reason::TokenRevoked) } else { Ok(()) }
    }
    fn cut(&self, reason: Reason) {
        self.cut.set(Some(reason));
        if !self.stays {
            self.place.take();
        }
    }
    fn row(&self) -> LiveRow {
        LiveRow {
            id: String::new(),
            request_id: "r".into(),
            token: None,
            user: Some(self.user),
            service: "s".into(),
            method: "GET".into(),
            path: "/".into(),
            client: Ipv4Addr::LOCALHOST.into(),
            age: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
        }
    }
    fn deadline(&self) -> Option<Timestamp> {
        self.deadline.get()
    }
}

fn enter(registry: &Rc<Registry<Stream>>, user: u32, deadline: Option<Timestamp>, stays: bool) -> Rc<Stream> {
    let stream = Rc::new(Stream {
        user: UserIx(user),
        forbidden: Cell::new(false),
        deadline: Cell::new(deadline),
        cut: Cell::new(None),
        place: RefCell::new(None),
        stays,
        expense: Cell::default(),
    });
    *stream.place.borrow_mut() = Some(registry.enter(stream.clone()));
    stream
}

/// Runs `test` alongside the loops of two registries.
fn check<F: Future<Output = ()>>(test: impl FnOnce(Arc<Fence>, [Rc<Registry<Stream>>; 2]) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fence = Fence::new(Duration::from_millis(500));
    LocalSet::new().block_on(&runtime, async {
        let registries = [Registry::new(fence.join()), Registry::new(fence.join())];
        for registry in &registries {
            tokio::task::spawn_local(registry.clone().run());
        }
        test(fence, registries).await;
    });
}

#[test]
fn change_cuts_only_entries_that_it_forbids() {
    check(async |fence, [one, two]| {
        let (a, b) = (enter(&one, 1, None, false), enter(&two, 1, None, false));
        let (c, d) = (enter(&one, 1, None, false), enter(&two, 2, None, false));
        for stream in [&a, &b, &d] {
            stream.forbidden.set(true);
        }
        assert_eq!(fence.raise(Affected::User(UserIx(1))).wait().await, Ok(Cut(2)));
        assert_eq!((a.cut.get(), b.cut.get()), (Some(Reason::TokenRevoked), Some(Reason::TokenRevoked)));
        assert_eq!(c.cut.get(), None, "still permitted");
        assert_eq!(d.cut.get(), None, "not affected_by");
        assert_eq!((one.len(), two.len()), (1, 1));
    });
}

#[test]
fn batched_changes_are_counted_once_each() {
    check(async |fence, [one, _]| {
        let (a, b) = (enter(&one, 1, None, false), enter(&one, 2, None, false));
        a.forbidden.set(true);
        b.forbidden.set(true);
        let completions = [1, 2, 1].map(|user| fence.raise(Affected::User(UserIx(user))));
        let mut cut = Vec::new();
        for ticket in completions {
            cut.push(ticket.wait().await.unwrap().0);
        }
        assert_eq!(cut, [1, 1, 0]);
    });
}

#[test]
fn unacknowledged_change_breaks_the_fence() {
    check(async |fence, _| {
        let held_up = fence.join();
        let incomplete = fence.raise(Affected::All).wait().await;
        assert_eq!(incomplete, Err(FenceIncomplete(Duration::from_millis(500))));
        assert!(fence.is_broken());
        fence.wait_until_broken().await;
        drop(held_up);
        assert_eq!(fence.raise(Affected::All).wait().await, Ok(Cut(0)), "a seat given up is not waited for");
    });
}

/// Milliseconds from now.
fn after(millis: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::from(SystemTime::now()).as_millis() + millis)
}

async fn until_cut(stream: &Stream) {
    let over = async {
        while stream.cut.get().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), over).await.expect("cut at its deadline");
}

#[test]
fn deadline_is_enforced_without_a_change() {
    check(async |_, [one, _]| {
        let soon = after(30);
        let stream = enter(&one, 1, Some(soon), false);
        let other = enter(&one, 1, None, false);
        until_cut(&stream).await;
        assert!(Timestamp::from(SystemTime::now()) >= soon);
        assert_eq!(other.cut.get(), None);
    });
}

/// And not at the next look at the clock, which is almost a second away. One of a few tries is enough, since the
/// machine may be busy.
#[test]
fn deadline_that_comes_or_moves_is_met() {
    let is_met = |moves: bool| {
        let late = Cell::new(0);
        check(async |fence, [one, _]| {
            // Both have begun to wait.
            fence.raise(Affected::All).wait().await.unwrap();
            let soon = after(30);
            let stream = enter(&one, 1, (!moves).then_some(soon), false);
            if moves {
                stream.deadline.set(Some(soon));
                fence.raise(Affected::All).wait().await.unwrap();
            }
            until_cut(&stream).await;
            late.set(Timestamp::from(SystemTime::now()).as_millis() - soon.as_millis());
        });
        late.get() < 500
    };
    assert!((0..5).any(|_| is_met(false)), "of an entry that comes");
    assert!((0..5).any(|_| is_met(true)), "that a change brings forward");
}

#[test]
fn deadline_is_enforced_while_changes_keep_coming() {
    check(async |fence, [one, _]| {
        let soon = after(30);
        let stream = enter(&one, 1, Some(soon), false);
        // While this one is decided, the next changes come.
        enter(&one, 2, None, false).expense.set(Duration::from_millis(5));
        let (flood, over) = (fence.clone(), Arc::new(AtomicBool::new(false)));
        let until = over.clone();
        let flooding = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                drop(flood.raise(Affected::User(UserIx(2))));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        until_cut(&stream).await;
        over.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        assert!(Timestamp::from(SystemTime::now()) >= soon);
    });
}

#[test]
fn change_completes_when_what_it_cuts_has_left() {
    check(async |fence, [one, _]| {
        let (a, b) = (enter(&one, 1, None, true), enter(&one, 2, None, true));
        a.forbidden.set(true);
        for stream in [&a, &b] {
            let stream = stream.clone();
            tokio::task::spawn_local(async move {
                while stream.cut.get().is_none() {
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                stream.place.take();
            });
        }
        assert_eq!(fence.raise(Affected::All).wait().await, Ok(Cut(1)));
        assert!(a.place.borrow().is_none(), "by a change");
        let id = fence.list().await.pop().unwrap().id;
        assert_eq!(fence.cut(&id).await, Ok(true));
        assert!(b.place.borrow().is_none(), "by its id");
    });
}

#[test]
fn participant_that_leaves_does_not_hold_up_a_change() {
    check(async |fence, _| {
        let leaving = fence.join();
        let change = fence.raise(Affected::All);
        drop(leaving);
        assert_eq!(change.wait().await, Ok(Cut(0)));
    });
}

#[test]
fn entries_are_listed_and_cut_by_id() {
    check(async |fence, [one, two]| {
        let (a, b) = (enter(&one, 1, None, false), enter(&two, 2, None, false));
        let rows = fence.list().await;
        assert_eq!(rows.len(), 2);
        let id = &rows.iter().find(|r| r.user == Some(UserIx(2))).unwrap().id;
        assert_eq!(fence.cut(id).await, Ok(true));
        assert_eq!((a.cut.get(), b.cut.get()), (None, Some(Reason::CutByAdmin)));
        for gone in [id.as_str(), "9-9", "nonsense", "0-"] {
            assert_eq!(fence.cut(gone).await, Ok(false), "{gone}");
        }
    });
}

#[test]
fn entries_that_are_expensive_to_decide_are_cut_in_time() {
    check(async |fence, [one, _]| {
        let streams: Vec<_> = (0..100).map(|_| enter(&one, 1, None, false)).collect();
        streams.iter().for_each(|stream| stream.expense.set(Duration::from_millis(10)));
        let cut = fence.raise(Affected::All).wait().await.expect("in time");
        assert_eq!(cut.0 as usize + one.len(), streams.len());
        assert!(one.len() > 0 && cut.0 > 50, "{cut:?}");
        assert_eq!(streams[99].cut.get(), Some(Reason::OverBudget));
    });
}

#[test]
fn stuck_entry_does_not_block_the_fence_forever() {
    check(async |_, _| {
        let fence = Fence::new(Duration::from_secs(20));
        let registry = Registry::new(fence.join());
        tokio::task::spawn_local(registry.clone().run());
        let stream = enter(&registry, 1, None, true);
        stream.forbidden.set(true);
        assert_eq!(fence.raise(Affected::All).wait().await, Ok(Cut(1)));
        assert_eq!(stream.cut.get(), Some(Reason::TokenRevoked));
    });
}
