//! Concurrent clients on a few keys, over all S3 doors, while nodes are killed: what they were told must be what one
//! sound store could have told them, and what was acknowledged last must still be there afterwards.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "histories/player.rs"]
mod player;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use player::{DEADLINE, Player, Shared};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use resilver_chaos::client::Client;
use resilver_chaos::history::{Answer, Outcome, Recorder, judge};
use resilver_chaos::s3::Access;
use resilver_chaos::{faults, target::Target};
use resilver_host::Host;
use support::{Cluster, eventually, whole};

/// The bucket of the histories.
const BUCKET: &str = "histories";

/// Clients at a time: more overlap finds more, and takes longer to judge.
const CLIENTS: usize = 5;

/// Operations of each client per round: rounds have keys of their own, so that what is judged at once stays small.
const OPERATIONS: usize = 20;

/// How long rounds go on.
const TIME: Duration = Duration::from_secs(25);

/// Kills of one node: its agent starts it five times in 30 s (profile fast) and then leaves it to a person.
const KILLS_PER_NODE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_concurrent_clients_are_told_is_linearizable_while_nodes_are_killed_at_random_moments() {
    let seed = seed();
    println!("seed {seed} (again: RESILVER_SEED={seed})");
    // Phase 1: a cluster whose doors are open.
    let cluster = Cluster::start(6, 2, &[]);
    let stores = Access::read(&cluster.host, cluster.dir.path()).await.unwrap().stores(&cluster.host, BUCKET).unwrap();
    for store in &stores {
        eventually("the door is open", async || store.ensure_bucket(DEADLINE).await.is_ok()).await;
    }

    // Phase 2: rounds of clients, and somebody who kills nodes.
    let shared = Arc::new(Shared::new(stores));
    let kills = Arc::new(AtomicU64::new(0));
    let killer = killer(&cluster, seed, kills.clone());
    let killer = tokio::spawn(killer);
    let begun = Instant::now();
    let mut rounds = Vec::new();
    while begun.elapsed() < TIME {
        let recorder = Arc::new(Recorder::default());
        round(&shared, &recorder, rounds.len(), seed).await;
        let history = recorder.history();
        judge(&history).unwrap_or_else(|unsound| panic!("seed {seed}, round {}: {unsound}", rounds.len()));
        rounds.push(recorder);
    }
    killer.abort();

    // Phase 3: everything heals by itself, and every key is read once more. The history goes on: what was acknowledged
    // last, or something of unknown outcome after it, is what must be there.
    let client = cluster.client();
    whole(&client).await;
    let mut rng = StdRng::seed_from_u64(seed);
    for (round, recorder) in rounds.iter().enumerate() {
        let reader = Player::new(&shared, recorder, CLIENTS, round);
        reader.read_all(&mut rng).await;
        judge(&recorder.history())
            .unwrap_or_else(|unsound| panic!("seed {seed}, round {round}, in the end: {unsound}"));
    }
    let mut intact = 0;
    for (bucket_key, _) in shared.listed().await {
        assert!(client.verify(BUCKET, &bucket_key).await.unwrap().intact, "seed {seed}: {bucket_key} has a bad shard");
        intact += 1;
    }

    // Phase 4: it was worth it.
    let operations: Vec<_> = rounds.iter().flat_map(|recorder| recorder.history().operations).collect();
    let count = |wanted: fn(&Outcome) -> bool| operations.iter().filter(|one| wanted(&one.outcome)).count();
    let done = count(|outcome| *outcome == Outcome::Ok(Answer::Done));
    let refused = count(|outcome| *outcome == Outcome::Ok(Answer::Refused));
    let unknown = count(|outcome| *outcome == Outcome::Unknown);
    let kills = kills.load(Ordering::Relaxed);
    println!(
        "{} rounds, {} operations: {done} changes, {refused} refused by their condition, {unknown} of unknown outcome; \
         {kills} kills; {intact} objects in the end",
        rounds.len(),
        operations.len()
    );
    assert!(done > 50 && refused > 5, "seed {seed}: too little happened to conclude anything");
    assert!(kills >= 3, "seed {seed}: only {kills} nodes were killed");
}

/// One round: fresh keys, all clients at once.
async fn round(shared: &Arc<Shared>, recorder: &Arc<Recorder>, round: usize, seed: u64) {
    let players: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let mut player = Player::new(shared, recorder, client, round);
            let mut rng =
                StdRng::seed_from_u64(seed ^ ((round * CLIENTS + client) as u64 + 1).wrapping_mul(0x9E37_79B9));
            tokio::spawn(async move {
                for _ in 0..OPERATIONS {
                    player.act(&mut rng).await;
                }
            })
        })
        .collect();
    for player in players {
        player.await.unwrap();
    }
}

/// Kills a random node at random moments, one failure at a time: what 4+2 with acknowledgement at k+1 promises to
/// survive without a pause.
fn killer(cluster: &Cluster, seed: u64, kills: Arc<AtomicU64>) -> impl Future<Output = ()> + Send + 'static {
    let (host, target, client): (Host, Target, Client) =
        (cluster.host.clone(), cluster.target.clone(), cluster.client());
    async move {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x4B49_4C4C);
        let mut killed = vec![0; target.hosts.len()];
        loop {
            tokio::time::sleep(Duration::from_millis(rng.random_range(200..1800))).await;
            // Every other time the leader: what is acknowledged hangs on it.
            let leader = if rng.random_bool(0.5) { client.status().await.map(|status| status.leader) } else { None };
            let leader = leader.and_then(|name| target.hosts.iter().position(|info| info.name == name));
            let victim = leader.unwrap_or_else(|| rng.random_range(0..target.hosts.len()));
            let mut all_healthy = true;
            for info in &target.hosts {
                all_healthy &= client.observe(&info.name).await.is_some_and(|seen| seen.phase == "healthy");
            }
            if all_healthy
                && killed[victim] < KILLS_PER_NODE
                && faults::kill_node(&host, &client, &target.hosts[victim]).await.is_ok()
            {
                killed[victim] += 1;
                kills.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Another one each time, unless one is asked for: what is random here is random anyway, by the moment of each kill.
fn seed() -> u64 {
    let asked = std::env::var("RESILVER_SEED").ok().map(|seed| seed.parse().expect("RESILVER_SEED is a number"));
    asked.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() ^ u64::from(std::process::id())
    })
}
