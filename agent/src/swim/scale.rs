//! Gossip of many members in one process, for a benchmark: the protocol and the seal as they run beside nodes, a network and a
//! clock that are modelled. So many hosts are not to be had; what each of them would send and compute is.
//!
//! Owns: the model's time, its network and its counts. Must never: be part of an agent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use foca::{AccumulatingRuntime, Foca, Member, NoCustomBroadcast, OwnedNotification, PostcardCodec, Timer};
use resilver_host::Host;
use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::key::{new_key_file, ring};
use super::randomness::Randomness;
use super::seal::Seal;
use super::task::{PACE, config};

/// A datagram's way takes this long at least, and up to twice as long: hosts of one site.
const WAY: Duration = Duration::from_micros(250);
/// IPv4 and UDP headers of a datagram.
const HEADER_BYTES: u64 = 28;
/// Before anything is counted: every member has asked others by then, and what was news at the start is old.
const SETTLE: Duration = Duration::from_secs(20);
/// What is counted as a calm time.
const CALM: Duration = Duration::from_secs(20);
/// How long all may take to learn that a host is gone. The protocol needs about 12 s.
const LEARN: Duration = Duration::from_secs(40);
/// The cluster's id, as every seal names it.
const CLUSTER: &str = "6f0c9a52b1c84c1f9d5f9a2f8e6d3b17";

/// What is modelled.
#[derive(Clone, Copy, Debug)]
pub struct ScaleOptions {
    /// Agents.
    pub members: u32,
    /// Datagrams lost, of a thousand.
    pub lost_per_mille: u32,
    /// Hosts that lose their power, one after the other.
    pub falls: u32,
}

/// What it came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Scale {
    /// Agents.
    pub members: u32,
    /// Sent by one host in a second while nothing happens, headers included, bytes.
    pub bytes_per_second: f64,
    /// Datagrams of one host in a second, sent.
    pub datagrams_per_second: f64,
    /// Processor of one host: per mille of a core, sealing and opening included, and the model's own queue.
    pub core_per_mille: f64,
    /// Sent by one host in a second while a fallen host is found and told of, bytes.
    pub bytes_per_second_at_a_fall: f64,
    /// From a host's end until the first member calls it down, milliseconds, each fall.
    pub first_ms: Vec<u64>,
    /// Until all have heard, milliseconds, each fall.
    pub all_ms: Vec<u64>,
    /// Members that were called down by anybody and were there.
    pub wrongly_down: u64,
    /// Members that had not heard of a fall 40 s after it, over all falls; all of them, of one that nobody noticed.
    pub missed: u64,
}

/// A member by number: as long on the wire as the real one, and small in memory, where every member has all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered {
    number: u32,
    life: u32,
}

impl Numbered {
    fn long(self) -> Identity {
        let [_, a, b, c] = self.number.to_be_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(10, a, b, c), 7100));
        Identity { name: format!("node-{:05}", self.number).into(), address, life: u64::from(self.life) << 24 }
    }
}

impl Serialize for Numbered {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        self.long().serialize(out)
    }
}

impl<'de> Deserialize<'de> for Numbered {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let long = Identity::deserialize(from)?;
        let SocketAddr::V4(address) = long.address else {
            return Err(serde::de::Error::custom("no address of the model"));
        };
        let number = u32::from(*address.ip()) & 0x00ff_ffff;
        let life = u32::try_from(long.life >> 24).map_err(serde::de::Error::custom)?;
        Ok(Numbered { number, life })
    }
}

impl foca::Identity for Numbered {
    type Addr = u32;

    fn renew(&self) -> Option<Self> {
        Some(Numbered { life: self.life + 1, ..*self })
    }

    fn addr(&self) -> u32 {
        self.number
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.life > adversary.life
    }
}

type Protocol = Foca<Numbered, PostcardCodec, Randomness, NoCustomBroadcast>;

enum What {
    Datagram(Vec<u8>),
    Reminder(Timer<Numbered>),
}

/// Something that is due at a member. Ordered by time, then by number: equal times keep their order.
struct Due {
    at: Duration,
    order: u64,
    member: u32,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[derive(Clone, Copy, Default)]
struct Sent {
    bytes: u64,
    datagrams: u64,
}

struct Town {
    members: Vec<Protocol>,
    fallen: Vec<bool>,
    seal: Seal,
    chance: resilver_host::Rng,
    lost_per_mille: u32,
    now: Duration,
    due: BinaryHeap<Reverse<Due>>,
    order: u64,
    runtime: AccumulatingRuntime<Numbered>,
    sent: Sent,
    /// Who fell, and when each of the others called it down.
    down: BTreeMap<u32, Vec<Duration>>,
    /// Who was called down and had not fallen.
    wrong: BTreeSet<u32>,
}

impl Town {
    /// Everybody knows everybody from the start: joining is not what is measured.
    fn new(host: &Host, options: ScaleOptions, config: &foca::Config) -> Result<Town, foca::Error> {
        let all: Vec<Numbered> = (0..options.members).map(|number| Numbered { number, life: 1 }).collect();
        let mut town = Town {
            members: Vec::with_capacity(all.len()),
            fallen: vec![false; all.len()],
            seal: Seal::new(ring(&new_key_file(host)), host.rand.fork("scale.nonce")),
            chance: host.rand.fork("scale.network"),
            lost_per_mille: options.lost_per_mille,
            now: Duration::ZERO,
            due: BinaryHeap::new(),
            order: 0,
            runtime: AccumulatingRuntime::new(),
            sent: Sent::default(),
            down: BTreeMap::new(),
            wrong: BTreeSet::new(),
        };
        for own in &all {
            let randomness = Randomness(host.rand.fork(&format!("scale.member.{}", own.number)));
            let mut protocol: Protocol = Foca::new(*own, config.clone(), randomness, PostcardCodec);
            let others = all.iter().filter(|other| *other != own).map(|other| Member::alive(*other));
            protocol.apply_many(others, false, &mut town.runtime)?;
            town.members.push(protocol);
            // They were not switched on in the same instant.
            let late = Duration::from_millis(u64::from(town.chance.next_u32() % 1000));
            town.flush(own.number, late);
        }
        Ok(town)
    }

    fn push(&mut self, at: Duration, member: u32, what: What) {
        self.order += 1;
        self.due.push(Reverse(Due { at, order: self.order, member, what }));
    }

    /// Does what a member's protocol wants done, `late` after now.
    fn flush(&mut self, member: u32, late: Duration) {
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.push(self.now + late + after, member, What::Reminder(timer));
        }
        while let Some(news) = self.runtime.to_notify() {
            if let OwnedNotification::MemberDown(gone) = news {
                match self.fallen[gone.number as usize] {
                    true => self.down.entry(gone.number).or_default().push(self.now),
                    false => _ = self.wrong.insert(gone.number),
                }
            }
        }
        while let Some((to, payload)) = self.runtime.to_send() {
            let Some(datagram) = self.seal.seal(CLUSTER, &payload) else { continue };
            self.sent.datagrams += 1;
            self.sent.bytes += datagram.len() as u64 + HEADER_BYTES;
            if self.chance.next_u32() % 1000 >= self.lost_per_mille {
                let way = WAY + Duration::from_micros(u64::from(self.chance.next_u32()) % 250);
                self.push(self.now + late + way, to.number, What::Datagram(datagram));
            }
        }
    }

    /// The time goes on by so much.
    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= until) {
            let Some(Reverse(due)) = self.due.pop() else { break };
            self.now = due.at;
            if self.fallen[due.member as usize] {
                continue;
            }
            let protocol = &mut self.members[due.member as usize];
            // A round that was torn by a loss, or a datagram of no use, is the protocol's business: it begins the next by itself.
            let _ = match due.what {
                What::Reminder(timer) => protocol.handle_timer(timer, &mut self.runtime),
                What::Datagram(mut datagram) => match self.seal.open(CLUSTER, &mut datagram) {
                    Ok(payload) => protocol.handle_data(payload, &mut self.runtime),
                    Err(_) => Ok(()),
                },
            };
            self.flush(due.member, Duration::ZERO);
        }
        self.now = until;
    }

    /// A host loses its power. When the first knew, and when all did (`None`: not within [`LEARN`]); and how many did not by then.
    fn fall(&mut self, number: u32) -> (Option<Duration>, Option<Duration>, usize) {
        self.fallen[number as usize] = true;
        let (began, there) = (self.now, self.fallen.iter().filter(|fallen| !**fallen).count());
        while self.now < began + LEARN && self.down.get(&number).is_none_or(|heard| heard.len() < there) {
            self.pass(Duration::from_millis(100));
        }
        let heard = self.down.remove(&number).unwrap_or_default();
        let at = |moment: Option<&Duration>| moment.map(|moment| *moment - began);
        (at(heard.first()), at(heard.get(there - 1)), there.saturating_sub(heard.len()))
    }
}

/// Runs the model: a calm time, then hosts that fall one after the other. `cpu`: how long this thread has had a processor, which
/// other work on the machine does not lengthen.
///
/// # Errors
/// When the protocol refuses its members.
pub fn run(host: &Host, options: ScaleOptions, cpu: impl Fn() -> Duration) -> Result<Scale, String> {
    let others = usize::try_from(options.members).unwrap_or(usize::MAX).saturating_sub(1);
    run_by(host, options, &config(PACE, others), cpu)
}

fn run_by(
    host: &Host,
    options: ScaleOptions,
    config: &foca::Config,
    cpu: impl Fn() -> Duration,
) -> Result<Scale, String> {
    let mut town = Town::new(host, options, config).map_err(|error| error.to_string())?;
    town.pass(SETTLE);
    let (sent, began) = (town.sent, cpu());
    town.pass(CALM);
    let (took, calm) = (cpu().saturating_sub(began), CALM.as_secs_f64());
    let hosts = f64::from(options.members);
    let per_host = |after: u64, before: u64, seconds: f64| (after - before) as f64 / seconds / hosts;
    let mut scale = Scale {
        members: options.members,
        bytes_per_second: per_host(town.sent.bytes, sent.bytes, calm),
        datagrams_per_second: per_host(town.sent.datagrams, sent.datagrams, calm),
        core_per_mille: took.as_secs_f64() * 1000.0 / calm / hosts,
        ..Scale::default()
    };
    let (sent, since) = (town.sent.bytes, town.now);
    for fall in 0..options.falls {
        let (first, all, missed) = town.fall(fall * (options.members / options.falls.max(1)));
        let millis = |span: Option<Duration>| span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        scale.first_ms.extend(millis(first));
        scale.all_ms.extend(millis(all));
        scale.missed += missed as u64;
    }
    let seconds = (town.now - since).as_secs_f64();
    if seconds > 0.0 {
        scale.bytes_per_second_at_a_fall = per_host(town.sent.bytes, sent, seconds);
    }
    scale.wrongly_down = town.wrong.len() as u64;
    Ok(scale)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::task::Pace;
    use super::*;

    #[test]
    fn a_member_of_the_model_is_as_long_on_the_wire_as_a_real_one() {
        let short = Numbered { number: 70_000, life: 3 };
        let bytes = postcard_bytes(&short);
        assert_eq!(bytes, postcard_bytes(&short.long()));
        let read: Member<Numbered> =
            foca::Codec::decode_member(&mut PostcardCodec, bytes.as_slice()).expect("it reads what it writes");
        assert_eq!(*read.id(), short);
    }

    fn postcard_bytes<T: foca::Identity + Serialize>(identity: &T) -> Vec<u8>
    where
        PostcardCodec: foca::Codec<T>,
    {
        let mut out = Vec::new();
        let member = Member::alive(identity.clone());
        assert!(foca::Codec::encode_member(&mut PostcardCodec, &member, &mut out).is_ok());
        out
    }

    #[test]
    fn twenty_members_find_the_ones_that_fall_and_nobody_else() {
        let host = resilver_host::real::host();
        let options = ScaleOptions { members: 20, lost_per_mille: 10, falls: 2 };
        let scale = run(&host, options, processor()).expect("it runs");
        assert_eq!((scale.first_ms.len(), scale.all_ms.len()), (2, 2), "{scale:?}");
        assert_eq!((scale.wrongly_down, scale.missed), (0, 0), "{scale:?}");
        assert!(scale.core_per_mille > 0.0, "{scale:?}");
        assert!(scale.all_ms.iter().all(|ms| (10_000..30_000).contains(ms)), "{scale:?}");
        assert!(scale.datagrams_per_second > 1.0 && scale.bytes_per_second > 100.0, "{scale:?}");
    }

    /// One that goes on by a microsecond with each look.
    fn processor() -> impl Fn() -> Duration {
        let looks = std::cell::Cell::new(0);
        move || {
            looks.set(looks.get() + 1);
            Duration::from_micros(looks.get())
        }
    }

    /// Streams that are the same in every run.
    struct Seeded;

    impl resilver_host::rand::Rand for Seeded {
        fn fork(&self, label: &str) -> resilver_host::Rng {
            let seed = label.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
            Box::new(rand::rngs::StdRng::seed_from_u64(seed))
        }
    }

    /// Of ten thousand one was called down that was there: the suspicion went to the suspect, and its denial back, with questions
    /// alone, and both ways together took as long as the suspect had. Among three hundred they take that long when it has less.
    #[test]
    fn a_denial_comes_in_time_because_news_is_passed_on_by_itself() {
        let host = Host { rand: std::sync::Arc::new(Seeded), ..resilver_host::real::host() };
        let options = ScaleOptions { members: 300, lost_per_mille: 60, falls: 0 };
        let pace = Pace { refute: Duration::from_secs(4), ..PACE };
        let wrongly_down =
            |config: &foca::Config| run_by(&host, options, config, processor()).expect("it runs").wrongly_down;
        let as_it_is = config(pace, 299);
        let alone = wrongly_down(&foca::Config { periodic_gossip: None, ..as_it_is.clone() });
        assert!(alone > 0, "with questions alone some are called down");
        assert_eq!(wrongly_down(&as_it_is), 0, "{alone} of 300 with questions alone");
    }

    #[test]
    fn a_member_that_nobody_hears_of_is_counted_as_missed() {
        let host = resilver_host::real::host();
        let options = ScaleOptions { members: 4, lost_per_mille: 1000, falls: 1 };
        let scale = run(&host, options, processor()).expect("it runs");
        assert_eq!(scale.wrongly_down, 4, "where everything is lost each calls the others down: {scale:?}");
        assert_eq!(scale.missed, 3, "and long before: nobody learns of the fall any more: {scale:?}");
    }
}
