//! Leaves: the same for the same records whatever came when, found apart in a few steps.

use proptest::prelude::*;

use super::*;

/// Leaves of records, as the database would have them.
fn leaves(records: &[(Vec<u8>, u128)]) -> Vec<Range> {
    let mut leaves = vec![Range { start: vec![3], sum: Sum::default() }];
    for (place, digest) in records {
        if level_of(place).is_some() {
            leaves.push(Range { start: place.clone(), sum: Sum::default() });
        }
        let leaf = leaves.last_mut().unwrap();
        leaf.sum = leaf.sum.plus(Sum::of(*digest));
    }
    leaves
}

fn numbered(count: u32) -> Vec<(Vec<u8>, u128)> {
    let place = |n: u32| place(3, format!("b\0k{n:08}").as_bytes());
    (0..count).map(|n| (place(n), digest(3, &place(n)[1..], b"value"))).collect()
}

/// From the top down, as two members do; the leaves that differ, and how many ranges were told on the way.
fn find(here: &[Range], there: &[Range]) -> (Vec<Stretch>, usize) {
    let (mut open, mut found, mut told) = (vec![(TOP, (Vec::new(), None))], Vec::new(), 0);
    while let Some((level, stretch)) = open.pop() {
        let other = fold(there, level, &stretch);
        told += other.len();
        for part in unequal(&fold(here, level, &stretch), &other, &stretch) {
            match level {
                0 => found.push(part),
                _ => open.push((level - 1, part)),
            }
        }
    }
    (found, told)
}

#[test]
fn ten_differences_among_three_hundred_thousand_are_found_in_a_few_hundred_ranges() {
    let records = numbered(300_000);
    let mut changed = records.clone();
    for n in 0..10 {
        let record = &mut changed[n * 29_983];
        record.1 = digest(3, &record.0[1..], b"another");
    }
    let (here, there) = (leaves(&records), leaves(&changed));
    let largest = here.iter().map(|leaf| leaf.sum.records).max().unwrap();
    assert!((1500..3500).contains(&here.len()) && largest < 2000, "{} leaves, the largest of {largest}", here.len());
    let (found, told) = find(&here, &there);
    for n in 0..10 {
        let place = &records[n * 29_983].0;
        assert!(found.iter().any(|(from, to)| from <= place && to.as_ref().is_none_or(|to| place < to)), "{n}");
    }
    assert_eq!(found.len(), 10);
    assert!(told < 1000, "{told} of {} leaves", here.len());
    assert_eq!(find(&here, &here), (Vec::new(), fold(&here, TOP, &(Vec::new(), None)).len()));
}

#[test]
fn a_border_that_only_one_side_has_is_found_with_what_lies_around_it() {
    let records = numbered(5000);
    let border = records.iter().position(|(place, _)| level_of(place).is_some()).unwrap();
    let mut without = records.clone();
    let gone = without.remove(border).0;
    let (found, _) = find(&leaves(&records), &leaves(&without));
    assert_eq!(found.len(), 1);
    assert!(found[0].0 <= gone && found[0].1.as_ref().is_none_or(|to| &gone < to));
    assert_eq!(find(&leaves(&without), &leaves(&records)).0, found);
}

#[test]
fn against_nothing_everything_differs() {
    let (here, stretch) = (leaves(&numbered(1000)), (Vec::new(), None));
    assert_eq!(unequal(&here, &[], &stretch), vec![stretch.clone()]);
    assert_eq!(unequal(&[], &here, &stretch), vec![stretch.clone()]);
    assert_eq!(unequal(&[], &[], &stretch), Vec::new());
}

proptest! {
    #[test]
    fn whatever_differs_is_found_and_whatever_is_found_differs(
        left in prop::collection::btree_map(0_u32..4000, 0_u8..3, 0..600),
        right in prop::collection::btree_map(0_u32..4000, 0_u8..3, 0..600),
    ) {
        let records = |of: &std::collections::BTreeMap<u32, u8>| -> Vec<(Vec<u8>, u128)> {
            of.iter().map(|(n, value)| {
                let place = place(3, format!("k{n:05}").as_bytes());
                let digest = digest(3, &place[1..], &[*value]);
                (place, digest)
            }).collect()
        };
        let (left, right) = (records(&left), records(&right));
        let (found, _) = find(&leaves(&left), &leaves(&right));
        let inside = |place: &Vec<u8>| found.iter().any(|(from, to)| from <= place && to.as_ref().is_none_or(|to| place < to));
        let all = left.iter().chain(&right);
        for record in all {
            let same = left.contains(record) && right.contains(record);
            prop_assert!(same || inside(&record.0));
        }
        for (from, to) in &found {
            let of = |records: &[(Vec<u8>, u128)]| -> Vec<(Vec<u8>, u128)> {
                records.iter().filter(|(place, _)| from <= place && to.as_ref().is_none_or(|to| place < to)).cloned().collect()
            };
            prop_assert_ne!(of(&left), of(&right));
        }
    }
}
