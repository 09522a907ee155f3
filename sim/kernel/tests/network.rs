//! Stories about streams: what a cut, a kill and a loss of power look like from the other side.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{Said, echo, pass, ping, program, until};
use resilver_sim_kernel::{Kernel, LinkOptions, MachineId, Pid, Program};

struct Pair {
    kernel: Kernel,
    said: Said,
    server: (MachineId, Pid),
    client: MachineId,
}

/// A server that echoes, and a client that pings it once a second and says how it went.
fn pair(seed: u64) -> Pair {
    let said = Said::default();
    let mut kernel = Kernel::new(seed);
    let (a, b) = (kernel.add_machine("a"), kernel.add_machine("b"));
    let server = kernel.start(a, "server", &echo(&said, 7));
    kernel.start(b, "client", &pinger(&said));
    Pair { kernel, said, server: (a, server), client: b }
}

fn pinger(said: &Said) -> Program {
    program(said, |host, _, said| async move {
        let mut stream = loop {
            match host.net.connect("a:7").await {
                Ok(stream) => break stream,
                Err(error) => said.say(format!("connect: {:?}", error.kind())),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        for round in 1u8.. {
            match ping(&mut stream, round).await {
                Ok(()) => said.say(format!("pong {round}")),
                Err(error) => {
                    said.say(format!("client: {:?}", error.kind()));
                    return 1;
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        0
    })
}

#[test]
fn a_stream_carries_bytes_both_ways() {
    let Pair { mut kernel, said, .. } = pair(1);
    until(&mut kernel, 5_000, "three pongs", |_| said.has("pong 3"));
    assert!(kernel.now() >= Duration::from_secs(2), "the client sleeps between its pings");
}

#[test]
fn a_cut_stalls_a_stream_and_does_not_end_it() {
    let Pair { mut kernel, said, server, client } = pair(2);
    until(&mut kernel, 5_000, "one pong", |_| said.has("pong 1"));
    kernel.cut(server.0, client);
    pass(&mut kernel, 60_000);
    assert!(!said.has("pong 2"), "the answer is held up: {:?}", said.all());
    kernel.mend_link(server.0, client);
    until(&mut kernel, 1_000, "the answer after the cut", |_| said.has("pong 2"));
}

#[test]
fn a_port_that_is_cut_holds_its_own_streams_up_and_no_others() {
    let Pair { mut kernel, said, server, client } = pair(2);
    until(&mut kernel, 5_000, "one pong", |_| said.has("pong 1"));
    let both = [(server.0, client), (client, server.0)];
    both.iter().for_each(|(from, to)| kernel.cut_port(*from, *to, 8));
    until(&mut kernel, 5_000, "another port is another matter", |_| said.has("pong 2"));
    both.iter().for_each(|(from, to)| kernel.cut_port(*from, *to, 7));
    let pongs = said.all().len();
    pass(&mut kernel, 60_000);
    assert!(said.all().len() <= pongs + 1, "{:?}", said.all());
    let pongs = said.all().len();
    both.iter().for_each(|(from, to)| kernel.mend_port(*from, *to, 7));
    until(&mut kernel, 1_000, "what waited goes on", |_| said.all().len() > pongs);
}

#[test]
fn a_killed_process_is_seen_at_once() {
    let Pair { mut kernel, said, server, .. } = pair(3);
    until(&mut kernel, 5_000, "one pong", |_| said.has("pong 1"));
    kernel.kill(server.1);
    until(&mut kernel, 2_000, "the client sees it", |_| {
        said.has("client: UnexpectedEof") || said.has("client: ConnectionReset")
    });
}

#[test]
fn a_machine_without_power_says_nothing_until_it_is_back() {
    let Pair { mut kernel, said, server, client } = pair(4);
    until(&mut kernel, 5_000, "one pong", |_| said.has("pong 1"));
    kernel.power_off(server.0);
    pass(&mut kernel, 60_000);
    let words = said.all();
    assert_eq!(words.last().map(String::as_str), Some("pong 1"), "no word of an end: {words:?}");
    // Whatever is sent to a machine that does not know the stream any more is answered with RST. The ping that was
    // lost is sent again by TCP: here a cut that is mended stands for its timer.
    kernel.power_on(server.0);
    kernel.start(client, "client", &pinger(&said));
    until(&mut kernel, 5_000, "nobody listens after the boot", |_| said.has("connect: ConnectionRefused"));
}

#[test]
fn nobody_listens() {
    let said = Said::default();
    let mut kernel = Kernel::new(5);
    kernel.add_machine("a");
    let b = kernel.add_machine("b");
    kernel.start(b, "client", &pinger(&said));
    until(&mut kernel, 100, "a refusal", |_| said.has("connect: ConnectionRefused"));
}

#[test]
fn a_lossy_link_delays_and_loses_nothing() {
    let Pair { mut kernel, said, server, client } = pair(6);
    for (from, to) in [(server.0, client), (client, server.0)] {
        let latency = (Duration::from_millis(1), Duration::from_millis(5));
        kernel.set_link(from, to, LinkOptions { latency, loss_permille: 300 });
    }
    until(&mut kernel, 60_000, "ten pongs", |_| said.has("pong 10"));
    assert!(kernel.now() > Duration::from_millis(9_200), "some of them were sent again: {:?}", kernel.now());
}
