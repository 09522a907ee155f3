//! Which shards of an object are wrong although each of them is as somebody once wrote it. Pure.
//!
//! Any k shards of an extent make a whole codeword, and shards that do not agree make several. Counting heads does not tell
//! which is right: of 4+2 with two wrong shards, the right four agree with each other, and so do others that were made of one
//! wrong and three right ones. What tells is the checksum of the content that the metadata keeps since the put: codewords are
//! tried for all extents in doubt until their content is the one that was stored.
//!
//! Must never: choose by majority; choose when no codeword, or when two different contents, have that checksum.

use crate::types::{ExtentId, ShardIndex};

/// Choices of codewords over all extents in doubt that are tried at most. One extent of 8+4 with three wrong shards has a few
/// hundred; beyond this an object has several extents in that state, and is one for a backup.
const MAX_CHOICES: usize = 65_536;

/// What an extent could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Codeword {
    /// CRC32C of its content.
    pub(super) content_crc: u32,
    /// CRC32C that each of its shards must have.
    pub(super) shard_crcs: Vec<u32>,
}

/// What is known of an extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    /// Which.
    pub(super) extent: ExtentId,
    /// Bytes of content.
    pub(super) len_bytes: u64,
    /// CRC32C of each shard as it was read; `None`: it is missing, or not as it was written.
    pub(super) found: Vec<Option<u32>>,
    /// What k of its shards make, each once. One: its shards agree.
    pub(super) codewords: Vec<Codeword>,
    /// There are no other codewords of these shards.
    pub(super) all: bool,
    /// Shards that could not be asked for: they may be right, and make another.
    pub(super) unheard: usize,
}

/// Why nothing is called wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Undecided {
    /// No choice has the checksum of what was stored.
    #[error(
        "no {k} of its shards make the content that was stored (crc32c {expected:08x}): too many of them are wrong, and nothing \
         was changed; read it back from a backup, or delete it"
    )]
    None { k: u8, expected: u32 },
    /// No choice that was tried has it, and there are more than are tried.
    #[error(
        "none of the choices of its shards that were tried makes the content that was stored (crc32c {expected:08x}), and there \
         are more than are tried of so wide a coding: it cannot be told which shards are wrong, and nothing was changed"
    )]
    NotAll { expected: u32 },
    /// Those that are there do not have it, and others could not be asked for.
    #[error(
        "the shards that can be read do not make the content that was stored (crc32c {expected:08x}), and {unheard} cannot be \
         reached now: try again when their disks and nodes are back; nothing was changed"
    )]
    Unheard { unheard: usize, expected: u32 },
    /// More than one has.
    #[error(
        "several choices of its shards make contents of the stored checksum (crc32c {expected:08x}), so that it cannot be told \
         which is right; nothing was changed"
    )]
    Several { expected: u32 },
    /// There are too many to try.
    #[error(
        "its shards disagree in {extents} extents at once, which makes over {MAX_CHOICES} possible contents: nothing was tried, and \
         nothing was changed"
    )]
    TooMany { extents: usize },
}

/// For each extent the codeword that it is.
pub(super) fn decide(extents: &[Evidence], k: u8, expected: u32) -> Result<Vec<Codeword>, Undecided> {
    let choices = extents.iter().try_fold(1_usize, |all, extent| all.checked_mul(extent.codewords.len()));
    let doubtful = extents.iter().filter(|extent| extent.codewords.len() > 1).count();
    if choices.is_none_or(|choices| choices > MAX_CHOICES) {
        return Err(Undecided::TooMany { extents: doubtful });
    }
    // Extent by extent: what the content so far may have for a checksum, and by which choices where there are any.
    let mut so_far: Vec<(u32, Vec<usize>)> = vec![(0, Vec::new())];
    for extent in extents {
        let len = usize::try_from(extent.len_bytes).unwrap_or(usize::MAX);
        if let [only] = extent.codewords.as_slice() {
            so_far.iter_mut().for_each(|(crc, _)| *crc = crc32c::crc32c_combine(*crc, only.content_crc, len));
            continue;
        }
        let mut next = Vec::with_capacity(so_far.len() * extent.codewords.len());
        for (crc, chosen) in &so_far {
            for (at, codeword) in extent.codewords.iter().enumerate() {
                let mut chosen = chosen.clone();
                chosen.push(at);
                next.push((crc32c::crc32c_combine(*crc, codeword.content_crc, len), chosen));
            }
        }
        so_far = next;
    }
    let mut right = so_far.into_iter().filter(|(crc, _)| *crc == expected);
    let (Some((_, chosen)), others) = (right.next(), right.next()) else {
        let unheard: usize = extents.iter().map(|extent| extent.unheard).sum();
        let left = extents.iter().any(|extent| !extent.all);
        return Err(match (unheard, left) {
            (0, false) => Undecided::None { k, expected },
            (0, true) => Undecided::NotAll { expected },
            _ => Undecided::Unheard { unheard, expected },
        });
    };
    if others.is_some() {
        return Err(Undecided::Several { expected });
    }
    let mut chosen = chosen.into_iter();
    let right = extents.iter().map(|extent| match extent.codewords.as_slice() {
        [only] => only.clone(),
        several => several[chosen.next().unwrap_or_default()].clone(),
    });
    Ok(right.collect())
}

/// The shards of an extent that are there, as they were written, and not what its codeword demands.
pub(super) fn wrong(extent: &Evidence, right: &Codeword) -> Vec<ShardIndex> {
    let pairs = (0u8..).map(ShardIndex).zip(extent.found.iter().zip(&right.shard_crcs));
    pairs
        .filter(|(_, (found, demanded))| found.is_some_and(|found| found != **demanded))
        .map(|(shard, _)| shard)
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Layout, codec};
    use crate::gateway::codewords::{Codewords, codewords};
    use crate::model::Coding;
    use crate::types::{ExtentIndex, Version};

    const LAYOUT: Layout = Layout { extent_bytes: 50, coding: Coding { k: 4, m: 2 }, block_bytes: 7 };

    /// The shards of some content, block by block.
    fn shards(content: &[u8], layout: Layout) -> Vec<Vec<Bytes>> {
        let codec = codec(layout.coding).unwrap();
        let mut shards = vec![Vec::new(); layout.coding.total()];
        let mut rest = Bytes::copy_from_slice(content);
        for stripe in 0..layout.stripes() {
            let data = layout.split(&rest.split_to(layout.content_len(stripe)));
            let parity = codec.encode(&data).unwrap();
            shards.iter_mut().zip(data.into_iter().chain(parity)).for_each(|(shard, block)| shard.push(block));
        }
        shards
    }

    fn crc_of(shard: &[Bytes]) -> u32 {
        shard.iter().fold(0, |crc, block| crc32c::crc32c_append(crc, block))
    }

    fn evidence(shards: &[Option<Vec<Bytes>>], layout: Layout) -> Evidence {
        let Codewords { found: codewords, all } = codewords(shards, layout).unwrap();
        Evidence {
            extent: ExtentId { version: Version(1), index: ExtentIndex(0) },
            len_bytes: layout.extent_bytes,
            found: shards.iter().map(|shard| shard.as_deref().map(crc_of)).collect(),
            codewords,
            all,
            unheard: 0,
        }
    }

    fn content(seed: u8, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at as u8).wrapping_mul(31) ^ seed).collect()
    }

    /// Shards of one content, of which those named are another's: as written, whole, and wrong.
    fn mixed(of: &[u8], foreign: &[u8], wrong: &[usize], missing: &[usize]) -> Vec<Option<Vec<Bytes>>> {
        mixed_in(LAYOUT, of, foreign, wrong, missing)
    }

    fn mixed_in(
        layout: Layout,
        of: &[u8],
        foreign: &[u8],
        wrong: &[usize],
        missing: &[usize],
    ) -> Vec<Option<Vec<Bytes>>> {
        let (right, other) = (shards(of, layout), shards(foreign, layout));
        let pick = |at: usize| if wrong.contains(&at) { other[at].clone() } else { right[at].clone() };
        (0..right.len()).map(|at| (!missing.contains(&at)).then(|| pick(at))).collect()
    }

    #[test]
    fn shards_that_agree_make_one_codeword_and_none_of_them_is_wrong() {
        let stored = content(1, 50);
        let extent = evidence(&mixed(&stored, &stored, &[], &[3]), LAYOUT);
        assert_eq!(extent.codewords.len(), 1);
        let right = decide(std::slice::from_ref(&extent), 4, crc32c::crc32c(&stored)).unwrap();
        assert_eq!(wrong(&extent, &right[0]), []);
        assert_eq!(
            decide(&[extent], 4, 7),
            Err(Undecided::None { k: 4, expected: 7 }),
            "all agree, and on what nobody stored"
        );
    }

    #[test]
    fn two_wrong_shards_of_another_version_are_found_although_no_majority_can_tell() {
        let (stored, other) = (content(1, 50), content(2, 50));
        let extent = evidence(&mixed(&stored, &other, &[1, 4], &[]), LAYOUT);
        // Every codeword has four shards or more that agree with it: heads do not tell.
        assert!(extent.codewords.len() > 1);
        let right = decide(std::slice::from_ref(&extent), 4, crc32c::crc32c(&stored)).unwrap();
        assert_eq!(wrong(&extent, &right[0]), [ShardIndex(1), ShardIndex(4)]);
    }

    #[test]
    fn with_fewer_than_k_right_shards_nothing_is_called_wrong() {
        let (stored, other) = (content(1, 50), content(2, 50));
        for (wrong, missing) in [(vec![0, 1, 2], vec![]), (vec![1, 4], vec![0]), (vec![0, 1, 2, 3, 4], vec![])] {
            let extent = evidence(&mixed(&stored, &other, &wrong, &missing), LAYOUT);
            let expected = crc32c::crc32c(&stored);
            assert_eq!(
                decide(&[extent], 4, expected),
                Err(Undecided::None { k: 4, expected }),
                "{wrong:?} {missing:?}"
            );
        }
    }

    #[test]
    fn several_extents_in_doubt_are_decided_together() {
        let contents = [content(1, 50), content(2, 50), content(3, 50)];
        let other = content(9, 50);
        let extents: Vec<Evidence> = [vec![0], vec![], vec![5, 2]]
            .iter()
            .zip(&contents)
            .map(|(wrong, of)| evidence(&mixed(of, &other, wrong, &[]), LAYOUT))
            .collect();
        let right = decide(&extents, 4, crc32c::crc32c(&contents.concat())).unwrap();
        let found: Vec<Vec<u8>> = extents
            .iter()
            .zip(&right)
            .map(|(extent, right)| wrong(extent, right).iter().map(|shard| shard.0).collect())
            .collect();
        assert_eq!(found, [vec![0], vec![], vec![2, 5]]);
    }

    /// Of 14 shards the first 512 choices of ten all have the first two: an object that can be mended was told to be deleted.
    #[test]
    fn wrong_shards_of_a_wide_coding_are_found_wherever_they_are() {
        let layout = Layout { extent_bytes: 100, coding: Coding { k: 10, m: 4 }, block_bytes: 5 };
        let (stored, other) = (content(1, 100), content(2, 100));
        for bad in [vec![0, 1], vec![0, 1, 2, 3], vec![10, 13]] {
            let extent = evidence(&mixed_in(layout, &stored, &other, &bad, &[]), layout);
            let right = decide(std::slice::from_ref(&extent), 10, crc32c::crc32c(&stored)).unwrap();
            let found: Vec<usize> = wrong(&extent, &right[0]).iter().map(|shard| shard.as_usize()).collect();
            assert_eq!(found, bad);
        }
    }

    #[test]
    fn what_was_not_tried_is_not_called_lost() {
        let codewords = vec![Codeword { content_crc: 1, shard_crcs: vec![] }; 2];
        let whole = evidence(&mixed(&content(1, 50), &content(1, 50), &[], &[]), LAYOUT);
        let extent = Evidence { codewords, all: false, ..whole };
        let undecided = decide(&[extent], 4, 7).unwrap_err();
        assert_eq!(undecided, Undecided::NotAll { expected: 7 });
        assert!(!undecided.to_string().contains("delete"), "{undecided}");
    }

    /// Found on review: with a node away, an object that can be mended when it is back was told to be deleted.
    #[test]
    fn what_cannot_be_reached_is_not_called_lost() {
        let (stored, other) = (content(1, 50), content(2, 50));
        let there = evidence(&mixed(&stored, &other, &[0, 1], &[5]), LAYOUT);
        let extent = Evidence { unheard: 1, ..there };
        let expected = crc32c::crc32c(&stored);
        let undecided = decide(&[extent], 4, expected).unwrap_err();
        assert_eq!(undecided, Undecided::Unheard { unheard: 1, expected });
        assert!(!undecided.to_string().contains("delete"), "{undecided}");
        let back = evidence(&mixed(&stored, &other, &[0, 1], &[]), LAYOUT);
        assert!(decide(&[back], 4, expected).is_ok());
    }

    /// What was chosen for each extent was copied with each extent: 5 TiB have 327,680.
    #[test]
    fn an_object_of_the_greatest_size_is_decided_at_once() {
        let (stored, other) = (content(1, 50), content(2, 50));
        let doubtful = evidence(&mixed(&stored, &other, &[1, 4], &[]), LAYOUT);
        let clear = evidence(&mixed(&stored, &stored, &[], &[]), LAYOUT);
        let extents: Vec<Evidence> =
            (0..327_680).map(|at| if at == 200_000 { doubtful.clone() } else { clear.clone() }).collect();
        let of_one = crc32c::crc32c(&stored);
        let expected = (0..extents.len()).fold(0, |crc, _| crc32c::crc32c_combine(crc, of_one, stored.len()));
        let right = decide(&extents, 4, expected).unwrap();
        assert_eq!(wrong(&extents[200_000], &right[200_000]), [ShardIndex(1), ShardIndex(4)]);
        assert!(
            extents
                .iter()
                .zip(&right)
                .enumerate()
                .all(|(at, (extent, right))| at == 200_000 || wrong(extent, right).is_empty())
        );
    }

    #[test]
    fn too_many_choices_are_refused_instead_of_tried() {
        let codewords = (0..300).map(|crc| Codeword { content_crc: crc, shard_crcs: vec![] }).collect();
        let extent = Evidence { codewords, ..evidence(&mixed(&content(1, 50), &content(1, 50), &[], &[]), LAYOUT) };
        let refused = decide(&[extent.clone(), extent], 4, 0).unwrap_err();
        assert_eq!(refused, Undecided::TooMany { extents: 2 });
    }

    proptest! {
        #[test]
        fn whatever_up_to_m_shards_are_they_are_found(
            seeds in any::<(u8, u8)>(),
            bad in prop::collection::btree_set(0_usize..6, 0..3),
            gone in prop::option::of(0_usize..6),
        ) {
            let (stored, other) = (content(seeds.0, 50), content(seeds.1.wrapping_add(seeds.0 | 1), 50));
            let missing: Vec<usize> = gone.into_iter().filter(|_| bad.len() < 2).collect();
            let bad: Vec<usize> = bad.into_iter().filter(|at| !missing.contains(at)).collect();
            let extent = evidence(&mixed(&stored, &other, &bad, &missing), LAYOUT);
            let right = decide(std::slice::from_ref(&extent), 4, crc32c::crc32c(&stored)).unwrap();
            let right_shards = shards(&stored, LAYOUT);
            prop_assert_eq!(&right[0].shard_crcs, &right_shards.iter().map(|shard| crc_of(shard)).collect::<Vec<_>>());
            let differing = bad.iter().filter(|at| shards(&other, LAYOUT)[**at] != right_shards[**at]);
            let expected: Vec<ShardIndex> = differing.map(|at| ShardIndex(*at as u8)).collect();
            prop_assert_eq!(wrong(&extent, &right[0]), expected);
        }
    }
}
