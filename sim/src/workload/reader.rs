//! The last client: reads back every key, through each node in turn, when all is said to be well.

use resilver_sim_kernel::Program;

use super::client::{Door, Seen};
use super::{CLIENTS, FOLDERS, Notes, keys};
use crate::plan::MACHINES;

/// The program that reads everything back, each key through another node. `must_answer`: the cluster says that all is well,
/// and a read that is refused is of an object that is lost.
pub(crate) fn read_back(must_answer: bool, notes: Notes) -> Program {
    std::sync::Arc::new(move |host, _| {
        let notes = notes.clone();
        Box::pin(async move {
            let doors = (1..=MACHINES).map(|node| Door::new(&host, &format!("n{node}")));
            let Ok(doors) = doors.collect::<Result<Vec<_>, _>>() else { return 1 };
            for (at, key) in keys().enumerate() {
                let door = &doors[at % doors.len()];
                let call = notes.get(CLIENTS, &door.node, &key);
                let seen = door.get(&key).await;
                match &seen {
                    Seen::Refused(why) if must_answer => notes.get_failed(call, why),
                    seen => notes.get_ended(call, seen),
                }
            }
            for folder in 0..FOLDERS {
                let door = &doors[folder as usize % doors.len()];
                let prefix = format!("f{folder}/");
                let call = notes.list(CLIENTS, &door.node, &prefix);
                let seen = door.list(&prefix).await;
                notes.list_ended(call, &seen);
            }
            0
        })
    })
}
