//! Leaves in step with the records: the tables of a write transaction, which know of them.

use std::cell::RefCell;
use std::ops::{Bound, Deref};
use std::rc::Rc;

use redb::{ReadableTable, WriteTransaction};

use super::{LEAVES, Sum, corrupt, counts, digest, level_of, place};
use crate::state::StateError;
use crate::state::tables::{Definition, Open, Rows, seal, unseal};

/// The leaves, open for writing.
pub(in crate::state) struct Tree<'txn>(RefCell<Open<'txn>>);

/// A replicated table, open for writing. It is read as the table it is; written only by what is here.
pub(in crate::state) struct Kept<'txn> {
    table: Open<'txn>,
    tag: u8,
    tree: Rc<Tree<'txn>>,
}

impl<'txn> Deref for Kept<'txn> {
    type Target = Open<'txn>;

    fn deref(&self) -> &Open<'txn> {
        &self.table
    }
}

impl Rows for Kept<'_> {
    fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.insert(key, value)
    }
}

impl<'txn> Kept<'txn> {
    /// Opens one table beside the leaves.
    pub(in crate::state) fn open(
        txn: &'txn WriteTransaction,
        (tag, table): (u8, Definition),
        tree: &Rc<Tree<'txn>>,
    ) -> Result<Self, StateError> {
        Ok(Self { table: txn.open_table(table)?, tag, tree: tree.clone() })
    }

    /// Writes a record.
    pub(in crate::state) fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        let old = self.table.insert(key, value)?.map(|old| digest(self.tag, key, old.value()));
        self.changed(key, old, Some(digest(self.tag, key, value)))
    }

    /// Removes a record; whether there was one.
    pub(in crate::state) fn remove(&mut self, key: &[u8]) -> Result<bool, StateError> {
        let old = self.table.remove(key)?.map(|old| digest(self.tag, key, old.value()));
        self.changed(key, old, None)?;
        Ok(old.is_some())
    }

    fn changed(&self, key: &[u8], old: Option<u128>, new: Option<u128>) -> Result<(), StateError> {
        if old == new || !counts(self.tag, key) {
            return Ok(());
        }
        let place = place(self.tag, key);
        let (old_sum, new_sum) = (old.map(Sum::of).unwrap_or_default(), new.map(Sum::of).unwrap_or_default());
        let border = !key.is_empty() && level_of(&place).is_some();
        match (border, old.is_some(), new.is_some()) {
            // A border comes: what lies behind it, up to the next, is taken from the leaf before.
            (true, false, true) => {
                let behind = self.sum_behind(key, &place)?;
                self.tree.add(&self.tree.holder(&place)?, Sum::default(), behind)?;
                self.tree.put(&place, behind.plus(new_sum))
            }
            // A border goes, and its leaf becomes part of the one before.
            (true, true, false) => {
                let rest = self.tree.take(&place)?.minus(old_sum);
                self.tree.add(&self.tree.holder(&place)?, rest, Sum::default())
            }
            (true, _, _) => self.tree.add(&place, new_sum, old_sum),
            (false, _, _) => self.tree.add(&self.tree.holder(&place)?, new_sum, old_sum),
        }
    }

    /// The sum of this table's records behind `key`, up to the next leaf.
    fn sum_behind(&self, key: &[u8], place: &[u8]) -> Result<Sum, StateError> {
        let end = self.tree.next(place)?.filter(|next| next.first() == Some(&self.tag));
        let end = end.as_ref().map_or(Bound::Unbounded, |next| Bound::Excluded(&next[1..]));
        let mut sum = Sum::default();
        for entry in self.table.range::<&[u8]>((Bound::Excluded(key), end))? {
            let (key, value) = entry?;
            if counts(self.tag, key.value()) {
                sum = sum.plus(Sum::of(digest(self.tag, key.value(), value.value())));
            }
        }
        Ok(sum)
    }
}

impl<'txn> Tree<'txn> {
    /// Opens the leaves.
    pub(in crate::state) fn open(txn: &'txn WriteTransaction) -> Result<Rc<Self>, StateError> {
        Ok(Rc::new(Self(RefCell::new(txn.open_table(LEAVES)?))))
    }

    /// Where the leaf begins that this place lies in.
    fn holder(&self, place: &[u8]) -> Result<Vec<u8>, StateError> {
        let table = self.0.borrow();
        let found = table.range::<&[u8]>(..=place)?.next_back().transpose()?;
        let found = found.map(|(start, _)| start.value().to_vec()).filter(|start| start.first() == place.first());
        found.ok_or_else(|| corrupt("a table has no first leaf".to_owned()))
    }

    /// Where the leaf behind this place begins.
    fn next(&self, place: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let table = self.0.borrow();
        let next = table.range::<&[u8]>((Bound::Excluded(place), Bound::Unbounded))?.next().transpose()?;
        Ok(next.map(|(start, _)| start.value().to_vec()))
    }

    fn get(&self, start: &[u8]) -> Result<Sum, StateError> {
        let table = self.0.borrow();
        let sum =
            table.get(start)?.ok_or_else(|| corrupt(format!("the leaf at {} is not there", super::in_words(start))))?;
        unseal("leaves", sum.value())
    }

    fn put(&self, start: &[u8], sum: Sum) -> Result<(), StateError> {
        self.0.borrow_mut().insert(start, seal(&sum)?.as_slice())?;
        Ok(())
    }

    fn take(&self, start: &[u8]) -> Result<Sum, StateError> {
        let sum = self.get(start)?;
        self.0.borrow_mut().remove(start)?;
        Ok(sum)
    }

    fn add(&self, start: &[u8], plus: Sum, minus: Sum) -> Result<(), StateError> {
        self.put(start, self.get(start)?.plus(plus).minus(minus))
    }
}
