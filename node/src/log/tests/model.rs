//! Any sequence of changes and reopenings: the log is what a map would be.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Move {
    Draft(Draft),
    Reopen,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_log_is_what_a_map_would_be(
        moves in prop::collection::vec(prop_oneof![6 => draft().prop_map(Move::Draft), 1 => Just(Move::Reopen)], 1..40)
    ) {
        block_on(async {
            let disk = MemDisk::default();
            let mut opened = open(&disk).await.unwrap();
            let (mut model, mut serial) = (Model::default(), 0);
            for step in &moves {
                match step {
                    Move::Draft(draft) => {
                        let act = draft.act(&model, &mut serial);
                        opened.perform(&act).await.unwrap();
                        model.apply(&act);
                    }
                    Move::Reopen => {
                        opened = open(&disk).await.unwrap();
                        assert_eq!(opened.voted, model.voted);
                        assert!(!opened.recovered.created && !opened.recovered.healed_header);
                        assert_eq!(opened.recovered.strays, 0, "a clean log leaves no stray segments");
                    }
                }
                opened.assert_log_is(&model).await;
            }
        });
    }
}

/// Reads run beside appends and truncations that overwrite what is being read. Each answer must be one the log once
/// gave: indexes without a gap, and terms that never go back.
#[test]
fn a_read_never_mixes_what_was_overwritten_with_what_overwrote_it() {
    block_on(async {
        let disk = MemDisk::default();
        let log = open_with(&disk, LogOptions { cache_bytes: 0, ..options() }).await.unwrap().log;
        disk.slow_reads(23);
        let record = |index: u64, term: u64| {
            let text = format!("{index} {term} ");
            Record { index, payload: text.bytes().cycle().take(300 + (term as usize * 37) % 200).collect() }
        };
        let writer = async {
            for term in 0..300u64 {
                let next = log.next();
                log.append((next..next + 20).map(|index| record(index, term)).collect()).await.unwrap();
                log.truncate(log.next() - 15).await.unwrap();
                if term % 7 == 0 {
                    log.purge(log.first() + 10, Bytes::new()).await.unwrap();
                }
            }
        };
        let reader = async {
            let mut answers = 0;
            loop {
                let records = log.read(log.first()..u64::MAX, u64::MAX).await.unwrap();
                let mut last = None;
                for record in records {
                    let text = String::from_utf8_lossy(&record.payload).into_owned();
                    let mut words = text.split(' ').map(|word| word.parse::<u64>());
                    let (index, term) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
                    assert_eq!(index, record.index);
                    if let Some((before, earlier)) = last {
                        assert_eq!(index, before + 1);
                        assert!(term >= earlier, "record {index} is of term {term}, the one before of term {earlier}");
                    }
                    last = Some((index, term));
                }
                answers += 1;
                tokio::task::yield_now().await;
                if answers > 100_000 {
                    break;
                }
            }
        };
        tokio::select! {
            () = writer => {}
            () = reader => panic!("the writer did not end"),
        }
    });
}
