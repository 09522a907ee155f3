//! Leaves made anew from the records themselves.
//!
//! Must never: read the leaves that are kept. What is made here is what those are compared with.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::{LEAVES, Range, Sum, counts, digest, level_of, place};
use crate::state::StateError;
use crate::state::tables::{REPLICATED, seal};

/// The leaves of everything that is stored.
pub(in crate::state) fn recompute(txn: &ReadTransaction) -> Result<Vec<Range>, StateError> {
    let mut leaves = Vec::new();
    for (tag, table) in REPLICATED {
        add_table(&mut leaves, tag, &txn.open_table(table)?)?;
    }
    Ok(leaves)
}

/// Writes the leaves anew, in a transaction that may have changed anything.
pub(in crate::state) fn rebuild(txn: &WriteTransaction) -> Result<Vec<Range>, StateError> {
    let mut leaves = Vec::new();
    for (tag, table) in REPLICATED {
        add_table(&mut leaves, tag, &txn.open_table(table)?)?;
    }
    txn.delete_table(LEAVES)?;
    let mut table = txn.open_table(LEAVES)?;
    for leaf in &leaves {
        table.insert(leaf.start.as_slice(), seal(&leaf.sum)?.as_slice())?;
    }
    Ok(leaves)
}

fn add_table(
    leaves: &mut Vec<Range>,
    tag: u8,
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<(), StateError> {
    let mut leaf = Range { start: place(tag, &[]), sum: Sum::default() };
    for entry in table.range::<&[u8]>(..)? {
        let (key, value) = entry?;
        let (key, value) = (key.value(), value.value());
        if !counts(tag, key) {
            continue;
        }
        let place = place(tag, key);
        if level_of(&place).is_some() && !key.is_empty() {
            leaves.push(std::mem::replace(&mut leaf, Range { start: place, sum: Sum::default() }));
        }
        leaf.sum = leaf.sum.plus(Sum::of(digest(tag, key, value)));
    }
    leaves.push(leaf);
    Ok(())
}
