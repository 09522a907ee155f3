//! Stories about processes: started, watched, killed, frozen; and the clock they see.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Said, pass, program, until};
use resilver_host::{ExitStatus, RunState, Signal, SpawnSpec};
use resilver_sim_kernel::{Kernel, ProcessState};
use tokio::time::Instant;

fn spec(verb: &str) -> SpawnSpec {
    SpawnSpec { program: "/bin/x".into(), args: vec![verb.to_owned()], env: Vec::new(), log: None, new_session: true }
}

#[test]
fn a_parent_learns_how_its_child_ended_and_another_only_that_it_did() {
    let said = Said::default();
    let mut kernel = Kernel::new(1);
    let a = kernel.add_machine("a");
    let child = program(&said, |_, mut told, said| async move {
        let _ = told.wait_for(|told| *told).await;
        said.say("child: told to end");
        7
    });
    kernel.on_spawn(Arc::new(move |spec| (spec.args == ["child"]).then(|| child.clone())));
    let parent = program(&said, |host, _, said| async move {
        assert!(host.proc.spawn(spec("nothing")).await.is_err());
        let child = host.proc.spawn(spec("child")).await.unwrap();
        let adopted = host.proc.adopt(child.id()).await.unwrap().expect("it runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
        child.signal(Signal::Terminate).unwrap();
        said.say(format!("parent: {:?}", child.exited().await.unwrap()));
        said.say(format!("adopter: {:?}", adopted.exited().await.unwrap()));
        assert!(host.proc.adopt(child.id()).await.unwrap().is_none());
        assert!(child.signal(Signal::Kill).is_err());
        0
    });
    let pid = kernel.start(a, "parent", &parent);
    until(&mut kernel, 100, "the parent's end", |kernel| {
        kernel.processes().iter().any(|p| p.pid == pid && p.state == ProcessState::Ended(ExitStatus::Code(0)))
    });
    let expected = ["child: told to end", "parent: Some(Code(7))", "adopter: None"];
    assert_eq!(said.all(), expected);
}

#[test]
fn a_killed_process_has_no_last_word() {
    let said = Said::default();
    let mut kernel = Kernel::new(2);
    let a = kernel.add_machine("a");
    struct Last(resilver_host::Host, Said);
    impl Drop for Last {
        fn drop(&mut self) {
            // What a crash never does: the seam does not let it through.
            if self.0.proc.identify(1).is_ok() {
                self.1.say("acted while dying");
            }
        }
    }
    let victim = program(&said, |host, _, said| async move {
        let _last = Last(host, said);
        std::future::pending().await
    });
    let pid = kernel.start(a, "victim", &victim);
    pass(&mut kernel, 5);
    kernel.kill(pid);
    pass(&mut kernel, 5);
    assert!(said.all().is_empty(), "{:?}", said.all());
    assert!(kernel.find(a, "victim").is_none());
}

#[test]
fn a_frozen_process_finds_that_time_has_passed_at_once() {
    let said = Said::default();
    let mut kernel = Kernel::new(3);
    let a = kernel.add_machine("a");
    let ticker = program(&said, |_, _, said| async move {
        let mut before = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = Instant::now();
            if now - before > Duration::from_secs(1) {
                said.say(format!("missed {}", (now - before).as_secs()));
            }
            before = now;
        }
    });
    let pid = kernel.start(a, "ticker", &ticker);
    pass(&mut kernel, 250);
    kernel.freeze(pid);
    pass(&mut kernel, 30_000);
    assert!(said.all().is_empty());
    kernel.thaw(pid);
    pass(&mut kernel, 1_000);
    assert_eq!(said.all(), ["missed 30"]);
}

#[test]
fn clocks_run_at_their_own_rates() {
    let said = Said::default();
    let mut kernel = Kernel::new(4);
    let (a, b) = (kernel.add_machine("a"), kernel.add_machine("b"));
    kernel.set_rate(a, 1_000);
    let clock = program(&said, |host, _, said| async move {
        let wall = host.clock.now();
        tokio::time::sleep(Duration::from_secs(100)).await;
        said.say(format!("{}", host.clock.now().as_millis() - wall.as_millis()));
        0
    });
    kernel.start(a, "fast", &clock);
    pass(&mut kernel, 99_950);
    assert_eq!(said.all(), ["100000"], "100 s of a fast clock are over after 99.9 s");
    kernel.start(b, "right", &clock);
    kernel.jump_clock(b, 5_000);
    pass(&mut kernel, 99_000);
    assert_eq!(said.all().len(), 1, "a wall clock that jumps wakes nobody");
    pass(&mut kernel, 1_100);
    assert_eq!(said.all().len(), 2);
}

#[test]
fn two_forks_of_one_label_draw_different_numbers() {
    let said = Said::default();
    let mut kernel = Kernel::new(5);
    let a = kernel.add_machine("a");
    let drawing = program(&said, |host, _, said| async move {
        for _ in 0..2 {
            said.say(host.rand.fork("disk.id").next_u64().to_string());
        }
        0
    });
    kernel.start(a, "p", &drawing);
    pass(&mut kernel, 5);
    let drawn = said.all();
    assert_ne!(drawn[0], drawn[1]);
}

#[test]
fn a_hung_process_looks_asleep_and_a_stopped_one_stopped_and_memory_is_what_is_left_of_it() {
    let mut kernel = Kernel::new(4);
    let a = kernel.add_machine("a");
    let idle = program(&Said::default(), |_, _, _| async move { std::future::pending().await });
    let pid = kernel.start(a, "idle", &idle);
    pass(&mut kernel, 5);
    let host = kernel.observer(a);
    let id = host.proc.identify(pid.0).unwrap().unwrap();
    let state = || host.proc.state(id).unwrap();
    kernel.hang(pid);
    assert_eq!(state(), Some(RunState::Sleeping));
    kernel.thaw(pid);
    kernel.freeze(pid);
    assert_eq!(state(), Some(RunState::Stopped), "what hung before is stopped like any other");
    kernel.set_memory_left(a, Some(30));
    let load = host.proc.load(None);
    assert_eq!(load.memory_available_bytes, load.memory_total_bytes.map(|all| all * 30 / 1000));
    kernel.set_memory_left(a, None);
    assert_eq!(host.proc.load(None).memory_available_bytes, load.memory_total_bytes.map(|all| all / 2));
}
