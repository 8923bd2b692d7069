//! Simulates the protocol under seeded failures: messages that are lost, late, duplicated and out of order,
//! nodes that are cut off, paused and killed. More schedules: `PERMGATE_TEST_SCHEDULES=10000 cargo test
//! --lib store::cluster::simulation::schedules`.

mod engine;
mod model;
mod node;
mod random;
mod scenarios;
mod verdict;
mod world;

use random::Random;
use world::{CALM, Chaos, NetworkConditions, SECOND, World};

const SCHEDULES: u64 = 200;

/// A mistake of the nodes, to see that the simulation notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The permission lasts as long as others wait for it, so that clocks must not differ.
    FullLease,
    CountsFromTheAnswer,
    /// Treats an unclear commit as one that was not made.
    PlansTooEarly,
    SkipsGaps,
    /// Does not wait for an evicted node, although its permission lasts.
    EvictsAtOnce,
}

/// One minute of failures, and another one to recover.
fn schedule(seed: u64, fault: Fault) -> (Result<(), String>, u64) {
    let mut random = Random::new(seed ^ 0xabcd);
    let nodes = usize::try_from(random.between(2, 6)).unwrap();
    let mut world = World::new(seed, nodes, fault);
    let any = |random: &mut Random| usize::try_from(random.between(0, nodes as u64)).unwrap();
    world.run_until(3 * SECOND);
    world.network = NetworkConditions {
        loss: random.between(0, 100),
        watch_loss: random.between(0, 150),
        slow: random.between(0, 30),
    };
    for _ in 0..random.between(20, 120) {
        let at = random.between(3 * SECOND, 60 * SECOND);
        let name = u8::try_from(random.between(0, 12)).unwrap();
        world.submit_at(at, any(&mut random), name, random.per_mille(500));
    }
    for _ in 0..random.between(0, 8) {
        let at = random.between(3 * SECOND, 55 * SECOND);
        let machine = any(&mut random);
        match random.between(0, 3) {
            0 => {
                world.chaos_at(at, machine, Chaos::CutOff);
                world.chaos_at(at + random.between(SECOND, 25 * SECOND), machine, Chaos::Heal);
            }
            1 => world.chaos_at(at, machine, Chaos::Pause(random.between(SECOND / 10, 20 * SECOND))),
            _ => {
                let back_in = random.between(SECOND / 20, 15 * SECOND);
                world.chaos_at(at, machine, Chaos::Crash { back_in });
            }
        }
    }
    world.run_until(60 * SECOND);
    world.network = CALM;
    for machine in 0..nodes {
        world.chaos_at(60 * SECOND, machine, Chaos::Heal);
    }
    world.run_until(120 * SECOND);
    (world.verify(), world.events)
}

#[test]
fn schedules() {
    let count = std::env::var("PERMGATE_TEST_SCHEDULES").ok().map_or(SCHEDULES, |n| n.parse().unwrap());
    let (mut wrong, mut events) = (Vec::new(), 0);
    for seed in 0..count {
        let (outcome, happened) = schedule(seed, Fault::None);
        events += happened;
        if let Err(error) = outcome {
            wrong.push(format!("schedule {seed}: {error}"));
        }
    }
    println!("{count} schedules, {events} events, {} violations", wrong.len());
    assert!(wrong.is_empty(), "{} of {count}: {}", wrong.len(), wrong[..wrong.len().min(5)].join("\n"));
}

#[test]
fn every_fault_is_caught() {
    // Each with a schedule that is known to show it, so that none is searched for.
    for (fault, symptom, known) in [
        (Fault::FullLease, "permits by position", 14),
        (Fault::CountsFromTheAnswer, "permits by position", 766),
        (Fault::EvictsAtOnce, "permits by position", 273),
        (Fault::PlansTooEarly, "but was made at", 2),
        (Fault::SkipsGaps, "differs at position", 0),
    ] {
        let found = [known].into_iter().chain(0..3000);
        let found = found.into_iter().find_map(|seed| Some((seed, schedule(seed, fault).0.err()?)));
        let (seed, error) = found.unwrap_or_else(|| panic!("{fault:?} is not noticed"));
        println!("{fault:?}: schedule {seed}: {error}");
        assert!(error.contains(symptom), "{fault:?}, schedule {seed}: {error}");
    }
}
