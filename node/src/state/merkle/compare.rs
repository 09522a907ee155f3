//! Comparing ranges. Pure.

use std::cmp::Ordering;

use super::{Range, Sum, level_of};

/// Part of the order: from a place up to another; `None`: to the end.
pub(crate) type Stretch = (Vec<u8>, Option<Vec<u8>>);

/// The sum of all.
pub(crate) fn root(leaves: &[Range]) -> Sum {
    leaves.iter().fold(Sum::default(), |sum, leaf| sum.plus(leaf.sum))
}

/// The ranges of a level that lie in a stretch, made of leaves in order.
pub(crate) fn fold(leaves: &[Range], level: u32, stretch: &Stretch) -> Vec<Range> {
    let (from, to) = (stretch.0.as_slice(), stretch.1.as_deref());
    let begin = leaves.partition_point(|leaf| leaf.start.as_slice() < from);
    let inside = leaves[begin..].iter().take_while(|leaf| to.is_none_or(|to| leaf.start.as_slice() < to));
    let mut ranges: Vec<Range> = Vec::new();
    for leaf in inside {
        match ranges.last_mut() {
            Some(last) if level_of(&leaf.start).is_none_or(|own| own < level) => last.sum = last.sum.plus(leaf.sum),
            _ => ranges.push(leaf.clone()),
        }
    }
    ranges
}

/// Where two lists of ranges of one stretch differ. Both are cut at the places where both begin a range; where one has a
/// border that the other has not, that is a difference of what lies around it.
pub(crate) fn unequal(here: &[Range], there: &[Range], stretch: &Stretch) -> Vec<Stretch> {
    let mut cuts = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(left), Some(right)) = (here.get(i), there.get(j)) {
        match left.start.cmp(&right.start) {
            Ordering::Less => i += 1,
            Ordering::Greater => j += 1,
            Ordering::Equal => {
                cuts.push((i, j));
                (i, j) = (i + 1, j + 1);
            }
        }
    }
    // What lies before the first common border belongs to the stretch as well.
    if cuts.first().is_none_or(|cut| *cut != (0, 0)) {
        cuts.insert(0, (0, 0));
    }
    let sum = |ranges: &[Range]| root(ranges);
    let mut found: Vec<Stretch> = Vec::new();
    for (at, (i, j)) in cuts.iter().copied().enumerate() {
        let next = cuts.get(at + 1).copied();
        let (end_i, end_j) = next.unwrap_or((here.len(), there.len()));
        if sum(&here[i..end_i]) == sum(&there[j..end_j]) {
            continue;
        }
        let from = if at == 0 { stretch.0.clone() } else { here[i].start.clone() };
        let to = next.map(|(i, _)| here[i].start.clone()).or_else(|| stretch.1.clone());
        found.push((from, to));
    }
    found
}
