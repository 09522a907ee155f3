//! Several members over loopback, at a pace of their own.

use tokio::task::JoinHandle;

use super::super::key::ring;
use super::super::{SwimView, views};
use super::*;

/// Twenty times as fast as in earnest; still long beside loopback's microseconds.
const FAST: Pace = Pace {
    probe: Duration::from_millis(50),
    answer: Duration::from_millis(15),
    refute: Duration::from_millis(500),
    join: Duration::from_millis(100),
};

/// How long anything may take. Generous: the machine is shared.
const PATIENCE: Duration = Duration::from_secs(30);

/// A key as the file writes it.
fn key(id: u8, digit: &str) -> String {
    format!("{id} {}\n", digit.repeat(64))
}

struct Member {
    task: JoinHandle<()>,
    view: watch::Receiver<SwimView>,
    telemetry: Arc<Telemetry>,
    _stop: watch::Sender<bool>,
}

impl Member {
    fn refused(&self, why: &str) -> bool {
        let metric = format!("resilver_gossip_datagrams_total{{result=\"{why}\"}}");
        self.telemetry.render().lines().any(|line| line.starts_with(&metric))
    }

    async fn sees(&mut self, name: &str, state: SwimState) {
        let seen = self.view.wait_for(|view| view.get(name) == Some(&state));
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        seen.unwrap_or_else(|_| panic!("{name} is not seen {state:?}")).expect("it gossips");
    }
}

struct Town {
    host: Host,
    addresses: BTreeMap<String, SocketAddr>,
}

impl Town {
    /// Addresses nobody listens on yet.
    async fn new(count: usize) -> Town {
        let host = resilver_host::real::host();
        let mut held = Vec::new();
        for _ in 0..count {
            held.push(host.net.bind_datagram("127.0.0.1:0").await.expect("a free port"));
        }
        let names = (1..).map(|number| format!("n{number}"));
        let addresses = names.zip(held.iter().map(|socket| socket.local_addr().expect("bound"))).collect();
        Town { host, addresses }
    }

    async fn member(&self, name: &str, life: u64, cluster: &str, keys: &str) -> Member {
        let address = self.addresses[name];
        let socket = self.host.net.bind_datagram(&address.to_string()).await.expect("its own port");
        let mut peers = self.addresses.clone();
        peers.remove(name);
        let own = Identity { name: name.into(), address, life };
        let opened = Opened { own, peers, keys: ring(keys), socket };
        let (sender, view) = views();
        let telemetry = Arc::new(Telemetry::new());
        let cluster = cluster.to_owned();
        let cluster: Cluster = Arc::new(move || cluster.clone());
        let swim = Swim::with(&self.host, opened, cluster, telemetry.clone(), sender, FAST);
        let (stop, stopping) = watch::channel(false);
        Member { task: tokio::spawn(swim.run(stopping)), view, telemetry, _stop: stop }
    }
}

#[tokio::test]
async fn members_find_each_other_miss_a_dead_one_and_know_it_again_in_its_next_life() {
    let town = Town::new(3).await;
    let keys = key(1, "a");
    let mut n1 = town.member("n1", 10, "c1", &keys).await;
    let mut n2 = town.member("n2", 10, "c1", &keys).await;
    let n3 = town.member("n3", 10, "c1", &keys).await;
    for member in [&mut n1, &mut n2] {
        member.sees("n3", SwimState::Alive).await;
    }
    // As by SIGKILL: it says nothing any more.
    n3.task.abort();
    let _ = n3.task.await;
    n1.sees("n3", SwimState::Down).await;
    n2.sees("n3", SwimState::Down).await;
    assert_eq!(n1.view.borrow().get("n2"), Some(&SwimState::Alive), "the others stay");
    let mut again = town.member("n3", 11, "c1", &keys).await;
    n1.sees("n3", SwimState::Alive).await;
    again.sees("n1", SwimState::Alive).await;
}

#[tokio::test]
async fn a_stranger_is_counted_and_stays_a_stranger() {
    let town = Town::new(4).await;
    let mut n1 = town.member("n1", 10, "c1", &key(1, "a")).await;
    let mut n2 = town.member("n2", 10, "c1", &key(1, "a")).await;
    let wrong_key = town.member("n3", 10, "c1", &key(1, "b")).await;
    let wrong_cluster = town.member("n4", 10, "c2", &key(1, "a")).await;
    n1.sees("n2", SwimState::Alive).await;
    n2.sees("n1", SwimState::Alive).await;
    let begun = Instant::now();
    while !(n1.refused("forged") && wrong_key.refused("forged") && wrong_cluster.refused("forged")) {
        assert!(begun.elapsed() < PATIENCE, "strangers were not refused: {}", n1.telemetry.render());
        tokio::time::sleep(FAST.join).await;
    }
    assert_eq!(n1.view.borrow().keys().collect::<Vec<_>>(), ["n2"]);
    assert!(wrong_key.view.borrow().is_empty() && wrong_cluster.view.borrow().is_empty());
}

#[tokio::test]
async fn members_in_different_stages_of_a_rotation_hear_each_other() {
    let town = Town::new(2).await;
    let mut old_first = town.member("n1", 10, "c1", &format!("{}{}", key(1, "a"), key(2, "b"))).await;
    let mut new_first = town.member("n2", 10, "c1", &format!("{}{}", key(2, "b"), key(1, "a"))).await;
    old_first.sees("n2", SwimState::Alive).await;
    new_first.sees("n1", SwimState::Alive).await;
    assert!(!old_first.refused("forged") && !old_first.refused("unknown_key"));
}

#[tokio::test]
async fn an_agent_that_does_not_know_its_cluster_yet_says_nothing() {
    let town = Town::new(2).await;
    let silent = town.member("n1", 10, "", &key(1, "a")).await;
    let watcher = town.host.net.bind_datagram(&town.addresses["n2"].to_string()).await.expect("its port");
    let mut buffer = [0; 64];
    let heard = tokio::time::timeout(FAST.join * 5, watcher.recv_from(&mut buffer)).await;
    assert!(heard.is_err(), "it spoke: {heard:?}");
    assert!(!silent.task.is_finished());
}

#[test]
fn a_missing_or_named_address_is_refused_with_the_member() {
    let refused = super::super::address("n7", "rack1:7946").expect_err("a name is no address");
    assert!(refused.to_string().contains("n7 has no usable `gossip` address (`rack1:7946`)"), "{refused}");
    assert!(super::super::address("n7", "10.0.0.7:7946").is_ok());
}
