//! The last client: reads back every key, through each node in turn, when all is said to be well.

use resilver_sim_kernel::Program;

use super::client::{Door, Seen};
use super::{CLIENTS, FOLDERS, Notes, keys};
use crate::plan::MACHINES;

/// The program that reads everything back. Ends with 0 when every read was answered. `first`: the node it begins with
/// (each key starts one further), `spared`: nodes that serve nobody.
pub(crate) fn read_back(spared: Vec<usize>, notes: Notes) -> Program {
    std::sync::Arc::new(move |host, _| {
        let (notes, spared) = (notes.clone(), spared.clone());
        Box::pin(async move {
            let doors = (1..=MACHINES).filter(|node| !spared.contains(node)).map(|node| Door::new(&host, &format!("n{node}")));
            let Ok(doors) = doors.collect::<Result<Vec<_>, _>>() else { return 1 };
            let mut unanswered = 0;
            for (at, key) in keys().enumerate() {
                let door = &doors[at % doors.len()];
                let call = notes.get(CLIENTS, &door.node, &key);
                let seen = door.get(&key).await;
                unanswered += i32::from(matches!(seen, Seen::Refused(_)));
                notes.get_ended(call, &seen);
            }
            for folder in 0..FOLDERS {
                let door = &doors[folder as usize % doors.len()];
                let prefix = format!("f{folder}/");
                let call = notes.list(CLIENTS, &door.node, &prefix);
                let seen = door.list(&prefix).await;
                unanswered += i32::from(matches!(seen, Seen::Refused(_)));
                notes.list_ended(call, &seen);
            }
            i32::from(unanswered > 0)
        })
    })
}
