//! Small matrices over GF(2^8): just what decoding needs.

use reed_solomon_erasure::galois_8::{div, mul};

/// A matrix in row order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    columns: usize,
    cells: Vec<u8>,
}

impl Matrix {
    /// The matrix of these rows, all of one length.
    pub(super) fn from_rows<'a>(columns: usize, rows: impl Iterator<Item = &'a [u8]>) -> Self {
        let cells: Vec<u8> = rows.flatten().copied().collect();
        debug_assert_eq!(cells.len() % columns, 0, "rows of one length");
        Self { columns, cells }
    }

    /// One row.
    pub(super) fn row(&self, index: usize) -> &[u8] {
        &self.cells[index * self.columns..(index + 1) * self.columns]
    }

    /// `row` times this matrix.
    pub(super) fn times_row(&self, row: &[u8]) -> Vec<u8> {
        (0..self.columns)
            .map(|column| row.iter().enumerate().fold(0, |sum, (i, factor)| sum ^ mul(*factor, self.row(i)[column])))
            .collect()
    }

    /// The inverse of a square matrix by Gauss and Jordan; `None` when it has none.
    pub(super) fn inverse(&self) -> Option<Self> {
        let n = self.columns;
        let mut left = self.cells.clone();
        let mut right = vec![0; n * n];
        for i in 0..n {
            right[i * n + i] = 1;
        }
        for column in 0..n {
            let pivot = (column..n).find(|row| left[row * n + column] != 0)?;
            for cells in [&mut left, &mut right] {
                for i in 0..n {
                    cells.swap(pivot * n + i, column * n + i);
                }
            }
            let factor = left[column * n + column];
            for cells in [&mut left, &mut right] {
                for cell in &mut cells[column * n..(column + 1) * n] {
                    *cell = div(*cell, factor);
                }
            }
            for row in (0..n).filter(|row| *row != column) {
                let factor = left[row * n + column];
                for cells in [&mut left, &mut right] {
                    for i in 0..n {
                        cells[row * n + i] ^= mul(factor, cells[column * n + i]);
                    }
                }
            }
        }
        Some(Self { columns: n, cells: right })
    }
}
