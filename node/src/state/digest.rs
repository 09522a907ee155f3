//! A digest over the whole state, for the simulator's checkers: it reads everything, and is in no production build.

use super::tables::REPLICATED;
use super::{State, StateError};

impl State {
    /// CRC32C over every replicated record, in order. Equal states have equal digests.
    pub(crate) async fn digest(&self) -> Result<u32, StateError> {
        self.read(|txn| {
            let mut crc = 0;
            for (tag, table) in REPLICATED {
                crc = crc32c::crc32c_append(crc, &[tag]);
                for entry in txn.open_table(table)?.range::<&[u8]>(..)? {
                    let (key, value) = entry?;
                    for part in [key.value(), value.value()] {
                        crc = crc32c::crc32c_append(crc, &(part.len() as u64).to_le_bytes());
                        crc = crc32c::crc32c_append(crc, part);
                    }
                }
            }
            Ok(crc)
        })
        .await
    }
}
