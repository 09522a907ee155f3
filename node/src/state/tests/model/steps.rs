//! What may be asked, and how often.

use proptest::prelude::*;

use super::MIB;
use super::play::{BUCKETS, KEYS};

#[derive(Clone, Debug)]
pub(super) enum Step {
    CreateBucket(usize),
    DeleteBucket(usize),
    Quota(usize, Option<u64>),
    Put {
        bucket: usize,
        key: usize,
        size: u64,
        condition: Wish,
    },
    Delete {
        bucket: usize,
        key: usize,
    },
    DeleteMany {
        bucket: usize,
    },
    Begin {
        bucket: usize,
        key: usize,
    },
    /// The indexes of uploads and versions are taken modulo how many there were.
    Part {
        upload: usize,
        number: u16,
        size: u64,
    },
    Complete {
        upload: usize,
        named: [bool; 4],
        condition: Wish,
    },
    CompleteAgain {
        upload: usize,
    },
    Abort {
        upload: usize,
    },
    Forget {
        upload: usize,
    },
    Drop {
        upload: usize,
    },
    Forbid {
        version: usize,
    },
    PutAgain {
        version: usize,
    },
    Move {
        version: usize,
    },
}

/// A condition, to be made of what the model holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    None,
    Absent,
    Present,
    RightTag,
    WrongTag,
    NotThis,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let bucket = || 0..BUCKETS.len();
    let key = || 0..KEYS.len();
    let wish = || {
        prop_oneof![
            4 => Just(Wish::None), 1 => Just(Wish::Absent), 1 => Just(Wish::Present), 1 => Just(Wish::RightTag),
            1 => Just(Wish::WrongTag), 1 => Just(Wish::NotThis)
        ]
    };
    let size = || prop::sample::select(vec![0, 1, 10, 17 * MIB]);
    let part = || prop::sample::select(vec![0, 7, 5 * MIB, 5 * MIB, 6 * MIB, 20 * MIB]);
    let any = || 0..1000usize;
    prop_oneof![
        2 => bucket().prop_map(Step::CreateBucket),
        1 => bucket().prop_map(Step::DeleteBucket),
        1 => (bucket(), prop::option::of(0..60 * MIB)).prop_map(|(bucket, quota)| Step::Quota(bucket, quota)),
        6 => (bucket(), key(), size(), wish())
            .prop_map(|(bucket, key, size, condition)| Step::Put { bucket, key, size, condition }),
        3 => (bucket(), key()).prop_map(|(bucket, key)| Step::Delete { bucket, key }),
        1 => bucket().prop_map(|bucket| Step::DeleteMany { bucket }),
        4 => (bucket(), key()).prop_map(|(bucket, key)| Step::Begin { bucket, key }),
        12 => (any(), 1..5u16, part()).prop_map(|(upload, number, size)| Step::Part { upload, number, size }),
        6 => (any(), prop::array::uniform4(prop::bool::weighted(0.7)), wish())
            .prop_map(|(upload, named, condition)| Step::Complete { upload, named, condition }),
        1 => any().prop_map(|upload| Step::CompleteAgain { upload }),
        1 => any().prop_map(|upload| Step::Abort { upload }),
        1 => any().prop_map(|upload| Step::Forget { upload }),
        2 => any().prop_map(|upload| Step::Drop { upload }),
        3 => any().prop_map(|version| Step::Forbid { version }),
        2 => any().prop_map(|version| Step::PutAgain { version }),
        2 => any().prop_map(|version| Step::Move { version }),
    ]
}
