//! A worker thread that hangs: a change reports that it is not in force everywhere yet, and the process
//! exits, so that a new one takes its place.

use std::{fs, thread, time::Instant};

use crate::{
    faults::Tracer,
    installation::{Installation, Process},
};

/// Much longer than the fence waits. Delays every wait for events of the thread.
const DELAY: &str = "inject=epoll_wait,epoll_pwait,epoll_pwait2:delay_enter=60000000";

#[test]
fn hung_worker_ends_the_process() {
    let installation = Installation::new();
    let mut process = installation.run();
    process.user("alice");
    let tokens: Vec<_> = (0..4).map(|n| process.token("alice", &format!("token {n}"))).collect();
    let Some(tracer) = Tracer::attach(&["-e", DELAY], worker_thread(process.id())) else { return };

    // During the first revocation, the thread may not have begun a delayed wait yet.
    let mut left = tokens.iter();
    let (text, asked) = loop {
        let (id, text) = left.next().expect("the worker is held up by now");
        let asked = Instant::now();
        let revoked = process.operator("DELETE", &format!("/v1/tokens/{id}"), None);
        if revoked.status == 503 {
            assert_eq!(revoked.outcome(), (503, "fence_incomplete".to_owned()));
            break (text, asked);
        }
    };
    assert!(asked.elapsed().as_secs() >= 5, "it waited for the worker: {:?}", asked.elapsed());
    let ready = process.operator("GET", "/readyz", None);
    assert_eq!(ready.status, 503, "{ready:?}");
    process.wait_for_output("a worker does not apply changes");
    // The process exits whatever the worker does, but an attached tracer may keep the kernel from reaping it.
    drop(tracer);
    assert_eq!(process.end().code(), Some(1), "{}", process.output());

    let process = installation.run();
    assert_eq!(process.status(text), 401, "it was durable");
    let (_, live) = left.next().unwrap();
    assert_eq!(process.status(live), 200);
    ready_again(&process);
}

fn ready_again(process: &Process) {
    let ready = process.operator("GET", "/readyz", None);
    assert_eq!(ready.status, 200, "{ready:?}");
}

/// The thread id of the first worker.
fn worker_thread(process: u32) -> u32 {
    loop {
        for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
            let task = task.unwrap().path();
            if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0") {
                return task.file_name().unwrap().to_str().unwrap().parse().unwrap();
            }
        }
        thread::yield_now();
    }
}
