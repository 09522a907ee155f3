//! One story alone in its binary: what libc says of randomness is the whole process's, and other tests would draw from it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Said, pass, program};
use resilver_sim_kernel::Kernel;

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed: u64| {
        let said = Said::default();
        let mut kernel = Kernel::new(seed);
        for name in ["a", "b", "c"] {
            let machine = kernel.add_machine(name);
            let program = program(&said, |host, _, said| async move {
                let mut rng = host.rand.fork("test");
                for _ in 0..20 {
                    tokio::time::sleep(Duration::from_millis(u64::from(rng.next_u32() % 50))).await;
                    // What libraries ask libc for is the run's, too.
                    let hasher = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 1u8);
                    said.say(format!("{:?} {hasher}", host.clock.now()));
                }
                0
            });
            kernel.start(machine, "p", &program);
        }
        pass(&mut kernel, 2_000);
        (said.all(), kernel.trace(|trace| trace.hash()))
    };
    // The hasher's keys are made once a thread.
    let in_thread = |seed| std::thread::scope(|scope| scope.spawn(|| run(seed)).join().unwrap());
    assert_eq!(in_thread(7), in_thread(7));
    assert_ne!(in_thread(7).0, in_thread(8).0);
}
