//! What is promised for single failures, in numbers.

use super::{
    Fault,
    world::{Chaos, Micros, SECOND, Status, World},
};

const MILLISECOND: Micros = SECOND / 1000;

fn three() -> World {
    let mut world = World::new(7, 3, Fault::None).with_equal_clocks();
    world.run_until(5 * SECOND);
    assert_eq!(world.members(), 3);
    assert!((0..3).all(|node| world.permits(node)));
    world
}

/// How long a change takes that node 0 gets at `at`, and how many nodes lapse.
fn change(world: &mut World, at: Micros, name: u8) -> (Micros, usize) {
    let id = world.submit_at(at, 0, name, true);
    world.run_until(at + 12 * SECOND);
    world.verify_running();
    let Status::Answered { at: answered, completed } = &world.statuses[id as usize] else {
        panic!("{:?}", world.statuses[id as usize])
    };
    (answered - at, completed.lapsed.len())
}

#[test]
fn a_change_is_in_force_everywhere_at_once() {
    let mut world = three();
    let at = world.now;
    let (took, lapsed) = change(&mut world, at, 1);
    assert!(took < 30 * MILLISECOND && lapsed == 0, "{took} us, {lapsed} lapsed");
}

#[test]
fn a_killed_node_delays_one_change_and_is_evicted() {
    let mut world = three();
    let at = world.now;
    world.chaos_at(at, 2, Chaos::Crash { back_in: 100 * SECOND });
    let (took, lapsed) = change(&mut world, at + MILLISECOND, 1);
    assert!(took <= 10_500 * MILLISECOND && lapsed == 1, "{took} us, {lapsed} lapsed");
    assert_eq!(world.members(), 2, "evicted");
    let at = at + took + 10_200 * MILLISECOND;
    let (took, lapsed) = change(&mut world, at, 2);
    assert!(took <= 100 * MILLISECOND && lapsed == 0, "{took} us, {lapsed} lapsed");
}

#[test]
fn a_restarted_node_is_not_waited_for_twice() {
    let mut world = three();
    let at = world.now;
    world.chaos_at(at, 2, Chaos::Crash { back_in: 200 * MILLISECOND });
    world.run_until(at + 3 * SECOND);
    assert_eq!(world.members(), 3);
    let (took, lapsed) = change(&mut world, at + 3 * SECOND, 1);
    assert!(took <= 100 * MILLISECOND && lapsed == 0, "{took} us, {lapsed} lapsed");
}

#[test]
fn a_node_that_is_cut_off_stops_within_the_lease_and_comes_back() {
    let mut world = three();
    let at = world.now;
    world.chaos_at(at, 1, Chaos::CutOff);
    world.run_until(at + 6 * SECOND);
    assert!(world.permits(1), "a short interruption stops nobody");
    world.run_until(at + 10 * SECOND);
    assert!(!world.permits(1));
    assert!(world.permits(0) && world.permits(2));
    world.chaos_at(world.now, 1, Chaos::Heal);
    world.run_until(at + 13 * SECOND);
    assert!(world.permits(1));
    assert_eq!(world.members(), 3, "nobody waited for it, so that nobody evicted it");
}

#[test]
fn a_node_that_was_cut_off_evicts_nobody() {
    let mut world = three();
    let at = world.now;
    world.submit_at(at, 0, 1, true);
    // The entry is in the log; the others' acknowledgements do not arrive.
    world.chaos_at(at + 4 * MILLISECOND, 0, Chaos::CutOff);
    world.run_until(at + 15 * SECOND);
    world.chaos_at(world.now, 0, Chaos::Heal);
    world.run_until(at + 30 * SECOND);
    assert_eq!(world.members(), 3);
    assert!((0..3).all(|node| world.permits(node)));
    world.verify().unwrap();
}

#[test]
fn a_paused_node_permits_nothing_when_it_goes_on() {
    let mut world = three();
    let at = world.now;
    world.chaos_at(at, 2, Chaos::Pause(15 * SECOND));
    let (took, lapsed) = change(&mut world, at + MILLISECOND, 1);
    assert!(took <= 10_500 * MILLISECOND && lapsed == 1, "{took} us, {lapsed} lapsed");
    world.run_until(at + 15 * SECOND - 1);
    assert!(!world.permits(2));
    world.run_until(at + 25 * SECOND);
    assert!(world.permits(2), "it has joined again");
    world.verify().unwrap();
}
