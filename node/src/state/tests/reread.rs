//! Rot in the database's file while it is in use is found; what is written meanwhile never is.

use super::*;

/// Everything read back; the bytes of it.
async fn all(state: &State) -> Result<u64, StateError> {
    let mut from = 0;
    while let Some(bytes) = state.reread(from).await? {
        from += bytes;
    }
    Ok(from)
}

fn flip(path: &std::path::Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64).unwrap();
}

#[tokio::test]
async fn a_bit_that_flips_in_any_page_that_is_needed_is_found_and_none_is_called_rotten_that_is_sound() {
    let mut story = Story::cluster().await;
    for version in 1..300 {
        story.put(&format!("k{version:04}"), object(version)).await;
    }
    story.state.flush().await.unwrap();
    // As after a start: everything that is needed was read, and nothing written since.
    story.state.close().await;
    let path = story.path();
    let state = State::open(&story.host, &path, OWNER).await.unwrap();
    let len = std::fs::metadata(&path).unwrap().len();
    assert!(all(&state).await.unwrap() > 0);

    let mut found = 0;
    for at in (0..len as usize).step_by(4096).map(|page| page + 100) {
        flip(&path, at);
        match all(&state).await {
            Ok(_) => {}
            Err(error) => {
                assert!(error.is_damage() && error.to_string().contains("checksum of a page"), "byte {at}: {error}");
                found += 1;
            }
        }
        flip(&path, at);
    }
    all(&state).await.unwrap();
    let stats = state.look(|_, database| {
        let txn = database.begin_write()?;
        let stats = txn.stats()?;
        txn.abort()?;
        Ok(stats.leaf_pages() + stats.branch_pages())
    });
    let needed = stats.await.unwrap();
    assert!(found >= needed, "{found} pages of {needed} that are needed");
    state.close().await;
}

#[tokio::test]
async fn a_file_that_was_cut_or_removed_under_the_database_is_damage() {
    let mut story = Story::cluster().await;
    for version in 1..50 {
        story.put(&format!("k{version:04}"), object(version)).await;
    }
    story.state.flush().await.unwrap();
    let path = story.path();
    let whole = std::fs::read(&path).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let error = all(&story.state).await.unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("end of the file"), "{error}");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &whole, 0).unwrap();
    all(&story.state).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(all(&story.state).await, Err(StateError::Missing { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_flushed_and_compacted_meanwhile_is_never_damage() {
    let mut story = Story::cluster().await;
    let state = story.state.clone();
    let (stop, mut stopped) = watch::channel(false);
    let looking = tokio::spawn(async move {
        let mut passes = 0;
        while !*stopped.borrow_and_update() {
            all(&state).await.unwrap();
            passes += 1;
        }
        passes
    });
    for version in 1..120 {
        story.put(&format!("k{:04}", version % 40), object(version)).await;
        if version % 3 == 0 {
            story.state.flush().await.unwrap();
        }
        if version % 40 == 0 {
            // Somebody may read just then.
            let _ = story.state.compact().await;
        }
    }
    stop.send_replace(true);
    assert!(looking.await.unwrap() > 0);
}
